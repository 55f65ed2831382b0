"""A network in a local ONNX or TFLite file as a function of one array; and the published files' last steps.

YouTube-8M's features, and those of AVE and VEGAS made like them, are whitened by a PCA and kept in 8 bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.errors import InputError, first_line
from hscmae.extras import require

QUANTISED = (-2.0, 2.0)  # the range that 8 bits cover

Float = npt.NDArray[np.float32]


def open_network(path: Path) -> Callable[[Float], Float]:
    """The network's first output for one input; one thread, so that results do not depend on their number.

    Raises:
        InputError: neither ONNX nor TFLite, or a file that cannot be read as such.
    """
    if path.suffix.lower() == ".onnx":
        return _onnx(path)
    if path.suffix.lower() == ".tflite":
        return _tflite(path)
    raise InputError(f"{path}: a network is an .onnx or a .tflite file")


def _onnx(path: Path) -> Callable[[Float], Float]:
    library = require("onnxruntime", "onnx")
    options = library.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base
        raise InputError(f"{path}: not an ONNX file ({first_line(error)})") from error
    entry, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    return lambda x: np.asarray(session.run([output], {entry: x})[0], np.float32)


def _tflite(path: Path) -> Callable[[Float], Float]:
    module = require("ai_edge_litert.interpreter", "media")
    own = threading.local()  # an interpreter is used by one thread

    def run(x: Float) -> Float:
        if not hasattr(own, "interpreter"):
            try:
                own.interpreter = module.Interpreter(str(path), num_threads=1)
                own.interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise InputError(f"{path}: not a TFLite file ({first_line(error)})") from error
        interpreter: Any = own.interpreter
        entry = interpreter.get_input_details()[0]
        interpreter.set_tensor(entry["index"], x.reshape(entry["shape"]))
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), np.float32)

    return run


def read_arrays(path: Path, *names: str) -> list[Float]:
    """Arrays of an ``.npz`` file, without pickle.

    Raises:
        InputError: cannot be read, or lacks one of ``names``.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return [np.asarray(file[name], np.float32) for name in names]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: expected the arrays {', '.join(names)} ({error})") from error


def quantised(x: Float) -> Float:
    """Values as the published files have them after reading: clipped to [-2, 2], in 255 equal steps.

    >>> quantised(np.array([-3.0, 0.0, 2.0], np.float32)).astype(float).round(4).tolist()
    [-2.0, -0.0078, 2.0]
    """
    low, high = QUANTISED
    step = (high - low) / 255
    # In float64: in float32 the highest value falls just short of its step.
    return np.asarray(np.floor((np.clip(x.astype(np.float64), low, high) - low) / step) * step + low, np.float32)

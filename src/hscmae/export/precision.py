"""Smaller graphs: matrices held in fewer bits, arithmetic in float32 as before.

Activations stay as they are, so that a row's embedding never depends on the rows beside it, as it would by the usual
dynamic quantisation; what overflows in half precision, as squares of features do, never meets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from hscmae.errors import InputError
from hscmae.extras import require

if TYPE_CHECKING:
    import onnx

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
LEVELS = 127


def with_precision(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """A copy of a graph whose matrices are held as float16 or int8, each column times a factor of its own.

    Args:
        model: as ``to_graph`` gives it.
        precision: "float32" (as it is), "float16" or "int8".

    Raises:
        InputError: no such precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    library: Any = require("onnx", "onnx")
    small = type(model)()
    small.CopyFrom(model)
    if precision == "float32":
        return small
    graph = small.graph
    nodes, constants = [], []
    for tensor in graph.initializer:
        if tensor.data_type != library.TensorProto.FLOAT or len(tensor.dims) != 2:
            constants.append(tensor)  # scalers, norms, biases: few, and what all else is multiplied by
            continue
        axis = _outputs(tensor.name, graph.node)
        weight = library.numpy_helper.to_array(tensor)
        factor = np.abs(weight).max(axis=1 - axis)  # one for each output
        factor[factor == 0] = 1
        held, scale = f"{tensor.name}/{precision}", f"{tensor.name}/factor"
        values = weight / np.expand_dims(factor, 1 - axis)  # in [-1, 1]
        if precision == "int8":
            constants += _constants({held: np.rint(values * LEVELS).astype(np.int8), scale: factor / LEVELS})
            nodes.append(library.helper.make_node("DequantizeLinear", [held, scale], [tensor.name], axis=axis))
        else:
            constants += _constants({held: values.astype(np.float16), scale: np.expand_dims(factor, 1 - axis)})
            single = f"{tensor.name}/float32"
            nodes.append(library.helper.make_node("Cast", [held], [single], to=library.TensorProto.FLOAT))
            nodes.append(library.helper.make_node("Mul", [single, scale], [tensor.name]))
    for field, content in ((graph.initializer, constants), (graph.node, [*nodes, *graph.node])):
        kept = list(content)
        del field[:]
        field.extend(kept)
    library.checker.check_model(small)
    return small


def _outputs(name: str, nodes: Any) -> int:
    """The axis of a weight's outputs: its columns, or its rows where a node takes it transposed."""
    for node in nodes:
        if node.op_type == "Gemm" and node.input[1] == name:
            return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return 1


def _constants(arrays: dict[str, npt.NDArray[Any]]) -> list[Any]:
    numpy_helper: Any = require("onnx.numpy_helper", "onnx")
    return [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]

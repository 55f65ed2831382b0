"""YAMNet (Google, 2019): a MobileNet trained on the 521 sounds of AudioSet, as a TFLite file.

It hears 0.975 s of 16 kHz sound at a time, every 0.48 s; its features are the 1024 numbers before the classifier. Its
log-mel front end is part of the file. Whoever names it without having it gets the file of its publisher, MediaPipe.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hscmae.errors import InputError, first_line
from hscmae.extract.base import AudioExtractor, Float, Weights
from hscmae.extract.weights import fetch_with_bar, find_weights, sha256
from hscmae.extras import require

PATTERN = "*yamnet*.tflite"
ADDRESS = "https://storage.googleapis.com/mediapipe-models/audio_classifier/yamnet/float32/1/yamnet.tflite"
DIM, CLASSES = 1024, 521


class Yamnet(AudioExtractor):
    """A vector for each 0.975 s, averaged by second."""

    name, dim, rate, length, hop = "yamnet", DIM, 16_000, 15_600, 7_680

    def __init__(self, path: Path) -> None:
        self.path, self.sha256 = path, sha256(path)
        self._own = threading.local()  # an interpreter is used by one thread
        self._interpreter()  # now, so that a wrong file is refused before anything is decoded

    def fingerprint(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "rate": self.rate, "hop": self.hop}

    def describe(self, batch: Sequence[Float] | Float) -> Float:
        return np.stack([self._run(sound)[0] for sound in batch])

    def scores(self, batch: Sequence[Float] | Float) -> Float:
        """How sure YAMNet is of each of its classes, shape (n, 521)."""
        return np.stack([self._run(sound)[1] for sound in batch])

    def _run(self, sound: Float) -> tuple[Float, Float]:
        interpreter, embedding, scores = self._interpreter()
        entry = interpreter.get_input_details()[0]
        interpreter.set_tensor(entry["index"], np.asarray(sound, np.float32).reshape(entry["shape"]))
        interpreter.invoke()
        return interpreter.get_tensor(embedding).ravel(), interpreter.get_tensor(scores).ravel()

    def _interpreter(self) -> tuple[Any, int, int]:
        if not hasattr(self._own, "found"):
            self._own.found = _open(self.path)
        found: tuple[Any, int, int] = self._own.found
        return found


def load(weights: Weights = ()) -> Yamnet:
    """YAMNet from a file that is at hand, else fetched.

    Raises:
        InputError: none at hand and the address out of reach, or not YAMNet.
    """
    require("ai_edge_litert.interpreter", "media")
    found = find_weights(PATTERN, weights)
    if found is None:
        try:
            found = fetch_with_bar(ADDRESS, "yamnet.tflite")
        except InputError as error:
            raise InputError(f"yamnet: no {PATTERN} in --weights or HSCMAE_MODELS, and {error}") from error
    return Yamnet(found)


def _open(path: Path) -> tuple[Any, int, int]:
    """An interpreter, and which tensors hold embedding and scores."""
    module = require("ai_edge_litert.interpreter", "media")
    try:
        with _quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            interpreter = module.Interpreter(str(path), num_threads=1, experimental_preserve_all_tensors=True)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(f"{path}: not a TFLite file ({first_line(error)})") from error
    embeddings = [
        entry["index"]
        for entry in interpreter.get_tensor_details()
        if [*entry["shape"]] in ([1, DIM], [1, 1, 1, DIM]) and entry["dtype"] == np.float32
    ]
    scores = [entry["index"] for entry in interpreter.get_output_details() if entry["shape"][-1] == CLASSES]
    samples = [int(np.prod(entry["shape"])) for entry in interpreter.get_input_details()]
    if not embeddings or not scores or samples != [Yamnet.length]:
        raise InputError(f"{path}: not YAMNet: it takes {samples} samples and has {len(embeddings)} tensors of {DIM}")
    return interpreter, embeddings[0], scores[0]


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    """TFLite announces itself on stderr whatever one asks for."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

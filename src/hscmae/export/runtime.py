"""An exported model, run by onnxruntime: what is checked and measured before it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import BoolArray, FloatArray, IntArray
from hscmae.data.pooling import pool_steps
from hscmae.export.graph import FEATURES, LENGTHS, takes_steps
from hscmae.extras import require
from hscmae.methods.base import Method

BLOCK = 2048  # rows


class OnnxModel:
    """The graphs of a method in place of the method, for evaluation.

    Args:
        method: what the graphs are of.
        graphs: modality -> ONNX file as bytes.
    """

    def __init__(self, method: Method, graphs: Mapping[str, bytes]) -> None:
        runtime = require("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors
        self.dims_ = method.dims_
        self.require_modalities, self.trained_on = method.require_modalities, method.trained_on
        self._how, self._dim, self._steps = method.vector_pooling, method.config.dim, takes_steps(method)
        self._sessions = {
            m: runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            for m, graph in graphs.items()
        }

    def embed(
        self,
        modality: str,
        x: npt.ArrayLike,
        *,
        present: BoolArray | None = None,
        lengths: IntArray | None = None,
    ) -> npt.NDArray[np.float32]:
        """As ``Method.embed``; not a number in rows that get no direction."""
        rows = np.asarray(x)
        out = np.zeros((len(rows), self._dim), np.float32)
        keep = np.ones(len(rows), dtype=bool) if present is None else present
        if rows.ndim == 3:
            lengths = np.full(len(rows), rows.shape[1]) if lengths is None else np.asarray(lengths)
            keep = keep & (lengths > 0)
        chosen = np.flatnonzero(keep)
        for start in range(0, len(chosen), BLOCK):
            block = chosen[start : start + BLOCK]
            out[block] = self._run(modality, rows[block], None if lengths is None else lengths[block])
        return out

    def _run(self, modality: str, x: FloatArray, lengths: IntArray | None) -> Any:
        given: dict[str, npt.NDArray[Any]] = {}
        if self._steps:
            if lengths is None:
                x, lengths = x[:, None], np.ones(len(x), dtype=np.int64)  # a vector is a sequence of one step
            given[LENGTHS] = lengths.astype(np.int64)
        elif lengths is not None:
            x = pool_steps(x, lengths, self._how)
        return self._sessions[modality].run(None, {FEATURES: x.astype(np.float32), **given})[0]

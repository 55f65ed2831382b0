"""Inception v3 (2015) with YouTube-8M's PCA: 1024 numbers a picture, one picture a second.

Pictures are squashed to 299 x 299, values (x - 128) / 128. The network is a local file ``*inception*.onnx`` or
``.tflite`` that takes (1, 299, 299, 3) or (1, 3, 299, 299) and gives the 2048 numbers before the classifier. Where
``inception_pca.npz`` lies beside it (``mean``, ``eigenvals``, ``eigenvecs``, as YouTube-8M published them), whitening
and the 8 bits of the published files follow. **Unverified** with the real weights, as ``vggish``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.errors import InputError
from hscmae.extract.base import Float, VisualExtractor, Weights
from hscmae.extract.media import Fit
from hscmae.extract.networks import open_network, quantised, read_arrays
from hscmae.extract.weights import find_weights, require_weights, sha256

PATTERNS = ("*inception*.onnx", "*inception*.tflite")
PCA = "inception_pca.npz"
SIDE, OUTPUTS, KEPT, RIDGE = 299, 2048, 1024, 1e-4


class InceptionV3(VisualExtractor):
    """A vector a picture: 1024 numbers with the PCA, 2048 without."""

    name = "inception-v3"
    fit = Fit(SIDE, SIDE, "bilinear", squash=True)

    def __init__(self, path: Path) -> None:
        self._network = open_network(path)
        self.sha256 = sha256(path)
        pca = path.with_name(PCA)
        self._pca = read_arrays(pca, "mean", "eigenvals", "eigenvecs") if pca.is_file() else None
        self._pca_sha256 = sha256(pca) if self._pca else None
        self._channels_first = path.suffix.lower() == ".onnx"
        self.dim = KEPT if self._pca else OUTPUTS
        if self.describe(np.zeros((1, SIDE, SIDE, 3), np.uint8)).shape != (1, self.dim):
            raise InputError(f"{path}: does not give {OUTPUTS} numbers for a picture")

    def fingerprint(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "pca": self._pca_sha256, "fit": self.fit.as_json(), "unverified": True}

    def describe(self, batch: npt.NDArray[np.uint8]) -> Float:
        x = (batch.astype(np.float32) - 128.0) / 128.0  # (n, 299, 299, 3)
        x = x.transpose(0, 3, 1, 2) if self._channels_first else x
        vectors = np.stack([self._network(np.ascontiguousarray(picture[None])).ravel() for picture in x])  # (n, 2048)
        return vectors if self._pca is None else whitened(vectors, *self._pca)


def whitened(vectors: Float, mean: Float, values: Float, directions: Float) -> Float:
    """YouTube-8M's PCA: the first 1024 of (x - mean) E / sqrt(lambda + 1e-4), in 8 bits.

    Args:
        vectors: shape (n, 2048).
        mean, values, directions: shapes (2048,), (k,) and (k, 2048) or (2048, k), k at least 1024.
    """
    columns = directions.reshape(-1, mean.size).T if directions.shape[-1] == mean.size else directions
    scores = (vectors - mean.ravel()) @ columns[:, :KEPT] / np.sqrt(values.ravel()[:KEPT] + RIDGE)
    return quantised(scores)


def load(weights: Weights = ()) -> InceptionV3:
    """Inception v3 from a local file.

    Raises:
        InputError: there is none, or another network.
    """
    found = next(filter(None, (find_weights(pattern, weights) for pattern in PATTERNS)), None)
    help_ = f"convert the published ones to ONNX, with {PCA} beside them"
    return InceptionV3(found or require_weights("inception-v3", PATTERNS[0], weights, help_))

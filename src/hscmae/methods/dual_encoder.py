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
from hscmae.training.loop import Objective


class DualEncoderObjective(Objective):
    """A network and the fixed weights of its losses; a weight of 0 removes the loss."""

    config: DeepConfig

    def __init__(self, config: DeepConfig, network: Network, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.config = config
        self.student = network
        self.precision = getattr(torch, config.training.precision)
        self.weights = LossWeights(weights, learned=False)
        self.active = frozenset(self.weights.fixed)

    def embed(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tensor:
        z: Tensor = self.student.tower(modality)(x, valid=valid)
        return z

    def clean(self, x: Mapping[str, Tensor], batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Embeddings of pooled features ``x`` that nothing is hidden of, each of shape (n, dim), float32."""
        with self.autocast(batch):
            return {m: self.student.tower(m)(rows, noise, f"clean/{m}").float() for m, rows in x.items()}


class DualEncoder(DeepMethod):
    """A method whose objective is a ``DualEncoderObjective``."""

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


def complete(batch: Batch) -> Tensor:
    """Rows that have both modalities, shape (n,), bool."""
    return torch.stack(list(batch.present.values())).all(0)

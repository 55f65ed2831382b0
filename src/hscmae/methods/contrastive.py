"""Contrastive dual encoders: InfoNCE, as CLIP trains it, and SoftCLIP's softened targets."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from hscmae.config import DeepConfig, Section, Share, Training
from hscmae.config import Network as NetworkSettings
from hscmae.losses.contrastive import infonce, softclip
from hscmae.methods.dual_encoder import DualEncoder, DualEncoderObjective
from hscmae.streams import Noise
from hscmae.training.features import Batch


class ContrastiveLoss(Section):
    """The contrastive loss."""

    tau: float = Field(0.5, gt=0, description="temperature")


class InfoNCEConfig(DeepConfig):
    """All settings of the InfoNCE dual encoder."""

    network: NetworkSettings = NetworkSettings(dropout=0.7)
    training: Training = Training(lr=1e-3)
    loss: ContrastiveLoss = ContrastiveLoss()


class InfoNCEObjective(DualEncoderObjective):
    """Pairs against all other pairs of the batch."""

    config: InfoNCEConfig

    def losses(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        a, v, both = self.pairs(self.clean(self.student.pooled(batch.x, batch.valid), batch, noise), batch)
        return {"contrastive": infonce(a, v, tau=self.config.loss.tau, valid=both)}


class InfoNCE(DualEncoder):
    """CLIP-style dual encoder (Radford et al. 2021; van den Oord et al. 2018)."""

    name = "infonce"
    Config = InfoNCEConfig
    config: InfoNCEConfig

    def _objective(self) -> InfoNCEObjective:
        return InfoNCEObjective(self.config, self._towers(), {"contrastive": 1.0})


class SoftCLIPLoss(ContrastiveLoss):
    """The contrastive loss with softened targets."""

    soft_share: Share = Field(0.6, description="weight of the soft targets beside the own pair")
    tau_target: float = Field(0.1, gt=0, description="temperature of the soft targets")


class SoftCLIPConfig(InfoNCEConfig):
    """All settings of SoftCLIP."""

    loss: SoftCLIPLoss = SoftCLIPLoss()


class SoftCLIPObjective(DualEncoderObjective):
    """Pairs against all other pairs, which count as positives by how alike they are within a modality."""

    config: SoftCLIPConfig

    def losses(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        a, v, both = self.pairs(self.clean(self.student.pooled(batch.x, batch.valid), batch, noise), batch)
        loss = self.config.loss
        soft = {"soft_share": loss.soft_share, "tau_target": loss.tau_target}
        return {"contrastive": softclip(a, v, tau=loss.tau, valid=both, **soft)}


class SoftCLIP(DualEncoder):
    """SoftCLIP-style dual encoder (Gao et al. 2023), its targets from the student's own similarities.

    The paper takes them from region features and tags of a detector, and adds a term on the negatives alone; neither
    has a counterpart here.
    """

    name = "softclip"
    Config = SoftCLIPConfig
    config: SoftCLIPConfig

    def _objective(self) -> SoftCLIPObjective:
        return SoftCLIPObjective(self.config, self._towers(), {"contrastive": 1.0})

"""Masked autoencoders: one alone, and CAV-MAE's, which adds InfoNCE and decodes both modalities jointly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from hscmae.config import DeepConfig, Head, Section, Training, Weight
from hscmae.config import Network as NetworkSettings
from hscmae.losses.contrastive import infonce
from hscmae.losses.reconstruction import masked_reconstruction
from hscmae.methods.contrastive import ContrastiveLoss
from hscmae.methods.dual_encoder import DualEncoder, DualEncoderObjective
from hscmae.nn.encoder import decoder
from hscmae.nn.masking import mask_values
from hscmae.nn.network import ByModality, Network
from hscmae.streams import Noise, generator
from hscmae.training.features import Batch
from hscmae.training.loop import full_precision


class ValueMasking(Section):
    """What is hidden."""

    ratio: float = Field(0.75, ge=0, lt=1, description="share of each sample's values hidden")


class ReconstructionObjective(DualEncoderObjective):
    """A dual encoder with a decoder for each modality; decoders are dropped once training is over."""

    def __init__(
        self, config: DeepConfig, network: Network, weights: Mapping[str, float], decoders: ByModality
    ) -> None:
        super().__init__(config, network, weights)
        self.decoders = decoders

    def reconstruction(
        self, latent: Mapping[str, Tensor], x: Mapping[str, Tensor], visible: Mapping[str, Tensor], batch: Batch
    ) -> Tensor:
        """Mean squared error over hidden values, summed over the modalities."""
        errors = []
        for m, rows in x.items():
            with self.autocast(batch):
                predicted = self.decoders[m](latent[m])
            squares, count = masked_reconstruction(
                full_precision(predicted), rows.detach(), visible[m], batch.present[m]
            )
            errors.append(torch.stack([squares, count]))
        sums = batch.total(torch.stack(errors))
        return (sums[:, 0] / sums[:, 1].clamp(min=1)).sum()


def build_decoders(dims: Mapping[str, int], inputs: int, settings: NetworkSettings, seed: int) -> ByModality:
    """Decoders from a hidden representation, or through one more layer from anything narrower; seeded apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "decoders").initial_seed())
        built: dict[str, nn.Module] = {}
        for m, d in dims.items():
            built[m] = decoder(settings.width, d, settings.decoder_depth)
            if inputs != settings.width:
                built[m] = nn.Sequential(nn.Linear(inputs, settings.width), nn.GELU(), built[m])
        return ByModality(built)


class MAEConfig(DeepConfig):
    """All settings of the masked autoencoder."""

    network: NetworkSettings = NetworkSettings()
    training: Training = Training(lr=3e-3)
    masking: ValueMasking = ValueMasking()
    head: Head = Head(final="ridge")


class MAEObjective(ReconstructionObjective):
    """Hidden values from the embedding of the visible ones."""

    config: MAEConfig

    def losses(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        x = self.student.pooled(batch.x, batch.valid)
        shown = {m: mask_values(rows, self.config.masking.ratio, noise, m) for m, rows in x.items()}
        with self.autocast(batch):
            z = {m: self.student.tower(m)(rows, noise, f"masked/{m}") for m, (rows, _) in shown.items()}
        return {"reconstruction": self.reconstruction(z, x, {m: visible for m, (_, visible) in shown.items()}, batch)}


class MAE(DualEncoder):
    """Masked autoencoder (He et al. 2022) on features, each modality by itself.

    Its only link between the modalities is the ridge CCA head fitted at the end on the training pairs: without it
    (``head.final: none``) retrieval is near chance.
    """

    name = "mae"
    Config = MAEConfig
    config: MAEConfig

    def _objective(self) -> MAEObjective:
        c = self.config
        decoders = build_decoders(self._inputs, c.dim, c.network, c.seed)
        return MAEObjective(c, self._towers(), {"reconstruction": 1.0}, decoders)


class CAVMAELoss(ContrastiveLoss):
    """Both losses of CAV-MAE."""

    contrastive_weight: Weight = Field(10.0, description="InfoNCE of masked encodings, lambda_c; 0.01 in the paper")
    reconstruction_weight: Weight = Field(1.0, description="masked reconstruction from both modalities")

    @model_validator(mode="after")
    def _something_to_learn(self) -> CAVMAELoss:
        if not self.contrastive_weight and not self.reconstruction_weight:
            raise ValueError("every weight is 0: nothing is left to learn")
        return self


class CAVMAEConfig(DeepConfig):
    """All settings of CAV-MAE."""

    network: NetworkSettings = NetworkSettings(dropout=0.7)
    training: Training = Training(lr=3e-3)
    masking: ValueMasking = ValueMasking()
    loss: CAVMAELoss = CAVMAELoss()


class CAVMAEObjective(ReconstructionObjective):
    """InfoNCE between masked encodings, and hidden values of each modality from both."""

    config: CAVMAEConfig

    def losses(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        c, towers = self.config, {m: self.student.tower(m) for m in batch.x}
        x = self.student.pooled(batch.x, batch.valid)
        shown = {m: mask_values(rows, c.masking.ratio, noise, m) for m, rows in x.items()}
        losses: dict[str, Tensor] = {}
        with self.autocast(batch):
            h = {m: towers[m].encoder(rows, noise, f"masked/{m}") for m, (rows, _) in shown.items()}
            z = {m: full_precision(towers[m].project(rows, h[m])) for m, (rows, _) in shown.items()}
        if "contrastive" in self.active:
            a, v, both = self.pairs(z, batch)
            losses["contrastive"] = infonce(a, v, tau=c.loss.tau, valid=both)
        if "reconstruction" in self.active:
            joint = torch.stack([rows * batch.present[m][:, None] for m, rows in h.items()]).sum(0)
            visible = {m: seen for m, (_, seen) in shown.items()}
            losses["reconstruction"] = self.reconstruction(dict.fromkeys(x, joint), x, visible, batch)
        return losses


class CAVMAE(DualEncoder):
    """CAV-MAE's objective (Gong et al., ICLR 2023) on feature vectors.

    ``L = lambda_c L_c + L_r``. As in the paper both losses see masked inputs, and hidden values are decoded from both
    modalities' encodings: their sum, the counterpart for vectors of a joint layer over both modalities' tokens. InfoNCE
    is taken in both directions (the authors' code takes one); retrieval uses unmasked features.
    """

    name = "cav-mae"
    Config = CAVMAEConfig
    config: CAVMAEConfig

    def _objective(self) -> CAVMAEObjective:
        c = self.config
        weights = {"contrastive": c.loss.contrastive_weight, "reconstruction": c.loss.reconstruction_weight}
        decoders = build_decoders(self._inputs, c.network.width, c.network, c.seed)
        return CAVMAEObjective(c, self._towers(), weights, decoders)

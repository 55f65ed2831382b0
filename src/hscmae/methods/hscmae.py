"""HSC-MAE (Zeng, Niu, Taya 2026, arXiv 2604.04229): semantic consistency at three levels.

One step: the student embeds clean features (CCA path) for the *global* level, deep CCA; the EMA teacher embeds the
same clean features and mines soft neighbours; the student embeds masked features (MAE path) and learns those
neighbours, the *local* level, and reconstructs what was hidden, the *sample* level; optionally the teacher's geometry
is distilled into the masked embeddings. Every part is switched off by a weight of 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hscmae.config import MIN_STEPS, PRESETS, Anchors, HSCMAEConfig
from hscmae.linear.cca import CanonicalMaps, Covariances, blended, covariances, ridge_cca
from hscmae.linear.smoothing import MAX_ROWS, ends, fuse, smoothed_cca
from hscmae.losses.affinity import mine_neighbours
from hscmae.losses.contrastive import affinity_infonce
from hscmae.losses.correlation import correlation_loss
from hscmae.losses.distillation import cosine_distillation, relational_distillation
from hscmae.losses.reconstruction import masked_reconstruction
from hscmae.losses.weighting import LossWeights
from hscmae.methods.closed_form import USUAL_RIDGE, CrossFit
from hscmae.methods.deep import DeepMethod
from hscmae.methods.moments import background_share
from hscmae.nn.ema import decay_at, make_teacher, update_teacher
from hscmae.nn.masking import mask_values
from hscmae.nn.memory import Memory
from hscmae.nn.network import Network
from hscmae.nn.pooling import hide_steps
from hscmae.streams import Noise, generator
from hscmae.training.features import Batch, Features
from hscmae.training.loop import Objective, full_precision

HEAD_ROWS = 8_192
STEPS_BY_ROWS = 6.0


class HSCMAEObjective(Objective):
    """Student, teacher, memory, head and loss weights of one training phase."""

    chance: Tensor | None
    head_mean: Tensor
    head_weight: Tensor

    def __init__(self, config: HSCMAEConfig, network: Network, rows: int, chance: Tensor | None = None) -> None:
        super().__init__()
        loss = config.loss
        self.config = config
        self.modalities = network.modalities
        self.student = network
        self.teacher = make_teacher(network)
        self.weights = LossWeights(
            {
                "global": loss.global_weight,
                "local": loss.local_weight,
                "sample": loss.sample_weight,
                "cross": loss.cross_weight,
                "distill": loss.distill_weight,
            },
            learned=loss.learn_weights,
        )
        self.active = frozenset(self.weights.fixed)
        # An SVD waits for the device; a ramp is another number at every step.
        singular = "global" in self.active and loss.correlation == "singular"
        self.capturable = not singular and not config.affinity.warmup
        size = {"batch": 0, "queue": config.affinity.queue_size, "train": rows}[config.affinity.source]
        self.memory = Memory(len(self.modalities), size, config.dim)
        # Of each training pair that it is right, (rows,). Not saved: it comes with the rows.
        self.register_buffer("chance", chance, persistent=False)
        self.register_buffer("head_mean", torch.zeros(len(self.modalities), config.dim))
        self.register_buffer("head_weight", torch.eye(config.dim).repeat(len(self.modalities), 1, 1))

    def embed(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tensor:
        z: Tensor = self.teacher.tower(modality)(x, valid=valid)
        return z

    def losses(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        a, v = self.modalities
        c, (present, rows) = self.config, batch.everywhere()
        x = self.student.pooled(batch.x, batch.valid)  # per modality (b, d_m): this process's b of the batch's n rows
        sources = {"sample": {a: a, v: v}, "cross": {a: v, v: a}}
        losses: dict[str, Tensor] = {}
        with self.autocast(batch):  # one context for all passes: in it each weight is cast once
            if "global" in self.active:
                # (b, dim)
                own = {m: self.student.tower(m)(self.cast(x[m]), noise, f"clean/{m}") for m in self.modalities}
            if self.active - {"global"}:
                shown = self._hide_steps(batch, x, noise)  # (b, d_m)
                ratio, spread = c.masking.ratio, c.masking.spread
                # Values and what is visible of them, both (b, d_m); encoded (b, width); projected (b, dim).
                masked = {m: mask_values(shown[m], ratio, noise, m, spread=spread) for m in self.modalities}
                hidden = {m: self.cast(masked[m][0]) for m in self.modalities}
                h = {m: self.student.tower(m).encoder(hidden[m], noise, f"masked/{m}") for m in self.modalities}
                s = {m: self.student.tower(m).project(hidden[m], h[m]) for m in self.modalities}
            if self.active & {"local", "distill"}:
                t = self._teach(batch, x)  # (b, dim)
            predicted = {  # (b, d_m)
                name: {m: self._decode(m, h[source]) for m, source in sources[name].items()}
                for name in self.active & sources.keys()
            }
        paths: dict[str, dict[str, Tensor]] = {}  # (b, dim), exchanged together
        if "global" in self.active:
            paths["clean"] = own
        if self.active & {"local", "distill"}:
            paths["teacher"] = t
            paths["masked"] = {m: self._through_head(i, full_precision(s[m])) for i, m in enumerate(self.modalities)}
        everyone = batch.gather({f"{name}/{m}": full_precision(z[m]) for name, z in paths.items() for m in z})
        whole = {name: {m: everyone[f"{name}/{m}"] for m in z} for name, z in paths.items()}  # (n, dim)
        if "global" in self.active:
            z = whole["clean"]
            paired = None if batch.complete else present[a] & present[v]  # (n,)
            weight = None if self.chance is None else self.chance[rows]  # (n,)
            losses["global"] = correlation_loss(
                z[a], z[v], ridge=c.loss.ridge, form=c.loss.correlation, valid=paired, weight=weight
            )
        if self.active & {"local", "distill"}:
            raw, student = whole["teacher"], whole["masked"]
            clean = {m: self._through_head(i, raw[m]) for i, m in enumerate(self.modalities)}  # (n, dim)
            ramp = min(1.0, (noise.step + 1) / c.affinity.warmup) if c.affinity.warmup else 1.0
            if "local" in self.active:
                losses["local"] = ramp * self._local(student, clean, present, rows, batch)
                self.embedded = raw, present, rows
        for name in ("sample", "cross"):
            if name in self.active:
                losses[name] = self._reconstruct(predicted[name], sources[name], masked, x, batch)
        if "distill" in self.active:
            per_modality = [self._distil(student[m], clean[m], present[m], batch) for m in self.modalities]
            losses["distill"] = ramp * torch.stack(per_modality).mean()
        return losses

    @torch.no_grad()
    def _teach(self, batch: Batch, pooled: dict[str, Tensor]) -> dict[str, Tensor]:
        # Pooling that learns is the teacher's own.
        x = self.teacher.pooled(batch.x, batch.valid) if batch.valid else pooled
        return {m: self.teacher.tower(m)(self.cast(x[m])) for m in self.modalities}

    def _decode(self, modality: str, hidden: Tensor) -> Tensor:
        decoder = self.student.tower(modality).decoder
        assert decoder is not None
        predicted: Tensor = decoder(hidden)
        return predicted

    def _hide_steps(self, batch: Batch, pooled: dict[str, Tensor], noise: Noise) -> dict[str, Tensor]:
        """What the masked path is shown: vectors, those of sequences pooled over the steps left visible.

        A value is then hidden in all steps of a clip alike, as tubes are in video (Tong et al. 2022): in single steps
        the others would give it away. What is to be reconstructed is the hidden value of the whole clip, so that the
        hidden steps count as well.
        """
        ratio = self.config.masking.steps_ratio
        if not batch.valid or not ratio:
            return pooled
        visible = {m: hide_steps(valid, ratio, noise, m) for m, valid in batch.valid.items()}
        return self.student.pooled(batch.x, visible)

    def _local(
        self,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        rows: Tensor,
        batch: Batch,
    ) -> Tensor:
        # All of the global batch are keys, this process's rows the queries.
        a, v = self.modalities
        c, own = self.config.affinity, batch.own
        memory = {m: self._through_head(i, self.memory.z[i]) for i, m in enumerate(self.modalities)}  # (size, dim)
        # A clip of this batch is a key of the student's already: what the memory holds of it would count twice.
        elsewhere = self.memory.without(rows)  # (size,)
        stored = {m: self.memory.present[i] & elsewhere for i, m in enumerate(self.modalities)}  # (size,)
        # By either end, (n + size, dim): the same where no pair is doubted, and so are the neighbours.
        here, there = self._ends(teacher, present, rows), self._ends(memory, stored, self.memory.rows)
        fused = {m: torch.cat([here[m], there[m]]) for m in (a, v)}
        itself = torch.arange(own.start, own.stop, device=rows.device)  # (b,)
        directions, neighbours = [], None
        for query, other in ((a, v), (v, a)):
            if neighbours is None or self.chance is not None:
                neighbours = mine_neighbours(  # (b, k)
                    fused[query][own], fused[other], itself, k=c.k, tau=c.tau_teacher
                )
            if c.keys == "teacher":
                keys, valid = fused[other], fused[other].any(1)
            else:
                keys = torch.cat([student[other], memory[other]])  # (n + size, dim)
                valid = torch.cat([present[other], stored[other]])  # (n + size,)
            directions.append(
                affinity_infonce(
                    student[query][own],
                    keys,
                    neighbours,
                    tau=self.config.loss.tau,
                    pair_share=c.pair_share,
                    mask_pair=c.mask_pair,
                    query_valid=present[query][own],
                    key_valid=valid,
                    first=own.start,
                    total=batch.total,
                )
            )
        return torch.stack(directions).mean()

    def _ends(self, z: Mapping[str, Tensor], present: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        """Fused embeddings of training rows, (n, dim), by the modality that they are seen from."""
        if self.chance is None:
            return dict.fromkeys(self.modalities, fuse(z, present))
        return dict(zip(self.modalities, ends(z, self.chance[rows], present), strict=True))

    def _distil(self, student: Tensor, teacher: Tensor, present: Tensor, batch: Batch) -> Tensor:
        own = batch.own
        if self.config.loss.distillation == "relational":
            return relational_distillation(student, teacher, present, rows=own, total=batch.total)
        return cosine_distillation(student[own], teacher[own], present[own], total=batch.total)

    def _reconstruct(
        self,
        predicted: Mapping[str, Tensor],
        sources: Mapping[str, str],
        masked: Mapping[str, tuple[Tensor, Tensor]],
        target: Mapping[str, Tensor],
        batch: Batch,
    ) -> Tensor:
        parts = []
        for m, source in sources.items():
            known = None if batch.complete else batch.present[m] & batch.present[source]
            rows = full_precision(predicted[m])
            parts.append(torch.stack(masked_reconstruction(rows, target[m].detach(), masked[m][1], known)))
        sums = batch.total(torch.stack(parts).sum(0))
        return sums[0] / sums[1].clamp(min=1)

    def _stacked(self, by_modality: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([by_modality[m] for m in self.modalities])

    def _through_head(self, index: int, z: Tensor) -> Tensor:
        if not self.config.head.refresh:
            return z
        return (z - self.head_mean[index]) @ self.head_weight[index]

    @torch.no_grad()
    def before_step(self, features: Features, step: int) -> None:
        refresh = self.config.head.refresh
        if refresh and step % refresh == 0:
            self._refit_head(features, step)
        if self.config.affinity.source == "train" and step % self.config.affinity.refresh == 0:
            for block in features.blocks(shared=True):
                z = block.gather({m: self.embed(m, block.x[m], block.valid.get(m)) for m in self.modalities})
                present, rows = block.everywhere()
                self.memory.write(rows, self._stacked(z), self._stacked(present), rows)

    def _refit_head(self, features: Features, step: int) -> None:
        # A head that jumps between refits would move the student's target: it is turned onto the previous one.
        rows = features.sample(HEAD_ROWS, generator(self.config.seed, "head", step))
        z = {m: self.embed(m, rows.x[m], rows.valid.get(m)) for m in self.modalities}
        maps = ridge_cca(covariances(z, rows.present, rows.weight), self.config.dim, self.config.head.ridge)
        overlap = torch.zeros_like(self.head_weight[0], dtype=torch.float64)
        for i, m in enumerate(self.modalities):
            overlap += maps(m, z[m]).double().T @ self._through_head(i, z[m]).double()
        u, _, vt = torch.linalg.svd(overlap)
        for i, m in enumerate(self.modalities):
            self.head_mean[i] = maps.mean[m]
            self.head_weight[i] = maps.weight[m] @ u @ vt

    @torch.no_grad()
    def after_step(self, batch: Batch, step: int) -> None:
        update_teacher(self.teacher, self.student, decay_at(step, self.steps, self.config.teacher.decay))
        if self.config.affinity.source == "queue" and "local" in self.active:
            z, present, rows = self.embedded
            self.memory.push(self._stacked(z), self._stacked(present), rows)


class HSCMAE(DeepMethod):
    """HSC-MAE; see ``config.HSCMAEConfig`` for the settings and ``PRESETS`` for ``paper`` and ``default``."""

    name = "hscmae"
    Config = HSCMAEConfig
    presets = PRESETS
    config: HSCMAEConfig
    several_processes = True
    takes_background = True

    def _network(self) -> Network:
        n, warm = self.config.network, self.config.warm_start.kind != "none"
        return self._towers(decoder_depth=n.decoder_depth, scale=n.branch_scale if warm else 1.0, canonical=warm)

    def _planned_steps(self, rows: int) -> int:
        # From a closed form there is less to learn than from random weights, and few rows are soon learnt by heart.
        if self.config.warm_start.kind == "none":
            return super()._planned_steps(rows)
        least = min(MIN_STEPS, round(STEPS_BY_ROWS * math.sqrt(rows)))
        return self.config.training.planned_steps(rows, least)

    @property
    def _keeps_steps(self) -> bool:
        return super()._keeps_steps or self.config.masking.steps_ratio > 0

    def _prepare(self, features: Features) -> dict[str, Any]:
        warm = self.config.warm_start
        if warm.kind == "none":
            return {}
        anchors, head = self.config.anchors, self.config.head
        start = CrossFit(self._warm_rows(features), self._closed_form, self.config.seed)
        ridge = warm.ridge or start.choose_ridge(USUAL_RIDGE[warm.kind] if self.views_ else None)
        prepared: dict[str, Any] = {"warm_start_ridge": ridge}
        choosing = self.config.training.validation_share > 0
        if anchors.share and choosing:
            prepared["anchors"] = start.anchors_help(ridge, anchors)
        if head.final == "smoothed":
            used = anchors if prepared.get("anchors", True) else Anchors()
            prepared["head"] = choosing and start.head_helps(ridge, self.config.dim, head.ridge, used)
        return prepared

    def _warm_rows(self, features: Features) -> Batch:
        rows = features.sample(MAX_ROWS, generator(self.config.seed, "warm start"))
        if not rows.valid:
            return rows
        with torch.no_grad():
            vectors = self._network().to(features.device).pooled(rows.x, rows.valid)
        return replace(rows, x=vectors, valid={})

    def _build(self, features: Features, prepared: dict[str, Any]) -> HSCMAEObjective:
        network = self._network()
        if prepared:
            rows = self._warm_rows(features)
            moments = covariances(rows.x, rows.present, rows.weight)
            maps = self._closed_form(rows, prepared["warm_start_ridge"], moments)
            network.warm_start(unit_size(maps, rows))
        return HSCMAEObjective(self.config, network, len(features), features.weight).to(features.device)

    def _closed_form(self, rows: Batch, ridge: float, moments: Covariances) -> CanonicalMaps:
        w, background, share = self.config.warm_start, self._background(), background_share(len(rows.rows))
        if w.kind == "ridge":
            return ridge_cca(blended(moments, background, share), self.config.dim, ridge)
        return smoothed_cca(
            rows.x,
            self.config.dim,
            ridge=ridge,
            k=w.k,
            tau=w.tau,
            present=rows.present,
            weight=rows.weight,
            moments=moments,
            background=background,
            share=share,
        )

    def _trained(self, objective: Objective) -> Network:
        assert isinstance(objective, HSCMAEObjective)
        return objective.teacher


def unit_size(maps: CanonicalMaps, rows: Batch) -> CanonicalMaps:
    """The same maps, each modality's scaled so that its embeddings have a mean square coordinate of 1.

    The nonlinear branch and the learning rate then mean the same whatever the ridge.
    """
    weight = {}
    for m, w in maps.weight.items():
        z = maps(m, rows.x[m])[rows.present[m]]
        weight[m] = w / z.square().mean().sqrt().clamp(min=torch.finfo(z.dtype).tiny)
    return CanonicalMaps(maps.mean, weight, maps.correlation)

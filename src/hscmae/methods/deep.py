"""What the methods that train a network share: selection on held-out pairs, refit, the linear head, saving."""

from __future__ import annotations

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hscmae.config import DeepConfig, flatten
from hscmae.data.fingerprint import fingerprint
from hscmae.data.pairs import FloatArray, IntArray, Pairs
from hscmae.data.splits import validation_rows
from hscmae.errors import InputError
from hscmae.evaluation.selection import alignment_gap, grounded_rows, mutual_knn, nearest
from hscmae.linear.cca import CanonicalMaps, covariances, ridge_cca
from hscmae.linear.kernel import KernelMap
from hscmae.linear.smoothing import fuse, refined_cca
from hscmae.methods.base import Method
from hscmae.nn.anchors import attend
from hscmae.nn.network import Network, build_network
from hscmae.streams import generator
from hscmae.training import distributed
from hscmae.training.features import Batch, Features
from hscmae.training.loop import Loop, Objective, Progress, select_phase
from hscmae.training.precision import precision_of
from hscmae.training.views import kernel_views

log = logging.getLogger(__name__)
HEAD_ROWS = {"ridge": 16_384, "smoothed": 8_192}  # the latter take time by their square
MIN_HELD_OUT = 3
HELD_OUT_ROWS = 2_048
# Fewer held-out pairs than this, and the choice is made over several folds.
ENOUGH, FOLDS = 140, 4


class DeepMethod(Method):
    """A method whose embedding is a network, trained by ``training.loop``.

    Attributes:
        several_processes: whether its losses are those of the global batch, with what other processes hold gathered.
        views_: modality -> kernel map that the network sees standardised vectors through; empty for the linear view.
    """

    several_processes: ClassVar[bool] = False
    config: DeepConfig
    views_: Mapping[str, KernelMap] = MappingProxyType({})
    network_: Network
    head_: CanonicalMaps | None

    def _prepare(self, features: Features) -> dict[str, Any]:
        """What is chosen once, before any training, and kept with the run; JSON values."""
        return {}

    @abstractmethod
    def _build(self, features: Features, prepared: dict[str, Any]) -> Objective:
        """A fresh objective for these training rows; with nothing prepared, one that a checkpoint will fill."""

    def _planned_steps(self, rows: int) -> int:
        """Steps of a full run."""
        return self.config.training.planned_steps(rows)

    @abstractmethod
    def _network(self) -> Network:
        """An untrained network of the fitted dimensions, to load weights into."""

    def _towers(self, *, decoder_depth: int = 0, scale: float = 1.0, canonical: bool = False) -> Network:
        """A network of the fitted dimensions and the configured encoders, its weights drawn from the seed."""
        n = self.config.network
        return build_network(
            self._inputs,
            self.config.dim,
            self.config.seed,
            width=n.width,
            depth=n.depth,
            decoder_depth=decoder_depth,
            dropout=n.dropout,
            scale=scale,
            canonical=canonical,
            pooling=self.config.pooling,
        )

    @abstractmethod
    def _trained(self, objective: Objective) -> Network:
        """The network of a trained objective that embeds."""

    def _fit(
        self, pairs: Pairs, rows: npt.NDArray[np.intp], *, run: Path | None, resume: bool, progress: Progress | None
    ) -> None:
        settings, seed = self.config.training, self.config.seed
        if distributed.size() > 1 and not self.several_processes:
            raise InputError(f"{self.name} trains in one process: start it without torchrun")
        device = torch.device(_device(settings.device))
        if run is not None and distributed.is_first():
            run.mkdir(parents=True, exist_ok=True)
        identity = self._identity(pairs, rows)
        loop = Loop(settings, self._planned_steps(len(rows)), seed, folder=run, resume=resume, progress=progress)
        if run is not None and loop.state.identity:
            self._require_same_run(loop.state.identity, identity, run)
        loop.state.identity = identity
        # A resumed run keeps its own, whatever this machine is quick in.
        loop.state.precision = loop.state.precision or distributed.first_of(
            precision_of(settings.precision, self.config.network.width, device)
        )
        where = [identity["data"], loop.state.phase, loop.state.step]
        if distributed.first_of(where) != where:
            raise InputError(
                f"{pairs.source}: process {distributed.rank()} sees other data, or another checkpoint, than process 0; "
                "the file and the run must be the same everywhere"
            )
        folds = self._folds(pairs, rows)
        objective: Objective | None = None
        for number, (fit, validation) in enumerate(folds if loop.state.chosen is None else []):
            if number < loop.state.fold:
                continue
            features = self._fit_inputs(pairs, fit, device)
            measured = self._measured(validation[pairs.complete()[validation]])
            held_out = Features(pairs, measured, self.scalers_, device, self.views_)
            objective = self._begin(features, loop, select_phase(number))
            measure = partial(self._measure, features=features, held_out=held_out, near=self._neighbours(held_out))
            loop.select(number, objective, features, measure, patient=len(folds) > 1)
        if objective is not None:
            loop.state.chosen = loop.measured.choose()
        if objective is not None and not settings.refit:
            objective.load_state_dict(loop.best)
        else:
            everything = np.union1d(*folds[0]) if folds else self._all_rows(pairs, rows)
            features = self._fit_inputs(pairs, everything, device)
            objective = self._begin(features, loop, "refit")
            loop.run("refit", objective, features, loop.steps)
        self.head_ = self._fit_head(objective, features)
        self.network_ = self._trained(objective).cpu().eval()
        self.summary_ |= {
            "chosen_step": loop.steps,
            "selection": [[step, float(loop.measured.at(step).mean())] for step in loop.measured.steps],
            "weights": objective.weights.current(),
            "seconds": round(loop.state.seconds, 1),
            "threads": loop.state.threads,
            "precision": loop.state.precision,
        }

    def _fit_inputs(self, pairs: Pairs, rows: npt.NDArray[np.intp], device: torch.device) -> Features:
        """The given rows as the network sees them, by scalers and views fitted on them."""
        self.scalers_ = self._fit_scalers(pairs, rows)
        features = Features(pairs, rows, self.scalers_, device, chance=self._chance)
        self.views_ = {}
        if not self._through_kernel:
            return features
        self.views_ = kernel_views(features, self.config.view, self.config.seed)
        distributed.copy_first(tensor for view in self.views_.values() for tensor in vars(view).values())
        return features.through(self.views_)

    @property
    def _through_kernel(self) -> bool:
        """Whether the kernel view is used: a network that pools sequences itself sees values, and background pairs
        are known by the covariances of their values alone.
        """
        wanted = self.config.view.kind == "kernel" and not self._keeps_steps
        if wanted and self._raw_background is not None:
            log.info("with background pairs the network sees standardised values, not kernel components")
            return False
        return wanted

    @property
    def _inputs(self) -> dict[str, int]:
        """Modality -> width of what the network sees."""
        return {m: self.views_[m].basis.shape[1] if m in self.views_ else d for m, d in self.dims_.items()}

    def _begin(self, features: Features, loop: Loop, phase: str) -> Objective:
        if loop.restores(phase):
            self.summary_ |= loop.state.prepared
            return self._build(features, {})
        # Every process computes the same; should machines differ in the last bits, the first one's counts.
        loop.state.prepared = loop.state.prepared or distributed.first_of(self._prepare(features))
        self.summary_ |= loop.state.prepared
        objective = self._build(features, loop.state.prepared)
        distributed.copy_first(objective.state_dict().values())
        return objective

    @property
    def _keeps_steps(self) -> bool:
        return self.config.pooling == "attention"

    def _vectors(self, modality: str, x: FloatArray, lengths: IntArray | None) -> Tensor:
        if x.ndim == 2 or lengths is None or self.config.pooling != "attention":
            return super()._vectors(modality, x, lengths)
        valid = np.arange(x.shape[1]) < lengths[:, None]
        steps = self.scalers_[modality].apply(x)
        steps[~valid] = 0
        vectors: Tensor = self.network_.tower(modality).pool(torch.from_numpy(steps), torch.from_numpy(valid))
        return vectors

    def _fit_anchors(self, pairs: Pairs, rows: npt.NDArray[np.intp]) -> Tensor | None:
        return super()._fit_anchors(pairs, rows) if self.summary_.get("anchors", True) else None

    def _all_rows(self, pairs: Pairs, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        own = pairs.split is not None and np.any(pairs.split == b"val")
        return np.union1d(rows, pairs.rows_of("val")) if own else rows

    def _folds(
        self, pairs: Pairs, rows: npt.NDArray[np.intp]
    ) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
        """Rows to fit on and rows to choose by: the data's own validation rows, or a share of the training rows.

        Several such cuts, the held-out shares disjoint, where one share is few pairs; none where there is nothing to
        choose by: all rows then train, for all planned steps.
        """
        training, complete = self.config.training, pairs.complete()
        if pairs.split is not None and np.any(pairs.split == b"val"):
            folds = [(rows, pairs.rows_of("val"))]
        elif training.validation_share:
            size, left, folds = training.validation_share * len(rows), rows, []
            while len(left) > max(size, 1) and len(folds) < (FOLDS if training.refit else 1):
                kept, held_out = validation_rows(pairs.ids[left], size / len(left), self.config.seed)
                folds.append((np.setdiff1d(rows, left[held_out]), left[held_out]))
                left = left[kept]
                if sum(complete[held].sum() for _, held in folds) >= ENOUGH:
                    break
        else:
            folds = []
        enough = all(complete[held_out].sum() >= MIN_HELD_OUT for _, held_out in folds)
        return folds if enough else []

    def _measured(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        # The criterion's time and memory grow with the square of the rows, its error falls with their root.
        drawn = torch.randperm(len(rows), generator=generator(self.config.seed, "held out"))[:HELD_OUT_ROWS]
        kept: npt.NDArray[np.intp] = rows[drawn.sort().values.numpy()]
        return kept

    def _identity(self, pairs: Pairs, rows: npt.NDArray[np.intp]) -> dict[str, Any]:
        # What a resumed run must share with the run that it goes on from: every row that it trains on or chooses by.
        assert self.seen_ is not None
        data = hashlib.sha256(str([(m, x.shape[1:]) for m, x in pairs.features.items()]).encode())
        for held in (rows, pairs.ids[rows], self.seen_.content):
            data.update(held.tobytes())
        if pairs.split is not None and np.any(pairs.split == b"val"):
            data.update(fingerprint(pairs, rows=pairs.rows_of("val")).content.tobytes())
        if self._raw_background is not None:
            data.update(self._raw_background.cross.numpy().tobytes())
        return {"method": self.name, "settings": flatten(self.config), "data": data.hexdigest()}

    def _require_same_run(self, before: dict[str, Any], now: dict[str, Any], run: Path) -> None:
        if before["method"] != now["method"]:
            raise InputError(f"{run}: holds a run of method {before['method']}, not {now['method']}")
        self.require_same_settings(before["settings"], run)
        if before["data"] != now["data"]:
            raise InputError(f"{run}: was trained on other data; give the same file and split, or another output")

    def _neighbours(self, held_out: Features) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Each held-out row's neighbours by what the network sees, the same for all that is chosen from."""
        batch = held_out.batch(torch.arange(len(held_out)))
        x = self._network().to(held_out.device).pooled(batch.x, batch.valid)
        first, second = (nearest(rows.detach().cpu().numpy(), max(1, len(rows) // 10)) for rows in x.values())
        return first, second

    def _measure(
        self,
        objective: Objective,
        features: Features,
        held_out: Features,
        near: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]],
    ) -> tuple[dict[str, float], list[float]]:
        head, anchors = self._fit_head(objective, features), self.config.anchors

        def embed(batch: Batch) -> dict[str, Tensor]:
            z = {m: objective.embed(m, x, batch.valid.get(m)).cpu() for m, x in batch.x.items()}
            return {m: self._through(head, m, rows) for m, rows in z.items()}

        with torch.inference_mode():
            blocks = [embed(block) for block in held_out.blocks()]
            z = {m: torch.cat([block[m] for block in blocks]) for m in self.dims_}
            if anchors.share and self.summary_.get("anchors", True):
                rows = features.sample(anchors.rows, generator(self.config.seed, "anchors"))
                known = fuse(embed(rows), {m: p.cpu() for m, p in rows.present.items()})
                z = {m: attend(x, known, tau=anchors.tau, share=anchors.share) for m, x in z.items()}
        first, second = (rows.numpy() for rows in z.values())
        criteria = {"mutual_knn": mutual_knn(first, second), "alignment_gap": alignment_gap(first, second)}
        return criteria, grounded_rows(first, second, *near).tolist()

    @torch.inference_mode()
    def _fit_head(self, objective: Objective, features: Features) -> CanonicalMaps | None:
        settings = self.config.head
        if settings.final == "none" or not self.summary_.get("head", True):
            return None
        rows = features.sample(HEAD_ROWS[settings.final], generator(self.config.seed, "head"))
        z = {m: objective.embed(m, x, rows.valid.get(m)).cpu() for m, x in rows.x.items()}
        present = {m: p.cpu() for m, p in rows.present.items()}
        weight = None if rows.weight is None else rows.weight.cpu()
        if settings.final == "smoothed":
            return refined_cca(z, self.config.dim, ridge=settings.ridge, present=present, weight=weight)
        return ridge_cca(covariances(z, present, weight), self.config.dim, settings.ridge)

    def _through(self, head: CanonicalMaps | None, modality: str, z: Tensor) -> Tensor:
        if head is None:
            return z
        return head(modality, F.normalize(z, dim=1) if self.config.head.final == "smoothed" else z)

    def _embed(self, modality: str, x: Tensor) -> Tensor:
        z = self.network_.tower(modality)(self.views_[modality](x) if modality in self.views_ else x)
        return self._through(self.head_, modality, z)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {
            f"network/{name}": value for name, value in self.network_.state_dict().items() if ".decoder." not in name
        }
        for m, view in self.views_.items():
            tensors |= {f"view/{part}/{m}": value for part, value in vars(view).items()}
        if self.head_ is not None:
            for m in self.dims_:
                tensors[f"head/mean/{m}"] = self.head_.mean[m].float()
                tensors[f"head/weight/{m}"] = self.head_.weight[m].float()
            tensors["head/correlation"] = self.head_.correlation.float()
        return tensors

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        parts = KernelMap.__dataclass_fields__
        if any(name.startswith("view/") for name in tensors):
            self.views_ = {m: KernelMap(**{part: tensors[f"view/{part}/{m}"] for part in parts}) for m in self.dims_}
        self.network_ = self._network()
        weights = {n.removeprefix("network/"): t for n, t in tensors.items() if n.startswith("network/")}
        missing, unexpected = self.network_.load_state_dict(weights, strict=False)
        wanted = [name for name in missing if ".decoder." not in name]
        if wanted or unexpected:
            raise InputError(f"weights do not fit the settings: {', '.join(wanted + unexpected)}")
        self.network_.eval()
        self.head_ = None
        if "head/correlation" in tensors:
            mean = {m: tensors[f"head/mean/{m}"] for m in self.dims_}
            weight = {m: tensors[f"head/weight/{m}"] for m in self.dims_}
            self.head_ = CanonicalMaps(mean, weight, tensors["head/correlation"])


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name

"""The training loop: optimise, log, measure, stop, checkpoint, resume.

A run has two phases. *Select* trains on the fit part and measures a label-free criterion on held-out pairs, in several
folds where pairs are few; the last step that it cannot tell from the best is chosen (``choice``). *Refit* trains anew
on all training rows for that many steps. Every
random draw is keyed by (seed, purpose, step), so a checkpoint needs no generator states and a resumed run repeats the
run never killed. Several processes share each batch and take the same steps; the first one alone measures and writes.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hscmae.config import Training
from hscmae.errors import RunError
from hscmae.files import named
from hscmae.losses.weighting import LossWeights
from hscmae.streams import Noise, generator
from hscmae.training import distributed
from hscmae.training.capture import Captured, Compute
from hscmae.training.checkpoint import load_checkpoint, restore, save_checkpoint
from hscmae.training.choice import Measurements
from hscmae.training.features import Batch, Features

log = logging.getLogger(__name__)
WINDOW_BLOCKS = 32
Progress = Callable[[dict[str, Any]], None]
# Label-free criteria on held-out pairs by name, for the log, and the score of every pair, which decides.
Measure = Callable[["Objective"], tuple[dict[str, float], list[float]]]


class Objective(nn.Module, ABC):
    """What a deep method gives the loop: its losses and all its state."""

    weights: LossWeights
    steps: int = 1  # of a full run; set by the loop
    precision: torch.dtype = torch.float32  # of the matrix products; set by the loop
    capturable: bool = False  # whether ``losses`` never waits for a GPU and does the same work at every step

    def autocast(self, batch: Batch) -> torch.autocast:
        """The context of matrix products inside the network; losses stay outside, in float32 or float64."""
        enabled = self.precision != torch.float32
        return torch.autocast(batch.rows.device.type, self.precision if enabled else None, enabled=enabled)

    def cast(self, x: Tensor) -> Tensor:
        """``x`` in the type of the products that it enters, so that autocast does not cast it for each of them."""
        return x if self.precision == torch.float32 else x.to(self.precision)

    @abstractmethod
    def losses(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Unweighted losses of one step by name, each a scalar of at least 0.

        They are those of the global batch, the same in every process: ``batch`` may hold one process's share of it and
        gives the rest with ``batch.gather`` and ``batch.total``.
        """

    @abstractmethod
    def embed(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Embeddings for retrieval, before any head; (n, d_m), or (n, t, d_m) and ``valid`` (n, t) -> (n, dim)."""

    def before_step(self, features: Features, step: int) -> None:
        """Refresh what is kept between steps."""

    def after_step(self, batch: Batch, step: int) -> None:
        """Follow the optimiser's step: move a teacher, fill a queue."""


@dataclass
class State:
    """Where a run stands; what a checkpoint holds beside tensors.

    Attributes:
        phase: "select", of further folds "select 2" and so on, or "refit".
        step: steps done in this phase.
        fold: which fold's select phase, from 0.
        chosen: chosen number of steps, once known.
        prepared: what the method chose before training.
        logged: bytes of ``metrics.jsonl`` that belong to this state.
        seconds: time trained so far.
        threads: CPU threads of each process.
        precision: type of the matrix products, once known.
        processes: how many share the batches.
        identity: what must agree for a resume: settings and data.
    """

    phase: str = "select"
    step: int = 0
    fold: int = 0
    chosen: int | None = None
    prepared: dict[str, Any] = field(default_factory=dict)
    logged: int = 0
    seconds: float = 0.0
    threads: int = 1
    precision: str = ""
    processes: int = 1
    identity: dict[str, Any] = field(default_factory=dict)


class Journal:
    """``metrics.jsonl``: one JSON object a line; lines after a resumed checkpoint are cut off first."""

    def __init__(self, path: Path | None, keep: int) -> None:
        self.path = path
        # Without a buffer: what a full disk refused, closing would try again, and complain of on its own.
        self.file = None if path is None else path.open("r+b" if path.exists() else "w+b", buffering=0)
        if self.file is not None:
            self.file.truncate(keep)
            self.file.seek(keep)

    def write(self, record: dict[str, Any]) -> int:
        """Append a record; returns the size of the file."""
        if self.file is None or self.path is None:
            return 0
        rest = json.dumps(record).encode() + b"\n"
        with named(self.path):
            while rest:
                rest = rest[self.file.write(rest) :]
        return self.file.tell()

    def sync(self) -> None:
        if self.file is not None:
            os.fsync(self.file.fileno())


class Loop:
    """Trains objectives phase by phase.

    Args:
        settings: the optimiser's settings.
        planned: steps of a full run; every schedule spans them, so that a refit of fewer steps walks the same path.
        seed: the run's seed.
        folder: where metrics and checkpoints go; ``None`` keeps nothing.
        resume: go on from ``folder``'s checkpoint, if it has one.
        progress: called with each record that is logged.
    """

    def __init__(
        self,
        settings: Training,
        planned: int,
        seed: int,
        *,
        folder: Path | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.settings, self.planned, self.seed = settings, planned, seed
        self.folder, self.progress = (folder, progress) if distributed.is_first() else (None, None)
        self.state = State(threads=torch.get_num_threads(), processes=distributed.size())
        self.tensors: dict[str, Tensor] | None = None
        self.best: dict[str, Tensor] = {}
        self.measured, self.patient = Measurements(), False
        loaded = load_checkpoint(folder) if folder is not None and resume else None
        if loaded is not None:
            self.tensors, saved = loaded
            self.best = _part(self.tensors, "kept/best/")
            self.measured = Measurements(_part(self.tensors, "kept/measured/"))
            self.state = State(**saved)
            if self.state.processes == distributed.size():
                torch.set_num_threads(self.state.threads)
            self.state.threads, self.state.processes = torch.get_num_threads(), distributed.size()
        self.journal = Journal(None if self.folder is None else self.folder / "metrics.jsonl", self.state.logged)
        self.saved_at = time.monotonic()

    def restores(self, phase: str) -> bool:
        """Whether ``run`` will begin this phase from a checkpoint, whatever the objective holds."""
        return self.tensors is not None and self.state.phase == phase

    def select(
        self, fold: int, objective: Objective, features: Features, measure: Measure, *, patient: bool = False
    ) -> None:
        """One fold's select phase: all planned steps, or until enough measurements in a row were clearly worse."""
        self.state.fold, self.patient = fold, patient
        self.run(select_phase(fold), objective, features, self.planned, measure)

    def run(
        self,
        phase: str,
        objective: Objective,
        features: Features,
        steps: int,
        measure: Measure | None = None,
    ) -> None:
        """Train ``objective`` for ``steps`` steps.

        Args:
            phase: the phase's name, kept in checkpoints.
            objective: a fresh objective; a resumed one is restored into it.
            features: the rows to train on.
            steps: steps of this phase.
            measure: label-free criteria on held-out pairs, by which the number of steps is chosen.

        Raises:
            RunError: a loss is not finite.
        """
        settings, state = self.settings, self.state
        if state.phase != phase:
            state.phase, state.step, self.tensors = phase, 0, None
        optimiser = _optimiser(objective, settings)
        if self.tensors is not None:
            restore(self.tensors, objective, optimiser)
            self.tensors = None
        elif measure is not None:
            self._measure(objective, measure, {"step": 0, "epoch": 0.0, "phase": phase})
        interval = max(1, self.planned // settings.evaluations)
        objective.steps, objective.precision = self.planned, getattr(torch, state.precision or "float32")
        # Rows that lack a modality come on top: a batch holds as many complete pairs as it would without them.
        batch_size = min(round(settings.batch_size / features.complete_share), len(features))
        sums: dict[str, Tensor] = {}
        started = time.monotonic() - state.seconds
        batches = features.batches(
            _positions(self.seed, step, batch_size, len(features), settings.shuffle_block, features.home)
            for step in range(state.step, steps)
        )
        # Listed once: torch walks through all modules for it.
        learnt = [p for p in objective.parameters() if p.requires_grad]
        compute = partial(compute_gradients, objective, learnt, settings.grad_clip, state)
        gradients = _recorded(compute, objective, features)
        while state.step < steps and not self._out_of_patience():
            step = state.step
            lr = learning_rate(step, self.planned, settings)
            objective.before_step(features, step)
            batch = next(batches)
            losses = gradients(batch, Noise(self.seed, step, batch.own.start, batch_size))
            for group in optimiser.param_groups:
                group["lr"] = lr
            optimiser.step()
            objective.weights.clamp_()
            objective.after_step(batch, step)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss
            state.step += 1
            if state.step % interval == 0 or state.step == steps:
                count = (state.step - 1) % interval + 1
                record = _record(state, phase, batch_size / len(features), lr, sums, count, objective)
                sums = {}
                state.seconds = time.monotonic() - started
                self._measure(objective, measure, record)
                if time.monotonic() - self.saved_at >= settings.checkpoint_seconds:
                    self._save(objective, optimiser)

    def _measure(
        self,
        objective: Objective,
        measure: Measure | None,
        record: dict[str, Any],
    ) -> None:
        if measure is not None:
            criteria, scores = distributed.first_of(measure(objective))
            self.measured.scores[self.state.fold, self.state.step] = torch.tensor(scores, dtype=torch.float64)
            if not self.settings.refit and self.measured.choose() == self.state.step:
                self.best = {name: value.detach().clone() for name, value in objective.state_dict().items()}
            record |= {f"val/{name}": value for name, value in criteria.items()}
        record["seconds"] = round(self.state.seconds, 3)
        self.state.logged = self.journal.write(record)
        if self.progress is not None:
            self.progress(record | {"steps": self.steps})

    def _out_of_patience(self) -> bool:
        if self.state.phase != select_phase(0) or self.patient or not self.measured.steps:
            return False
        chosen = self.measured.choose()
        return sum(step > chosen for step in self.measured.steps) >= self.settings.patience

    @property
    def steps(self) -> int:
        """Steps to train for: those chosen, or all."""
        return self.planned if self.state.chosen is None else self.state.chosen

    def _save(self, objective: Objective, optimiser: torch.optim.Optimizer) -> None:
        if self.folder is None:
            return
        self.journal.sync()
        kept = {f"best/{name}": value for name, value in self.best.items()}
        kept |= {f"measured/{name}": value for name, value in self.measured.tensors().items()}
        save_checkpoint(self.folder, objective, optimiser, kept, asdict(self.state))
        self.saved_at = time.monotonic()


def select_phase(fold: int) -> str:
    """What the select phase of a fold is called, in the log and in checkpoints."""
    return f"select {fold + 1}" if fold else "select"


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def full_precision(z: Tensor) -> Tensor:
    """``z`` as losses take it: in float32, or float64 where it is that already."""
    return z.to(torch.promote_types(z.dtype, torch.float32))


def learning_rate(step: int, steps: int, settings: Training) -> float:
    """Linear warm-up to ``settings.lr``, then a cosine to 0 at ``steps``."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    share = (step - settings.warmup) / max(1, steps - settings.warmup)
    return settings.lr * (math.cos(math.pi * min(share, 1.0)) + 1) / 2


def compute_gradients(
    objective: Objective, learnt: list[nn.Parameter], largest: float, state: State, batch: Batch, noise: Noise
) -> dict[str, Tensor]:
    """One step's losses and their weighted total, by name; the total's gradients, clipped, are left in ``learnt``.

    On a GPU nothing in here waits for the device, so that it can be recorded as a CUDA graph.
    """
    losses = objective.losses(batch, noise)
    total = objective.weights(losses)
    # On a GPU this would wait for the device: there, where it logs.
    if batch.rows.device.type == "cpu" and not math.isfinite(float(total.detach())):
        _require_finite({**losses, "total": total}, state)
    for parameter in learnt:
        parameter.grad = None
    distributed.backward(total, learnt)
    _clip(learnt, largest)
    return {name: loss.detach() for name, loss in {"total": total, **losses}.items()}


def _recorded(compute: Compute, objective: Objective, features: Features) -> Compute:
    """``compute``, on one GPU as a CUDA graph where the objective's work is the same at every step."""
    if features.device.type != "cuda" or distributed.size() > 1:
        return compute
    if not objective.capturable:
        log.info("these settings train without a CUDA graph; with loss.correlation=frobenius HSC-MAE uses one")
        return compute
    return Captured(compute)


def _positions(
    seed: int, step: int, batch_size: int, rows: int, block: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    # Each epoch is a new permutation; its tail shorter than a batch is left for later epochs.
    epoch, within = divmod(step, rows // batch_size)
    return _order(seed, epoch, rows, block, device)[within * batch_size : (within + 1) * batch_size]


@lru_cache(maxsize=1)
def _order(seed: int, epoch: int, rows: int, block: int = 0, device: torch.device | str = "cpu") -> Tensor:
    # Moved once an epoch: copying each batch's positions to a GPU would wait for it at every step.
    source = generator(seed, "order", epoch)
    if not block:
        return torch.randperm(rows, generator=source).to(device)
    # Runs of rows in random order; then rows at random within a window of so many runs, which a page cache holds.
    runs = torch.randperm(-(-rows // block), generator=source).tolist()
    order = torch.cat([torch.arange(run * block, min((run + 1) * block, rows)) for run in runs])
    for start in range(0, rows, block * WINDOW_BLOCKS):
        window = order[start : start + block * WINDOW_BLOCKS]
        window.copy_(window[torch.randperm(len(window), generator=source)])
    return order.to(device)


class AdamW(torch.optim.AdamW):
    """torch's, less what guards it from being compiled: that imports the compiler first, for more than a second."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)


def _optimiser(objective: Objective, settings: Training) -> torch.optim.Optimizer:
    decayed = [p for p in objective.parameters() if p.requires_grad and p.ndim >= 2]
    free = [p for p in objective.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return AdamW(groups, lr=settings.lr, fused=True)


def _clip(parameters: list[nn.Parameter], largest: float) -> None:
    # As clip_grad_norm_ does, less a pass over memory where nothing is to be clipped; a GPU would have to be asked.
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if norm.device.type != "cpu" or norm + 1e-6 > largest:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)


def _require_finite(losses: dict[str, Tensor], state: State) -> None:
    for name, loss in losses.items():
        if not math.isfinite(float(loss.detach())):
            raise RunError(
                f"the {name} loss is not finite at step {state.step + 1} of phase {state.phase}; "
                "lower training.lr, raise loss.ridge, or look at the features with `hscmae inspect`"
            )


def _record(
    state: State, phase: str, epochs_a_step: float, lr: float, sums: dict[str, Tensor], count: int, objective: Objective
) -> dict[str, Any]:
    _require_finite(sums, state)
    record: dict[str, Any] = {"step": state.step, "epoch": round(state.step * epochs_a_step, 3), "phase": phase}
    record |= {f"loss/{name}": float(value) / count for name, value in sums.items()}
    record |= {f"weight/{name}": value for name, value in objective.weights.current().items()}
    return record | {"lr": lr}

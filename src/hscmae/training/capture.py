"""A step's forward and backward pass as one CUDA graph: on a GPU small kernels cost more to start than to run.

The first steps are taken as they are, on a stream of their own; then the work is recorded and replayed for each further
batch, copied into the place of the first. What changes from step to step is kept out of it: random generators are set
to their step beforehand, and learning rate, optimiser, teacher and queue come after it, a few kernels in all.
Should recording fail, the steps go on being taken as they are. Both ways compute the same numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial

import torch
from torch import Tensor

from hscmae.errors import first_line
from hscmae.streams import Noise
from hscmae.training.features import Batch

log = logging.getLogger(__name__)
# Libraries make their handles and workspaces, and autograd its nodes, in the first steps: torch's notes take three.
WARM_UP = 3
Compute = Callable[[Batch, Noise], dict[str, Tensor]]
Work = Callable[[], dict[str, Tensor]]


class Captured:
    """``compute``, recorded on a GPU after a few calls and replayed.

    Every call must do the same work: batches of the same shapes, each random purpose drawn once, no number that Python
    makes anew at each step, nothing that waits for the device.

    Args:
        compute: takes a batch and its noise; returns scalars without gradient and leaves gradients in parameters.
    """

    def __init__(self, compute: Compute) -> None:
        self.compute = compute
        self.calls = 0
        self.sources: dict[str, torch.Generator] = {}
        self.batch: Batch | None = None
        self.replay: Callable[[], object] | None = None
        self.losses: dict[str, Tensor] = {}
        self.failed = False

    def __call__(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """As ``compute``; the next call overwrites what is returned."""
        if self.failed:
            return self.compute(batch, noise)
        if self.batch is None:
            self.batch = _copy(batch)
        for place, given in zip(_tensors(self.batch), _tensors(batch), strict=True):
            place.copy_(given)
        noise.draw_from(self.sources)
        work = partial(self.compute, self.batch, noise)
        self.calls += 1
        if self.calls <= WARM_UP:
            return self._warm_up(work)
        if self.replay is None:
            try:
                self.replay, self.losses = self._record(work)
            except RuntimeError as error:
                log.warning("training goes on without a CUDA graph: %s", first_line(error))
                self.failed = True
                noise.draw_from({})  # those of a recording that failed may be locked
                return self.compute(batch, noise)
        self.replay()
        return self.losses

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        assert self.batch is not None
        return torch.cuda.Stream(self.batch.rows.device)  # type: ignore[no-untyped-call]

    def _warm_up(self, work: Work) -> dict[str, Tensor]:
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            losses = work()
        here.wait_stream(self._stream)
        return losses

    def _record(self, work: Work) -> tuple[Callable[[], object], dict[str, Tensor]]:
        graph = torch.cuda.CUDAGraph()
        for source in self.sources.values():
            graph.register_generator_state(source)
        # Another thread may be reading the next batches: its allocations must not end the recording.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            losses = work()
        return graph.replay, losses


def _copy(batch: Batch) -> Batch:
    x, present, valid = ({m: t.clone() for m, t in part.items()} for part in (batch.x, batch.present, batch.valid))
    return replace(batch, x=x, present=present, valid=valid, rows=batch.rows.clone())


def _tensors(batch: Batch) -> list[Tensor]:
    return [*batch.x.values(), *batch.present.values(), *batch.valid.values(), batch.rows]

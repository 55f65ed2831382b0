"""Training rows as tensors, standardised, and as kernel components where there is a kernel.

They are held in memory where they fit, else read from the map as asked for. Where several processes train, a batch
holds one process's rows of the global batch and gathers what the others hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hscmae.data.pairs import BoolArray, FloatArray, Pairs
from hscmae.data.pooling import How, pool_steps
from hscmae.data.scaling import Standardizer
from hscmae.linear.kernel import KernelMap
from hscmae.prefetch import prefetch
from hscmae.training import distributed

IN_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of standardised features, or of kernel components.

    Attributes:
        x: modality -> features, shape (n, d_m), float32; zero where the modality is missing. Sequences have shape
            (n, t, d_m) and are zero in the steps that are not valid.
        present: modality -> rows that have it, shape (n,), bool.
        rows: positions among the training rows, shape (n,), int64.
        valid: modality -> valid steps, shape (n, t), bool, for sequences alone.
        share: which rows of the global batch these are; ``None`` where they are all of it.
        whole: ``present`` and ``rows`` of the whole global batch, where there is a share.
        complete: known to have every modality in every row, so that ``present`` need not be looked at.
        weight: the chance of each pair that it is right, shape (n,), float32; ``None`` where none is doubted.
    """

    x: dict[str, Tensor]
    present: dict[str, Tensor]
    rows: Tensor
    valid: dict[str, Tensor] = field(default_factory=dict)
    share: distributed.Share | None = None
    whole: tuple[Mapping[str, Tensor], Tensor] | None = None
    complete: bool = False
    weight: Tensor | None = None

    @property
    def own(self) -> slice:
        """The places of these rows in the global batch."""
        return slice(0, len(self.rows)) if self.share is None else self.share.rows

    def gather(self, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Tensors (n, ...) by name, all of one type, with the rows of the whole global batch; differentiable."""
        return own if self.share is None else distributed.gather(own, self.share)

    def everywhere(self) -> tuple[Mapping[str, Tensor], Tensor]:
        """``present`` and ``rows`` of the whole global batch."""
        return self.whole or (self.present, self.rows)

    def total(self, own: Tensor) -> Tensor:
        """What is summed over this batch's rows, summed over the whole global batch.

        Differentiable, as long as all that follows is the same in every process.
        """
        return own if self.share is None else distributed.total(own)


class Features:
    """The chosen rows of ``pairs``, standardised, and mapped to kernel components where ``views`` are given.

    Args:
        pairs: paired features; never its labels.
        rows: which rows, shape (n,); position i of this object is row ``rows[i]`` of ``pairs``.
        scalers: modality -> standardiser fitted on the fit part.
        device: where batches are put.
        views: modality -> kernel map on standardised vectors, for every modality or for none.
        chance: of each pair of ``pairs`` that it is right, shape (len(pairs),); ``None`` where none is doubted.
    """

    def __init__(
        self,
        pairs: Pairs,
        rows: np.ndarray,
        scalers: Mapping[str, Standardizer],
        device: torch.device,
        views: Mapping[str, KernelMap] | None = None,
        chance: FloatArray | None = None,
    ) -> None:
        self.pairs, self.rows, self.scalers, self.device = pairs, rows, scalers, device
        self.views = {m: view.to(device) for m, view in (views or {}).items()}
        self.chance = chance
        self.weight = None if chance is None else torch.from_numpy(chance[rows].astype(np.float32)).to(device)
        self.present = {m: torch.from_numpy(pairs.present[m][rows]).to(device) for m in pairs.modalities}
        self.complete = all(bool(rows_present.all()) for rows_present in self.present.values())
        self.valid = {
            m: torch.from_numpy(np.arange(pairs.features[m].shape[1]) < lengths[rows][:, None]).to(device)
            for m, lengths in pairs.lengths.items()
        }
        self.columns = {m: np.asarray(x) for m, x in pairs.features.items()}  # quicker to index than a map itself
        width = {m: int(np.prod(x.shape[1:])) for m, x in pairs.features.items()}
        width |= {m: view.basis.shape[1] for m, view in self.views.items()}
        size = 4 * len(rows) * sum(width.values())
        self.resident = {m: self._read(m, rows) for m in pairs.modalities} if size <= IN_MEMORY_BYTES else None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def home(self) -> torch.device:
        """Where positions are best given: beside the rows."""
        return torch.device("cpu") if self.resident is None else self.device

    @property
    def complete_share(self) -> float:
        """Share of the rows that have every modality; not 0, since a fit needs complete pairs."""
        return float(torch.stack(list(self.present.values())).all(0).double().mean())

    def through(self, views: Mapping[str, KernelMap]) -> Features:
        """The same rows, mapped to kernel components."""
        return Features(self.pairs, self.rows, self.scalers, self.device, views, self.chance)

    def _read(self, modality: str, rows: np.ndarray) -> Tensor:
        values = self.scalers[modality].apply(self.columns[modality][rows])
        if modality in self.pairs.lengths:
            values[np.arange(values.shape[1]) >= self.pairs.lengths[modality][rows][:, None]] = 0
        missing = ~self.pairs.present[modality][rows]
        values[missing] = 0
        x = torch.from_numpy(values).to(self.device)
        if modality not in self.views:
            return x
        return self.views[modality](x).masked_fill_(torch.from_numpy(missing).to(self.device)[:, None], 0.0)

    def batch(self, positions: Tensor) -> Batch:
        """The rows at the given positions, shape (n,)."""
        positions = positions.to(self.device)
        if self.resident is not None:
            x = {m: values.index_select(0, positions) for m, values in self.resident.items()}
        else:
            rows = self.rows[positions.cpu().numpy()]
            x = {m: self._read(m, rows) for m in self.pairs.modalities}
        present, valid = ({m: v[positions] for m, v in part.items()} for part in (self.present, self.valid))
        weight = None if self.weight is None else self.weight[positions]
        return Batch(x, present, positions, valid, complete=self.complete, weight=weight)

    def shared(self, positions: Tensor) -> Batch:
        """This process's rows of the global batch at the given positions, shape (n,)."""
        share = distributed.Share.of(len(positions))
        if share is None:
            return self.batch(positions)
        # Every process knows which rows the others have, and what they lack: that need not be exchanged.
        positions = positions.to(self.device)
        whole = {m: present[positions] for m, present in self.present.items()}, positions
        return replace(self.batch(positions[share.rows]), share=share, whole=whole)

    def blocks(self, size: int = 4096, *, shared: bool = False) -> Iterator[Batch]:
        """All rows in order, in blocks, or this process's share of each block."""
        for start in range(0, len(self), size):
            positions = torch.arange(start, min(start + size, len(self)))
            yield self.shared(positions) if shared else self.batch(positions)

    def batches(self, positions: Iterator[Tensor]) -> Iterator[Batch]:
        """This process's share of the batch at each item of ``positions``; read ahead where rows are not resident."""
        batches = (self.shared(chosen) for chosen in positions)
        return batches if self.resident is not None else _ahead(batches)

    def sample(self, limit: int, source: torch.Generator) -> Batch:
        """All rows, or ``limit`` of them drawn without replacement, ascending."""
        if len(self) <= limit:
            return self.batch(torch.arange(len(self)))
        return self.batch(torch.randperm(len(self), generator=source)[:limit].sort().values)


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """``prefetch`` on one of torch's threads: with a second team of them the training step's would not spin at all."""
    threads = torch.get_num_threads()

    def alone() -> Iterator[Batch]:
        torch.set_num_threads(1)
        yield from batches

    try:
        with closing(prefetch(alone())) as ahead:
            yield from ahead
    finally:
        torch.set_num_threads(threads)  # threads that begin later take over what was set last anywhere


def row_blocks(
    pairs: Pairs, rows: npt.NDArray[np.intp], how: How, size: int = 4096
) -> Iterator[tuple[dict[str, FloatArray], dict[str, BoolArray]]]:
    """Features by modality, sequences pooled, and who has them, of the given rows block by block; each is read once."""

    def blocks() -> Iterator[tuple[dict[str, FloatArray], dict[str, BoolArray]]]:
        for start in range(0, len(rows), size):
            here = rows[start : start + size]
            x = {m: np.asarray(column)[here] for m, column in pairs.features.items()}
            x |= {m: pool_steps(x[m], lengths[here], how) for m, lengths in pairs.lengths.items()}
            yield x, {m: present[here] for m, present in pairs.present.items()}

    return prefetch(blocks())

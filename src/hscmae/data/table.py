"""``Table``: a feature file that is opened but not yet read.

Every reader turns its format into a ``Table``: the small columns (ids, labels, split) in memory, the features as
arrays that read rows on demand. Reading whole files, streaming blocks and inspecting all start from it. What is wrong
with a file is told to a ``Report``: ``refuse`` raises at once, the inspector collects and goes on.
"""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import BoolArray, FloatArray, IntArray, Labels, Pairs, split_rows
from hscmae.errors import InputError, describe_rows

BLOCK_ROWS = 4096
BLOCK_BYTES = 64 * 2**20  # what one block may take of the raw file, whatever its rows

log = logging.getLogger(__name__)


# What libraries raise on damaged files. Their words help nobody who did not write the library, so the file is named.
_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, IndexError, EOFError, RuntimeError, OverflowError,
    SyntaxError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn whatever a library raises on reading a damaged file into one ``InputError`` line naming the file."""
    try:
        yield
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"{path}: permission denied") from error
    except MemoryError as error:
        raise InputError(
            f"{path}: does not fit in memory; `hscmae convert` makes a store of it, which need not"
        ) from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: damaged or cut short ({reason})") from error


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a feature file.

    Attributes:
        code: a fixed word for programs. Of the file: unreadable, damaged, truncated, checksum, external-link,
            oversized. Of datasets: missing-dataset, wrong-rank, wrong-type, row-count, dimensions, length-range,
            no-rows, group. Of columns: empty-ids, duplicate-ids, label-range, label-indptr, split-values, order-range,
            order-overlap, order-missing. Of features: not-finite, overflow, constant-columns, zero-rows, silent-rows,
            duplicate-rows, duplicates-across-splits.
        dataset: the dataset it is in, or "" for the file as a whole.
        message: what is wrong, in words.
        rows: the rows concerned, all of them, or empty.
    """

    code: str
    dataset: str
    message: str
    rows: tuple[int, ...] = ()

    @property
    def is_fault(self) -> bool:
        """Whether the file cannot be used as it is, rather than something to know of it."""
        return self.code not in REMARKS

    def line(self, source: str) -> str:
        """One line naming file, dataset and rows."""
        where = ": ".join(part for part in (source, self.dataset, self.message) if part)
        return where + (f" in {describe_rows(self.rows)}" if self.rows else "")


# What a person should know of but reading and training live with; every other code is a fault.
REMARKS = ("group", "constant-columns", "zero-rows", "silent-rows", "duplicate-rows", "duplicates-across-splits")

Report = Callable[[str, Problem], None]


def refuse(source: str, problem: Problem) -> None:
    """The ``Report`` of every reading verb: the first fault ends the reading.

    Raises:
        InputError: unless the problem is a remark.
    """
    if problem.is_fault:
        raise InputError(problem.line(source))


class RowArray(Protocol):
    """An array of which runs of rows can be read: NumPy, memory-mapped, HDF5 or computed on the way."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]: ...


class Stacked:
    """Several row arrays one after the other, as one."""

    def __init__(self, parts: Sequence[RowArray]) -> None:
        self.parts = parts
        self.starts = np.concatenate([[0], np.cumsum([part.shape[0] for part in parts])])
        self.shape = (int(self.starts[-1]), *parts[0].shape[1:])
        self.dtype: np.dtype[Any] = np.result_type(*(part.dtype for part in parts))

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        pieces = [
            part[max(start - first, 0) : stop - first]
            for part, first, last in zip(self.parts, self.starts[:-1], self.starts[1:], strict=True)
            if start < last and stop > first
        ]
        return np.concatenate([np.empty((0, *self.shape[1:]), self.dtype), *pieces]).astype(self.dtype, copy=False)


@dataclass
class Table:
    """An opened feature file; a context manager that closes it.

    Attributes:
        source: the file's path, for messages.
        format: the layout's name, for ``inspect``.
        features: modality name -> row array of shape (n, d) or (n, t, d).
        ids: identifiers as bytes, shape (n,), or ``None`` where the file has none.
        made_up_ids: they are row numbers of the file that a store was made of; see ``has_ids``.
        present, labels, split, lengths: as in ``Pairs``.
        origin: what the file says of where it comes from: source, licence, citation.
        raw_row_bytes: bytes read from the file for one row, where that is more than the row's own.
        resources: what to close at the end.
    """

    source: str
    format: str
    features: dict[str, RowArray]
    ids: npt.NDArray[np.bytes_] | None = None
    made_up_ids: bool = False
    present: dict[str, BoolArray] = field(default_factory=dict)
    labels: Labels | None = None
    split: npt.NDArray[np.bytes_] | None = None
    lengths: dict[str, IntArray] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    raw_row_bytes: int = 0
    resources: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *exc: object) -> None:
        self.resources.close()

    def __len__(self) -> int:
        return int(next(iter(self.features.values())).shape[0])

    @property
    def has_ids(self) -> bool:
        """Whether the file has ids of its own, which name the same clips in another file."""
        return self.ids is not None and not self.made_up_ids

    def select(self, modalities: Sequence[str]) -> None:
        """Keep these modalities alone, in this order.

        Raises:
            InputError: one that the file lacks, or one named twice.
        """
        if len(set(modalities)) < len(modalities):
            raise InputError(f"{self.source}: a modality is named twice: {', '.join(modalities)}")
        for m in modalities:
            if m not in self.features:
                raise InputError(f"{self.source}: has no {m}; it has {', '.join(self.features) or 'nothing'}")
        for column in (self.features, self.present, self.lengths):
            kept = {m: column[m] for m in modalities if m in column}
            column.clear()
            column.update(kept)  # type: ignore[arg-type]

    def block_rows(self, rows: int = BLOCK_ROWS) -> int:
        """``rows``, or fewer where so many would take more than ``BLOCK_BYTES``."""
        row_bytes = sum(int(np.prod(x.shape[1:], dtype=np.int64)) * x.dtype.itemsize for x in self.features.values())
        return max(1, min(rows, BLOCK_BYTES // max(1, row_bytes, self.raw_row_bytes)))

    def features_of(self, modality: str, start: int, stop: int) -> FloatArray:
        """Rows ``start`` to ``stop`` of one modality, in the byte order of this machine.

        Raises:
            InputError: the file is damaged there.
        """
        with damage_named(Path(self.source)):
            rows = np.asarray(self.features[modality][start:stop])
            return rows.astype(rows.dtype.newbyteorder("="), copy=False)

    def block(self, start: int, stop: int) -> Pairs:
        """Rows ``start`` to ``stop`` as ``Pairs``, unchecked.

        Raises:
            InputError: the file is damaged there.
        """
        rows = slice(start, stop)
        stop = min(stop, len(self))
        ids = np.array([str(row).encode() for row in range(start, stop)], dtype=f"S{len(str(max(len(self) - 1, 0)))}")
        return Pairs(
            features={m: self.features_of(m, start, stop) for m in self.features},
            ids=ids if self.ids is None else self.ids[rows],
            present={m: self.present[m][rows] for m in self.features if m in self.present},
            labels=None if self.labels is None else self.labels.take(np.arange(start, stop)),
            split=None if self.split is None else self.split[rows],
            lengths={m: self.lengths[m][rows] for m in self.features if m in self.lengths},
            source=self.source,
            has_ids=self.has_ids,
        )

    def blocks(
        self,
        rows: int = BLOCK_ROWS,
        *,
        start: int = 0,
        stop: int | None = None,
        drop_bad_rows: bool = False,
        split: str = "all",
    ) -> Iterator[tuple[int, Pairs]]:
        """Checked blocks from row ``start`` on, each with the first file row after it.

        Args:
            rows: rows of the file a block, at most.
            start: first row.
            stop: row after the last; all where not given.
            drop_bad_rows: leave out bad rows, and say so in a warning, instead of refusing the file.
            split: give the rows of "train", "val" or "test" alone; a block may then be empty.

        Raises:
            InputError: NaN or infinite features, or ids seen before, and ``drop_bad_rows`` is not set; no such split.
        """
        wanted = np.ones(len(self), dtype=bool)
        if split != "all":
            wanted[:] = False
            wanted[split_rows(self.split, split, self.source)] = True
        repeated = repeated_rows(self.ids)
        if len(repeated) and not drop_bad_rows:
            refuse(self.source, duplicate_ids(self.ids, repeated))
        end = len(self) if stop is None else stop
        for first in range(start, end, step := self.block_rows(rows)):
            block = self.block(first, min(first + step, end))
            bad = np.zeros(len(block), dtype=bool)
            chosen = wanted[first : first + len(block)]
            bad[repeated[(repeated >= first) & (repeated < first + len(block))] - first] = True
            for modality, x in block.features.items():
                not_finite = non_finite_rows(x, block.present[modality], block.lengths.get(modality))
                if len(not_finite) and not drop_bad_rows:
                    refuse(
                        self.source,
                        Problem("not-finite", modality, "NaN or infinite values", tuple(not_finite + first)),
                    )
                bad[not_finite] = True
            if bad.any():
                log.warning("%s: left out %s", self.source, describe_rows((np.flatnonzero(bad) + first).tolist()))
            if bad.any() or not chosen.all():
                block = block.take(np.flatnonzero(~bad & chosen))
            yield first + len(bad), block

    def read(self, *, drop_bad_rows: bool = False) -> Pairs:
        """All rows in memory; see ``blocks``.

        Raises:
            InputError: as ``blocks``; or there are no rows (left).
        """
        whole: dict[str, FloatArray] = {}
        columns: list[Pairs] = []  # everything but the features, so that these are in memory once, not twice
        rows = 0
        for _, block in self.blocks(drop_bad_rows=drop_bad_rows):
            for m, x in block.features.items():
                with damage_named(Path(self.source)):
                    filled = whole.setdefault(m, np.empty((len(self), *x.shape[1:]), x.dtype))
                filled[rows : rows + len(block)] = x
            columns.append(block.without_features())
            rows += len(block)
        if not rows:
            raise InputError(f"{self.source}: no rows" + (" left after leaving out the bad ones" if len(self) else ""))
        return replace(concatenate(columns), features={m: x[:rows] for m, x in whole.items()})


def without_bad_rows(pairs: Pairs) -> Pairs:
    """The rows whose values are finite and whose id no earlier row has, in memory; ``pairs`` itself if those are all.

    Which are left out is said in a warning.

    Raises:
        InputError: none are left.
    """
    bad = np.zeros(len(pairs), dtype=bool)
    bad[repeated_rows(pairs.ids)] = True
    for m, x in pairs.features.items():
        for start in range(0, len(x), BLOCK_ROWS):
            here = slice(start, start + BLOCK_ROWS)
            lengths = pairs.lengths[m][here] if m in pairs.lengths else None
            bad[non_finite_rows(np.asarray(x[here]), pairs.present[m][here], lengths) + start] = True
    if not bad.any():
        return pairs
    if bad.all():
        raise InputError(f"{pairs.source}: no rows left after leaving out the bad ones")
    log.warning("%s: left out %s", pairs.source, describe_rows(np.flatnonzero(bad).tolist()))
    return pairs.take(np.flatnonzero(~bad))


def concatenate(blocks: Sequence[Pairs]) -> Pairs:
    """The rows of several ``Pairs`` of the same modalities as one; class names are the longest list's."""
    first = blocks[0]
    if len(blocks) == 1:
        return first
    return replace(
        first,
        features={m: np.concatenate([b.features[m] for b in blocks]) for m in first.features},
        ids=np.concatenate([b.ids for b in blocks]),
        present={m: np.concatenate([b.present[m] for b in blocks]) for m in first.present},
        labels=None if first.labels is None else stack_labels([b.labels for b in blocks if b.labels is not None]),
        split=None if first.split is None else np.concatenate([b.split for b in blocks if b.split is not None]),
        lengths={m: np.concatenate([b.lengths[m] for b in blocks]) for m in first.lengths},
        has_ids=all(b.has_ids for b in blocks),
    )


def stack_labels(parts: Sequence[Labels]) -> Labels:
    """Labels of several runs of rows as one."""
    ends = np.cumsum([0, *(part.indptr[-1] for part in parts)])
    indptr = [part.indptr[1:] + end for part, end in zip(parts, ends, strict=False)]
    return Labels(
        np.concatenate([part.indices for part in parts]).astype(np.int64),
        np.concatenate([[0], *indptr]).astype(np.int64),
        max((part.names for part in parts), key=len),
    )


def non_finite_rows(x: FloatArray, present: BoolArray, lengths: IntArray | None = None) -> npt.NDArray[np.intp]:
    """Rows that have the modality and hold a NaN or an infinity, in a sequence's first ``lengths`` steps."""
    suspects = np.flatnonzero(_may_be_non_finite(x) & present)
    bad = ~np.isfinite(x[suspects])
    if lengths is not None:
        bad &= (np.arange(x.shape[1]) < lengths[suspects, None])[:, :, None]
    return suspects[bad.any(axis=tuple(range(1, x.ndim)))]


def _may_be_non_finite(x: FloatArray) -> BoolArray:
    """Whether a row's sum is NaN or infinite, as it is if one of its values is; four times as fast as ``isfinite``."""
    flat = x.reshape(len(x), int(np.prod(x.shape[1:])))
    if x.dtype == np.float16:  # of which NumPy adds up none quickly: the exponent is all ones
        exponents = np.ascontiguousarray(flat).view(np.uint16) & 0x7C00
        suspect: BoolArray = exponents.max(axis=1, initial=0) == 0x7C00
        return suspect
    with np.errstate(all="ignore"):
        # Not a product with ones: the threads of NumPy's BLAS would go on spinning beside torch's.
        suspect = ~np.isfinite(flat.sum(axis=1))
    return suspect


def repeated_rows(ids: npt.NDArray[np.bytes_] | None) -> npt.NDArray[np.intp]:
    """Rows whose id an earlier row has already, ascending."""
    if ids is None:
        return np.empty(0, dtype=np.intp)
    _, first = np.unique(ids, return_index=True)
    return np.setdiff1d(np.arange(len(ids)), first, assume_unique=True)


def duplicate_ids(ids: npt.NDArray[np.bytes_] | None, repeated: npt.NDArray[np.intp]) -> Problem:
    """The problem that ``repeated_rows`` found."""
    example = "" if ids is None else ids[repeated[0]].decode("utf-8", "replace")
    return Problem("duplicate-ids", "ids", f"ids seen before (first {example!r})", tuple(repeated))

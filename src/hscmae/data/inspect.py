"""What is in a feature file, and everything wrong with it, in one pass over its blocks.

Nothing stops at the first problem, and memory is bounded by the block, whatever the file's size. ``against`` compares
with another file of the same clips (see ``compare``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data import readers, splits, store
from hscmae.data.compare import compare
from hscmae.data.pairs import SILENT_MIN_ROWS, SPLITS, BoolArray, IntArray, row_keys
from hscmae.data.table import Problem, RowArray, Table, duplicate_ids, non_finite_rows, repeated_rows
from hscmae.errors import InputError

RANK_SAMPLE = 1024  # rows that the effective rank is estimated from
ROWS_SHOWN = 1000  # rows of one problem in the JSON form
DROPPED = ("not-finite", "duplicate-ids")  # what ``drop_bad_rows`` leaves out


@dataclass
class Inspection:
    """What ``inspect_file`` found.

    Attributes:
        path: the file.
        format: its container and layout.
        rows: number of clips.
        modalities: modality name -> statistics (see ``_scan``).
        splits: split name -> rows; empty where the file has none.
        labels: ``None``, or ``n_classes``, ``multi_label``, ``unlabelled_rows`` and ``counts`` by class name.
        problems: everything wrong, faults and remarks alike.
        against: ``None``, or what ``compare`` found.
        dropping: whether rows that ``--drop-bad-rows`` leaves out are no fault.
    """

    path: str
    format: str = ""
    rows: int = 0
    modalities: dict[str, dict[str, Any]] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    labels: dict[str, Any] | None = None
    problems: list[Problem] = field(default_factory=list)
    against: dict[str, Any] | None = None
    dropping: bool = False

    @property
    def faults(self) -> list[Problem]:
        """The problems for which reading and training refuse the file; silent or repeated vectors are none."""
        return [p for p in self.problems if p.is_fault and not (self.dropping and p.code in DROPPED)]

    @property
    def ok(self) -> bool:
        """Whether the file is usable as it is."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """The form that ``inspect --json`` prints; long lists of rows are cut, ``n_rows`` says how long they are."""
        problems = [
            {
                "code": p.code,
                "dataset": p.dataset,
                "rows": [int(row) for row in p.rows[:ROWS_SHOWN]],
                "n_rows": len(p.rows),
                "message": p.message,
                "fault": p in self.faults,
            }
            for p in self.problems
        ]
        found = {name: getattr(self, name) for name in ("path", "format", "rows", "modalities", "splits", "labels")}
        return {"ok": self.ok, **found, "problems": problems, "against": self.against}


def inspect_file(
    path: str | PathLike[str],
    against: str | PathLike[str] | None = None,
    *,
    drop_bad_rows: bool = False,
    holdout: str | None = None,
) -> Inspection:
    """Look through a feature file of any supported format.

    A file that cannot be read at all gives an ``Inspection`` with that problem alone.

    Args:
        path: the file or folder.
        against: another file of the same clips, to say how the two differ.
        drop_bad_rows: judge the file by what is left without its bad rows.
        holdout: a split for a file without one, see ``splits.holdout``.

    Raises:
        InputError: no such file, a malformed ``holdout``; or ``against`` cannot be read.
    """
    path = Path(path)
    readers.require_file(path)
    result = Inspection(str(path), dropping=drop_bad_rows)

    def report(source: str, problem: Problem) -> None:
        result.problems.append(problem)

    try:
        table = (
            store.open_table(path, report, verify=True) if store.is_store(path) else readers.open_table(path, report)
        )
    except InputError as error:
        if not result.problems:
            result.problems.append(Problem("unreadable", "", str(error).removeprefix(f"{path}: ")))
        return result
    with table:
        if holdout is not None and table.features:
            splits.apply_holdout(table, holdout)
        _look_through(table, result)
        if against is not None and table.features:
            with readers.open_table(against) as other:
                result.against = compare(table, other)
    return result


def _look_through(table: Table, result: Inspection) -> None:
    result.format = table.format
    result.rows = max((int(x.shape[0]) for x in table.features.values()), default=0)
    n = result.rows
    split = table.split if table.split is not None and len(table.split) == n else None
    if split is not None:
        result.splits = {s: count for s in SPLITS if (count := int((split == s.encode()).sum()))}
    repeated = repeated_rows(table.ids)
    if len(repeated):
        result.problems.append(duplicate_ids(table.ids, repeated))
    if not n:
        result.problems.append(Problem("no-rows", "", "no rows"))
    for m, x in table.features.items():
        present = table.present.get(m, np.ones(x.shape[0], dtype=bool))
        lengths = table.lengths.get(m)
        try:
            result.modalities[m] = _scan(table, m, x, present, lengths, split, result.problems)
        except InputError as error:
            result.problems.append(Problem("truncated", m, str(error).removeprefix(f"{table.source}: ")))
    if table.labels is not None:
        labels = table.labels
        per_row = np.diff(labels.indptr)
        counts = np.bincount(labels.indices, minlength=len(labels.names))
        result.labels = {
            "n_classes": len(labels.names),
            "multi_label": not labels.is_single,
            "unlabelled_rows": int((per_row == 0).sum()),
            "counts": dict(zip(labels.names, counts.tolist(), strict=True)),
        }


def _scan(
    table: Table,
    m: str,
    x: RowArray,
    present: BoolArray,
    lengths: IntArray | None,
    split: npt.NDArray[np.bytes_] | None,
    problems: list[Problem],
) -> dict[str, Any]:
    """Statistics of one modality; appends what is wrong with it.

    Norms are of rows (of steps, for sequences); ``sparsity`` is the share of zeros; ``effective_rank`` is of
    ``RANK_SAMPLE`` rows spread evenly.
    """
    n, d = int(x.shape[0]), int(x.shape[-1])
    if len(present) != n or (lengths is not None and len(lengths) != n):
        present, lengths = np.ones(n, dtype=bool), None  # the row counts that differ are reported already
    keys = np.zeros(n, dtype=np.int64)
    not_finite: list[int] = []
    zero_rows: list[int] = []
    lowest, highest = np.full(d, np.inf), np.full(d, -np.inf)
    zeros = values = 0
    norms: list[npt.NDArray[np.float64]] = []
    sampled = set(np.linspace(0, n - 1, min(n, RANK_SAMPLE)).astype(int).tolist()) if n else set()
    sample: list[npt.NDArray[np.float64]] = []
    step = table.block_rows()
    for start in range(0, n, step):
        block = np.ascontiguousarray(table.features_of(m, start, start + step))
        here = present[start : start + len(block)]
        bad = non_finite_rows(block, here, None if lengths is None else lengths[start : start + len(block)])
        not_finite += (bad + start).tolist()
        keys[start : start + len(block)] = row_keys(block)
        good = here.copy()
        good[bad] = False
        rows = block[good]
        if lengths is not None:
            rows = rows[np.arange(block.shape[1]) < lengths[start : start + len(block)][good, None]]
        else:
            zero_rows += (np.flatnonzero(good)[~rows.any(axis=tuple(range(1, rows.ndim)))] + start).tolist()
        rows = rows.reshape(-1, d).astype(np.float64)
        if len(rows):
            lowest, highest = np.minimum(lowest, rows.min(axis=0)), np.maximum(highest, rows.max(axis=0))
            zeros += int((rows == 0).sum())
            values += rows.size
            largest = np.abs(rows).max(axis=1, keepdims=True)  # so that squares of float64 features cannot overflow
            largest[largest == 0] = 1
            norms.append(np.sqrt(((rows / largest) ** 2).sum(axis=1)) * largest[:, 0])
        sample += [
            _one_row(block[row], None if lengths is None else int(lengths[start + row]))
            for row in range(len(block))
            if start + row in sampled and good[row]
        ]

    def add(code: str, message: str, rows: list[int]) -> None:
        if rows:
            problems.append(Problem(code, m, message, tuple(rows)))

    add("not-finite", "NaN or infinite values", not_finite)
    constant = np.flatnonzero(lowest == highest)
    if len(constant) and n > 1:
        shown = ", ".join(map(str, constant[:8])) + (", ..." if len(constant) > 8 else "")
        problems.append(Problem("constant-columns", m, f"{len(constant)} of {d} columns are constant: {shown}"))
    add("zero-rows", "all values are zero", zero_rows)
    silent, twice, across = _shared_vectors(keys, present, split)
    add("silent-rows", f"vectors shared by {SILENT_MIN_ROWS} rows or more (silence, black frames)", silent)
    add("duplicate-rows", "vectors that another row has too", twice)
    add("duplicates-across-splits", "vectors that a row of another split has too", across)
    all_norms = np.concatenate(norms) if norms else np.zeros(1)
    statistics: dict[str, Any] = {
        "rows": n,
        "dim": d,
        "dtype": str(x.dtype),
        "missing_rows": int((~present).sum()),
        "norm": {"min": float(all_norms.min()), "mean": float(all_norms.mean()), "max": float(all_norms.max())},
        "range": [float(lowest.min()), float(highest.max())] if values else None,
        "sparsity": zeros / values if values else 0.0,
        "constant_columns": len(constant),
        "not_finite_rows": len(not_finite),
        "silent_rows": len(silent),
        "duplicate_rows": len(twice),
        "duplicates_across_splits": len(across),
        "effective_rank": _effective_rank(np.stack(sample)) if len(sample) > 1 else 0.0,
    }
    if len(x.shape) == 3:
        steps = np.full(n, x.shape[1]) if lengths is None else lengths
        statistics["steps"] = {"min": int(steps.min(initial=x.shape[1])), "max": int(steps.max(initial=0))}
    return statistics


def _one_row(row: npt.NDArray[Any], steps: int | None) -> npt.NDArray[np.float64]:
    """A clip's vector, or the mean of its valid steps."""
    if row.ndim == 1:
        return row.astype(np.float64)
    mean: npt.NDArray[np.float64] = (
        row[: max(1, row.shape[0] if steps is None else steps)].astype(np.float64).mean(axis=0)
    )
    return mean


def _effective_rank(rows: npt.NDArray[np.float64]) -> float:
    """``evaluation.effective_rank`` (Roy and Vetterli, 2007) from the smaller Gram matrix, without importing torch."""
    largest = float(np.abs(rows).max())
    centred = rows / (largest or 1.0)
    centred -= centred.mean(axis=0)
    gram = centred @ centred.T if len(rows) < rows.shape[1] else centred.T @ centred
    eigenvalues = np.linalg.eigvalsh(gram)
    singular = np.sqrt(eigenvalues[eigenvalues > 1e-12 * eigenvalues[-1]])
    share = singular / singular.sum() if len(singular) else np.ones(1)
    return float(np.exp(-(share * np.log(share)).sum())) if eigenvalues[-1] > 1e-24 else 0.0


def _shared_vectors(
    keys: IntArray, present: BoolArray, split: npt.NDArray[np.bytes_] | None
) -> tuple[list[int], list[int], list[int]]:
    """Rows whose vector is silent, is that of a few other rows, or (of these) is in another split too."""
    rows = np.flatnonzero(present)
    _, group, counts = np.unique(keys[rows], return_inverse=True, return_counts=True)
    silent = rows[counts[group] >= SILENT_MIN_ROWS]
    few = (counts[group] > 1) & (counts[group] < SILENT_MIN_ROWS)
    across: list[int] = []
    if split is not None and len(split) == len(keys):
        splits_of_group = Counter(
            group_number for group_number, _ in set(zip(group[few], split[rows[few]], strict=True))
        )
        across = [int(row) for row, g in zip(rows[few], group[few], strict=True) if splits_of_group[g] > 1]
    return silent.tolist(), rows[few].tolist(), across

"""Parquet files (extra ``parquet``): every column of lists of floats is a modality, null where a clip lacks it.

Beside them ``ids`` (or ``id``), ``labels`` (or ``label``: a name or number, or a list of them) and ``split`` are read;
other columns are left alone. Rows are decoded as they are asked for, so that a file may be larger than memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.parquet import CLASS_NAMES
from hscmae.data.readers import layouts
from hscmae.data.table import Problem, Report, RowArray, Table
from hscmae.errors import InputError, first_line
from hscmae.extras import require
from hscmae.files import first_bytes

MAGIC = b"PAR1"
BATCH_ROWS = 4096
COLUMNS = ("ids", "id", "labels", "label", "split")


def matches(path: Path) -> bool:
    """Whether the file begins as Parquet does."""
    return first_bytes(path, len(MAGIC)) == MAGIC


def open_table(path: Path, report: Report) -> Table:
    """Open the file; lengths and gaps of every list are looked at in one pass.

    Raises:
        InputError: damaged, or the extra ``parquet`` is not installed; else as ``report`` decides.
    """
    with ExitStack() as stack, _named(path):
        file = stack.enter_context(_open(path))
        types = {field.name: field.type for field in file.schema_arrow}
        arrays: dict[str, RowArray] = {}
        for name, kind in types.items():
            if name in COLUMNS or not _is_list(kind):
                continue
            column = _vectors(path, file, name, report)
            if column is not None:
                arrays[name] = column
                if not column.present.all():
                    arrays[f"{name}_present"] = column.present
        for name in COLUMNS:
            if name in types:
                arrays |= _column(file, name, types[name])
        result = layouts.table(arrays, str(path), "parquet", report)
        result.resources = stack.pop_all()
        return result


class Vectors:
    """A column of lists of d floats as a row array; read anew only for rows before those read last."""

    def __init__(self, path: Path, name: str, present: npt.NDArray[np.bool_], dim: int, dtype: np.dtype[Any]) -> None:
        self.path, self.name, self.present = path, name, present
        self.shape, self.dtype = (len(present), dim), dtype
        self._batches: Iterator[Any] = iter(())
        self._first, self._held = len(present) + 1, np.empty((0, dim), dtype)

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        if start < self._first:
            self._batches, self._first = _batches(self.path, self.name), 0
            self._held = np.empty((0, self.shape[1]), self.dtype)
        while self._first + len(self._held) < stop:
            behind = max(start - self._first, 0)
            kept = self._held[behind:]
            self._first += len(self._held) - len(kept)
            self._held = np.concatenate([kept, self._rows(next(self._batches))])
        return self._held[start - self._first : stop - self._first].copy()

    def _rows(self, batch: Any) -> npt.NDArray[Any]:
        rows = np.zeros((len(batch), self.shape[1]), self.dtype)
        rows[~np.asarray(batch.is_null())] = batch.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.shape[1])
        return rows


def _vectors(path: Path, file: Any, name: str, report: Report) -> Vectors | None:
    """A column as vectors, or ``None`` where it is none: other lists are not features."""
    kind = file.schema_arrow.field(name).type.value_type.to_pandas_dtype()
    if np.dtype(kind).kind != "f":
        return None
    lengths, gaps, rows = [], [], 0
    for batch in (b.column(0) for b in file.iter_batches(BATCH_ROWS, columns=[name])):
        known = ~np.asarray(batch.is_null())
        sizes = np.full(len(batch), -1)
        sizes[known] = np.asarray(batch.value_lengths())[known].astype(np.int64)
        lengths.append(sizes)
        if batch.flatten().null_count:
            owners = np.repeat(np.arange(rows, rows + len(batch))[known], sizes[known])
            gaps += np.unique(owners[np.asarray(batch.flatten().is_null())]).tolist()
        rows += len(batch)
    sizes = np.concatenate(lengths or [np.empty(0, np.int64)])
    present = sizes >= 0
    dims, counts = np.unique(sizes[present], return_counts=True)
    if not len(dims) or dims.max() == 0:
        report(str(path), Problem("missing-dataset", name, "no row holds a vector"))
        return None
    dim = int(dims[counts.argmax()])
    odd = np.flatnonzero(present & (sizes != dim))
    if len(odd):
        message = f"most rows hold {dim} values, not {int(sizes[odd[0]])}"
        report(str(path), Problem("dimensions", name, message, tuple(odd)))
        return None
    if gaps:
        report(str(path), Problem("not-finite", name, "values that are null", tuple(gaps)))
        return None
    return Vectors(path, name, present, dim, np.dtype(kind))


def _column(file: Any, name: str, kind: Any) -> dict[str, Any]:
    """``ids``, ``labels`` or ``split`` as the arrays that ``layouts`` knows."""
    column = file.read(columns=[name]).column(0).combine_chunks()
    if not _is_list(kind):
        values = column.to_pylist()
        if name in ("labels", "label") and np.dtype(kind.to_pandas_dtype()).kind in "iu":
            return {name: np.array([-1 if value is None else value for value in values], np.int64)}
        return {name: np.array(["" if value is None else value for value in values])}
    rows = [[value for value in row or [] if value is not None] for row in column.to_pylist()]
    flat = [value for row in rows for value in row]
    indptr = np.cumsum([0, *map(len, rows)])
    names = json.loads((file.schema_arrow.metadata or {}).get(CLASS_NAMES, b"null"))
    if all(isinstance(value, int) for value in flat) and names is None:
        return {"label_indices": np.array(flat, np.int64), "label_indptr": indptr}
    words = [str(value) for value in flat]
    names = [str(one) for one in names] if isinstance(names, list) and set(words) <= set(names) else sorted(set(words))
    number = {one: place for place, one in enumerate(names)}
    return {
        "label_indices": np.array([number[word] for word in words], np.int64),
        "label_indptr": indptr,
        "class_names": np.array([one.encode() for one in names] or [b""], np.bytes_),
    }


def _is_list(kind: Any) -> bool:
    types = require("pyarrow", "parquet").types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _open(path: Path) -> Any:
    return require("pyarrow.parquet", "parquet").ParquetFile(path, page_checksum_verification=True)


def _batches(path: Path, name: str) -> Iterator[Any]:
    with _named(path), _open(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=[name]):
            yield batch.column(0)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let what Arrow raises of a damaged file be one line."""
    try:
        yield
    except require("pyarrow", "parquet").ArrowException as error:
        raise InputError(f"{path}: damaged or cut short ({first_line(error)[:200]})") from error

"""Columns of Arrow's types, whatever container holds them: how lists of floats become the features of a modality.

Every column of lists of floats is a modality, null where a clip lacks it. Beside them ``ids`` (or ``id``), ``labels``
(or ``label``: a name or number, or a list of them) and ``split`` are read; other columns are left alone. Rows are
decoded as they are asked for, so that a file may be larger than memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.parquet import CLASS_NAMES
from hscmae.data.readers import layouts
from hscmae.data.table import Problem, Report, RowArray, Table
from hscmae.errors import InputError, first_line
from hscmae.extras import require

HUGGING_FACE = b"huggingface"  # where its libraries describe columns in a schema's metadata
COLUMNS = ("ids", "id", "labels", "label", "split")

Column = Callable[[str], Iterator[Any]]  # a name -> the column's values, array by array


def table(
    path: Path,
    container: str,
    schema: Any,
    column: Column,
    report: Report,
    beside: Mapping[str, RowArray] | None = None,
) -> Table:
    """A ``Table`` over the columns; lengths and gaps of every list are looked at in one pass.

    Args:
        path: what holds them, for messages.
        container: its name, for ``Table.format``.
        schema: Arrow's.
        column: reads one.
        report: told of everything wrong.
        beside: what the container itself says, by name, where no column does.

    Raises:
        InputError: as ``report`` decides.
    """
    types = {field.name: field.type for field in schema}
    arrays: dict[str, RowArray] = {}
    for name, kind in types.items():
        if name in COLUMNS or not _is_list(kind):
            continue
        vectors = _vectors(path, kind, column, name, report)
        if vectors is not None:
            arrays[name] = vectors
            if not vectors.present.all():
                arrays[f"{name}_present"] = vectors.present
    for name in COLUMNS:
        if name in types:
            arrays |= _plain(schema, column, name)
    return layouts.table({**(beside or {}), **arrays}, str(path), container, report)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let what Arrow raises of a damaged file be one line."""
    try:
        yield
    except require("pyarrow", "parquet").ArrowException as error:
        raise InputError(f"{path}: damaged or cut short ({first_line(error)[:200]})") from error


class Vectors:
    """A column of lists of d floats as a row array; read anew only for rows before those read last."""

    def __init__(
        self, column: Column, name: str, present: npt.NDArray[np.bool_], dim: int, dtype: np.dtype[Any]
    ) -> None:
        self.column, self.name, self.present = column, name, present
        self.shape, self.dtype = (len(present), dim), dtype
        self._batches: Iterator[Any] = iter(())
        self._first, self._held = len(present) + 1, np.empty((0, dim), dtype)

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        if start < self._first:
            self._batches, self._first = self.column(self.name), 0
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


def _vectors(path: Path, of: Any, column: Column, name: str, report: Report) -> Vectors | None:
    """A column as vectors, or ``None`` where it is none: other lists are not features."""
    if not require("pyarrow", "parquet").types.is_floating(of.value_type):
        return None
    kind = of.value_type.to_pandas_dtype()
    lengths, gaps, rows = [], [], 0
    for batch in column(name):
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
    return Vectors(column, name, present, dim, np.dtype(kind))


def _plain(schema: Any, column: Column, name: str) -> dict[str, Any]:
    """``ids``, ``labels`` or ``split`` as the arrays that ``layouts`` knows."""
    kind = schema.field(name).type
    rows = [value for batch in column(name) for value in batch.to_pylist()]
    names = _class_names(schema.metadata or {}, name)
    if not _is_list(kind):
        if name in ("labels", "label") and np.dtype(kind.to_pandas_dtype()).kind in "iu":
            told = {} if names is None else {"class_names": np.array([one.encode() for one in names] or [b""])}
            return {name: np.array([-1 if value is None else value for value in rows], np.int64), **told}
        return {name: np.array(["" if value is None else value for value in rows])}
    rows = [[value for value in row or [] if value is not None] for row in rows]
    flat = [value for row in rows for value in row]
    indptr = np.cumsum([0, *map(len, rows)])
    if all(isinstance(value, int) for value in flat):
        found: dict[str, Any] = {"label_indices": np.array(flat, np.int64), "label_indptr": indptr}
        return found if names is None else found | {"class_names": np.array([one.encode() for one in names] or [b""])}
    words = [str(value) for value in flat]
    names = names if names is not None and set(words) <= set(names) else sorted(set(words))
    number = {one: place for place, one in enumerate(names)}
    return {
        "label_indices": np.array([number[word] for word in words], np.int64),
        "label_indptr": indptr,
        "class_names": np.array([one.encode() for one in names] or [b""], np.bytes_),
    }


def _class_names(metadata: Mapping[bytes, bytes], name: str) -> list[str] | None:
    """Names of the classes in their order, where the metadata say them."""
    try:
        names = json.loads(metadata.get(CLASS_NAMES, b"null"))
        if names is None:
            about = json.loads(metadata.get(HUGGING_FACE, b"{}"))["info"]["features"][name]
            names = about.get("feature", about).get("names")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return [str(one) for one in names] if isinstance(names, list) else None


def _is_list(kind: Any) -> bool:
    types = require("pyarrow", "parquet").types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))

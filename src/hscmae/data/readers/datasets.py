"""Datasets of Hugging Face's library, as ``save_to_disk`` leaves them (extra ``parquet``); see ``columns``.

A folder of Arrow streams, or one such folder a split. Nothing of that library is needed, and nothing in the folder is
run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hscmae.data.readers import columns
from hscmae.data.table import Report, RowArray, Table
from hscmae.errors import InputError
from hscmae.extras import require

STATE, ABOUT, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"


def matches(path: Path) -> bool:
    """Whether the folder says that it holds a dataset, or several by split."""
    return (path / SPLITS).is_file() or ((path / STATE).is_file() and (path / ABOUT).is_file())


def open_table(path: Path, report: Report) -> Table:
    """Open the folder.

    Raises:
        InputError: damaged, of splits that differ in their columns, or the extra ``parquet`` is not installed; else as
            ``report`` decides.
    """
    parts = _files(path)
    files = [file for part in parts.values() for file in part]
    with columns.named(path):
        schema, *others = map(_schema, files)
        for file, other in zip(files[1:], others, strict=True):
            if not other.equals(schema):
                raise InputError(f"{file}: its columns are not those of {files[0]}")
        beside: dict[str, RowArray] = {}
        if list(parts) != [""]:
            beside["split"] = np.repeat(list(parts), [sum(map(_rows, part)) for part in parts.values()])
        return columns.table(path, "Hugging Face dataset", schema, lambda name: _column(files, name), report, beside)


def _files(path: Path) -> dict[str, list[Path]]:
    """The Arrow files by split, in their order; the split is empty where there is none.

    Raises:
        InputError: the folder does not say, or names a file that is not in it.
    """
    if (path / SPLITS).is_file():
        splits = _json(path / SPLITS, "splits")
        return {split: _listed(path / split) for split in splits if _plain(path / SPLITS, split)}
    return {"": _listed(path)}


def _listed(folder: Path) -> list[Path]:
    entries = _json(folder / STATE, "_data_files")
    names: list[Any] = [entry.get("filename") if isinstance(entry, dict) else entry for entry in entries]
    files = [folder / name for name in names if _plain(folder / STATE, name)]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such file, which {STATE} beside it names")
    return files


def _json(file: Path, key: str) -> list[Any]:
    """A list in a file of JSON, with something in it."""
    try:
        values = json.loads(file.read_bytes())[key]
    except (OSError, ValueError, KeyError, TypeError):
        values = None
    if not isinstance(values, list) or not values:
        raise InputError(f"{file}: damaged: no list {key!r}")
    return values


def _plain(where: Path, name: Any) -> bool:
    """True; a name that leads out of the folder is refused."""
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise InputError(f"{where}: names {name!r}, which is no file beside it")
    return True


def _reader(file: Path) -> Any:
    arrow = require("pyarrow", "parquet")
    return arrow.ipc.open_stream(arrow.memory_map(str(file)))


def _schema(file: Path) -> Any:
    with _reader(file) as reader:
        return reader.schema


def _rows(file: Path) -> int:
    with _reader(file) as reader:
        return sum(len(batch) for batch in reader)


def _column(files: list[Path], name: str) -> Iterator[Any]:
    for file in files:
        with columns.named(file), _reader(file) as reader:
            for batch in reader:
                values = batch.column(name)
                values.validate(full=True)  # offsets that lead astray would be followed
                yield values

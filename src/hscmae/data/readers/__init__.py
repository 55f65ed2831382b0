"""Reading feature files: ``read`` the whole, or the ``blocks`` of ``open_table`` in bounded memory.

The format is told by what a file is, not by its name. One module a format, each with ``matches(path)`` and
``open_table(path, report)``; ``READERS`` lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Protocol

from hscmae.data import store
from hscmae.data.pairs import Pairs
from hscmae.data.readers import ave, datasets, hdf5, npy, npz, parquet, tfrecord, webdataset
from hscmae.data.table import Report, Table, damage_named, refuse, without_bad_rows
from hscmae.errors import InputError


class Reader(Protocol):
    """What a format's module has."""

    def matches(self, path: Path) -> bool: ...

    def open_table(self, path: Path, report: Report) -> Table: ...


NAMES = {
    ".h5": "HDF5", ".hdf5": "HDF5", ".npz": "npz", ".npy": "npy", ".parquet": "Parquet", ".tfrecord": "TFRecord",
    ".tar": "WebDataset",
}  # fmt: skip
READERS: tuple[Reader, ...] = (store, ave, datasets, hdf5, npz, parquet, tfrecord, npy, webdataset)
FORMATS = (
    "HDF5, .npz, .npy files, Parquet, a saved Hugging Face dataset, WebDataset shards, YouTube-8M TFRecord, the AVE "
    "release, or a store"
)


def open_table(path: str | PathLike[str], report: Report = refuse) -> Table:
    """Open a feature file of any supported format without reading its features.

    Raises:
        InputError: the file is missing, empty, of no known format or damaged; else as ``report`` decides.
    """
    path = Path(path)
    require_file(path)
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    with damage_named(path):
        for reader in READERS:
            if reader.matches(path):
                return reader.open_table(path, report)
    named = NAMES.get(path.suffix)
    if named and path.is_file():
        raise InputError(f"{path}: not {named}, whatever its name says")
    raise InputError(f"{path}: not a feature file of a known format ({FORMATS})")


def require_file(path: Path) -> None:
    """Refuse what is neither a file nor a folder: reading a pipe would wait for ever.

    Raises:
        InputError: it is not there, a link that leads nowhere, or a pipe, socket or device.
    """
    if not path.exists():
        nowhere = f"is a link to {path.readlink()}, which is not there" if path.is_symlink() else ""
        raise InputError(f"{path}: {nowhere or 'no such file or folder'}")
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: is neither a file nor a folder (a pipe, a socket or a device)")


def is_known(path: str | PathLike[str]) -> bool:
    """Whether the path looks like a feature file of a supported format."""
    return any(reader.matches(Path(path)) for reader in READERS)


def read(path: str | PathLike[str], *, drop_bad_rows: bool = False, modalities: Sequence[str] | None = None) -> Pairs:
    """Read a feature file of any supported format.

    A store stays memory-mapped, unless bad rows are left out of it; everything else is read into memory.

    Args:
        path: the file or folder.
        drop_bad_rows: leave out rows with NaN or infinite values, and rows whose id an earlier row has, instead of
            refusing the file; a warning is logged with their numbers.
        modalities: the ones to read, in this order; all where not given.

    Raises:
        InputError: one line naming file, dataset and rows.
    """
    path = Path(path)
    if store.is_store(path):
        with damage_named(path), store.open_table(path, refuse, verify=None) as table:
            if modalities is not None:
                table.select(modalities)
            pairs = store.mapped(table)
            return without_bad_rows(pairs) if drop_bad_rows else pairs
    with open_table(path) as table:
        if modalities is not None:
            table.select(modalities)
        return table.read(drop_bad_rows=drop_bad_rows)

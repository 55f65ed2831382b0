"""HDF5 files in any of the layouts of ``layouts.py``: datasets at the root, class names as an attribute or dataset."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import h5py

from hscmae.data.readers import layouts
from hscmae.data.table import Problem, Report, RowArray, Table

MAGIC = b"\x89HDF\r\n\x1a\n"


def matches(path: Path) -> bool:
    """Whether the file starts as HDF5 does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_table(path: Path, report: Report) -> Table:
    """Open the file; see ``layouts.table``.

    Raises:
        InputError: links or data outside the file; else as ``report`` decides.
    """
    source = str(path)
    with ExitStack() as stack:
        file = stack.enter_context(h5py.File(path, "r", locking=False))
        arrays: dict[str, RowArray] = {}
        for name in file:
            if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
                report(
                    source,
                    Problem("external-link", name, "is a link to another file; nothing outside the file is opened"),
                )
            elif isinstance(file[name], h5py.Dataset):
                arrays[name] = file[name]
        class_names = next((file.attrs[key] for key in ("class_names", "label_names") if key in file.attrs), None)
        result = layouts.table(arrays, source, "HDF5", report, class_names)
        result.resources = stack.pop_all()
        return result

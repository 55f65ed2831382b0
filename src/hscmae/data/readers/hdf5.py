"""HDF5 files in any of the layouts of ``layouts.py``: datasets at the root, class names as an attribute or dataset."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py

from hscmae.data.readers import layouts, vetting
from hscmae.data.table import Problem, Report, RowArray, Table
from hscmae.errors import InputError

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
        InputError: the file is not fit to be opened (see ``vetting``); else as ``report`` decides.
    """
    with ExitStack() as stack:
        arrays, class_names = open_datasets(path, report, stack)
        result = layouts.table(arrays, str(path), "HDF5", report, class_names)
        result.resources = stack.pop_all()
        return result


def open_datasets(path: Path, report: Report, stack: ExitStack) -> tuple[dict[str, RowArray], Any]:
    """The datasets at a file's root by name, and its class names; ``stack`` closes the file.

    Raises:
        InputError: the file is not fit to be opened; nothing of it was.
    """
    findings = vetting.vet(path)
    for code, dataset, message in findings:
        report(str(path), Problem(code, dataset, message))
    if findings:
        raise InputError(Problem(*findings[0]).line(str(path)))
    file = stack.enter_context(h5py.File(path, "r", locking=False))
    arrays: dict[str, RowArray] = {}
    for name in file:
        thing = file.get(name)
        if not isinstance(thing, h5py.Dataset):
            continue
        if thing.shape is None:
            report(str(path), Problem("wrong-rank", name, "is empty: it has no shape"))
        else:
            arrays[name] = thing
    return arrays, next((file.attrs[key] for key in ("class_names", "label_names") if key in file.attrs), None)

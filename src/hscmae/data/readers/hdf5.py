"""HDF5 files in any of the layouts of ``layouts.py``: datasets at the root, class names as an attribute or dataset."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py

from hscmae.data.readers import layouts, vetting
from hscmae.data.table import Problem, Report, RowArray, Table
from hscmae.errors import InputError
from hscmae.files import first_bytes

MAGIC = b"\x89HDF\r\n\x1a\n"


def matches(path: Path) -> bool:
    """Whether the file starts as HDF5 does."""
    return first_bytes(path, len(MAGIC)) == MAGIC


def open_table(path: Path, report: Report) -> Table:
    """Open the file; see ``layouts.table``.

    Raises:
        InputError: the file is not fit to be opened (see ``vetting``); else as ``report`` decides.
    """
    with ExitStack() as stack:
        arrays, attributes = open_datasets(path, report, stack)
        names = next((attributes[key] for key in vetting.NAMES if key in attributes), None)
        result = layouts.table(arrays, str(path), "HDF5", report, names)
        result.origin = {key: text for key in vetting.ORIGIN if (text := _text(attributes.get(key)))}
        result.resources = stack.pop_all()
        return result


def _text(value: Any) -> str:
    """An attribute's text; empty where it is none."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else ""


def open_datasets(path: Path, report: Report, stack: ExitStack) -> tuple[dict[str, RowArray], Mapping[str, Any]]:
    """The datasets at a file's root by name, and its attributes; ``stack`` closes the file.

    Of the attributes only those are read that were looked at before: ``vetting.NAMES`` and ``vetting.ORIGIN``.

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
        if isinstance(thing, h5py.Group):
            if layouts.is_named_for(name):
                report(str(path), Problem("wrong-type", name, "is a group, not a dataset"))
            else:
                report(str(path), Problem("group", name, "is a group: only datasets at the root are read"))
        elif not isinstance(thing, h5py.Dataset):
            continue
        elif thing.shape is None:
            report(str(path), Problem("wrong-rank", name, "is empty: it has no shape"))
        else:
            arrays[name] = thing
    return arrays, file.attrs

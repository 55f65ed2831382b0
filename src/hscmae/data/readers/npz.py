"""``.npz`` archives in any of the layouts of ``layouts.py``.

Members are decompressed as their rows are asked for, in order, so that a large archive is never in memory whole.
Pickled members are refused.
"""

from __future__ import annotations

import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from hscmae.data.npyfile import byte_count, read_header
from hscmae.data.readers import layouts
from hscmae.data.table import Report, RowArray, Table
from hscmae.errors import InputError
from hscmae.files import first_bytes

READ_BYTES = 2**24


def matches(path: Path) -> bool:
    """Whether the file is a zip archive (read from its start: a cut one still counts)."""
    return first_bytes(path, 4) in (b"PK\x03\x04", b"PK\x05\x06")


def open_table(path: Path, report: Report) -> Table:
    """Open the archive; see ``layouts.table``.

    Raises:
        InputError: not a readable archive, or a member is not a plain array; else as ``report`` decides.
    """
    with ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path))
        members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
        arrays: dict[str, RowArray] = {}
        for key, name in members.items():
            arrays[key] = member = Member(archive, name, str(path))
            stack.callback(member.close)
        result = layouts.table(arrays, str(path), "npz", report)
        result.resources = stack.pop_all()
        return result


class Member:
    """One ``.npy`` member of an archive as a row array; opened again only for rows before those read last.

    One that is stored column by column has no rows to be read in turn: it is kept in memory.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str, source: str) -> None:
        self.archive, self.name = archive, name
        info = archive.getinfo(name)
        with archive.open(name) as file:
            self.shape, self.fortran, dtype = read_header(cast(BinaryIO, file), f"{source}: {name}")
            self.dtype: np.dtype[Any] = dtype
            self.data_start = file.tell()
        declared = byte_count(self.shape, dtype)
        if declared != info.file_size - self.data_start:
            held = info.file_size - self.data_start
            raise InputError(f"{source}: {name}: holds {held} bytes, its shape {self.shape} needs {declared}")
        self._file: Any = None
        self._next_row = 0
        self._whole: npt.NDArray[Any] | None = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        if self.fortran or not self.shape:
            if self._whole is None:
                with self.archive.open(self.name) as file:
                    self._whole = np.lib.format.read_array(cast(BinaryIO, file), allow_pickle=False)
            return self._whole[rows]
        start, stop, _ = rows.indices(self.shape[0])
        stop = max(start, stop)
        row_bytes = byte_count(self.shape[1:], self.dtype)
        if self._file is None or start < self._next_row:
            self.close()
            self._file = self.archive.open(self.name)
            self._skip(self.data_start)
            self._next_row = 0
        self._skip((start - self._next_row) * row_bytes)
        data = bytearray()
        while len(data) < (stop - start) * row_bytes:
            piece = self._file.read(min(READ_BYTES, (stop - start) * row_bytes - len(data)))
            if not piece:
                raise ValueError(f"{self.name} ends early")
            data += piece
        if stop == self.shape[0] and self._file.read(1):  # reading to the end makes zipfile check its CRC
            raise ValueError(f"{self.name} holds more than its shape says")
        self._next_row = stop
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    def _skip(self, count: int) -> None:
        while count > 0:
            piece = self._file.read(min(READ_BYTES, count))
            if not piece:
                raise ValueError(f"{self.name} ends early")
            count -= len(piece)

"""``.npy`` arrays, memory-mapped, with damaged headers and pickled objects refused in one line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from hscmae.errors import InputError


@dataclass(frozen=True)
class NpyArray:
    """An array in a ``.npy`` file, or in a part of another file that is one.

    Attributes:
        path: the file.
        start: where in it the array's header begins.
        size: bytes of the part; all up to the file's end where not given.
        member: what the part is called, for messages.
    """

    path: Path
    start: int = 0
    size: int | None = None
    member: str = ""

    def header(self) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
        """Shape, Fortran order, type, and where in the file the values begin.

        Raises:
            InputError: missing, damaged, cut short, or pickled objects.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                shape, fortran, dtype = read_header(file, self.name)
                begin = file.tell()
            end = self.path.stat().st_size if self.size is None else self.start + self.size
            needed, held = byte_count(shape, dtype), end - begin
            if needed > held:
                raise ValueError(f"shape {shape} needs {needed} bytes, the file holds {held}")
        except (ValueError, OSError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.name}: damaged or cut short ({' '.join(str(error).split())[:160]})") from error
        return shape, fortran, dtype, begin

    def load(self) -> npt.NDArray[Any]:
        """Memory-map the values; raises as ``header`` does."""
        shape, fortran, dtype, begin = self.header()
        if not byte_count(shape, dtype):
            return np.empty(shape, dtype)
        return np.memmap(self.path, dtype, "r", begin, shape, "F" if fortran else "C")

    @property
    def name(self) -> str:
        return f"{self.path}: {self.member}" if self.member else str(self.path)


def load_mapped(path: Path) -> npt.NDArray[Any]:
    """Memory-map a ``.npy`` file.

    Raises:
        InputError: missing, damaged, cut short, or pickled objects.
    """
    return NpyArray(path).load()


def read_header(file: BinaryIO, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and type from the start of a ``.npy`` stream.

    Raises:
        InputError: pickled objects.
        ValueError: not a ``.npy`` header.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except Exception as error:  # NumPy reads headers as Python text, which fails in a dozen ways
        raise ValueError(f"not a .npy header: {error}") from error
    if dtype.hasobject:
        raise InputError(f"{name}: holds pickled objects, which are never loaded; save it as plain numbers or text")
    if any(size < 0 for size in shape):
        raise ValueError(f"negative size in shape {shape}")
    return shape, fortran, dtype


def byte_count(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of an array's values, exact however large."""
    count = dtype.itemsize
    for size in shape:
        count *= int(size)
    return count

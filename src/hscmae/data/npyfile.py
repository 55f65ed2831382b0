"""Single ``.npy`` files, memory-mapped, with damaged headers and pickled objects refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from hscmae.errors import InputError


def load_mapped(path: Path) -> npt.NDArray[Any]:
    """Memory-map a ``.npy`` file.

    Raises:
        InputError: missing, damaged, cut short, or pickled objects.
    """
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = read_header(file, str(path))
            start = file.tell()
        needed, held = byte_count(shape, dtype), path.stat().st_size - start
        if needed > held:
            raise ValueError(f"shape {shape} needs {needed} bytes, the file holds {held}")
        if not needed:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
    except (ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged or cut short ({' '.join(str(error).split())[:160]})") from error


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

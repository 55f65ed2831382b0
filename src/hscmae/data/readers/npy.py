"""``.npy`` files: one array alone, a folder of one array a dataset, or a folder a modality with one file a clip.

``features/audio.npy, features/visual.npy, features/ids.npy`` has the layouts of ``layouts.py``, memory-mapped.
``features/audio/*.npy, features/visual/*.npy`` has one clip a file, of shape (d,) or (steps, d): the id is the path
below the modality's folder without its ending, and a clip may lack modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data import store
from hscmae.data.npyfile import load_mapped, read_header
from hscmae.data.readers import layouts
from hscmae.data.table import Problem, Report, RowArray, Table
from hscmae.errors import InputError
from hscmae.files import first_bytes

MAGIC = b"\x93NUMPY"


def matches(path: Path) -> bool:
    """Whether it is a ``.npy`` file, or a folder of them or of folders of them."""
    if path.is_dir():
        return any(path.glob("*.npy")) or bool(_folders_of_clips(path))
    return first_bytes(path, len(MAGIC)) == MAGIC


def open_table(path: Path, report: Report) -> Table:
    """Open the file or folder.

    Raises:
        InputError: a file that is damaged or holds pickled objects; else as ``report`` decides.
    """
    if path.is_file():
        return layouts.table({path.stem: load_mapped(path)}, str(path), "npy", report)
    flat = sorted(path.glob("*.npy"))
    if flat:
        return layouts.table({file.stem: load_mapped(file) for file in flat}, str(path), "npy folder", report)
    return _one_file_a_clip(path, report)


class ClipFiles:
    """One ``.npy`` file a row, or ``None`` where the row has none; shorter sequences end in zeros."""

    def __init__(self, paths: Sequence[Path | None], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.paths, self.shape, self.dtype = paths, (len(paths), *shape), dtype

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        paths = self.paths[rows]
        block = np.zeros((len(paths), *self.shape[1:]), self.dtype)
        for row, path in enumerate(paths):
            if path is not None:
                values = load_mapped(path)
                block[row, : len(values)] = values
        return block


def _folders_of_clips(path: Path) -> list[Path]:
    """The modalities' folders; hidden ones and stores are none."""
    folders = (folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return sorted(folder for folder in folders if not store.is_store(folder) and any(folder.rglob("*.npy")))


def _one_file_a_clip(path: Path, report: Report) -> Table:
    source = str(path)
    folders = _folders_of_clips(path)
    files = {
        f.name: {p.relative_to(f).with_suffix("").as_posix(): p for p in sorted(f.rglob("*.npy"))} for f in folders
    }
    clips = sorted({clip for of_modality in files.values() for clip in of_modality})
    result = Table(source, "npy files, one a clip", {}, np.array([clip.encode() for clip in clips], dtype=np.bytes_))
    for m, of_modality in files.items():
        shapes, types = {}, {}
        for clip, file_path in of_modality.items():
            with file_path.open("rb") as file:
                try:
                    shapes[clip], _, types[clip] = read_header(file, str(file_path))
                except ValueError as error:
                    if isinstance(error, InputError):
                        raise
                    raise InputError(
                        f"{file_path}: damaged or not .npy ({' '.join(str(error).split())[:160]})"
                    ) from error
        first = next(iter(shapes))
        rank, dims = len(shapes[first]), shapes[first][-1:]
        odd = [c for c in shapes if len(shapes[c]) != rank or shapes[c][-1:] != dims or types[c] != types[first]]
        if rank not in (1, 2) or types[first].kind != "f" or types[first].itemsize > 8:
            message = f"{first}.npy holds {types[first]} {shapes[first]}, expected floating point (d,) or (steps, d)"
            report(source, Problem("wrong-type", m, message))
            continue
        if odd:
            message = f"{odd[0]}.npy holds {types[odd[0]]} {shapes[odd[0]]}, {first}.npy {types[first]} {shapes[first]}"
            report(source, Problem("dimensions", m, message, tuple(clips.index(clip) for clip in odd)))
            continue
        result.present[m] = np.array([clip in of_modality for clip in clips])
        shape: tuple[int, ...] = dims
        if rank == 2:
            result.lengths[m] = np.array([shapes[c][0] if c in shapes else 0 for c in clips], dtype=np.int64)
            shape = (int(result.lengths[m].max()), *dims)
        paths = [of_modality.get(clip) for clip in clips]
        array: RowArray = ClipFiles(paths, shape, types[first])
        result.features[m] = array
    return result

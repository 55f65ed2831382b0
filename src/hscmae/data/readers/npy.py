"""``.npy`` files: one array alone, a folder of one array a dataset, or a folder a modality with one file a clip.

``features/audio.npy, features/visual.npy, features/ids.npy`` has the layouts of ``layouts.py``, memory-mapped.
``features/audio/*.npy, features/visual/*.npy`` has one clip a file, of shape (d,) or (steps, d): the id is the path
below the modality's folder without its ending, and a clip may lack modalities.
"""

from __future__ import annotations

from pathlib import Path

from hscmae.data import store
from hscmae.data.npyfile import NpyArray, load_mapped
from hscmae.data.readers import clips, layouts
from hscmae.data.table import Report, Table
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


def _folders_of_clips(path: Path) -> list[Path]:
    """The modalities' folders; hidden ones and stores are none."""
    folders = (folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return sorted(folder for folder in folders if not store.is_store(folder) and any(folder.rglob("*.npy")))


def _one_file_a_clip(path: Path, report: Report) -> Table:
    found = {
        folder.name: {
            p.relative_to(folder).with_suffix("").as_posix(): NpyArray(p) for p in sorted(folder.rglob("*.npy"))
        }
        for folder in _folders_of_clips(path)
    }
    names = sorted({clip for of_modality in found.values() for clip in of_modality})
    return clips.table(str(path), "npy files, one a clip", names, found, report)

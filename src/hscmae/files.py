"""Writing so that a reader finds the old content or the new, never half of one, and nothing of anybody else is touched.

A file is written under a temporary name and renamed. A folder that is to be replaced is made whole beside its place
and swapped in at the end; what is replaced must be a folder of ours (its marker says so) that holds our files alone.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hscmae.errors import InputError

log = logging.getLogger(__name__)


def name_file(error: BaseException | None, path: Path) -> None:
    """Let an ``OSError`` that names no file, as that of a full disk, name ``path``.

    >>> full = OSError(28, "No space left on device")
    >>> name_file(full, Path("model"))
    >>> str(full)
    "[Errno 28] No space left on device: 'model'"
    """
    if isinstance(error, OSError) and error.filename is None:
        # NumPy says no more than how many values it could not write.
        error.strerror = os.strerror(error.errno) if error.errno else f"cannot be written: is the disk full? ({error})"
        error.errno = error.errno or errno.EIO
        error.filename = str(path)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let errors of writing name ``path``; see ``name_file``."""
    try:
        yield
    except OSError as error:
        name_file(error, path)
        raise


def first_bytes(path: Path, count: int) -> bytes:
    """What a file begins with, by which its format is known; nothing of what is not a plain file."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(count)


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` under a temporary name in the same folder, flush it to the disk, and rename it to ``path``.

    Raises:
        OSError: the write failed; ``path`` is then as it was, and the temporary file is gone.
    """
    with named(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)  # noqa: PTH105
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that we write: how it is known for ours, and what we put into it.

    Attributes:
        what: its name in messages, with an article.
        markers: names of JSON files, any of which marks the folder as ours by its entry ``format``.
        format: that entry.
        names: every file that we write there, as patterns of paths relative to the folder (``fits/*.json``).
        listings: the marker's entries that name further files, if it has any.
    """

    what: str
    markers: Sequence[str]
    format: str
    names: Sequence[str]
    listings: Sequence[str] = ()

    def marks(self, folder: Path) -> bool:
        """Whether a marker in ``folder`` says that it is of this kind."""
        return any(_read(folder / marker).get("format") == self.format for marker in self.markers)

    def remove(self, folder: Path) -> None:
        """Remove what we wrote there, and the folder if nothing else is left in it."""
        for name in self._cut(folder)[0]:
            (folder / name).unlink()
        for inner in sorted((path for path in folder.rglob("*") if _is_plain_folder(path)), reverse=True):
            _remove_if_empty(inner)
        _remove_if_empty(folder)

    def require_ours(self, folder: Path) -> None:
        """Refuse a folder that is not of this kind, or holds anything that we did not write. An empty one is free.

        Raises:
            InputError: names the folder and the first foreign file.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: exists and is not {self.what}; nothing was touched")
        ours, foreign = self._cut(folder)
        if (ours or foreign) and not self.marks(folder):
            raise InputError(f"{folder}: exists and is not {self.what}; remove it yourself if it is no longer needed")
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise InputError(
                f"{folder}: holds {foreign[0]}{more}, not written as part of {self.what}; nothing was touched"
            )

    def _cut(self, folder: Path) -> tuple[list[str], list[str]]:
        """The files in ``folder`` that we wrote, and the others, by their paths relative to it."""
        markers = [_read(folder / marker) for marker in self.markers]
        listed = {str(name) for marker in markers for listing in self.listings for name in marker.get(listing) or ()}
        ours: list[str] = []
        foreign: list[str] = []
        for path in sorted(folder.rglob("*")):
            if not _is_plain_folder(path):
                name = path.relative_to(folder).as_posix()
                known = name in listed or any(fnmatchcase(name, pattern) for pattern in self.names)
                (ours if known else foreign).append(name)
        return ours, foreign


def require_apart(output: Path, *inputs: Path) -> None:
    """Refuse an output that is an input, or holds one, or lies in one.

    Raises:
        InputError: names both.
    """
    there = output.resolve()
    for path in inputs:
        here = path.resolve()
        if there.is_relative_to(here) or here.is_relative_to(there):
            raise InputError(f"{output}: the output would replace its own input {path}; name another")


def partial_folder(folder: Path) -> Path:
    """Where a folder is made before it gets its name."""
    return folder.parent / f".{folder.name}.partial"


def recover(folder: Path) -> None:
    """Give a folder its name back whose replacement was killed between its two renames."""
    if not folder.exists() and _retired(folder).exists():
        _retired(folder).rename(folder)


def publish(partial: Path, folder: Path, kind: FolderKind) -> None:
    """Give a whole folder its name; what had the name before is removed after, never before.

    Raises:
        InputError: what has the name is not of this kind, or holds other files by now; the whole folder then stays
            beside it.
    """
    sync_folder(partial)
    retired = _retired(folder)
    if folder.exists():
        kind.require_ours(folder)
        kind.remove(retired)
        folder.rename(retired)
    try:
        partial.rename(folder)
    except OSError:
        if retired.exists():
            retired.rename(folder)
        raise
    sync_folder(folder.parent)
    kind.remove(retired)


@contextmanager
def output_folder(
    folder: Path, kind: FolderKind, *, resume: bool, overwrite: bool, resumable: Callable[[Path], bool]
) -> Iterator[Path]:
    """Where a long job works: ``folder`` itself where that is new or resumed, else a hidden folder beside it.

    What ``folder`` held stays as it is until the block ends without an exception; then the new one takes its name. A
    job that fails or is killed leaves the old folder whole, and what ``resumable`` says can be gone on with.

    Args:
        folder: the output.
        kind: what may be replaced.
        resume: go on with what an earlier job left, beside the folder or in it.
        overwrite: replace what is there.
        resumable: whether a folder holds enough to go on with.

    Raises:
        InputError: ``folder`` exists and neither flag is set, or it is not ours.
    """
    recover(folder)
    partial = partial_folder(folder)
    if resume and resumable(partial):
        place = partial
    elif folder.exists() and resume and (kind.marks(folder) or resumable(folder)):
        place = folder
    elif folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        if overwrite or not kind.marks(folder):
            kind.require_ours(folder)
        if not overwrite:
            raise InputError(f"{folder}: exists already; --resume goes on with it, --overwrite replaces it")
        kind.remove(partial)
        place = partial
    else:
        place = folder
    if resume and not resumable(place):
        log.warning("%s: nothing to go on with; beginning anew", folder)
    new = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    try:
        yield place
    except BaseException:
        if (new or place == partial) and not resumable(place):
            kind.remove(place)
        raise
    if place != folder:
        publish(place, folder, kind)


def _retired(folder: Path) -> Path:
    """Where a replaced folder waits until the new one has its name."""
    return folder.parent / f".{folder.name}.replaced"


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _read(marker: Path) -> dict[str, Any]:
    try:
        found = json.loads(marker.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""Writing files so that a reader finds the old content or the new, never half of one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` under a temporary name in the same folder, flush it to the disk, and rename it to ``path``.

    Raises:
        OSError: the write failed; ``path`` is then as it was, and the temporary file is gone.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with named(path), os.fdopen(handle, "wb") as file:
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

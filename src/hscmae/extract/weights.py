"""Where networks' weights are: named by the user, in ``HSCMAE_MODELS``, in the cache, or at the publisher's address."""

from __future__ import annotations

import hashlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from hscmae.errors import InputError
from hscmae.files import write_atomic

TIMEOUT = 30  # seconds without an answer
LARGEST = 2**31


def cache_folder() -> Path:
    """Where fetched weights are kept."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "hscmae"


def find_weights(pattern: str, given: Sequence[Path]) -> Path | None:
    """The first file that matches ``pattern`` among those given, in ``HSCMAE_MODELS``, in the cache.

    Args:
        pattern: of a file's name, in lower case: "*yamnet*.tflite".
        given: files, and folders to look into.
    """
    models = os.environ.get("HSCMAE_MODELS")
    for place in (*given, *([Path(models)] if models else []), cache_folder()):
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        for file in files:
            if fnmatch(file.name.lower(), pattern) and file.is_file():
                return file
    return None


def require_weights(name: str, pattern: str, given: Sequence[Path], help_: str) -> Path:
    """As ``find_weights``.

    Raises:
        InputError: there are none; ``help_`` says where to get them.
    """
    found = find_weights(pattern, given)
    if found is None:
        raise InputError(f"{name}: no weights ({pattern}) in --weights, HSCMAE_MODELS or {cache_folder()}; {help_}")
    return found


def fetch(address: str, name: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """Weights from their publisher's address, kept in the cache.

    Raises:
        InputError: the address cannot be reached, or gives something else than a file of a sensible size.
    """
    target = cache_folder() / name
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            content = bytearray()
            while part := answer.read(1 << 18):
                content += part
                if len(content) > LARGEST:
                    raise InputError(f"{address}: larger than weights are")
                if progress is not None:
                    progress(len(content), total)
        if total and len(content) != total:
            raise InputError(f"{address}: broke off after {len(content)} of {total} bytes")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, bytes(content))
    except (OSError, urllib.error.URLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{address}: cannot be fetched ({reason})") from error
    return target


def fetch_with_bar(address: str, name: str) -> Path:
    """``fetch`` with a line on stderr that says how far it is."""

    def show(done: int, total: int) -> None:
        share = f"{100 * done / total:3.0f}%" if total else ""
        print(f"\rfetching {name}: {done / 1e6:.1f} MB {share}", end="", file=sys.stderr, flush=True)

    try:
        return fetch(address, name, show if sys.stderr.isatty() else None)
    finally:
        if sys.stderr.isatty():
            print(file=sys.stderr)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""What people decided about pairs: each written to the disk before it is confirmed, so that no crash loses one.

A file of JSON lines that only grows; the last line of a clip counts. What cannot be read, as a line that a crash cut
off, is passed over and stays.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from hscmae.errors import InputError
from hscmae.files import sync_folder

log = logging.getLogger("hscmae.serve")
Choice = Literal["keep", "drop", "unsure"]
CHOICES: tuple[str, ...] = get_args(Choice)
NAME = "decisions.jsonl"


class Decisions:
    """Decisions by clip's id, of one server at a time.

    Args:
        folder: where they are kept; made if need be.

    Raises:
        InputError: cannot be written, or another server keeps decisions there.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be written ({error.strerror}); name another folder by --state"
            ) from None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise InputError(
                f"{self.path}: another server keeps decisions there; name another folder by --state"
            ) from None
        self._lock = threading.Lock()
        self._made: dict[str, str] = {}
        self._end = self._read()
        sync_folder(folder)

    def _read(self) -> int:
        content = self.path.read_bytes()
        for line in content.splitlines():
            try:
                entry = json.loads(line)
                name, choice = entry["id"], entry["decision"]
                if not isinstance(name, str) or not (choice is None or choice in CHOICES):
                    raise ValueError
            except (ValueError, KeyError, TypeError, RecursionError):
                log.warning("a line of the decisions cannot be read")
                continue
            self._note(name, choice)
        if content and not content.endswith(b"\n"):
            return len(content) + os.pwrite(self._handle, b"\n", len(content))
        return len(content)

    def _note(self, name: str, choice: str | None) -> None:
        if choice is None:
            self._made.pop(name, None)
        else:
            self._made[name] = choice

    def decide(self, name: str, choice: str | None) -> None:
        """Keep a decision, or take one back; it is on the disk when this returns.

        Raises:
            OSError: it cannot be kept; then it is as if it had not been made.
        """
        entry = {"id": name, "decision": choice, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        line = json.dumps(entry).encode() + b"\n"
        with self._lock:
            try:
                written = os.pwrite(self._handle, line, self._end)
                if written < len(line):
                    raise OSError(28, os.strerror(28))
                os.fsync(self._handle)
            except OSError:
                os.ftruncate(self._handle, self._end)
                raise
            self._end += len(line)
            self._note(name, choice)

    def of(self, name: str) -> str | None:
        """What was decided about a clip."""
        return self._made.get(name)

    def all(self) -> dict[str, str]:
        """Every decision, in the order made."""
        with self._lock:
            return dict(self._made)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)


def as_list(names: Iterable[bytes]) -> bytes:
    """Ids as ``--exclude-ids`` takes them: one a line.

    >>> as_list([b"a/dog", b"b"]).decode().splitlines()[1:]
    ['a/dog', 'b']
    """
    return b"".join(name + b"\n" for name in (b"# pairs to leave out of training: hscmae build --exclude-ids", *names))


def can_be_listed(name: bytes) -> bool:
    """Whether a line of such a list can hold an id.

    >>> can_be_listed(b"a/dog"), can_be_listed(b"#1"), can_be_listed(b"two\\nlines")
    (True, False, False)
    """
    text = name.decode("utf-8", "surrogateescape")
    return bool(text) and not text.startswith("#") and [text] == text.splitlines() and text == text.strip()

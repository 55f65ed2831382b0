"""Files of strangers as queries: kept under no name of theirs, decoded in the jail, gone when they are embedded."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from hscmae.errors import HscmaeError
from hscmae.extract.jail import Jail
from hscmae.extract.media import Limits
from hscmae.search.archive import Query
from hscmae.serve.problems import Problem, busy
from hscmae.serve.settings import Settings
from hscmae.serve.snapshot import Snapshot
from hscmae.serve.sniff import HEAD, agrees, ending_of

log = logging.getLogger("hscmae.serve")
PREFIX = "hscmae-serve-"
LOCK = ".hscmae-serve"  # held by the server whose folder it is in, as long as it lives
LIMITS = Limits(seconds=15.0, memory=2 * 2**30, pixels=50_000_000)
LATEST = 6 * 3600.0  # seconds: the latest moment that ``at`` may name
UNREADABLE = "This file cannot be read as a sound, a picture or a video."


@dataclass(frozen=True)
class Upload:
    """A file that was sent.

    Attributes:
        name: what its sender calls it, to be shown and for nothing else.
        file: its content.
    """

    name: str
    file: BinaryIO


class Uploads:
    """Embeds uploads, one at a time: each takes the networks and a decoder."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = os.open(self.folder / "making", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.folder / "making").rename(self.folder / LOCK)  # only now it can be taken for a dead server's
        self._next = Jail()
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    def warm(self) -> None:
        """Start the decoder of the next file, which takes longer than most files: each has one of its own."""
        self._next.start()

    async def query(self, snapshot: Snapshot, upload: Upload, source: str | None, at: float | None) -> Query:
        """The query that an upload is.

        Raises:
            Problem: not media, damaged, too large to decode, without the modality, or too many wait.
        """
        if snapshot.complaint:
            raise Problem(HTTPStatus.CONFLICT, snapshot.complaint)
        if self._waiting >= max(4, self.settings.most_decoding // 8):
            raise busy("Many files are being looked at. Please try again in a moment.", 5)
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(self._embed, snapshot, upload, source, at)
        finally:
            self._waiting -= 1

    def _embed(self, snapshot: Snapshot, upload: Upload, source: str | None, at: float | None) -> Query:
        upload.file.seek(0)
        ending = ending_of(upload.file.read(HEAD))
        if ending is None:
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, UNREADABLE)
        if not agrees(upload.name, ending):
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "This file is not what its name says.")
        jail, self._next = self._next, Jail()
        handle, name = tempfile.mkstemp(suffix=ending, dir=self.folder)
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                upload.file.seek(0)
                shutil.copyfileobj(upload.file, file)
            job = snapshot.archive.job
            hours = ((at or 0.0) + self.settings.query_seconds) / 3600
            job = replace(job, limits=replace(LIMITS, hours=hours), at=at)
            query = snapshot.archive.query_media(path, source, job, jail)
        except HscmaeError as error:
            log.info("unreadable upload", extra={"fields": {"reason": str(error).replace(name, "the file")[:300]}})
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, _words(snapshot, source)) from None
        finally:
            path.unlink(missing_ok=True)
            jail.close()
            self.warm()
        return replace(query, text=upload.name)

    def close(self) -> None:
        """Remove what is left."""
        self._next.interrupt()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _words(snapshot: Snapshot, source: str | None) -> str:
    words = {"audio": "sound", "visual": "picture"}
    wanted = source if source in snapshot.archive.modalities else None
    if wanted is not None:
        return f"No {words.get(wanted, wanted)} could be read from this file."
    return UNREADABLE


async def read_upload(form: Any) -> Upload:
    """The one file of a form.

    Raises:
        Problem: none, or an empty one.
    """
    part = form.get("file")
    if part is None or isinstance(part, str):
        raise Problem(HTTPStatus.BAD_REQUEST, "Send the file as the part “file” of a multipart form.")
    if not part.size:
        raise Problem(HTTPStatus.BAD_REQUEST, "This file is empty.")
    return Upload(safe_name(part.filename or ""), part.file)


def safe_name(name: str) -> str:
    r"""A file's name to show: the last part of a path, without control characters, short.

    >>> safe_name("../../etc/passwd"), safe_name("C:\\x\\dog\0.wav"), safe_name("")
    ('passwd', 'dog.wav', 'your file')
    """
    last = re.split(r"[/\\]", name)[-1]
    shown = "".join(c for c in last if c.isprintable()).strip()
    if len(shown) > 120:
        stem, dot, ending = shown.rpartition(".")
        shown = f"{stem[:100]}….{ending[:10]}" if dot else shown[:100] + "…"
    return shown or "your file"


def _sweep() -> None:
    """Remove folders of servers that were killed: a lock that nobody holds tells them, in other containers too."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError):
            handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(handle).st_uid == os.getuid() and not lock.parent.is_symlink():
                    shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(handle)

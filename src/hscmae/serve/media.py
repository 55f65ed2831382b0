"""Pictures and sounds of the archive's clips: decoded in the jail, made small, kept in memory for a while.

Only what ``media.csv`` names is ever opened, by the number of its row; and only a plain file with a media file's ending
whose real place, links followed, lies in one of the archive's folders.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from hscmae.cpus import usable_cpus
from hscmae.extract.jail import Jail
from hscmae.extract.media import AUDIO, IMAGE, VIDEO, Fit, Limits
from hscmae.extract.windows import Sampling, Task, Window
from hscmae.report.media import envelope, mp3, thumbnail
from hscmae.search.archive import Result
from hscmae.serve.problems import Problem, busy
from hscmae.serve.settings import Settings
from hscmae.serve.snapshot import Snapshot

SIDE = 256  # pixels of a thumbnail
SOUND_RATE, WAVE_RATE = 32_000, 8_000
PARTS = 64  # of a waveform
LONGEST = 30.0  # seconds of a sound
KEPT = 64_000_000  # bytes
LIMITS = Limits(seconds=20.0, memory=2 * 2**30)
GONE = "The media file of this clip is not to be found any more."
TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
    ".aif": "audio/aiff",
    ".aiff": "audio/aiff",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".ogv": "video/ogg",
}


@dataclass(frozen=True)
class Place:
    """A clip's media file, found.

    Attributes:
        path: its real path, links followed.
        kind: of HTTP.
        size, mtime: as it was found.
    """

    path: Path
    kind: str
    size: int
    mtime: int

    def etag(self, *more: object) -> str:
        """What changes whenever the file does, or what is made of it."""
        key = repr((str(self.path), self.size, self.mtime, more)).encode("utf-8", "surrogatepass")
        return f'"{hashlib.blake2b(key, digest_size=12).hexdigest()}"'


def find(snapshot: Snapshot, row: int, modality: str) -> Place:
    """Where a clip's file of a modality is.

    Raises:
        Problem: it has none, or it is not where it may be.
    """
    line = snapshot.archive.clips.media.get(snapshot.archive.clips.id(row), {})
    named = line.get(modality)
    if not named or "\0" in named:
        raise Problem(HTTPStatus.NOT_FOUND, "This clip has no file of that kind.")
    suffix = Path(named).suffix.lower()
    for root in snapshot.archive.roots:
        with suppress(OSError, ValueError, RuntimeError):
            path = (root / named).resolve(strict=True)
            state = path.stat()
            if (
                suffix in AUDIO | IMAGE | VIDEO
                and stat.S_ISREG(state.st_mode)
                and any(path.is_relative_to(r.resolve()) for r in snapshot.archive.roots)
            ):
                kind = TYPES.get(suffix, "application/octet-stream")
                return Place(path, kind, state.st_size, state.st_mtime_ns)
    raise Problem(HTTPStatus.NOT_FOUND, GONE)


def open_place(place: Place) -> int:
    """A descriptor of the file that was found, not of one put into its place since.

    Raises:
        Problem: it changed.
    """
    try:
        handle = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        raise Problem(HTTPStatus.NOT_FOUND, GONE) from None
    state = os.fstat(handle)
    if not stat.S_ISREG(state.st_mode) or (state.st_size, state.st_mtime_ns) != (place.size, place.mtime):
        os.close(handle)
        raise Problem(HTTPStatus.NOT_FOUND, GONE)
    return handle


class Media:
    """Makes thumbnails, sounds and waveforms, in a few decoders; the last made are kept."""

    def __init__(self, settings: Settings) -> None:
        self.most = settings.most_decoding
        self._jails = [Jail() for _ in range(usable_cpus())]
        self._free: asyncio.Queue[Jail] | None = None
        self._waiting = 0
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Start the decoders, which takes longer than a picture."""
        for jail in self._jails:
            jail.start()

    async def thumbnail(self, snapshot: Snapshot, row: int, place: Place) -> bytes:
        """A clip's picture, ``SIDE`` pixels square, as a JPEG file."""
        start, window = _span(snapshot, row)
        task = Task(
            None, place.path, None, Fit(SIDE, SIDE), Sampling(window, window, "second"), LIMITS, at=start
        )  # fmt: skip

        def made(found: Window) -> bytes:
            if found.pictures is None:
                raise Problem(HTTPStatus.NOT_FOUND, "This clip has no picture that can be shown.")
            return thumbnail(found.pictures[found.steps[len(found.steps) // 2]], SIDE)

        content: bytes = await self._made(place.etag("thumbnail", start, window), task, made)
        return content

    async def sound(self, snapshot: Snapshot, row: int, place: Place) -> bytes:
        """A clip's sound, from its first second to its last, as an MP3 file."""
        start, window = _span(snapshot, row)
        task = _sound_task(place, SOUND_RATE, start, window)
        content: bytes = await self._made(
            place.etag("sound", start, window), task, lambda found: mp3(_samples(found), SOUND_RATE, 96_000)
        )
        return content

    async def waveform(self, snapshot: Snapshot, row: int, place: Place) -> list[float]:
        """The envelope of a clip's sound: ``PARTS`` values in [0, 1]."""
        start, window = _span(snapshot, row)
        task = _sound_task(place, WAVE_RATE, start, window)
        peaks: list[float] = await self._made(
            place.etag("waveform", start, window), task, lambda found: envelope(_samples(found), PARTS)
        )
        return peaks

    async def _made(self, key: str, task: Task, make: Callable[[Window], Any]) -> Any:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        if self._waiting >= self.most:
            raise busy()
        if self._free is None:
            self._free = asyncio.Queue()
            for jail in self._jails:
                self._free.put_nowait(jail)
        self._waiting += 1
        try:
            jail = await self._free.get()
        finally:
            self._waiting -= 1
        # In a thread that is waited for even if the client leaves: a decoder is used by one thread at a time.
        work = asyncio.ensure_future(asyncio.to_thread(_decode, jail, task, make))
        free = self._free

        def done(work: asyncio.Future[Any]) -> None:
            free.put_nowait(jail)
            if not work.cancelled():
                work.exception()  # seen, should nobody wait for it any more

        work.add_done_callback(done)
        made = await asyncio.shield(work)
        self._keep(key, made)
        return made

    def _keep(self, key: str, made: Any) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += _size(made)
            while self._bytes > KEPT:
                self._bytes -= _size(self._kept.popitem(last=False)[1])

    def close(self) -> None:
        """End the decoders."""
        for jail in self._jails:
            jail.interrupt()


def place_in(snapshot: Snapshot, row: int) -> tuple[float | None, float | None]:
    """From when to when a clip is in its recording, as far as that is known."""
    found: Result = snapshot.archive.result(1, row, snapshot.archive.modalities[0], 0.0)
    return found.start, found.end


def _span(snapshot: Snapshot, row: int) -> tuple[float, float]:
    start, end = place_in(snapshot, row)
    start = start or 0.0
    return start, min(max((end or start + 10.0) - start, 1.0), LONGEST)


def _sound_task(place: Place, rate: int, start: float, window: float) -> Task:
    return Task(place.path, None, rate, None, Sampling(window, window), LIMITS, at=start)


def _samples(found: Window) -> Any:
    if found.sound is None:
        raise Problem(HTTPStatus.NOT_FOUND, "This clip has no sound that can be played.")
    return found.sound


def _decode(jail: Jail, task: Task, make: Callable[[Window], Any]) -> Any:
    windows = [found for found in jail.decode(task) if isinstance(found, Window)]
    if not windows:
        raise Problem(HTTPStatus.NOT_FOUND, "This clip's media file cannot be read.")
    return make(windows[0])


def _size(made: Any) -> int:
    return len(made) if isinstance(made, bytes) else 16 * len(made) + 64

"""The archive as it is served: opened whole, and replaced as a whole when it was rebuilt.

A request keeps the snapshot it began with, whose files stay open however often the folder is replaced. So a rebuilt
archive is taken over without a restart and without a failed request.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hscmae.artifact import CONFIG
from hscmae.data.pairs import IntArray
from hscmae.data.store import MANIFEST, is_store
from hscmae.errors import HscmaeError, InputError
from hscmae.search.archive import ARCHIVE, EMBEDDINGS, RUN, Archive, read_about
from hscmae.search.index import Index, open_index
from hscmae.serve.observe import Metrics
from hscmae.serve.settings import Settings

log = logging.getLogger("hscmae.serve")
FACETS = ("label", "folder", "split")  # what results can be filtered by
TRIES, PAUSE = 20, 0.25  # a folder that is being replaced is whole again in a moment
RETIRE = 120.0  # seconds after which no request uses a snapshot that was replaced


class Snapshot:
    """One state of an archive, with what is asked of it again and again at hand.

    Attributes:
        archive: opened.
        version: changes whenever the embeddings do; 16 hexadecimal digits.
        index: searched instead of the embeddings, if any.
        folder: of the archive, or the embedding store.
        facets: column -> value -> rows, ascending.
        windows: whether clips are windows of longer recordings.
        complaint: why uploads cannot be compared with this archive, if they cannot.
    """

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.archive
        before = version_of(self.folder)
        self._stack = ExitStack()
        self.archive = self._stack.enter_context(Archive.open(self.folder, weights=settings.weights))
        self.version = before
        self.about = {} if is_store(self.folder) else read_about(self.folder)
        self.archive.roots += [folder for folder in settings.media if folder not in self.archive.roots]
        # Read now: later these files may be another archive's.
        _ = self.archive.clips.row_of, self.archive.clips.media
        for space in self.archive.spaces:
            self.archive.space(space)
        self.facets = _facets(self.archive)
        self.windows = any(b"#t=" in key for key in self.archive.clips.keys)
        self.complaint = self._load_model()
        self.index = self._index(settings.index)
        if version_of(self.folder) != before:
            self.close()
            raise InputError(f"{self.folder}: was replaced while it was opened")

    def _load_model(self) -> str | None:
        try:
            _ = self.archive.method, self.archive.job
        except HscmaeError as error:
            log.warning("no uploads", extra={"fields": {"reason": str(error)}})
            return "This archive cannot be searched by a file of your own: its model or networks are not at hand."
        return None

    def _index(self, place: str | None) -> Index | None:
        if place is None:
            return None
        try:
            return self._stack.enter_context(open_index(place, self.archive))
        except HscmaeError as error:
            log.warning("searching without the index", extra={"fields": {"reason": str(error)}})
            return None

    @cached_property
    def complete(self) -> IntArray:
        """Rows that have every modality."""
        return np.flatnonzero(np.logical_and.reduce([self.archive.present(m) for m in self.archive.modalities]))

    def modalities(self, row: int) -> list[str]:
        """The modalities of a clip."""
        return [m for m, flags in self._present.items() if flags[row]]

    @cached_property
    def _present(self) -> dict[str, Any]:
        return {m: self.archive.present(m) for m in self.archive.modalities}

    def close(self) -> None:
        """Let go of the index and what else is held."""
        self._stack.close()


class Shelf:
    """Holds the snapshot of now, and looks every few seconds whether there is a newer one."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.now = Snapshot(settings)
        self.metrics.clips.set(len(self.now.archive))
        self._seen = marks_of(settings)

    async def watch(self, taken_over: Callable[[], None]) -> None:
        """Take over rebuilt archives until cancelled; ``taken_over`` is called after each."""
        while True:
            await asyncio.sleep(self.settings.refresh)
            try:
                if await asyncio.to_thread(self.refresh):
                    taken_over()
            except Exception:
                log.exception("the archive could not be looked at")

    def refresh(self) -> bool:
        """Take over the archive if it was rebuilt; whether it was."""
        marks = marks_of(self.settings)
        if marks == self._seen:
            return False
        try:
            fresh = Snapshot(self.settings)
        except (HscmaeError, OSError, ValueError) as error:
            # Being replaced at this moment, or damaged: what is served goes on being served.
            log.warning("not taken over yet", extra={"fields": {"reason": str(error)}})
            return False
        if fresh.complaint and not self.now.complaint and fresh.version == self.now.version:
            # A new model whose embeddings are still being made: the old one goes with what is served.
            self._seen = marks
            fresh.close()
            return False
        old, self.now, self._seen = self.now, fresh, marks
        self.metrics.takeovers.inc()
        self.metrics.clips.set(len(fresh.archive))
        log.info("taken over", extra={"fields": {"version": fresh.version, "clips": len(fresh.archive)}})
        timer = threading.Timer(RETIRE, old.close)
        timer.daemon = True
        timer.start()
        return True


def store_of(folder: Path) -> Path:
    """The embedding store of an archive, or the store itself."""
    return folder if is_store(folder) else folder / EMBEDDINGS


def version_of(folder: Path) -> str:
    """What tells one state of the embeddings from another.

    Raises:
        InputError: no embeddings there.
    """
    try:
        return hashlib.sha256((store_of(folder) / MANIFEST).read_bytes()).hexdigest()[:16]
    except OSError:
        raise InputError(f"{folder}: neither an archive (hscmae build) nor embeddings (hscmae embed)") from None


def marks_of(settings: Settings) -> tuple[object, ...]:
    """States of the files that change when an archive or its index is rebuilt."""
    places = [store_of(settings.archive) / MANIFEST, settings.archive / ARCHIVE]
    places += [settings.archive / RUN / CONFIG]
    if settings.index is not None and "://" not in settings.index:
        places.append(Path(settings.index) / MANIFEST)
    marks: list[object] = []
    for place in places:
        try:
            state = place.stat()
            marks.append((state.st_ino, state.st_mtime_ns, state.st_size))
        except OSError:
            marks.append(None)
    return tuple(marks)


def _facets(archive: Archive) -> dict[str, dict[str, IntArray]]:
    clips = archive.clips
    found: dict[str, dict[str, list[int]]] = {c: {} for c in FACETS if c in clips.columns}
    for row in range(len(clips)):
        for column, values in found.items():
            for value in set(clips.values(row, column)):
                values.setdefault(value, []).append(row)
    return {
        column: {value: np.array(rows, np.int64) for value, rows in sorted(values.items())}
        for column, values in found.items()
    }

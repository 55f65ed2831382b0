"""Recordings to features: decoding in processes runs ahead of the networks, which work in threads beside them.

A thread a process hands out recordings and takes their windows; each extractor has a queue of windows and threads that
describe them. Queues are short, so memory is bounded by windows, whatever the recordings. On a CPU a thread describes
one window at a time on one core; on a GPU as many together as wait.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from hscmae.cpus import usable_cpus
from hscmae.extract.base import AudioExtractor, Extractor, VisualExtractor
from hscmae.extract.jail import Jail
from hscmae.extract.media import Limits, MediaClip
from hscmae.extract.spool import Recording, Row, Rows
from hscmae.extract.windows import Sampling, Task, Trouble, Window, seconds
from hscmae.extras import require

AHEAD = 3  # windows of a recording that wait for the networks

Float = npt.NDArray[np.float32]
Pool = Literal["none", "mean"]
Append = Callable[[str, Float], Rows]


@dataclass(frozen=True)
class Job:
    """All that features depend on beside the media.

    Attributes:
        audio, visual: the extractors; ``None`` leaves a modality out.
        sampling: windows and frames.
        pool: "mean" makes one vector of a window's sequence.
        limits: of one file.
        at: only the window that begins there.
    """

    audio: AudioExtractor | None
    visual: VisualExtractor | None
    sampling: Sampling = field(default_factory=Sampling)
    pool: Pool = "none"
    limits: Limits = field(default_factory=Limits)
    at: float | None = None

    @property
    def extractors(self) -> dict[str, Extractor]:
        return {e.modality: e for e in (self.audio, self.visual) if e is not None}

    @property
    def dims(self) -> dict[str, int]:
        return {m: extractor.dim for m, extractor in self.extractors.items()}


class Networks:
    """Threads that describe windows; a context manager."""

    def __init__(self, job: Job, threads: int) -> None:
        self.pool = job.pool
        self._queues: dict[str, queue.Queue[tuple[Any, Future[Float]] | None]] = {}
        self._threads: list[threading.Thread] = []
        for m, extractor in job.extractors.items():
            waiting = self._queues[m] = queue.Queue(2 * threads * extractor.windows_at_once)
            count = threads if extractor.windows_at_once == 1 else 1
            self._threads += [
                threading.Thread(target=self._serve, args=(extractor, waiting), name=f"{m}-{k}", daemon=True)
                for k in range(count)
            ]
        self._before = torch.get_num_threads()
        # Features must not depend on the machine's cores: a product's last bit depends on how many threads share it.
        self._numpy = require("threadpoolctl", "media").threadpool_limits(1, "blas")
        for thread in self._threads:
            thread.start()

    def submit(self, modality: str, window: Any) -> Future[Float]:
        """The features of a window to come, shape (steps, dim); waits while the queue is full."""
        promised: Future[Float] = Future()
        self._queues[modality].put((window, promised))
        return promised

    def _serve(self, extractor: Extractor, waiting: queue.Queue[tuple[Any, Future[Float]] | None]) -> None:
        torch.set_num_threads(1)  # of this thread
        while (first := waiting.get()) is not None:
            batch = [first]
            while len(batch) < extractor.windows_at_once:
                try:
                    further = waiting.get_nowait()
                except queue.Empty:
                    break
                if further is None:
                    waiting.put(None)
                    break
                batch.append(further)
            try:
                found = extractor.steps([window for window, _ in batch])
            except BaseException as error:
                for _, promised in batch:
                    promised.set_exception(error)
                continue
            for (_, promised), steps in zip(batch, found, strict=True):
                promised.set_result(self._pooled(steps))
        waiting.put(None)  # for the next thread

    def _pooled(self, steps: Float) -> Float:
        if self.pool == "none":
            return steps
        return np.asarray(steps.mean(axis=0, dtype=np.float64, keepdims=True), np.float32)

    def __enter__(self) -> Networks:
        return self

    def __exit__(self, *exc: object) -> None:
        for waiting in self._queues.values():
            waiting.put(None)
        for thread in self._threads:
            thread.join()
        self._numpy.restore_original_limits()
        torch.set_num_threads(self._before)  # threads that begin later take over what was set last anywhere


def describe_all(
    clips: Sequence[MediaClip], job: Job, append: Append, jobs: int | None = None, jail: Jail | None = None
) -> Generator[Recording, None, None]:
    """Recordings as they are done, in any order; closing the iterator ends what is under way.

    Args:
        clips: the recordings.
        job: extractors and sampling.
        append: keeps a window's features and says where; called from several threads.
        jobs: decoding processes, and threads for each network; one a core where not given.
        jail: a decoder that was started before, to be the first; it is closed like the others.
    """
    cores = usable_cpus()
    jobs = jobs or cores
    feeders = min(jobs, len(clips))
    todo, done = queue.SimpleQueue[MediaClip](), queue.SimpleQueue[Recording | BaseException]()
    for clip in clips:
        todo.put(clip)
    stop = threading.Event()
    jails = [jail if jail is not None and k == 0 else Jail() for k in range(feeders)]

    def feed(jail: Jail) -> None:
        try:
            with jail:
                _Line(job, jail, networks, append, done.put, max(1, cores // feeders), stop).describe(todo)
        except _Stopped:
            pass
        except BaseException as error:
            done.put(error)

    with Networks(job, jobs) as networks:
        threads = [threading.Thread(target=feed, args=(jail,), name="feed", daemon=True) for jail in jails]
        for thread in threads:
            thread.start()
        try:
            for _ in clips:
                found = done.get()
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            stop.set()
            for jail in jails:
                jail.interrupt()
            for thread in threads:
                thread.join()


class _Stopped(Exception):
    """The job was stopped."""


@dataclass
class _Draft:
    """A recording under way."""

    clip: MediaClip
    files: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Line:
    """Decodes recordings in turn; their windows stand in line until they are described, that decoding need not wait.

    A recording is done when its windows are; ``None`` stands in line behind the last of them.
    """

    job: Job
    jail: Jail
    networks: Networks
    append: Append
    done: Callable[[Recording], None]
    threads: int
    stop: threading.Event
    _waiting: deque[tuple[_Draft, Window | None, dict[str, Future[Float]]]] = field(default_factory=deque)

    def describe(self, todo: queue.SimpleQueue[MediaClip]) -> None:
        """Describe recordings until there are none, or ``stop`` is set."""
        while not self.stop.is_set():
            try:
                draft = _Draft(todo.get_nowait())
            except queue.Empty:
                break
            for window, promised in self._decode(draft):
                self._waiting.append((draft, window, promised))
                while len(self._waiting) > AHEAD:
                    self._take()
            self._waiting.append((draft, None, {}))
        while self._waiting:
            self._take()

    def _decode(self, draft: _Draft) -> Generator[tuple[Window, dict[str, Future[Float]]], None, None]:
        """Windows of a recording, with their features to come."""
        job = self.job
        wanted = {m: path for m, path in draft.clip.files().items() if m in job.extractors}
        for m, path in list(wanted.items()):
            try:
                draft.files[m] = file_state(draft.clip, path)
                if not path.is_file():
                    raise OSError("not a regular file")
            except OSError as error:
                draft.problems.append((m, f"cannot be opened ({error.strerror or error})"))
                del wanted[m]
        task = Task(
            audio=wanted.get("audio"),
            visual=wanted.get("visual"),
            rate=job.audio.rate if job.audio else None,
            fit=job.visual.fit if job.visual else None,
            sampling=job.sampling,
            limits=job.limits,
            threads=self.threads,
            at=job.at,
        )
        for item in self.jail.decode(task) if wanted else iter(()):
            if self.stop.is_set():
                raise _Stopped
            if isinstance(item, Trouble):
                draft.problems.append((item.modality, _without_path(item.text, wanted)))
                continue
            promised = {}
            if item.sound is not None:
                promised["audio"] = self.networks.submit("audio", item.sound)
            if item.pictures is not None:
                promised["visual"] = self.networks.submit("visual", (item.pictures, item.steps))
            yield item, promised
        if self.stop.is_set():
            raise _Stopped

    def _take(self) -> None:
        draft, window, promised = self._waiting.popleft()
        if window is None:
            self.done(Recording(draft.clip.id, draft.files, tuple(draft.rows), tuple(draft.problems)))
            return
        kept = {}
        for m, steps in promised.items():
            if np.isfinite(found := steps.result()).all():
                kept[m] = self.append(m, found)
            else:
                draft.problems.append((m, f"features that are not finite at {seconds(window.start)} s"))
        if kept:
            draft.rows.append(Row(window.start, window.end, kept))


def file_state(clip: MediaClip, path: Path) -> tuple[str, int, int]:
    """By which a changed file is noticed: path in its root, size, and time of change.

    Raises:
        OSError: there is no such file.
    """
    entry = path.stat()
    return Path(os.path.relpath(path, clip.root)).as_posix(), entry.st_size, entry.st_mtime_ns


def _without_path(text: str, files: dict[str, Path]) -> str:
    for path in files.values():
        for name in (os.path.abspath(path), str(path)):  # noqa: PTH100
            text = text.removeprefix(f"{name}: ")
    return text

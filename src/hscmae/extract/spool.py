"""The spool: features of recordings in the order in which they are done, until all are there and become a store.

A hidden folder beside the store. ``journal.jsonl`` has a line for each finished recording, which says where its rows
lie in ``audio.f32`` and ``visual.f32``; it is written after the rows are on the disk, so a job that was killed at any
moment goes on from its last line. A lock keeps a second job off.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from hscmae.errors import InputError
from hscmae.files import write_atomic

COMMIT_SECONDS = 2.0

Float = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """Where a window's features lie: ``steps`` rows of a modality from ``first`` on."""

    first: int
    steps: int


@dataclass(frozen=True)
class Row:
    """A window that was described: from when to when, and where its features are."""

    start: float
    end: float
    features: Mapping[str, Rows]


@dataclass(frozen=True)
class Recording:
    """A recording that is done.

    Attributes:
        id: as in ``MediaClip``.
        files: by modality: path relative to its root, size and time of change in nanoseconds.
        rows: its windows; none where nothing could be read.
        problems: (modality, what was wrong) without the path.
    """

    id: str
    files: Mapping[str, tuple[str, int, int]]
    rows: tuple[Row, ...]
    problems: tuple[tuple[str, str], ...]

    @property
    def key(self) -> bytes:
        return os.fsencode(self.id)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "files": {m: list(file) for m, file in self.files.items()},
            "rows": [
                [row.start, row.end, {m: [at.first, at.steps] for m, at in row.features.items()}] for row in self.rows
            ],
            "problems": [list(problem) for problem in self.problems],
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Recording:
        return cls(
            entry["id"],
            {m: (file[0], file[1], file[2]) for m, file in entry["files"].items()},
            tuple(Row(start, end, {m: Rows(*at) for m, at in where.items()}) for start, end, where in entry["rows"]),
            tuple((modality, text) for modality, text in entry["problems"]),
        )


class Spool:
    """Takes features from many threads; a context manager that holds the lock.

    Args:
        store: the store that is to be.
        job: what the features depend on; a spool of another job is not gone on with.
        dims: dimension of each modality.
        resume: go on from what an interrupted job left; else that is an error.
        restart: throw away what an interrupted job left.

    Attributes:
        done: the recordings that are finished, by id.

    Raises:
        InputError: another job is at work on the store, or one was interrupted and ``resume`` and ``restart`` are not
            set, or was another.
    """

    def __init__(
        self, store: Path, job: Mapping[str, Any], dims: Mapping[str, int], *, resume: bool, restart: bool = False
    ) -> None:
        self.folder = folder_of(store)
        self.done: dict[str, Recording] = {}
        self.dims = dict(dims)
        self._mutex = threading.Lock()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InputError(f"{store}: another extraction is at work on it") from None
        try:
            self._enter(store, json.loads(json.dumps(job)), resume, restart)
        except BaseException:
            self._lock.close()
            raise
        self._data = {m: _open_rows(self._path(m), dim) for m, dim in self.dims.items()}
        self._journal: BinaryIO = (self.folder / "journal.jsonl").open("ab")
        self._waiting: list[Recording] = []
        self._committed = time.monotonic()

    def _enter(self, store: Path, job: Any, resume: bool, restart: bool) -> None:
        path = self.folder / "job.json"
        if path.is_file() and not restart:
            if not resume:
                raise InputError(
                    f"{store}: an extraction was interrupted; --resume goes on with it, --overwrite starts afresh"
                )
            try:
                before = json.loads(path.read_bytes())
            except ValueError:
                before = None
            if before != job:
                raise InputError(f"{store}: the interrupted extraction had other settings; --overwrite starts afresh")
            self._read_journal()
            return
        for stray in self.folder.iterdir():
            if stray.name != "lock":
                stray.unlink()
        write_atomic(path, json.dumps(job).encode())

    def _read_journal(self) -> None:
        path, valid = self.folder / "journal.jsonl", 0
        for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
            try:
                found = Recording.from_json(json.loads(line))
            except (ValueError, LookupError, TypeError, AttributeError):
                break
            if not line.endswith(b"\n"):
                break
            self.done[found.id] = found
            valid += len(line)
        if path.is_file():
            with path.open("r+b") as file:
                file.truncate(valid)

    def append(self, modality: str, steps: Float) -> Rows:
        """Keep a window's features, shape (steps, dim)."""
        with self._mutex:
            file = self._data[modality]
            first = file.tell() // (4 * self.dims[modality])
            file.write(np.ascontiguousarray(steps, np.float32).data)
            return Rows(first, len(steps))

    def finish(self, recording: Recording) -> None:
        """Note a recording as done; it is safe within seconds."""
        with self._mutex:
            self.done[recording.id] = recording
            self._waiting.append(recording)
            if time.monotonic() - self._committed > COMMIT_SECONDS:
                self._commit()

    def _commit(self) -> None:
        for file in self._data.values():
            file.flush()
            os.fsync(file.fileno())
        for recording in self._waiting:
            self._journal.write(json.dumps(recording.as_json()).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._waiting, self._committed = [], time.monotonic()

    def features(self) -> dict[str, Float]:
        """All rows of each modality, memory-mapped, shape (rows, dim)."""
        with self._mutex:
            self._commit()
        return {m: mapped_rows(self._path(m), dim) for m, dim in self.dims.items()}

    def remove(self) -> None:
        """Leave nothing behind; the spool is closed after."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Make what is done safe and let go of the lock."""
        if self._lock.closed:
            return
        with self._mutex:
            self._commit()
        for file in (*self._data.values(), self._journal):
            file.close()
        self._lock.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _path(self, modality: str) -> Path:
        return self.folder / f"{modality}.f32"


def folder_of(store: Path) -> Path:
    """Where the spool of a store is."""
    return store.parent / f".{store.name}.extract"


def interrupted_job(store: Path) -> dict[str, Any] | None:
    """The settings of the extraction that was interrupted, if one was."""
    try:
        found = json.loads((folder_of(store) / "job.json").read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def mapped_rows(path: Path, dim: int) -> Float:
    """The rows of a file, shape (rows, dim)."""
    size = path.stat().st_size // (4 * dim)
    return np.memmap(path, np.float32, "r", shape=(size, dim)) if size else np.zeros((0, dim), np.float32)


def _open_rows(path: Path, dim: int) -> BinaryIO:
    file = path.open("ab")
    file.truncate(file.seek(0, os.SEEK_END) // (4 * dim) * (4 * dim))  # a killed writer may leave part of a row
    file.seek(0, os.SEEK_END)
    return file


class Kept:
    """Features kept in memory, by modality."""

    def __init__(self, dims: Mapping[str, int]) -> None:
        self._parts: dict[str, list[Float]] = {m: [np.zeros((0, d), np.float32)] for m, d in dims.items()}
        self._rows = dict.fromkeys(dims, 0)
        self._lock = threading.Lock()

    def append(self, modality: str, steps: Float) -> Rows:
        """Keep a window's features, shape (steps, dim)."""
        with self._lock:
            first = self._rows[modality]
            self._parts[modality].append(steps)
            self._rows[modality] += len(steps)
            return Rows(first, len(steps))

    def arrays(self) -> dict[str, Float]:
        """All rows of each modality, shape (rows, dim)."""
        return {m: np.concatenate(parts) for m, parts in self._parts.items()}

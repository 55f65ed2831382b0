"""Windows of recordings: which stretches of a recording become rows, and what they are called.

Windows of ``seconds`` begin every ``hop`` seconds. A rest shorter than one and a half windows is one window, so a short
file is one clip and nothing at the end is lost: a window lasts at least half and less than one and a half of the
length asked for. A window's id is the recording's with a W3C media fragment, ``talks/monday#t=120,130``; a file that
is one clip has its own id alone.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hscmae.errors import InputError
from hscmae.extract.media import Fit, Frames, Limits, Picture, PictureStream, SoundStream, is_video, read_image

MOST = 1.5  # windows: the longest


@dataclass(frozen=True)
class Sampling:
    """What is taken from the media: ``window`` and ``hop`` in seconds, ``frames`` a second or key frames alone."""

    window: float = 10.0
    hop: float = 10.0
    frames: Frames = "second"

    def __post_init__(self) -> None:
        if not (1.0 <= self.window <= 3600 and 0.1 <= self.hop <= 86400):
            raise InputError(f"a window takes 1 to 3600 seconds, a hop 0.1 to 86400; got {self.window}, {self.hop}")
        if self.frames not in ("second", "key"):
            raise InputError(f"frames must be second or key, got {self.frames!r}")


@dataclass(frozen=True)
class Window:
    """A stretch of a recording, decoded.

    Attributes:
        start, end: seconds from the recording's beginning.
        sound: shape (samples,), if it has any.
        pictures: shape (n, height, width, 3), if it has any.
        steps: for each second, which of ``pictures`` it shows.
    """

    start: float
    end: float
    sound: npt.NDArray[np.float32] | None = None
    pictures: npt.NDArray[np.uint8] | None = None
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Trouble:
    """Why a modality of a recording could not be read, or not all of it."""

    modality: str
    text: str


@dataclass(frozen=True)
class Task:
    """What to decode: files, sizes and sampling; ``at`` asks for the one window that begins there."""

    audio: Path | None
    visual: Path | None
    rate: int | None
    fit: Fit | None
    sampling: Sampling
    limits: Limits
    threads: int = 1
    at: float | None = None


def decode(task: Task) -> Generator[Window | Trouble, None, None]:
    """The windows of a recording in order, decoded no further than is needed, and what went wrong."""
    sound: SoundStream | None = None
    moving: PictureStream | None = None
    still: Picture | None = None
    try:
        if task.audio is not None and task.rate is not None:
            sound = SoundStream(task.audio, task.rate, task.limits)
    except InputError as error:
        yield Trouble("audio", str(error))
    try:
        if task.visual is not None and task.fit is not None:
            if is_video(task.visual):
                moving = PictureStream(task.visual, task.fit, task.sampling.frames, task.threads, task.limits)
            else:
                still = read_image(task.visual, task.fit, task.limits)
    except InputError as error:
        yield Trouble("visual", str(error))
    streams = [stream for stream in (sound, moving) if stream is not None]
    if not streams:
        if still is not None:
            yield Window(0.0, 0.0, None, still[None], (0,))
        return
    window, hop = task.sampling.window, task.sampling.hop
    start, number = task.at or 0.0, 0
    while True:
        goes_on = [stream.reach(start + MOST * window - 1e-6) for stream in streams]
        if any(goes_on):
            end = start + window
        else:
            end = max(stream.end or 0.0 for stream in streams)
            if end - start < window / 2 and number:
                break
        taken = sound.take(start, end) if sound else None
        pictures: npt.NDArray[np.uint8] | None = None
        steps: tuple[int, ...] = ()
        if moving is not None:
            pictures, steps = _distinct(moving.take(start, end) or [])
        elif still is not None:
            pictures, steps = still[None], (0,)
        if taken is not None or pictures is not None:
            yield Window(start, end, taken, pictures, steps)
        number += 1
        start = number * hop
        if not any(goes_on) or task.at is not None:
            break
    for modality, stream, path in (("audio", sound, task.audio), ("visual", moving, task.visual)):
        if stream is not None and stream.damage:
            yield Trouble(modality, f"{path}: not all of it: {stream.damage}")


def _distinct(pictures: list[Picture]) -> tuple[npt.NDArray[np.uint8] | None, tuple[int, ...]]:
    """Each picture once, shape (n, height, width, 3), and which of them each step shows."""
    places: dict[int, int] = {}
    steps = tuple(places.setdefault(id(picture), len(places)) for picture in pictures)
    once = [pictures[steps.index(place)] for place in range(len(places))]
    return (np.stack(once) if once else None), steps


def window_id(recording: bytes, start: float, end: float, *, whole: bool) -> bytes:
    """The id of a window, or of a recording that is one.

    >>> window_id(b"talks/monday", 120.0, 130.0, whole=False)
    b'talks/monday#t=120,130'
    """
    return recording if whole else recording + f"#t={seconds(start)},{seconds(end)}".encode()


def split_id(name: bytes) -> tuple[bytes, float | None, float | None]:
    """The recording of a window's id, and from when to when.

    >>> split_id(b"talks/monday#t=120,130.5")
    (b'talks/monday', 120.0, 130.5)
    >>> split_id(b"dog")
    (b'dog', None, None)
    """
    found = re.fullmatch(rb"(.*)#t=(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)", name, re.DOTALL)
    return (name, None, None) if found is None else (found[1], float(found[2]), float(found[3]))


def seconds(value: float) -> str:
    """A moment as text, to the millisecond."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def recording_of(name: bytes) -> bytes:
    """The id of the recording to which a window belongs."""
    return split_id(name)[0]

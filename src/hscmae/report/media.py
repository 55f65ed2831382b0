"""Pictures and sounds small enough to live inside a page: thumbnails as JPEG, seconds of sound as MP3, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.cpus import usable_cpus
from hscmae.errors import InputError
from hscmae.extract.jail import Jail
from hscmae.extract.media import RATE, Fit, Limits, MediaClip, find_clips
from hscmae.extract.windows import Sampling, Task, Window, split_id
from hscmae.extras import require

BUDGET = 12_000_000  # bytes of data URIs in one page
SIDE = 144  # pixels
SECONDS = 5
LONGEST = 60.0  # seconds of a clip that are looked at for its picture
BITS_PER_SECOND = 40_000
PEAKS = 40
BATCH = 16


def clips_of(folder: Path, ids: Iterable[bytes]) -> dict[bytes, MediaClip]:
    """The media files of clips, by id.

    Raises:
        InputError: no such folder, or nothing in it belongs to any of the clips.
    """
    found = {clip.key: clip for clip in find_clips([folder], unused=[])}
    ids = list(ids)
    clips = {}
    for name in ids:
        recording, start, end = split_id(name)
        if recording in found and start is not None and end is not None:
            clips[name] = replace(found[recording], span=(start, end))
        elif recording in found:
            clips[name] = found[recording]
    if not clips and ids:
        raise InputError(
            f"{folder}: none of its {len(found)} clips is in the feature file: "
            f"it holds {next(iter(found)).decode()!r}, the file {ids[0].decode(errors='replace')!r}"
        )
    return clips


def embed_media(clips: Mapping[int, MediaClip], budget: int = BUDGET) -> dict[int, dict[str, Any]]:
    """What the page shows of clips, until the budget is spent; files that cannot be read are passed over.

    Args:
        clips: row -> media files, the most important first.
        budget: bytes.

    Returns:
        Row -> ``image`` and ``sound``, data URIs, and ``peaks``, the sound's envelope: ``PEAKS`` values in [0, 1].
    """
    shown: dict[int, dict[str, Any]] = {}
    rows, spent, workers = list(clips), 0, usable_cpus()
    free = SimpleQueue[Jail]()

    def entry_of(clip: MediaClip) -> dict[str, Any]:
        jail = free.get()
        try:
            return _entry(clip, jail)
        finally:
            free.put(jail)

    with ExitStack() as jails, ThreadPoolExecutor(workers) as pool:
        for _ in range(workers):
            free.put(jails.enter_context(Jail()))
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            for row, entry in zip(batch, pool.map(entry_of, (clips[row] for row in batch)), strict=True):
                spent += sum(len(value) for value in entry.values() if isinstance(value, str))
                if spent > budget:
                    return shown
                shown[row] = entry
    return shown


def _entry(clip: MediaClip, jail: Jail) -> dict[str, Any]:
    start, end = clip.span or (0.0, LONGEST)
    window = min(max(1.0, end - start), LONGEST)
    task = Task(clip.audio, clip.visual, RATE, Fit(SIDE, SIDE), Sampling(window, window), Limits(), at=start)
    entry: dict[str, Any] = {}
    for found in jail.decode(task):
        if not isinstance(found, Window):
            continue
        if found.pictures is not None:
            entry["image"] = _uri("image/jpeg", thumbnail(found.pictures[found.steps[len(found.steps) // 2]]))
        if found.sound is not None:
            sound = found.sound[: SECONDS * RATE]
            entry["peaks"] = envelope(sound)
            entry["sound"] = _uri("audio/mpeg", mp3(sound))
    return entry


def thumbnail(picture: npt.NDArray[np.uint8], side: int = SIDE) -> bytes:
    """A picture of shape (height, width, 3) as a small JPEG file of at most ``side`` pixels each way."""
    image = require("PIL.Image", "media").fromarray(picture)
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return file.getvalue()


def mp3(sound: npt.NDArray[np.float32], rate: int = RATE, bit_rate: int = BITS_PER_SECOND) -> bytes:
    """A sound in [-1, 1] at ``rate`` Hz, shape (samples,), as an MP3 file, which every browser plays."""
    av = require("av", "media")
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("mp3", rate=rate, bit_rate=bit_rate)
        stream.layout = "mono"
        samples = (np.clip(sound, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16p", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def envelope(sound: npt.NDArray[np.float32], parts: int = PEAKS) -> list[float]:
    """The largest amplitude in each of ``parts`` equal parts, relative to the loudest; zeros for silence."""
    peaks = np.array([np.abs(part).max(initial=0) for part in np.array_split(sound, parts)])
    return [round(float(p), 2) for p in peaks / (peaks.max() or 1.0)]


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

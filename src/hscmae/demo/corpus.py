"""A corpus of short real media files with known truth, made offline: what ``hscmae demo`` trains on.

Each clip is a recording and a picture with one stem (WAV and PNG; a few are MP4 with sound). It has what makes real
corpora hard: several events in a clip, sounds off screen, silent objects, a scene and its ambience that co-occur
without meaning anything, wrong pairs among the training clips, and some silent recordings. ``truth.json`` says of
every clip what is what; no method is given it, but for the events of test clips as labels when it is evaluated.

The settings below were fixed before any method was compared on the corpus.
"""

from __future__ import annotations

import json
import os
import shutil
import wave
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.cpus import usable_cpus
from hscmae.data.pairs import Labels, Pairs
from hscmae.demo import pictures, sounds
from hscmae.errors import InputError
from hscmae.extras import require

KINDS = tuple(sounds.EVENTS)
EVENT_COUNTS = (0.5, 0.33, 0.17)  # chances of one, two and three events in a clip
FIRST_COMPLETE = 0.85  # chance that a clip's first event is both heard and seen
OTHER_COMPLETE = 0.6  # the same of a further event; what is not complete is only heard or only seen, evenly
AMBIENCE_FITS = 0.8  # chance that a scene's own ambience is heard with it
WRONG_PAIRS = 0.2  # share of the training clips that have another one's recording
SILENT = 0.02  # share of all clips
TEST = 0.25
SECONDS = (2.0, 3.0)
VIDEOS = 12
FRAMES_PER_SECOND = 8


@dataclass(frozen=True)
class Event:
    """Something that happens in a clip; ``size`` in [0, 1] sets both its pitch and its look."""

    kind: str
    size: float
    heard: bool
    seen: bool


@dataclass(frozen=True)
class Clip:
    """The truth about one clip.

    Attributes:
        id: stem of its files.
        split: "train" or "test".
        events: at least one, each heard or seen or both; their kinds are the clip's labels.
        scene: background of the picture, which means nothing.
        ambience: background of the recording, mostly that of the scene.
        silent: the recording is digital silence.
        audio_of: the clip whose recording this one has: its own id, or another's in a wrong pair.
        video: written as one MP4 instead of a WAV and a PNG.
    """

    id: str
    split: str
    events: tuple[Event, ...]
    scene: str
    ambience: str
    silent: bool
    audio_of: str
    video: bool

    @property
    def wrong(self) -> bool:
        return self.audio_of != self.id


def make_corpus(
    folder: str | Path, *, clips: int = 1000, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> list[Clip]:
    """Write a corpus of media files and its ``truth.json`` to a new folder; the same seed gives the same corpus.

    Args:
        folder: must not exist, or be empty; it appears only when the corpus is complete.
        clips: number of clips, at least 20.
        seed: seeds everything.
        progress: called with (clips written, clips in all).

    Returns:
        The truth about each clip, in the order of the ids.

    Raises:
        InputError: too few clips, a folder with something in it, or the extra ``media`` missing.
    """
    folder = Path(folder)
    if clips < 20:
        raise InputError(f"make_corpus: needs at least 20 clips, got {clips}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not an empty folder")
    for module in ("PIL.Image", "PIL.ImageDraw", "av"):
        require(module, "media")
    truth = _draw_truth(clips, seed)
    number = {clip.id: i for i, clip in enumerate(truth)}
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:

        def write(clip: Clip) -> None:
            donor = truth[number[clip.audio_of]]
            recording = _record(donor, np.random.default_rng([seed, number[donor.id], 1]))
            picture = _picture(clip, np.random.default_rng([seed, number[clip.id], 2]))
            if clip.video:
                _write_mp4(partial / f"{clip.id}.mp4", recording, picture)
            else:
                _write_wav(partial / f"{clip.id}.wav", recording)
                require("PIL.Image", "media").fromarray(picture).save(partial / f"{clip.id}.png", compress_level=3)

        with ThreadPoolExecutor(usable_cpus()) as pool:  # NumPy and Pillow let go of the lock where it counts
            for done, _ in enumerate(pool.map(write, truth), start=1):
                if progress is not None:
                    progress(done, clips)
        record = {"seed": seed, "kinds": KINDS, "clips": [asdict(clip) for clip in truth]}
        (partial / "truth.json").write_text(json.dumps(record, indent=1))
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return truth


def read_truth(folder: str | Path) -> list[Clip]:
    """The truth that ``make_corpus`` wrote beside its media.

    Raises:
        InputError: the folder holds no ``truth.json`` that can be read.
    """
    path = Path(folder) / "truth.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        return [
            Clip(**{**clip, "events": tuple(Event(**event) for event in clip["events"])}) for clip in record["clips"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as the truth of a demo corpus ({error})") from error


def with_truth(pairs: Pairs, truth: Sequence[Clip]) -> Pairs:
    """Extracted pairs with the events as labels and the split, matched by id.

    Raises:
        InputError: a row whose id the truth lacks.
    """
    clips = {clip.id.encode(): clip for clip in truth}
    unknown = [name.decode() for name in pairs.ids.tolist() if name not in clips]
    if unknown:
        raise InputError(f"{pairs.source}: truth.json lacks {unknown[0]!r}")
    rows = [clips[name] for name in pairs.ids.tolist()]
    kinds = [sorted({KINDS.index(event.kind) for event in clip.events}) for clip in rows]
    indptr = np.cumsum([0, *map(len, kinds)], dtype=np.int64)
    labels = Labels(np.array([kind for row in kinds for kind in row], dtype=np.int64), indptr, KINDS)
    return replace(pairs, labels=labels, split=np.array([clip.split for clip in rows], dtype=np.bytes_))


def _draw_truth(clips: int, seed: int) -> list[Clip]:
    """What happens in each clip."""
    rng = np.random.default_rng([seed, clips])
    ids = [f"clip{i:04d}" for i in range(clips)]
    order = rng.permutation(clips)
    test = set(order[: round(TEST * clips)].tolist())
    wrong = order[len(test) :][: max(2, round(WRONG_PAIRS * (clips - len(test))))].tolist()
    donor = dict(zip(wrong, np.roll(wrong, 1).tolist(), strict=True))  # a cycle: none keeps its own recording
    silent = set(
        rng.choice(sorted(set(range(clips)) - set(wrong)), max(1, round(SILENT * clips)), replace=False).tolist()
    )
    scenes, videos = list(pictures.SCENES), set(rng.choice(clips, min(VIDEOS, clips), replace=False).tolist())
    truth = []
    for i in range(clips):
        events = []
        for place, kind in enumerate(rng.permutation(KINDS)[: rng.choice([1, 2, 3], p=EVENT_COUNTS)]):
            complete = rng.random() < (OTHER_COMPLETE if place else FIRST_COMPLETE)
            only_heard = rng.random() < 0.5
            heard, seen = complete or only_heard, complete or not only_heard
            if i in silent:
                heard, seen = False, True
            events.append(Event(str(kind), round(float(rng.random()), 3), heard, seen))
        scene = str(rng.choice(scenes))
        ambience = scene if rng.random() < AMBIENCE_FITS else str(rng.choice(scenes))
        split = "test" if i in test else "train"
        clip = Clip(ids[i], split, tuple(events), scene, ambience, i in silent, ids[donor.get(i, i)], i in videos)
        truth.append(clip)
    return truth


def _record(clip: Clip, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    samples = int(rng.uniform(*SECONDS) * sounds.RATE) // sounds.BLOCK * sounds.BLOCK
    if clip.silent:
        return np.zeros(samples, dtype=np.int16)
    return sounds.mix(rng, [(event.kind, event.size) for event in clip.events if event.heard], clip.ambience, samples)


def _picture(clip: Clip, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    return pictures.paint(rng, [(event.kind, event.size) for event in clip.events if event.seen], clip.scene)


def _write_wav(path: Path, recording: npt.NDArray[np.int16]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sounds.RATE)
        file.writeframes(recording.astype("<i2").tobytes())


def _write_mp4(path: Path, recording: npt.NDArray[np.int16], picture: npt.NDArray[np.uint8]) -> None:
    """The picture as a slow zoom with the recording as its sound: H.264 and AAC, which browsers play."""
    av = require("av", "media")
    image = require("PIL.Image", "media").fromarray(picture)
    side = image.width
    frames = round(len(recording) / sounds.RATE * FRAMES_PER_SECOND)
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "20", "threads": "1"})
        video.width, video.height, video.pix_fmt = side, side, "yuv420p"
        audio = file.add_stream("aac", rate=sounds.RATE)
        audio.layout = "mono"
        for k in range(frames):
            edge = 0.06 * side * k / frames
            frame = av.VideoFrame.from_image(image.resize((side, side), box=(edge, edge, side - edge, side - edge)))
            file.mux(video.encode(frame))
        file.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(recording[None], format="s16", layout="mono")
        sound.sample_rate, sound.time_base, sound.pts = sounds.RATE, Fraction(1, sounds.RATE), 0
        file.mux(audio.encode(sound))
        file.mux(audio.encode())

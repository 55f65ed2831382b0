"""Media files: which belong together, and their sound and pictures as arrays, streamed.

Files that share a relative path without ending are one clip: ``a/dog.wav`` and ``a/dog.png``, or ``dog.mp4`` alone,
whose two streams serve for what no separate file gives. PyAV decodes all sound and video, Pillow all images; both are
held to the containers and codecs listed here, for FFmpeg's rare decoders are where its holes are. Files of strangers
are decoded in the processes of ``jail.py``; the functions here decode in the process that calls them.
"""

from __future__ import annotations

import math
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hscmae.errors import InputError
from hscmae.extras import require

RATE = 16_000
AUDIO = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma"})
IMAGE = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
VIDEO = frozenset(
    {".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".ogv"}
)
CONTAINERS = "aac,aiff,asf,avi,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,wav,w64"
AUDIO_CODECS = frozenset(
    {
        *("aac", "alac", "flac", "mp2", "mp2float", "mp3", "mp3float", "opus", "libopus", "vorbis", "libvorbis"),
        *("ac3", "eac3", "wmav1", "wmav2", "amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb"),
        *("pcm_s8", "pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
        *("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav"),
    }
)
VIDEO_CODECS = frozenset(
    {
        *("h264", "hevc", "vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d", "libaom-av1", "theora"),
        *("mpeg1video", "mpeg2video", "mpeg4", "msmpeg4", "msmpeg4v2", "h263", "flv", "wmv1", "wmv2", "wmv3", "vc1"),
        *("mjpeg", "prores", "dvvideo"),
    }
)
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
SHORTEST_STREAM = 0.1  # seconds of a window; less of a stream does not count as being there
GAP = 0.1  # seconds that time stamps must jump by before silence is put in
SEEK_MARGIN = 0.25  # seconds: an index tells when a frame is decoded, a little before it is shown

Float = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]  # (height, width, 3), RGB
Frames = Literal["second", "key"]


@dataclass(frozen=True)
class Limits:
    """What one file may take; more is reported as a problem of the file.

    Attributes:
        seconds: of waiting for the next window.
        memory: bytes of address space of a decoding process.
        pixels: of a picture or a video's frame.
        hours: of a recording; what is beyond is left out.
    """

    seconds: float = 60.0
    memory: int = 4 * 2**30
    pixels: int = 100_000_000
    hours: float = 24.0


@dataclass(frozen=True)
class Fit:
    """How a picture is brought to a network's size.

    Attributes:
        resize: pixels of the shorter side, or of both where ``squash`` is set.
        crop: pixels of the square cut from the middle; ``resize`` for all of a squashed picture.
        filter: Pillow's resampling: "bilinear", "bicubic", "box" or "lanczos".
        squash: give up the proportions instead of cropping.
    """

    resize: int
    crop: int
    filter: str = "bilinear"
    squash: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class MediaClip:
    """One clip's files; a video is both.

    Attributes:
        id: path relative to the folder that was named, without ending, with forward slashes. Bytes of a file name
            that are not UTF-8 are kept as surrogate escapes: ``os.fsencode`` gives them back.
        audio: file with its sound, if any.
        visual: file with its picture or pictures, if any.
        root: the folder that was named.
        span: of a window: from when to when, in seconds.
    """

    id: str
    audio: Path | None
    visual: Path | None
    root: Path = field(default=Path(), compare=False)
    span: tuple[float, float] | None = None

    @property
    def key(self) -> bytes:
        """The id as a store holds it."""
        return os.fsencode(self.id)

    def files(self) -> dict[str, Path]:
        """Its files by modality."""
        return {m: path for m, path in (("audio", self.audio), ("visual", self.visual)) if path is not None}


def find_clips(paths: Sequence[str | Path], *, unused: list[str] | None = None) -> list[MediaClip]:
    """The clips in files and folders (searched all the way down, hidden files apart), sorted by id.

    Ids are relative to the folder named, or to a named file's own folder: so the folders ``sounds`` and ``pictures``
    named together pair ``sounds/a.wav`` with ``pictures/a.png``.

    Args:
        paths: files and folders.
        unused: where given, takes a line about each file that a clip has no place for, which else is an error.

    Raises:
        InputError: a path that is not there, a named file of unknown kind, two files for one clip's modality, or no
            media at all.
    """
    found: dict[str, dict[str, Path]] = {}
    roots: dict[str, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        if path.is_file() and _kind(path) is None:
            raise InputError(f"{path}: not a media file by its ending")
        root = path.parent if path.is_file() else path
        for name, file in _files(path):
            kind = _kind(file)
            if kind is None:
                continue
            other = found.setdefault(name, {}).setdefault(kind, file)
            roots.setdefault(name, root)
            if other.resolve() != file.resolve():
                line = f"{file}: the clip {name!r} has {other} already; one {kind} file each"
                if unused is None:
                    raise InputError(line)
                unused.append(line)
    if not found:
        raise InputError(f"no media files in {', '.join(map(str, paths)) or 'nothing'}")
    clips = []
    for name, files in sorted(found.items(), key=lambda item: os.fsencode(item[0])):
        video = files.get("video")
        clips.append(MediaClip(name, files.get("audio", video), files.get("image", video), roots[name]))
    return clips


def _files(path: Path) -> list[tuple[str, Path]]:
    """Files at or below ``path`` with their ids."""
    if path.is_file():
        return [(_id(path.name), path)]
    listed = []
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            if not name.startswith("."):
                listed.append((_id(file.relative_to(path).as_posix()), file))
    return listed


def _id(relative: str) -> str:
    """A path as an id; a "#t=" of the file's own is escaped, for it marks windows."""
    folder, slash, name = relative.rpartition("/")
    return re.sub(r"#(?=t=\d)", "%23", f"{folder}{slash}{os.path.splitext(name)[0]}")  # noqa: PTH122


def _kind(file: Path) -> str | None:
    ending = file.suffix.lower()
    return next((k for k, endings in (("audio", AUDIO), ("image", IMAGE), ("video", VIDEO)) if ending in endings), None)


def is_video(path: Path) -> bool:
    """Whether a file is a video by its ending."""
    return _kind(path) == "video"


# ------------------------------------------------------------------------------------------------------------- sound


class SoundStream:
    """The sound of a file from its beginning, mixed to one channel, buffered no further than asked for.

    Time 0 is the container's. Samples that time stamps leave out are silence, so every moment is where it says.

    Args:
        path: the file.
        rate: samples a second to which it is resampled.
        limits: see ``Limits``.

    Attributes:
        end: seconds, once they are known; ``None`` before.
        damage: what was wrong with parts that were passed over, if anything.

    Raises:
        InputError: cannot be opened, holds no sound, or none of an allowed kind.
    """

    def __init__(self, path: Path, rate: int = RATE, limits: Limits | None = None) -> None:
        self.path, self.rate = path, rate
        self.end: float | None = None
        self.damage = ""
        self._limits = limits or Limits()
        self._buffer: list[Float] = []
        self._start = 0  # the buffer's first sample
        self._length = 0  # samples in the buffer
        self._blocks = self._decode()
        self.reach(0.0)
        if self.end == 0.0:
            raise InputError(f"{path}: {self.damage or 'holds no sound'}")

    def reach(self, seconds: float) -> bool:
        """Buffer up to a moment; whether there is sound after it."""
        while self.end is None and self._start + self._length <= seconds * self.rate:
            block = next(self._blocks, None)
            if block is None:
                self.end = (self._start + self._length) / self.rate
            elif len(block):
                self._buffer.append(block)
                self._length += len(block)
        return self.end is None or self.end > seconds

    def take(self, start: float, end: float) -> Float | None:
        """Samples from ``start`` to ``end`` seconds (less where the sound ends), or ``None`` where there are next to
        none; what is before ``start`` is dropped."""
        self.reach(end)
        first, last = round(start * self.rate), round(end * self.rate)
        whole = np.concatenate(self._buffer) if self._buffer else np.zeros(0, np.float32)
        skip = min(max(0, first - self._start), len(whole))
        whole = whole[skip:]
        self._start, self._buffer, self._length = self._start + skip, [whole], len(whole)
        sound = whole[: last - first].copy()
        return sound if len(sound) >= SHORTEST_STREAM * self.rate or (first == 0 and len(sound)) else None

    def _decode(self) -> Generator[Float, None, None]:
        av = require("av", "media")
        try:
            with _opened(self.path) as (container, origin):
                stream = next(iter(container.streams.audio), None)
                if stream is None:
                    return
                _require_codec(stream, AUDIO_CODECS)
                if not 1000 <= (stream.rate or 0) <= 1_000_000 or stream.channels > 64:
                    raise ValueError(f"{stream.rate} Hz, {stream.channels} channels")
                # Channels are averaged here: FFmpeg's own mix to one channel makes equal ones louder.
                resampler = av.AudioResampler(format="fltp", rate=self.rate)
                position, longest = 0.0, self._limits.hours * 3600  # seconds of input so far
                for frame in _frames(container, stream, self):
                    if frame.pts is not None:
                        gap = float(frame.pts * frame.time_base) - origin - position
                        if (GAP if position else 0.0) < gap < longest - position:
                            if position:
                                yield from self._mono(resampler.resample(None))
                                resampler = av.AudioResampler(format="fltp", rate=self.rate)
                            yield from self._silence(position + gap)
                            position += gap
                    position += frame.samples / frame.sample_rate
                    yield from self._mono(resampler.resample(frame))
                    if position > longest:
                        self.damage = self.damage or f"longer than {self._limits.hours:g} hours: the rest left out"
                        return
                if position:
                    yield from self._mono(resampler.resample(None))
        except (av.FFmpegError, OSError, ValueError, ArithmeticError, MemoryError) as error:
            self.damage = self.damage or f"cannot be read as sound ({_reason(error, self.path)})"

    def _silence(self, until: float) -> Generator[Float, None, None]:
        while (missing := round(until * self.rate) - self._start - self._length) > 0:
            yield np.zeros(min(missing, 60 * self.rate), np.float32)

    def _mono(self, frames: Iterable[Any]) -> Generator[Float, None, None]:
        for frame in frames:
            samples = frame.to_ndarray().mean(axis=0)
            if not np.isfinite(samples).all():
                raise ValueError("samples that are not finite")
            yield samples


def read_audio(path: Path, rate: int = RATE, start: float = 0.0, seconds: float = math.inf) -> Float:
    """The sound of a file, mixed to one channel at ``rate`` Hz, in [-1, 1]; shape (samples,).

    Raises:
        InputError: the file cannot be decoded, or holds no sound (there).
    """
    stream = SoundStream(path, rate)
    sound = stream.take(start, min(start + seconds, stream._limits.hours * 3600 + 1))
    if sound is None:
        raise InputError(f"{path}: holds no sound at {start:g} s")
    return sound


# ---------------------------------------------------------------------------------------------------------- pictures


class PictureStream:
    """The pictures of a video, one for each second from its beginning: what is shown in the middle of the second.

    Frames that no other frame refers to are not decoded, nor what lies before a key frame that can be sought: the
    picture is the last one decoded by then. With ``frames`` "key", key frames alone are decoded. Equal pictures of
    several seconds are one object.

    Args:
        path: the file.
        fit: size to which pictures are brought; ``None`` leaves them as they are.
        frames: "second" or "key".
        threads: of the decoder; the result does not depend on them.
        limits: see ``Limits``.

    Attributes:
        end, damage: as in ``SoundStream``.

    Raises:
        InputError: cannot be opened, holds no pictures, none of an allowed kind, or too large ones.
    """

    def __init__(
        self,
        path: Path,
        fit: Fit | None,
        frames: Frames = "second",
        threads: int = 1,
        limits: Limits | None = None,
    ) -> None:
        self.path, self.fit, self.frames, self.threads = path, fit, frames, threads
        self.end: float | None = None
        self.damage = ""
        self._limits = limits or Limits()
        self._pictures: dict[int, Picture] = {}  # by second
        self._next = 0  # the first second without a picture
        self._decoded = self._decode()
        self.reach(0.0)
        if self.end == 0.0:
            raise InputError(f"{path}: {self.damage or 'holds no picture'}")

    def reach(self, seconds: float) -> bool:
        """Decode up to a moment; whether there are pictures after it."""
        while self.end is None and self._next <= seconds + 0.5:
            if next(self._decoded, None) is None and self.end is None:
                self.end = 0.0  # ended before the first picture
        return self.end is None or self.end > seconds

    def take(self, start: float, end: float) -> list[Picture] | None:
        """A picture a second from ``start`` to ``end``, or ``None`` where there are none; what is before is dropped."""
        self.reach(end)
        last = end if self.end is None else min(end, self.end)
        if last - start < SHORTEST_STREAM and start > 0:
            return None
        for second in [second for second in self._pictures if second < int(start)]:
            del self._pictures[second]
        seconds = (int(start + step + 0.5) for step in range(steps_of(start, last)))
        return [self._pictures[min(second, self._next - 1)] for second in seconds] or None

    def _decode(self) -> Generator[bool, None, None]:
        """Fills ``_pictures``; yields after each decoded frame, sets ``end`` after the last."""
        av = require("av", "media")
        last, shown = None, 0.0  # the last frame and when it is shown
        try:
            with _opened(self.path) as (container, origin):
                stream = next((s for s in container.streams.video if not _is_cover(s)), None)
                if stream is None:
                    return
                _require_codec(stream, VIDEO_CODECS)
                context = stream.codec_context
                self._check_size(context.width, context.height)
                context.thread_count = self.threads
                context.skip_frame = "NONKEY" if self.frames == "key" else "NONREF"
                keys = [] if self.frames == "key" else _key_times(stream, origin)
                frames = _frames(container, stream, self)
                while (frame := next(frames, None)) is not None:
                    if frame.pts is None:
                        continue
                    time = float(frame.pts * stream.time_base) - origin
                    if time > self._limits.hours * 3600:
                        self.damage = self.damage or f"longer than {self._limits.hours:g} hours: the rest left out"
                        break
                    if last is not None and time <= shown:
                        continue
                    self._check_size(frame.width, frame.height)
                    self._show(last or frame, time - 0.5)
                    last, shown = frame, time
                    yield True
                    # The last key frame before the next picture that is wanted, if it is still ahead.
                    key = keys[place - 1] if (place := bisect_right(keys, self._next + 0.5 - SEEK_MARGIN)) else 0.0
                    if key > shown + SEEK_MARGIN:
                        container.seek(round((key + origin) / stream.time_base), stream=stream)
                        frames = _frames(container, stream, self)
                        del keys[: bisect_left(keys, key) + 1]
                if last is not None:
                    duration = float((last.duration or 0) * stream.time_base) or 1 / float(stream.average_rate or 25)
                    end = shown + (duration if 0 < duration < 3600 else 0.04)
                    if self.frames == "key" and stream.duration:  # what follows the last key frame was not decoded
                        end = max(end, min(float(stream.duration * stream.time_base), self._limits.hours * 3600))
                    self._show(last, max(end - 0.5, 0.5))
                    self.end = end
        except (av.FFmpegError, OSError, ValueError, ArithmeticError, MemoryError) as error:
            self.damage = self.damage or f"cannot be read as video ({_reason(error, self.path)})"
            if last is not None and self.end is None:
                self._show(last, shown + 0.01)
                self.end = max(shown, float(self._next))

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limits.pixels:
            raise ValueError(f"{width} x {height} pixels")

    def _show(self, frame: Any, until: float) -> None:
        """``frame`` is what is seen in the middle of each second that lies before ``until`` + 0.5."""
        if self._next < until:
            picture = fitted(frame.to_ndarray(format="rgb24"), self.fit)
            while self._next < until:
                self._pictures[self._next] = picture
                self._next += 1


def read_image(path: Path, fit: Fit | None = None, limits: Limits | None = None) -> Picture:
    """An image, the first picture of an animation; shape (height, width, 3), RGB.

    Raises:
        InputError: the file cannot be decoded, or is too large.
    """
    pil, ops = require("PIL.Image", "media"), require("PIL.ImageOps", "media")
    pixels = (limits or Limits()).pixels
    try:
        with pil.open(path, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > pixels:
                raise ValueError(f"{image.width} x {image.height} pixels")
            return fitted(np.asarray(ops.exif_transpose(image).convert("RGB"), dtype=np.uint8), fit)
    # Pillow's decoders report broken files by a wide range of built-in errors.
    except (
        OSError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError, AttributeError, RuntimeError,
        EOFError, MemoryError, pil.DecompressionBombError,
    ) as error:  # fmt: skip
        raise InputError(f"{path}: cannot be read as an image ({_reason(error, path)})") from error


def fitted(picture: Picture, fit: Fit | None) -> Picture:
    """A picture (height, width, 3) brought to the size that ``fit`` says, (crop, crop, 3); as it is for ``None``."""
    if fit is None:
        return picture
    pil = require("PIL.Image", "media")
    height, width = picture.shape[:2]
    short, long = sorted((height, width))
    if fit.squash:
        size = (fit.resize, fit.resize)
    else:
        other = min(int(fit.resize * long / short), 100 * fit.resize)  # a line of pixels is no reason to fill memory
        size = (fit.resize, other) if width <= height else (other, fit.resize)
    kind = "bicubic" if fit.filter == "box" and short <= fit.resize else fit.filter  # a box only averages
    image = pil.fromarray(picture).resize(size, pil.Resampling[kind.upper()])
    left, top = (size[0] - fit.crop) // 2, (size[1] - fit.crop) // 2
    return np.asarray(image.crop((left, top, left + fit.crop, top + fit.crop)), dtype=np.uint8)


def steps_of(start: float, end: float) -> int:
    """Seconds of a window as steps of a sequence, at least one."""
    return max(1, math.floor(end - start + 0.5))


# ------------------------------------------------------------------------------------------------------------- FFmpeg


class _opened:
    """Opens a container for reading; gives it and the seconds at which its time begins."""

    def __init__(self, path: Path) -> None:
        self.path, self._stack = path, ExitStack()

    def __enter__(self) -> tuple[Any, float]:
        av = require("av", "media")
        # An absolute path is a file, never an address; what containers refer to beyond themselves is not opened.
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        path = os.path.abspath(self.path)  # noqa: PTH100 (resolving links could change the ending)
        # Tags that are not UTF-8 are no reason to refuse a file; from PyAV 19 on none are.
        tolerant = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
        container = self._stack.enter_context(av.open(path, options=options, **tolerant))
        return container, (container.start_time or 0) / av.time_base

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def _require_codec(stream: Any, allowed: frozenset[str]) -> None:
    context = stream.codec_context
    name = None if context is None else context.codec.name
    if name not in allowed:
        raise ValueError(f"{name or 'a kind that is not known'} is not decoded here")


def _is_cover(stream: Any) -> bool:
    """Whether a stream is the cover of a sound file."""
    return "ATTACHED_PIC" in str(getattr(stream, "disposition", ""))


def _key_times(stream: Any, origin: float) -> list[float]:
    """Seconds of the key frames, where the container has an index."""
    entries = stream.index_entries
    if len(entries) > 10_000_000:
        return []
    base = float(stream.time_base)
    return sorted(entry.timestamp * base - origin for entry in entries if entry.is_keyframe)


def _frames(container: Any, stream: Any, owner: SoundStream | PictureStream) -> Iterator[Any]:
    """Decoded frames; packets that cannot be decoded are passed over, and the first is noted as damage."""
    av = require("av", "media")
    packets = container.demux(stream)
    while True:
        packet = None
        try:
            packet = next(packets, None)
            if packet is None:
                return
            yield from packet.decode()
        except av.EOFError:
            return
        except av.FFmpegError as error:
            kind = "sound" if isinstance(owner, SoundStream) else "video"
            owner.damage = owner.damage or f"cannot be read as {kind} ({_reason(error, owner.path)})"
            if packet is None:
                return


def _reason(error: BaseException, path: Path) -> str:
    """An error's own words on one line, without the path that the message names already."""
    words = str(getattr(error, "strerror", None) or error) or type(error).__name__
    for name in (str(path), os.path.abspath(path)):  # noqa: PTH100
        words = words.replace(f" {name!r}", "")
    return (words.splitlines() or [type(error).__name__])[0]

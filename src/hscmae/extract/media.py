"""Media files: which belong together, and their sound and pictures as arrays.

Files that share a relative path without ending are one clip: ``a/dog.wav`` and ``a/dog.png``, or ``dog.mp4`` alone,
whose two streams serve for what no separate file gives. PyAV decodes all sound and video, Pillow all images.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hscmae.errors import InputError
from hscmae.extras import require

RATE = 16_000
FRAMES = 8  # a video gives between this many and half as many pictures, evenly spread
AUDIO = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma"})
IMAGE = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
VIDEO = frozenset({".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp"})


@dataclass(frozen=True)
class MediaClip:
    """One clip's files; a video is both.

    Attributes:
        id: path relative to the folder that was named, without ending, with forward slashes.
        audio: file with its sound, if any.
        visual: file with its picture or pictures, if any.
    """

    id: str
    audio: Path | None
    visual: Path | None


def find_clips(paths: Sequence[str | Path]) -> list[MediaClip]:
    """The clips in files and folders (searched all the way down, hidden files apart), sorted by id.

    Ids are relative to the folder named, or to a named file's own folder: so the folders ``sounds`` and ``pictures``
    named together pair ``sounds/a.wav`` with ``pictures/a.png``.

    Raises:
        InputError: a path that is not there, a named file of unknown kind, two files for one clip's modality, or no
            media at all.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        if path.is_file() and _kind(path) is None:
            raise InputError(f"{path}: not a media file by its ending")
        for name, file in _files(path):
            kind = _kind(file)
            if kind is None:
                continue
            other = found.setdefault(name, {}).setdefault(kind, file)
            if other.resolve() != file.resolve():
                raise InputError(f"{file}: the clip {name!r} has {other} already; one {kind} file each")
    if not found:
        raise InputError(f"no media files in {', '.join(map(str, paths)) or 'nothing'}")
    clips = []
    for name, files in sorted(found.items()):
        video = files.get("video")
        clips.append(MediaClip(name, files.get("audio", video), files.get("image", video)))
    return clips


def _files(path: Path) -> list[tuple[str, Path]]:
    """Files at or below ``path`` with their ids."""
    if path.is_file():
        return [(path.stem, path)]
    listed = []
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            if not name.startswith("."):
                listed.append((file.relative_to(path).with_suffix("").as_posix(), file))
    return listed


def _kind(file: Path) -> str | None:
    ending = file.suffix.lower()
    return next((k for k, endings in (("audio", AUDIO), ("image", IMAGE), ("video", VIDEO)) if ending in endings), None)


def read_audio(path: Path) -> npt.NDArray[np.float32]:
    """The sound of a file, mixed to one channel at ``RATE`` Hz, in [-1, 1]; shape (samples,).

    Raises:
        InputError: the file cannot be decoded, or holds no sound.
    """
    av = require("av", "media")
    parts: list[npt.NDArray[np.float32]] = []
    try:
        with av.open(str(path), metadata_errors="replace") as file:
            # Channels are averaged here: FFmpeg's own mix to one channel makes equal ones louder.
            resampler = av.AudioResampler(format="fltp", rate=RATE)
            for frame in chain(file.decode(audio=0), [None]) if file.streams.audio else ():
                if frame is not None or parts:
                    parts += [part.to_ndarray().mean(axis=0) for part in resampler.resample(frame)]
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as sound ({_reason(error, path)})") from error
    sound = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if not len(sound):
        raise InputError(f"{path}: holds no sound")
    if not np.isfinite(sound).all():
        raise InputError(f"{path}: holds samples that are not finite")
    return sound


def read_pictures(path: Path) -> list[npt.NDArray[np.uint8]]:
    """An image, or pictures evenly spread over a video; each of shape (height, width, 3), RGB.

    Raises:
        InputError: the file cannot be decoded, or holds no picture.
    """
    return _read_frames(path) if _kind(path) == "video" else [_read_image(path)]


def _read_image(path: Path) -> npt.NDArray[np.uint8]:
    pil, ops = require("PIL.Image", "media"), require("PIL.ImageOps", "media")
    try:
        with pil.open(path) as image:
            return np.asarray(ops.exif_transpose(image).convert("RGB"), dtype=np.uint8)
    # Pillow's decoders report broken files by a wide range of built-in errors.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, pil.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as an image ({_reason(error, path)})") from error


def _read_frames(path: Path) -> list[npt.NDArray[np.uint8]]:
    av = require("av", "media")
    kept: list[npt.NDArray[np.uint8]] = []
    stride = 1
    try:
        with av.open(str(path), metadata_errors="replace") as file:
            if file.streams.video:
                for number, frame in enumerate(file.decode(video=0)):
                    if number % stride:
                        continue
                    kept.append(frame.to_ndarray(format="rgb24"))
                    if len(kept) > FRAMES:  # the length is not known beforehand: thin out, go on with larger steps
                        kept, stride = kept[::2], 2 * stride
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as video ({_reason(error, path)})") from error
    if not kept:
        raise InputError(f"{path}: holds no picture")
    return kept


def _reason(error: BaseException, path: Path) -> str:
    """An error's own words on one line, without the path that the message names already."""
    words = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return words.replace(f" {str(path)!r}", "").splitlines()[0]

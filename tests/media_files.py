"""Small media files for the tests, made on the spot."""

from __future__ import annotations

import math
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from hscmae.extract.media import PictureStream, is_video, read_image

RATE = 16_000


def write_wav(path: Path, sound: np.ndarray, rate: int = RATE) -> Path:
    """``sound`` in [-1, 1], shape (samples,) or (samples, channels)."""
    sound = sound[:, None] if sound.ndim == 1 else sound
    with wave.open(str(path), "wb") as file:
        file.setnchannels(sound.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(sound * 32767).astype("<i2").tobytes())
    return path


def write_picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 50)) -> Path:
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


def write_clip(folder: Path, name: str, seed: int, seconds: float = 0.5) -> None:
    """A WAV and a PNG of noise."""
    rng = np.random.default_rng(seed)
    write_wav(folder / f"{name}.wav", rng.uniform(-0.5, 0.5, int(seconds * RATE)))
    write_picture(folder / f"{name}.png", seed)


def read_pictures(path: Path, start: float = 0.0, end: float = math.inf) -> list[np.ndarray]:
    """An image, or the pictures of a video, one a second; each of shape (height, width, 3), RGB."""
    if not is_video(path):
        return [read_image(path)]
    return PictureStream(path, None).take(start, end) or []


def clicks(seconds: float, every: float, rate: int = RATE) -> np.ndarray:
    """Silence with a click at every so many seconds from the first on."""
    sound = np.zeros(int(seconds * rate), np.float32)
    for place in np.arange(0, seconds, every):
        sound[int(place * rate) : int(place * rate) + rate // 500] = 0.9
    return sound


def write_video(
    path: Path,
    seconds: float,
    sound: np.ndarray | None = None,
    *,
    fps: int = 10,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    keys: int = 20,
) -> Path:
    """A video whose brightness in each second is 10 times the second's number (modulo 25)."""
    with av.open(str(path), "w") as file:
        options = {"crf": "20", "threads": "1", "g": str(keys)} if codec == "libx264" else {}
        video = file.add_stream(codec, rate=fps, options=options)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = None if sound is None else file.add_stream("aac", rate=RATE)
        if audio is not None:
            audio.layout = "mono"
        for k in range(round(seconds * fps)):
            level = 10 * (k // fps % 25)
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), level, np.uint8), format="rgb24")
            file.mux(video.encode(frame))
        file.mux(video.encode())
        if audio is not None and sound is not None:
            samples = (sound * 32767).astype(np.int16)
            for start in range(0, len(samples), RATE):
                frame = av.AudioFrame.from_ndarray(samples[None, start : start + RATE], format="s16", layout="mono")
                frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), start
                file.mux(audio.encode(frame))
            file.mux(audio.encode())
    return path

"""Throughput of ``extract`` against decoding alone and the networks alone, in one run, on video made on the spot.

    python -m benchmarks.timings.extract [--seconds 40] [--clips 60] [--repeats 3]

A 720p H.264 video with AAC sound at 30 pictures a second, by one decoding process and one thread a network, so that
each of the three could have a core of its own: `pipeline` should take little more than the longer of `decoding` and
`networks`. Then by all cores: times faster than real time with a picture a second, with key frames, and for picture and
sound files. Prints a table; with --output writes it as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from hscmae.extract import find_clips, get_extractor
from hscmae.extract.jail import Jail
from hscmae.extract.pipeline import Job, describe_all
from hscmae.extract.spool import Rows
from hscmae.extract.windows import Sampling, Task, Window

SIZE, FPS, RATE = (1280, 720), 30, 44_100


def main() -> None:
    """Make media, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", type=Path, default=Path("../shared/models"))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    audio = get_extractor("yamnet", "audio", [options.models] if options.models.exists() else [])
    visual = get_extractor("efficientnet-lite0", "visual")
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        videos.mkdir()
        make_video(videos / "0.mp4", options.seconds, 0)
        make_video(videos / "1.mp4", options.seconds, 1)
        clips = Path(folder) / "clips"
        clips.mkdir()
        make_clips(clips, options.clips)
        for name, media, seconds, sampling in (
            ("video", videos, 2 * options.seconds, Sampling()),
            ("video, key frames", videos, 2 * options.seconds, Sampling(frames="key")),
            ("picture and sound files", clips, 5 * options.clips, Sampling()),
        ):
            job = Job(audio, visual, sampling)
            found = measure(name, media, seconds, job, options.repeats)
            for entry in found:
                print(f"{entry['name']:<58} {entry['value']:8.2f} {entry['unit']}", flush=True)
            figures += found
    if options.output:
        options.output.write_text(json.dumps(figures, indent=1) + "\n")


def measure(name: str, media: Path, seconds: float, job: Job, repeats: int) -> list[dict[str, Any]]:
    """Figures of one kind of media that lasts so many seconds."""
    clips = find_clips([media])
    windows: list[Window] = []

    def decoding() -> None:
        windows.clear()
        with Jail() as jail:
            for clip in clips:
                task = Task(clip.audio, clip.visual, job.audio.rate, job.visual.fit, job.sampling, job.limits)
                windows.extend(item for item in jail.decode(task) if isinstance(item, Window))

    def networks() -> None:
        def hear() -> None:
            torch.set_num_threads(1)
            for window in windows:
                if window.sound is not None:
                    job.audio.steps([window.sound])

        def see() -> None:
            torch.set_num_threads(1)
            for window in windows:
                if window.pictures is not None:
                    job.visual.steps([(window.pictures, window.steps)])

        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: (hear(), see())).result()

    def extraction(jobs: int | None) -> Callable[[], None]:
        def run() -> None:
            for _ in describe_all(clips, job, lambda modality, steps: Rows(0, len(steps)), jobs):
                pass

        return run

    decode, describe = timed(decoding, repeats), timed(networks, repeats)
    together, all_cores = timed(extraction(1), repeats), timed(extraction(None), repeats)
    longer = max(decode, describe)
    return [
        {"name": f"{name}: decoding alone, one process", "value": decode, "unit": "s"},
        {"name": f"{name}: networks alone, one thread", "value": describe, "unit": "s"},
        {"name": f"{name}: both, one process and a thread a network", "value": together, "unit": "s"},
        {"name": f"{name}: both against the longer", "value": together / longer, "unit": "x (target <= 1.3)"},
        {"name": f"{name}: all cores", "value": seconds / all_cores, "unit": "x real time"},
    ]


def timed(function: Callable[[], None], repeats: int) -> float:
    """Median seconds, after one call that is not counted."""
    function()
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def make_video(path: Path, seconds: int, seed: int) -> None:
    """A moving view of noise that has been smoothed, with noise as sound."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    small = rng.integers(0, 256, ((height + 800) // 8, (width + 800) // 8, 3), dtype=np.uint8)
    view = np.asarray(Image.fromarray(small).resize((width + 800, height + 800), Image.Resampling.BICUBIC))
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=FPS, options={"preset": "fast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = file.add_stream("aac", rate=RATE)
        audio.layout = "stereo"
        for k in range(seconds * FPS):
            down, right = 3 * k % 800, 2 * k % 800
            picture = np.ascontiguousarray(view[down : down + height, right : right + width])
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if k % FPS == 0:
                sound = rng.normal(0, 0.1, (2, RATE)).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
                frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), k // FPS * RATE
                file.mux(audio.encode(frame))
        file.mux(video.encode())
        file.mux(audio.encode())


def make_clips(folder: Path, clips: int) -> None:
    """Pairs of a JPEG and five seconds of Opus."""
    for k in range(clips):
        rng = np.random.default_rng(k)
        small = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
        small.resize((600, 400), Image.Resampling.BICUBIC).save(folder / f"{k:04d}.jpg", quality=90)
        with av.open(str(folder / f"{k:04d}.ogg"), "w") as file:
            stream = file.add_stream("libopus", rate=48_000)
            stream.layout = "mono"
            sound = rng.normal(0, 0.1, (1, 5 * 48_000)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(sound, format="flt", layout="mono")
            frame.sample_rate = 48_000
            resampler = av.AudioResampler(format=stream.format, layout="mono", rate=48_000)
            for part in resampler.resample(frame):
                file.mux(stream.encode(part))
            file.mux(stream.encode())


if __name__ == "__main__":
    main()

"""A small archive to serve, made once, and ways to ask it."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from hscmae.cli import main
from hscmae.data.store import open_store
from hscmae.methods import RidgeCCA
from media_files import RATE, write_picture, write_video, write_wav

LIGHT = ["--audio", "light", "--visual", "light", "--jobs", "1"]
CLIPS = 72
LOCAL = "http://127.0.0.1"


def make_archive(folder: Path) -> Path:
    """``folder/archive`` of ``folder/media``: sounds with pictures, a video, a sound of several windows."""
    media = folder / "media"
    for name in ("high", "low"):
        (media / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "label"])
        for i in range(CLIPS):
            kind = "high" if i % 2 else "low"
            time_ = np.arange(int(0.6 * RATE)) / RATE
            tone = 0.4 * np.sin(2 * np.pi * (2000 if i % 2 else 200) * (1 + 0.1 * rng.random()) * time_)
            write_wav(media / kind / f"{i:02d}.wav", tone + 0.05 * rng.standard_normal(len(tone)))
            write_picture(media / kind / f"{i:02d}.png", i)
            lines.writerow([f"{kind}/{i:02d}", kind])
    write_video(media / "film.mp4", 3, 0.3 * rng.standard_normal(3 * RATE))
    write_wav(media / "long.wav", 0.3 * rng.standard_normal(25 * RATE))
    assert main(["extract", str(media), "--output", str(folder / "features"), *LIGHT]) == 0
    RidgeCCA(dim=8).fit(open_store(folder / "features")).save(folder / "run")
    command = ["build", str(media), "--output", str(folder / "archive"), "--labels", str(folder / "labels.csv")]
    assert main([*command, "--run", str(folder / "run"), *LIGHT]) == 0
    return folder / "archive"


@contextmanager
def copied(archive: Path, place: Path) -> Iterator[Path]:
    """A copy of an archive, to be changed."""
    shutil.copytree(archive, place / "archive", ignore=shutil.ignore_patterns("serve"))
    yield place / "archive"


@dataclass
class Process:
    """A server in a process of its own."""

    child: subprocess.Popen[str]
    url: str
    log: Path
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=20))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(self.url + path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.client.post(self.url + path, **options)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def kill(self, number: int = signal.SIGKILL) -> int:
        self.child.send_signal(number)
        return self.child.wait(30)


@contextmanager
def served(archive: Path, folder: Path, *options: str, token: str = "") -> Iterator[Process]:
    """``hscmae serve`` on a free port."""
    log = folder / "log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HSCMAE_TOKEN": token}
    with log.open("w") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "hscmae", "serve", str(archive), "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert "clips, at http" in line, log.read_text()
        yield Process(child, line.split(" at ")[1].split("/ ")[0], log)
    finally:
        child.kill()
        child.wait()


def until(true: Any, seconds: float = 30.0) -> Any:
    """What ``true()`` gives once it is true."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "never"
        time.sleep(0.05)
    return found

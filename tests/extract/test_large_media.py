"""Recordings larger than memory should hold: an hour of video, a sound file of 3 GB."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra media")

from media_files import clicks, write_video

pytestmark = pytest.mark.long
MOST = 1_000_000_000  # bytes of anonymous memory of all processes together
needs_proc = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads /proc")


def peak_of(command: list[str]) -> tuple[int, str]:
    """The most anonymous memory of a command and its children together, and its output."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.is_set():
            peak = max(peak, sum(_anonymous(pid) for pid in _family(process.pid)))
            time.sleep(0.1)

    thread = threading.Thread(target=watch)
    thread.start()
    output, _ = process.communicate(timeout=3000)
    stop.set()
    thread.join()
    assert process.returncode == 0
    return peak, output


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found += [p for child in (task / "children").read_text().split() for p in _family(int(child))]
        except OSError:
            continue
    return found


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def extract_command(media: Path, store: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "hscmae", "extract", str(media), "--output", str(store), "--json", *more]


@needs_proc
def test_an_hour_of_video(tmp_path):
    video = write_video(tmp_path / "hour.mp4", 3600, clicks(3600, 10), keys=100)
    peak, output = peak_of(extract_command(video, tmp_path / "store", "--frames", "key"))
    found = json.loads(output)
    print(f"peak {peak / 1e6:.0f} MB")
    assert found["rows"] == 360 and found["problems"] == [] and peak < MOST


@needs_proc
def test_three_gigabytes_of_sound(tmp_path):
    path = tmp_path / "long.wav"
    size = 3_000_000_000
    with path.open("wb") as file:  # a sparse file: silence, but for a click every ten seconds
        file.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 2, 44100,
                   176400, 4, 16) + b"data" + struct.pack("<I", size))  # fmt: skip
        for k in range(size // 1764000):
            file.seek(44 + k * 1764000)
            file.write(np.full(200, 20000, "<i2").tobytes())
        file.truncate(44 + size)
    peak, output = peak_of(extract_command(path, tmp_path / "store", "--visual", "none", "--audio", "light"))
    found = json.loads(output)
    print(f"peak {peak / 1e6:.0f} MB")
    assert found["rows"] == round(size / 1764000) and peak < MOST

"""Files of strangers: whatever they do to the decoding process, the caller gets a line about the file and goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra media")

import av
from PIL import Image

from hscmae.extract import extract, jail
from hscmae.extract.assemble import read_media
from hscmae.extract.jail import Jail
from hscmae.extract.media import Fit, Limits
from hscmae.extract.windows import Sampling, Task, Trouble, Window, decode
from media_files import RATE, clicks, write_clip, write_picture, write_video, write_wav

FIT = Fit(32, 32, "box", squash=True)
LIGHT = {"audio": "light", "visual": "light"}


def task(path: Path, limits: Limits | None = None, **options) -> Task:
    return Task(path, path, RATE, FIT, Sampling(**options), limits or Limits())


def fake_child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(jail, "CHILD", [sys.executable, "-c", f"import os, sys, time\nsys.stdin.readline()\n{code}"])


def test_the_child_says_what_decode_says(tmp_path):
    path = write_video(tmp_path / "a.mp4", 12, clicks(12, 1))
    here = list(decode(task(path, window=4.0, hop=4.0)))
    with Jail() as child:
        for _ in range(2):  # one child serves many files
            there = list(child.decode(task(path, window=4.0, hop=4.0)))
            assert len(here) == len(there) == 3
            for a, b in zip(here, there, strict=True):
                assert (a.start, a.end, a.steps) == (b.start, b.end, b.steps)
                np.testing.assert_array_equal(a.sound, b.sound)
                np.testing.assert_array_equal(a.pictures, b.pictures)


@pytest.mark.parametrize(
    "code, words",
    [
        ("os.abort()", "SIGABRT"),
        ("os._exit(3)", "exit code 3"),
        ("os._exit(77)", "out of memory"),
        ("sys.stdout.buffer.write(b'garbage garbage garbage'); sys.stdout.flush(); time.sleep(9)", "nonsense"),
        ("sys.stdout.buffer.write(b'\\x02\\0\\0\\0{}'); sys.stdout.flush(); time.sleep(9)", "nonsense"),
        ("time.sleep(60)", "took too long"),
    ],
)
def test_a_child_that_goes_wrong_is_a_problem_of_the_file(tmp_path, monkeypatch, code, words):
    fake_child(monkeypatch, code)
    begun = time.monotonic()
    path = write_wav(tmp_path / "a.wav", clicks(1, 1))
    with Jail() as child:
        (trouble,) = child.decode(task(path, Limits(seconds=1.0)))
        assert isinstance(trouble, Trouble) and words in trouble.text and str(path) in trouble.text
        monkeypatch.undo()
        assert any(isinstance(item, Window) for item in child.decode(task(path)))  # and the next file is read
    assert time.monotonic() - begun < 30


def test_windows_larger_than_the_task_allows_are_not_believed(tmp_path, monkeypatch):
    header = '{"kind":"window","start":0,"end":1,"samples":99999999999,"pictures":0,"steps":[]}'
    fake_child(
        monkeypatch,
        f"h=b'{header}'; sys.stdout.buffer.write(len(h).to_bytes(4,'little')+h); sys.stdout.flush(); time.sleep(9)",
    )
    with Jail() as child:
        (trouble,) = child.decode(task(write_wav(tmp_path / "a.wav", clicks(1, 1))))
    assert "nonsense" in trouble.text


def test_a_file_that_never_ends_to_open_is_given_up(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with Jail() as child:
        (trouble,) = child.decode(task(tmp_path / "pipe.wav", Limits(seconds=1.5)))
    assert "took too long" in trouble.text


def test_a_pipe_in_a_folder_is_not_opened(tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "gone.wav").symlink_to(tmp_path / "nowhere")
    write_clip(folder, "a", 0)
    assert extract(folder, tmp_path / "store", **LIGHT).ids.tolist() == [b"a"]
    text = (tmp_path / "store" / "media.csv").read_text()
    assert "not a regular file" in text and "No such file" in text


def test_too_large_pictures_are_refused(tmp_path):
    Image.new("RGB", (300, 300)).save(tmp_path / "a.png")
    video = write_video(tmp_path / "a.mp4", 1, size=(320, 320))
    with Jail() as child:
        for path in (tmp_path / "a.png", video):
            found = list(child.decode(Task(None, path, None, FIT, Sampling(), Limits(pixels=300 * 299))))
            assert len(found) == 1 and "x 3" in found[0].text


def test_memory_is_limited(tmp_path):
    """A picture that is allowed, but needs more than the process may have."""
    Image.new("RGB", (9000, 9000)).save(tmp_path / "a.png", compress_level=1)
    with Jail() as child:
        (trouble,) = child.decode(Task(None, tmp_path / "a.png", None, FIT, Sampling(), Limits(memory=600 * 2**20)))
        assert isinstance(trouble, Trouble)
        assert any(isinstance(i, Window) for i in child.decode(task(write_picture(tmp_path / "b.png"))))


def test_rare_containers_and_codecs_are_not_decoded(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    with Jail() as child:
        for name, words in (("a.mkv", "ffv1 is not decoded"), ("list.mp4", "cannot be"), ("concat.mp4", "cannot be")):
            found = list(child.decode(task(tmp_path / name)))
            assert len(found) == 2 and all(isinstance(item, Trouble) for item in found)
            assert words in found[1].text


def test_the_child_writes_no_files_and_dies_with_its_parent(tmp_path):
    path = write_wav(tmp_path / "a.wav", clicks(1, 1))
    code = (
        "import sys, time; from pathlib import Path; from hscmae.extract.jail import *\n"
        "j = Jail(); list(j.decode(Task(Path(sys.argv[1]), None, 16000, None, Sampling(), Limits())))\n"
        "print(j._child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    limits = Path(f"/proc/{child}/limits")
    if limits.exists():
        line = next(line for line in limits.read_text().splitlines() if line.startswith("Max file size"))
        assert line.split()[3:5] == ["0", "0"]
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child lives on")


def damaged(original: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, cut, doubled or overwritten."""
    content = bytearray(original)
    kind = rng.integers(5)
    if kind == 0:
        content = content[: rng.integers(0, len(content))]
    elif kind == 1:
        start, size = rng.integers(len(content)), rng.integers(1, 200)
        content[start : start + size] = rng.bytes(int(size))
    elif kind == 2:
        start = int(rng.integers(len(content)))
        content[start:start] = content[: int(rng.integers(1, 2000))]
    elif kind == 3:  # sizes and times that lie
        for _ in range(4):
            start = int(rng.integers(max(1, len(content) - 4)))
            content[start : start + 4] = bytes([255, 255, 255, int(rng.integers(256))])
    for place in rng.integers(0, max(1, len(content)), rng.integers(1, 30)):
        if content:
            content[place % len(content)] = rng.integers(256)
    return bytes(content)


@pytest.mark.parametrize("files", [100, pytest.param(2000, marks=pytest.mark.long)])
def test_mutated_files_are_read_or_reported(tmp_path, files):
    rng = np.random.default_rng(13)
    sources = tmp_path / "sources"
    sources.mkdir()
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, RATE // 2).astype(np.float32)
    originals = [write_wav(sources / "o.wav", sound), write_video(sources / "o.mp4", 2, sound)]
    originals.append(write_video(sources / "o.mkv", 2, sound))
    for ending in ("flac", "ogg", "mp3", "m4a"):
        codec = {"flac": "flac", "ogg": "libopus", "mp3": "mp3", "m4a": "aac"}[ending]
        with av.open(str(sources / f"o.{ending}"), "w") as file:
            stream = file.add_stream(codec, rate=48_000)
            stream.layout = "mono"
            frame = av.AudioFrame.from_ndarray((sound * 32767).astype(np.int16)[None], format="s16", layout="mono")
            frame.sample_rate = RATE
            resampler = av.AudioResampler(format=stream.format, layout="mono", rate=48_000)
            for part in resampler.resample(frame):
                file.mux(stream.encode(part))
            file.mux(stream.encode())
        originals.append(sources / f"o.{ending}")
    for ending in ("png", "jpg", "gif", "bmp", "tiff", "webp"):
        originals.append(write_picture(sources / f"o.{ending}", 1))
    media = tmp_path / "media"
    media.mkdir()
    for number in range(files):
        original = originals[number % len(originals)]
        (media / f"f{number:04d}{original.suffix}").write_bytes(damaged(original.read_bytes(), rng))
    write_clip(media, "good", 0)
    pairs = extract(media, tmp_path / "store", **LIGHT, limits=Limits(seconds=20))
    lines = read_media(tmp_path / "store")
    names = {line["id"].partition("#")[0] for line in lines}
    assert names == {f"f{k:04d}" for k in range(files)} | {"good"}  # each has a row or a line
    rows = {name.decode() for name in pairs.ids.tolist()}
    assert all(line["problem"] or line["id"] in rows for line in lines)
    problems = [line["problem"] for line in lines if line["problem"]]
    assert "good" in rows and 0 < len(problems) <= files
    crashed = [problem for problem in problems if "crashed" in problem or "nonsense" in problem]
    print(f"{len(problems)} of {files} with problems, {len(crashed)} crashes of a decoder: {crashed}")
    assert len(crashed) <= files // 20, crashed

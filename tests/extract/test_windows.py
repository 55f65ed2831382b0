"""Windows of recordings: which there are, that each holds the moments that it says, and what they are called."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra media")

import av

from hscmae.errors import InputError
from hscmae.extract.media import Fit, Limits, PictureStream, SoundStream, read_audio
from hscmae.extract.windows import Sampling, Task, Trouble, Window, decode, split_id, window_id
from media_files import RATE, clicks, write_picture, write_video, write_wav

FIT = Fit(32, 32, "box", squash=True)


def windows_of(path: Path, sampling: Sampling, *, limits: Limits | None = None, **options) -> list[Window]:
    sound = path if path.suffix not in (".png",) else None
    picture = path if path.suffix not in (".wav", ".flac") else None
    task = Task(sound, picture, RATE, FIT, sampling, limits or Limits(), **options)
    return [item for item in decode(task) if isinstance(item, Window)]


def expected(duration: float, window: float, hop: float) -> list[tuple[float, float]]:
    """The rule, word for word."""
    found: list[tuple[float, float]] = []
    k = 0
    while True:
        rest = duration - k * hop
        if rest < window / 2 and k:
            return found
        if rest < 1.5 * window:
            return [*found, (k * hop, duration)]
        found.append((k * hop, k * hop + window))
        k += 1


@pytest.mark.parametrize("window, hop", [(2.0, 2.0), (2.0, 1.0), (3.0, 0.5), (1.0, 4.0)])
@pytest.mark.parametrize("duration", [0.2, 1.0, 2.9, 3.0, 3.1, 5.0, 8.25, 12.0])
def test_the_windows_are_those_of_the_rule(tmp_path, duration, window, hop):
    path = write_wav(tmp_path / "a.wav", np.full(int(duration * RATE), 0.1))
    found = [(w.start, w.end) for w in windows_of(path, Sampling(window, hop))]
    np.testing.assert_allclose(found, expected(duration, window, hop), atol=1e-3)
    for w in windows_of(path, Sampling(window, hop)):
        assert len(w.sound) == pytest.approx((w.end - w.start) * RATE, abs=2)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_click_every_ten_seconds_begins_its_window(tmp_path, rate):
    path = write_wav(tmp_path / "a.wav", clicks(64, 10, rate), rate)
    found = windows_of(path, Sampling())
    assert [w.start for w in found] == [0, 10, 20, 30, 40, 50]
    for w in found:
        places = np.flatnonzero(np.abs(w.sound) > 0.3) / RATE
        assert places[0] < 0.01 and places.min() >= 0
        assert all(min(p % 10, 10 - p % 10) < 0.012 for p in places)


def test_sound_and_pictures_of_a_video_are_of_the_same_moments(tmp_path):
    path = write_video(tmp_path / "a.mp4", 23, clicks(23, 5))
    first, second = windows_of(path, Sampling())
    assert (first.start, first.end, second.start) == (0, 10, 10) and second.end == pytest.approx(23, abs=0.1)
    for w in (first, second):
        levels = [w.pictures[k].mean() for k in w.steps]
        seconds = np.arange(len(levels)) + w.start
        assert len(levels) == round(w.end - w.start)
        np.testing.assert_allclose(levels, 10 * seconds, atol=4)
        places = np.flatnonzero(np.abs(w.sound) > 0.3) / RATE
        assert all(min(p % 5, 5 - p % 5) < 0.01 for p in places) and places.min() < 0.01


def test_sound_that_begins_late_stays_late(tmp_path):
    path = tmp_path / "late.mkv"
    from fractions import Fraction

    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = file.add_stream("pcm_s16le", rate=RATE)
        audio.layout = "mono"
        for _ in range(50):
            grey = np.full((48, 64, 3), 9, np.uint8)
            file.mux(video.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        file.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(np.full((1, RATE), 20000, np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), int(2.5 * RATE)
        file.mux(audio.encode(frame))
        file.mux(audio.encode())
    sound = read_audio(path)
    loud = np.flatnonzero(np.abs(sound) > 0.3) / RATE
    assert loud[0] == pytest.approx(2.5, abs=0.01) and loud[-1] == pytest.approx(3.5, abs=0.01)


@pytest.mark.parametrize("keys", [1, 7, 10, 50])
def test_seeking_and_leaving_out_frames_change_no_second(tmp_path, keys):
    path = write_video(tmp_path / "a.mp4", 20, keys=keys)
    pictures = PictureStream(path, FIT).take(0, math.inf)
    np.testing.assert_allclose([p.mean() for p in pictures], 10 * np.arange(20), atol=4)
    threaded = PictureStream(path, FIT, threads=3).take(0, math.inf)
    assert all(np.array_equal(a, b) for a, b in zip(pictures, threaded, strict=True))


def test_key_frames_alone(tmp_path):
    path = write_video(tmp_path / "a.mp4", 20, keys=50)  # 0, 5, 10 and 15 s
    pictures = PictureStream(path, FIT, "key").take(0, math.inf)
    np.testing.assert_allclose([p.mean() for p in pictures], np.repeat([0, 50, 100, 150], 5), atol=4)
    assert len({id(p) for p in pictures}) == 4  # each decoded, and described, once


def test_a_picture_with_a_long_sound_is_in_each_window(tmp_path):
    sound = write_wav(tmp_path / "a.wav", clicks(30, 1))
    picture = write_picture(tmp_path / "a.png")
    found = list(decode(Task(sound, picture, RATE, FIT, Sampling(), Limits())))
    assert len(found) == 3 and all(w.steps == (0,) for w in found)
    (alone,) = decode(Task(None, picture, RATE, FIT, Sampling(), Limits()))
    assert (alone.start, alone.end, alone.sound, alone.steps) == (0, 0, None, (0,))


def test_the_window_at_a_moment(tmp_path):
    path = write_wav(tmp_path / "a.wav", clicks(60, 7))
    (w,) = windows_of(path, Sampling(), at=7.0)
    assert (w.start, w.end) == (7, 17) and np.abs(w.sound[:40]).max() > 0.5


def test_longer_than_allowed_is_cut(tmp_path):
    path = write_wav(tmp_path / "a.wav", clicks(40, 1))
    task = Task(path, None, RATE, FIT, Sampling(), Limits(hours=15 / 3600))
    *windows, trouble = decode(task)
    assert isinstance(trouble, Trouble) and "longer than" in trouble.text
    assert windows[-1].end == pytest.approx(15, abs=1)


def test_memory_is_bounded_by_the_window(tmp_path):
    """No more than one and a half windows are ever buffered."""
    path = write_wav(tmp_path / "a.wav", clicks(120, 1))
    stream = SoundStream(path)
    for k in range(12):
        stream.reach(10 * k + 15)
        assert stream._length <= 27 * RATE
        stream.take(10.0 * k, 10.0 * k + 10)


def test_ids_have_media_fragments():
    assert window_id(b"talks/monday", 120.0, 130.0, whole=False) == b"talks/monday#t=120,130"
    assert window_id(b"dog", 0, 5, whole=True) == b"dog"
    for name in (b"a#t=1,2", b"\xff\xfe#t=0,12.345", b"x\ny#t=3,4"):
        recording, start, end = split_id(name)
        assert window_id(recording, start, end, whole=False) == name
    assert split_id(b"a#b") == (b"a#b", None, None)


@pytest.mark.parametrize("options", [{"window": 0.1}, {"hop": 0.0}, {"window": math.nan}, {"frames": "all"}])
def test_windows_that_make_no_sense_are_refused(options):
    with pytest.raises(InputError):
        Sampling(**options)

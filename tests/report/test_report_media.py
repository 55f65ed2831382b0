"""Media in a page: small, playable, in order of importance, and never the reason for a failure."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import numpy as np
import pytest

from hscmae.demo.corpus import make_corpus
from hscmae.errors import InputError
from hscmae.extract import jail
from hscmae.extract.media import RATE, find_clips, read_audio
from hscmae.report import media
from media_files import clicks, read_pictures, write_video

pytest.importorskip("av", reason="needs the extra media")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "media"
    make_corpus(path, clips=20)
    return path


def content(uri: str, kind: str) -> bytes:
    head, _, body = uri.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(body)


def test_a_sound_survives_and_is_cut_to_length(tmp_path: Path) -> None:
    t = np.arange(8 * RATE) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    (tmp_path / "tone.mp3").write_bytes(media.mp3(tone[: media.SECONDS * RATE]))
    back = read_audio(tmp_path / "tone.mp3")
    assert abs(len(back) / RATE - media.SECONDS) < 0.15
    spectrum = np.abs(np.fft.rfft(back))
    assert abs(np.argmax(spectrum) * RATE / len(back) - 440) < 2


def test_a_thumbnail_is_small_and_keeps_its_shape(tmp_path: Path) -> None:
    picture = np.zeros((600, 300, 3), np.uint8)
    picture[:300] = 255
    (tmp_path / "small.jpg").write_bytes(media.thumbnail(picture))
    (small,) = read_pictures(tmp_path / "small.jpg")
    assert small.shape == (media.SIDE, media.SIDE // 2, 3)
    assert small[:60].mean() > 250 and small[-60:].mean() < 5


def test_the_envelope_follows_the_sound() -> None:
    sound = np.zeros(4000, np.float32)
    sound[2000:] = -0.25
    assert media.envelope(sound) == [0.0] * (media.PEAKS // 2) + [1.0] * (media.PEAKS // 2)
    assert media.envelope(np.zeros(10, np.float32)) == [0.0] * media.PEAKS


def test_clips_become_data_uris(folder: Path) -> None:
    clips = dict(enumerate(find_clips([folder])))
    shown = media.embed_media(clips)
    assert shown.keys() == clips.keys()
    for entry in shown.values():
        assert content(entry["image"], "image/jpeg")[:3] == b"\xff\xd8\xff"
        assert len(content(entry["sound"], "audio/mpeg")) < 40_000
        assert len(entry["peaks"]) == media.PEAKS


def test_the_budget_keeps_the_first_clips(folder: Path) -> None:
    clips = dict(enumerate(find_clips([folder])))
    full = media.embed_media(clips)
    size = {k: len(v["image"]) + len(v["sound"]) for k, v in full.items()}
    assert list(media.embed_media(clips, budget=size[0] + size[1])) == [0, 1]
    assert media.embed_media(clips, budget=0) == {}


def test_a_broken_file_only_lacks_its_own_part(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"no sound")
    (tmp_path / "x.png").write_bytes((folder / next(f.name for f in folder.glob("*.png"))).read_bytes())
    (entry,) = media.embed_media(dict(enumerate(find_clips([tmp_path])))).values()
    assert set(entry) == {"image"}


def test_a_clip_of_any_length_shows_its_beginning(tmp_path: Path) -> None:
    write_video(tmp_path / "talk.mp4", 20, clicks(20, 100))
    (clip,) = media.clips_of(tmp_path, [b"talk#t=0,90000"]).values()
    assert media.embed_media({0: clip})[0].keys() == {"image", "sound", "peaks"}


def test_a_file_that_kills_its_decoder_kills_no_report(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jail, "CHILD", [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert media.embed_media(dict(enumerate(find_clips([folder])[:2]))) == {0: {}, 1: {}}


def test_media_of_other_clips_are_refused_by_name(folder: Path) -> None:
    with pytest.raises(InputError, match=r"none of its 20 clips .* it holds 'clip0000', the file 'other'"):
        media.clips_of(folder, [b"other"])
    assert list(media.clips_of(folder, [b"other", b"clip0003"])) == [b"clip0003"]


def test_a_window_shows_its_own_moment(tmp_path: Path) -> None:
    write_video(tmp_path / "talk.mp4", 20, clicks(20, 100))
    found = media.clips_of(tmp_path, [b"talk#t=0,10", b"talk#t=10,20", b"other#t=0,10"])
    assert list(found) == [b"talk#t=0,10", b"talk#t=10,20"]
    first, second = media.embed_media(dict(enumerate(found.values()))).values()
    for entry, level in ((first, 50), (second, 150)):
        path = tmp_path / "thumbnail.jpg"
        path.write_bytes(content(entry["image"], "image/jpeg"))
        assert abs(read_pictures(path)[0].mean() - level) < 8
    assert max(first["peaks"]) == 1.0 and first["peaks"][0] == 1.0  # the click is at 0 s

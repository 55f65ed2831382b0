"""From media files to a store: rows, missing modalities, broken files, and the extractors' invariances."""

import logging
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra media")
pytest.importorskip("PIL", reason="needs the extra media")

from PIL import Image

from hscmae.data.store import open_store
from hscmae.errors import InputError
from hscmae.extract import DIMS, audio, extract, features_of, find_clips, visual
from hscmae.extract.media import RATE


def write_wav(path: Path, sound: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(sound * 32767).astype("<i2").tobytes())


def write_clip(folder: Path, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    write_wav(folder / f"{name}.wav", rng.uniform(-0.5, 0.5, 8000))
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{name}.png")


@pytest.fixture
def media(tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    for k, name in enumerate("abcd"):
        write_clip(folder, name, k)
    return folder


def test_a_row_a_clip_in_the_order_of_ids(media, tmp_path):
    calls = []
    pairs = extract([media], tmp_path / "store", progress=lambda done, total: calls.append((done, total)))
    assert pairs.ids.tolist() == [b"a", b"b", b"c", b"d"] and pairs.dims == DIMS
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for row, clip in enumerate(find_clips([media])):
        for name, vector in features_of(clip).items():
            assert vector.dtype == np.float32 and vector.shape == (DIMS[name],) and np.isfinite(vector).all()
            np.testing.assert_array_equal(pairs.features[name][row], vector)
    again = open_store(tmp_path / "store")
    np.testing.assert_array_equal(again.features["visual"], pairs.features["visual"])
    assert pairs.complete().all()


def test_blocks_and_workers_change_nothing(media, tmp_path, monkeypatch):
    whole = extract([media], tmp_path / "whole", workers=1)
    monkeypatch.setattr("hscmae.extract.BLOCK_CLIPS", 3)
    blocks = extract([media], tmp_path / "blocks", workers=3)
    assert blocks.ids.tolist() == whole.ids.tolist()
    for name in DIMS:
        np.testing.assert_array_equal(blocks.features[name], whole.features[name])


def test_what_is_missing_or_broken_is_a_missing_modality(media, tmp_path, caplog):
    (media / "a.png").unlink()
    (media / "b.wav").write_bytes(b"not sound")
    for name in ("c.wav", "c.png"):
        (media / name).write_bytes(b"broken")
    with caplog.at_level(logging.WARNING):
        pairs = extract([media], tmp_path / "store")
    assert pairs.ids.tolist() == [b"a", b"b", b"d"]  # nothing of c can be read
    assert pairs.present["audio"].tolist() == [True, False, True]
    assert pairs.present["visual"].tolist() == [False, True, True]
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(":")[0] for message in messages] == [str(media / n) for n in ("b.wav", "c.wav", "c.png")]
    assert not any("\n" in message for message in messages)
    with pytest.raises(InputError, match=r"b\.wav: cannot be read as sound"):
        features_of(find_clips([media / "b.wav"])[0])


def test_one_modality_alone(media, tmp_path):
    for path in media.glob("*.png"):
        path.unlink()
    assert extract([media], tmp_path / "store").modalities == ("audio",)


def test_nothing_readable_leaves_nothing(tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.wav").write_bytes(b"broken")
    with pytest.raises(InputError, match="none of the 1 clips can be read"):
        extract([tmp_path / "media"], tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["media"]


def test_an_existing_store_is_kept_unless_told_otherwise(media, tmp_path):
    extract([media], tmp_path / "store")
    with pytest.raises(InputError, match="exists"):
        extract([media], tmp_path / "store")
    (media / "d.wav").unlink()
    (media / "d.png").unlink()
    assert len(extract([media], tmp_path / "store", overwrite=True)) == 3


@pytest.mark.parametrize("module", ["av", "PIL.Image"])
def test_a_missing_extra_names_itself(media, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"{module} is not installed: pip install 'hscmae\[media\]'"):
        extract([media], tmp_path / "store")


def test_silence_is_the_same_vector_whatever_its_length():
    vectors = {audio.describe(np.zeros(n, np.float32)).tobytes() for n in (1, 399, 400, 16000, 40001, 200000)}
    assert len(vectors) == 1


def test_loudness_changes_nothing():
    sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    np.testing.assert_allclose(audio.describe(sound), audio.describe(0.1 * sound), atol=1e-3)


def test_a_tone_shows_in_its_mel_band():
    t = np.arange(16000) / RATE
    mean = [
        audio.describe(np.sin(2 * np.pi * f * t).astype(np.float32))[: audio.BANDS].argmax() for f in (200, 1000, 4000)
    ]
    edges = 700 * np.expm1(np.linspace(1127 * np.log1p(50 / 700), 1127 * np.log1p(7800 / 700), 66) / 1127)
    for band, frequency in zip(mean, (200, 1000, 4000), strict=True):
        assert edges[band] - 32 < frequency < edges[band + 2] + 32


def test_swings_show_at_their_rate():
    t = np.arange(48000) / RATE
    noise = np.random.default_rng(0).normal(size=48000)
    for rate in (1.3, 5.0, 15.0):
        swinging = audio.describe(((1 + 0.9 * np.sin(2 * np.pi * rate * t)) * noise).astype(np.float32))
        groups = swinging[3 * audio.BANDS :].reshape(audio.GROUPS, -1)
        expected = np.searchsorted(audio.RATES, rate) - 1
        assert (groups.argmax(axis=1) == expected).all()


def test_long_sound_is_described_block_by_block_as_in_one(monkeypatch):
    sound = np.random.default_rng(0).normal(0, 0.1, 20000).astype(np.float32)
    whole = audio.describe(sound)
    monkeypatch.setattr(audio, "BLOCK", 7)
    np.testing.assert_allclose(audio.describe(sound), whole, rtol=1e-5, atol=1e-6)


def bars(turned: bool = False) -> np.ndarray:
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, (np.arange(128) // 16) % 2 == 1] = 200
    return np.swapaxes(stripes, 0, 1).copy() if turned else stripes


def test_gradient_orientation_turns_with_the_picture():
    start = visual.HUES * visual.SATURATIONS + visual.GREYS
    size = visual.CELLS**2 * visual.ORIENTATIONS
    for turned, orientation in ((False, 0), (True, visual.ORIENTATIONS // 2)):
        cells = visual.describe([bars(turned)])[start : start + size].reshape(-1, visual.ORIENTATIONS)
        assert (cells.argmax(axis=1) == orientation).all()


def test_colour_histogram_names_the_colour():
    for colour, hue in (((255, 0, 0), 0), ((0, 255, 0), 4), ((0, 0, 255), 8)):
        features = visual.describe([np.full((9, 9, 3), colour, np.uint8)])
        cells = features[: visual.HUES * visual.SATURATIONS].reshape(visual.HUES, visual.SATURATIONS)
        assert np.unravel_index(cells.argmax(), cells.shape) == (hue, 2) and cells.max() == pytest.approx(1.0)
    grey = visual.describe([np.full((9, 9, 3), 128, np.uint8)])
    assert grey[visual.HUES * visual.SATURATIONS + 4] == pytest.approx(1.0)


def test_shape_histogram_does_not_depend_on_the_place():
    def disc(x):
        yy, xx = np.mgrid[:128, :128]
        return np.repeat((((yy - 60) ** 2 + (xx - x) ** 2 < 400)[..., None] * 200).astype(np.uint8), 3, axis=2)

    shape = visual.DIM - len(visual.OFFSETS) * visual.ORIENTATIONS**2
    left, right, other = (visual.describe([p])[shape:] for p in (disc(30), disc(90), bars()))
    np.testing.assert_allclose(left, right, atol=1e-3)
    assert np.linalg.norm(left - other) > 1.0


def test_a_video_is_the_mean_of_its_pictures():
    both = visual.describe([bars(), bars(True)])
    np.testing.assert_allclose(both, (visual.describe([bars()]) + visual.describe([bars(True)])) / 2, atol=1e-6)


def test_pictures_of_any_size():
    for shape in ((1, 1, 3), (3, 500, 3), (400, 300, 3)):
        assert np.isfinite(visual.describe([np.zeros(shape, np.uint8)])).all()

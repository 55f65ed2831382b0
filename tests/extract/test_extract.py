"""From media files to a store: rows, missing modalities, broken files, and the light extractors' invariances."""

import logging
import sys

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra media")
pytest.importorskip("PIL", reason="needs the extra media")

from hscmae.data.store import open_store
from hscmae.errors import InputError
from hscmae.extract import extract, features_of, light_audio, light_visual
from hscmae.extract.media import fitted
from media_files import RATE, write_clip

DIMS = {"audio": light_audio.DIM, "visual": light_visual.DIM}
LIGHT = {"audio": "light", "visual": "light"}


@pytest.fixture
def media(tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    for k, name in enumerate("abcd"):
        write_clip(folder, name, k)
    return folder


def test_a_row_a_clip_in_the_order_of_ids(media, tmp_path):
    calls = []
    pairs = extract([media], tmp_path / "store", **LIGHT, progress=lambda done, total: calls.append((done, total)))
    assert pairs.ids.tolist() == [b"a", b"b", b"c", b"d"] and pairs.dims == DIMS
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    again = open_store(tmp_path / "store", verify=True)
    for m in DIMS:
        assert again.features[m].dtype == np.float32 and np.isfinite(again.features[m]).all()
    assert pairs.complete().all()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_features_of_a_query_are_those_of_the_store(media, tmp_path):
    from hscmae.data.recipe import recipe_of

    pairs = extract([media], tmp_path / "store", **LIGHT)
    query = features_of([media / "b.wav", media / "b.png"], recipe_of(tmp_path / "store"))
    assert query.ids.tolist() == [b"b"]
    for m in DIMS:
        np.testing.assert_array_equal(query.features[m][0], pairs.features[m][1])
    sound = features_of(media / "c.wav", recipe_of(tmp_path / "store"))
    assert sound.modalities == ("audio",)
    np.testing.assert_array_equal(sound.features["audio"][0], pairs.features["audio"][2])


def test_what_is_missing_or_broken_is_a_missing_modality(media, tmp_path, caplog):
    (media / "a.png").unlink()
    (media / "b.wav").write_bytes(b"not sound")
    for name in ("c.wav", "c.png"):
        (media / name).write_bytes(b"broken")
    with caplog.at_level(logging.WARNING):
        pairs = extract([media], tmp_path / "store", **LIGHT)
    assert pairs.ids.tolist() == [b"a", b"b", b"d"]  # nothing of c can be read
    assert pairs.present["audio"].tolist() == [True, False, True]
    assert pairs.present["visual"].tolist() == [False, True, True]
    messages = sorted(record.getMessage() for record in caplog.records)
    assert [message.split(":")[0] for message in messages] == [str(media / n) for n in ("b.wav", "c.png", "c.wav")]
    assert not any("\n" in message for message in messages)
    lines = (tmp_path / "store" / "media.csv").read_text().splitlines()
    assert lines[0] == "id,audio,visual,start,end,problem" and lines[1] == "a,a.wav,,0,0.5,"
    assert lines[2] == "b,b.wav,b.png,,,audio: cannot be read as sound (Invalid data found when processing input)"
    assert lines[3].startswith("c,c.wav,c.png,,,audio: cannot be read") and "; visual: cannot be read" in lines[3]
    with pytest.raises(InputError, match=r"b\.wav: cannot be read as sound"):
        features_of(media / "b.wav")


def test_strict_stops_at_the_first_problem(media, tmp_path):
    (media / "b.wav").write_bytes(b"not sound")
    with pytest.raises(InputError, match=r"b\.wav: cannot be read as sound"):
        extract([media], tmp_path / "store", **LIGHT, strict=True)
    assert not (tmp_path / "store").exists()


def test_one_modality_alone(media, tmp_path):
    assert extract([media], tmp_path / "sounds", audio="light", visual="none").modalities == ("audio",)
    for path in media.glob("*.png"):
        path.unlink()
    assert extract([media], tmp_path / "store", **LIGHT).modalities == ("audio",)


def test_nothing_readable_leaves_nothing(tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.wav").write_bytes(b"broken")
    with pytest.raises(InputError, match="none of the 1 clips can be read"):
        extract([tmp_path / "media"], tmp_path / "store", **LIGHT)
    assert [path.name for path in tmp_path.iterdir()] == ["media"]


def test_an_existing_store_is_kept_unless_told_otherwise(media, tmp_path):
    extract([media], tmp_path / "store", **LIGHT)
    with pytest.raises(InputError, match="exists"):
        extract([media], tmp_path / "store", **LIGHT)
    (media / "d.wav").unlink()
    (media / "d.png").unlink()
    assert len(extract([media], tmp_path / "store", **LIGHT, overwrite=True)) == 3
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    for options in ({"overwrite": True}, {"update": True}):
        with pytest.raises(InputError, match="not a store"):
            extract([media], tmp_path / "thesis", **LIGHT, **options)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_second_file_for_a_modality_is_passed_over(media, tmp_path, caplog):
    write_clip(tmp_path, "x", 9)
    (media / "a.flac").write_bytes((media / "a.wav").read_bytes())
    with caplog.at_level(logging.WARNING):
        assert len(extract([media], tmp_path / "store", **LIGHT)) == 4
    assert "has" in caplog.text and "already" in caplog.text


@pytest.mark.parametrize("module", ["av", "PIL.Image"])
def test_a_missing_extra_names_itself(media, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"{module} is not installed: pip install .*extra media"):
        extract([media], tmp_path / "store")


def test_the_package_is_the_function_too(media, tmp_path):
    import hscmae

    assert len(hscmae.extract(media, tmp_path / "store", audio="light", visual="light")) == 4


def describe_picture(picture: np.ndarray) -> np.ndarray:
    return light_visual.describe(fitted(picture, light_visual.LightVisual.fit))


def test_silence_is_the_same_vector_whatever_its_length():
    vectors = {light_audio.describe(np.zeros(n, np.float32)).tobytes() for n in (1, 399, 400, 16000, 40001, 200000)}
    assert len(vectors) == 1


def test_loudness_changes_nothing():
    sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    np.testing.assert_allclose(light_audio.describe(sound), light_audio.describe(0.1 * sound), atol=1e-3)


def test_a_tone_shows_in_its_mel_band():
    t = np.arange(16000) / RATE
    mean = [
        light_audio.describe(np.sin(2 * np.pi * f * t).astype(np.float32))[: light_audio.BANDS].argmax()
        for f in (200, 1000, 4000)
    ]
    edges = 700 * np.expm1(np.linspace(1127 * np.log1p(50 / 700), 1127 * np.log1p(7800 / 700), 66) / 1127)
    for band, frequency in zip(mean, (200, 1000, 4000), strict=True):
        assert edges[band] - 32 < frequency < edges[band + 2] + 32


def test_swings_show_at_their_rate():
    t = np.arange(48000) / RATE
    noise = np.random.default_rng(0).normal(size=48000)
    for rate in (1.3, 5.0, 15.0):
        swinging = light_audio.describe(((1 + 0.9 * np.sin(2 * np.pi * rate * t)) * noise).astype(np.float32))
        groups = swinging[3 * light_audio.BANDS :].reshape(light_audio.GROUPS, -1)
        expected = np.searchsorted(light_audio.RATES, rate) - 1
        assert (groups.argmax(axis=1) == expected).all()


def test_long_sound_is_described_block_by_block_as_in_one(monkeypatch):
    sound = np.random.default_rng(0).normal(0, 0.1, 20000).astype(np.float32)
    whole = light_audio.describe(sound)
    monkeypatch.setattr(light_audio, "BLOCK", 7)
    np.testing.assert_allclose(light_audio.describe(sound), whole, rtol=1e-5, atol=1e-6)


def bars(turned: bool = False) -> np.ndarray:
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, (np.arange(128) // 16) % 2 == 1] = 200
    return np.swapaxes(stripes, 0, 1).copy() if turned else stripes


def test_gradient_orientation_turns_with_the_picture():
    start = light_visual.HUES * light_visual.SATURATIONS + light_visual.GREYS
    size = light_visual.CELLS**2 * light_visual.ORIENTATIONS
    for turned, orientation in ((False, 0), (True, light_visual.ORIENTATIONS // 2)):
        cells = describe_picture(bars(turned))[start : start + size].reshape(-1, light_visual.ORIENTATIONS)
        assert (cells.argmax(axis=1) == orientation).all()


def test_colour_histogram_names_the_colour():
    for colour, hue in (((255, 0, 0), 0), ((0, 255, 0), 4), ((0, 0, 255), 8)):
        features = describe_picture(np.full((9, 9, 3), colour, np.uint8))
        cells = features[: light_visual.HUES * light_visual.SATURATIONS].reshape(
            light_visual.HUES, light_visual.SATURATIONS
        )
        assert np.unravel_index(cells.argmax(), cells.shape) == (hue, 2) and cells.max() == pytest.approx(1.0)
    grey = describe_picture(np.full((9, 9, 3), 128, np.uint8))
    assert grey[light_visual.HUES * light_visual.SATURATIONS + 4] == pytest.approx(1.0)


def test_shape_histogram_does_not_depend_on_the_place():
    def disc(x):
        yy, xx = np.mgrid[:128, :128]
        return np.repeat((((yy - 60) ** 2 + (xx - x) ** 2 < 400)[..., None] * 200).astype(np.uint8), 3, axis=2)

    shape = light_visual.DIM - len(light_visual.OFFSETS) * light_visual.ORIENTATIONS**2
    left, right, other = (describe_picture(p)[shape:] for p in (disc(30), disc(90), bars()))
    np.testing.assert_allclose(left, right, atol=1e-3)
    assert np.linalg.norm(left - other) > 1.0


def test_a_video_is_the_mean_of_its_pictures():
    extractor = light_visual.load()
    pictures = np.stack([bars(), bars(True)])
    (both,) = extractor.steps([(pictures, (0, 1, 1, 1))])
    one, other = extractor.describe(pictures)
    np.testing.assert_allclose(both, [(one + 3 * other) / 4], atol=1e-6)


def test_pictures_of_any_size():
    for shape in ((1, 1, 3), (3, 500, 3), (400, 300, 3)):
        assert np.isfinite(describe_picture(np.zeros(shape, np.uint8))).all()

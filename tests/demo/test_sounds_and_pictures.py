"""Each kind of sound and picture varies, is drawn to size, and can be told from the others."""

import numpy as np
import pytest

pytest.importorskip("PIL", reason="needs the extra media")

from hscmae.demo import pictures, sounds
from hscmae.extract import light_audio, light_visual
from hscmae.extract.media import fitted

KINDS = tuple(sounds.EVENTS)
SAMPLES = 32_000


def centroid(sound: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(sound)) ** 2
    return float((power * np.fft.rfftfreq(len(sound), 1 / sounds.RATE)).sum() / power.sum())


def test_sounds_and_pictures_have_the_same_kinds_and_scenes():
    assert tuple(pictures.EVENTS) == KINDS and len(KINDS) == 12
    assert tuple(sounds.AMBIENCES) == tuple(pictures.SCENES)


@pytest.mark.parametrize("kind", KINDS)
def test_sound_fills_the_length_varies_and_repeats(kind):
    first, again, other = (sounds.EVENTS[kind](np.random.default_rng(s), 0.5, SAMPLES) for s in (1, 1, 2))
    assert first.shape == (SAMPLES,) and np.isfinite(first).all() and first.std() > 0
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("kind", ["dog", "bird", "bell", "telephone", "clock", "violin", "siren", "rain"])
def test_a_large_one_sounds_lower(kind):
    def mean(size):
        return np.mean([centroid(sounds.EVENTS[kind](np.random.default_rng(s), size, SAMPLES)) for s in range(5)])

    assert mean(1.0) < 0.9 * mean(0.0)


def test_mix_is_within_range_and_loud_enough_to_hear():
    for seed in range(10):
        recording = sounds.mix(np.random.default_rng(seed), [("dog", 0.5)], "street", SAMPLES)
        assert recording.dtype == np.int16 and recording.shape == (SAMPLES,)
        assert 32767 * 10 ** (-16 / 20) < np.abs(recording.astype(int)).max() <= 32767


def test_noise_lies_in_its_band():
    noise = sounds._noise(np.random.default_rng(0), SAMPLES, 1000, 2000)
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequency = np.fft.rfftfreq(SAMPLES, 1 / sounds.RATE)
    assert power[(frequency > 700) & (frequency < 2900)].sum() > 0.9 * power.sum()
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0)


@pytest.mark.parametrize("scene", list(pictures.SCENES))
def test_an_object_covers_a_part_of_the_scene(scene):
    empty = pictures.SCENES[scene](np.random.default_rng(3)).image
    assert empty.size == (pictures.PIXELS, pictures.PIXELS)
    picture = pictures.paint(np.random.default_rng(3), [("clock", 0.5)], scene)
    assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, pictures.paint(np.random.default_rng(3), [("clock", 0.5)], scene))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tile_is_partly_covered_and_partly_transparent(kind):
    for size in (0.0, 0.5, 1.0):
        pen = pictures.Pen(100)
        pictures.EVENTS[kind](pen, np.random.default_rng(1), size)
        covered = (np.asarray(pen.image)[..., 3] > 0).mean()
        assert 0.08 < covered < 0.85


def nearest_mean_accuracy(describe) -> float:
    """Kind of unseen single events, on other scenes, by the nearest class mean of scaled features."""
    scenes = list(pictures.SCENES)
    fit, test = (
        np.array([[describe(np.random.default_rng([part, k, i]), kind, scenes[i % 6]) for i in range(n)]
                  for k, kind in enumerate(KINDS)])
        for part, n in ((0, 12), (1, 4))
    )  # fmt: skip
    scale = fit.std(axis=(0, 1)) + 1e-6
    distance = np.linalg.norm(((test[:, :, None] - fit.mean(axis=1)) / scale), axis=-1)
    return float((distance.argmin(axis=2) == np.arange(12)[:, None]).mean())


def test_the_light_extractors_tell_the_kinds_apart():
    def heard(rng, kind, scene):
        recording = sounds.mix(rng, [(kind, rng.random())], scene, SAMPLES)
        return light_audio.describe(recording.astype(np.float32) / 32768)

    def seen(rng, kind, scene):
        return light_visual.describe(
            fitted(pictures.paint(rng, [(kind, rng.random())], scene), light_visual.LightVisual.fit)
        )

    assert nearest_mean_accuracy(heard) > 0.5
    assert nearest_mean_accuracy(seen) > 0.35

"""The made-up features have the truth that they say they have, and the difficulty that they are made for."""

import numpy as np
import pytest

from hscmae.data.synthetic import synthetic_pairs
from hscmae.errors import InputError


@pytest.fixture(scope="module")
def made():
    return synthetic_pairs(1000, seed=3)


def ridge_cca_map(made, ridge: float, dim: int = 10) -> float:
    """mAP (sound to picture, test rows) of CCA solved by plain linear algebra."""
    pairs = made.pairs
    fit = (pairs.split == b"train") & ~made.silent
    test = pairs.split == b"test"
    x, y = ((pairs.features[m] - pairs.features[m][fit].mean(0)) for m in ("audio", "visual"))
    x, y = x / (x[fit].std(0) + 1e-9), y / (y[fit].std(0) + 1e-9)

    def inverse_root(z):
        values, vectors = np.linalg.eigh(np.cov(z.T))
        return (vectors / np.sqrt(np.maximum(values, 0) + ridge * values.mean())) @ vectors.T

    wx, wy = inverse_root(x[fit]), inverse_root(y[fit])
    u, s, vt = np.linalg.svd(wx @ (x[fit].T @ y[fit] / fit.sum()) @ wy)
    za, zv = x[test] @ wx @ u[:, :dim] * s[:dim], y[test] @ wy @ vt[:dim].T * s[:dim]
    scores = za @ zv.T / np.outer(np.linalg.norm(za, axis=1), np.linalg.norm(zv, axis=1))
    hot = pairs.labels.one_hot()[test]
    relevant = (hot[:, None] & hot[None]).any(2)
    hits = np.take_along_axis(relevant, np.argsort(-scores, axis=1), 1)
    precision = hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)
    return float(((precision * hits).sum(1) / hits.sum(1)).mean())


def test_same_seed_same_values_other_seed_other_values(made):
    again = synthetic_pairs(1000, seed=3)
    for name, x in made.pairs.features.items():
        np.testing.assert_array_equal(x, again.pairs.features[name])
    np.testing.assert_array_equal(made.wrong, again.wrong)
    assert not np.array_equal(made.pairs.features["audio"], synthetic_pairs(1000, seed=4).pairs.features["audio"])


def test_shapes_and_shares(made):
    pairs = made.pairs
    assert pairs.dims == {"audio": 128, "visual": 1024}
    assert all(x.dtype == np.float32 and np.isfinite(x).all() for x in pairs.features.values())
    assert (pairs.split == b"test").sum() == 200
    assert made.wrong.sum() == 80
    assert made.silent.sum() == 20
    events = pairs.labels.one_hot().sum(1)
    assert events.min() == 1 and events.max() == 3
    assert len(set(pairs.ids)) == len(pairs)


def test_silence_is_one_vector_that_pairs_recognises(made):
    np.testing.assert_array_equal(made.pairs.silent()["audio"], made.silent)
    assert not made.pairs.silent()["visual"].any()


def test_wrong_pairs_are_other_clips_audio_in_training_rows_only():
    right = synthetic_pairs(300, wrong_pairs=0.0, silent=0.0, seed=5)
    some = synthetic_pairs(300, wrong_pairs=0.25, silent=0.0, seed=5)
    assert not right.wrong.any()
    assert some.wrong.sum() == 60
    assert not some.wrong[some.pairs.split == b"test"].any()
    same = (right.pairs.features["audio"] == some.pairs.features["audio"]).all(1)
    np.testing.assert_array_equal(same, ~some.wrong)
    np.testing.assert_array_equal(right.pairs.features["visual"], some.pairs.features["visual"])
    # The wrong rows hold each other's audio: the same multiset of vectors.
    ordered = [np.sort(p.pairs.features["audio"][some.wrong], axis=0) for p in (right, some)]
    np.testing.assert_array_equal(*ordered)


def test_audio_is_sparse_and_visual_signed(made):
    audio, visual = made.pairs.features["audio"], made.pairs.features["visual"]
    assert audio.min() == 0.0 and 0.3 < (audio == 0).mean() < 0.7
    assert 0.4 < (visual > 0).mean() < 0.6
    assert visual[:, :100].std() > 2 * visual[:, -100:].std()


def test_hard_as_real_features_are(made):
    """Plain CCA is little above chance, ridge CCA well above it and far from perfect."""
    hot = made.pairs.labels.one_hot()[made.pairs.split == b"test"].astype(float)
    chance = float((hot @ hot.T > 0).mean())
    plain, ridge = ridge_cca_map(made, 1e-4), ridge_cca_map(made, 3.0)
    assert chance < plain < ridge - 0.05
    assert chance + 0.1 < ridge < 0.75


def test_offscreen_and_background_make_it_harder(made):
    easy = synthetic_pairs(1000, seed=3, offscreen=0.0, background=0.0, wrong_pairs=0.0)
    assert ridge_cca_map(easy, 3.0) > ridge_cca_map(made, 3.0)
    assert ridge_cca_map(synthetic_pairs(1000, seed=3, background=3.0), 3.0) < ridge_cca_map(made, 3.0)


def test_other_modalities_and_sizes():
    made = synthetic_pairs(50, classes=3, dims={"text": 7, "video": 9}, events=(1, 1), silent=0.0, seed=1)
    assert made.pairs.dims == {"text": 7, "video": 9}
    assert made.pairs.labels.is_single and len(made.pairs.labels.names) == 3


@pytest.mark.parametrize(
    "bad",
    [{"n": 1}, {"wrong_pairs": 1.5}, {"silent": -0.1}, {"events": (0, 2)}, {"events": (2, 1)}, {"events": (1, 13)},
     {"dims": {"audio": 8}}, {"classes": 0}],
)  # fmt: skip
def test_refuses_settings_out_of_range(bad):
    with pytest.raises(InputError, match="synthetic_pairs"):
        synthetic_pairs(**bad)

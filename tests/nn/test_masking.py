"""Masks hide the asked share, set it to zero, and never depend on what else was drawn."""

from __future__ import annotations

import pytest
import torch

from hscmae.nn.masking import mask_values
from hscmae.streams import Noise


def features(n=64, d=50, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + 5


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.85])
def test_hides_the_share_and_leaves_the_rest(ratio):
    x = features(400, 250)
    hidden_x, visible = mask_values(x, ratio, Noise(0, 0), "audio")
    assert (visible == 0).float().mean().item() == pytest.approx(ratio, abs=0.01)
    assert set(visible.unique().tolist()) <= {0.0, 1.0}
    assert torch.all(hidden_x[visible == 0] == 0)
    assert torch.equal(hidden_x[visible == 1], x[visible == 1])


@pytest.mark.parametrize(("ratio", "spread"), [(0.5, 0.4), (0.3, 0.1), (0.8, 0.5), (0.1, 0.5)])
def test_each_row_is_hidden_by_the_ratio_that_was_drawn_for_it(ratio, spread):
    x = features(60, 40)
    _, visible = mask_values(x, ratio, Noise(2, 5), "audio", spread=spread)
    drawn = Noise(2, 5).uniform("mask ratio/audio", x[:, :1]).flatten().tolist()
    for i, u in enumerate(drawn):
        own = min(max(ratio - spread + 2 * spread * u, 0.0), 1.0)
        expected = Noise(2, 5).keep("mask/audio", x, 1 - own)[i]
        assert (visible[i] != expected).sum() <= 1  # 1 - own is rounded to 2^-16, in float32 and in float64


def test_drawn_ratios_are_uniform_and_cut_where_nothing_or_all_is_hidden():
    x = features(2000, 400)
    hidden = 1 - mask_values(x, 0.5, Noise(0, 0), "audio", spread=0.4)[1].mean(1)
    wanted = torch.linspace(0.1, 0.9, 2000)
    torch.testing.assert_close(hidden.sort().values, wanted, atol=0.05, rtol=0)
    hidden = 1 - mask_values(x, 0.8, Noise(0, 0), "audio", spread=0.4)[1].mean(1)
    assert (hidden == 1).float().mean().item() == pytest.approx(0.25, abs=0.05)


def test_a_spread_of_0_hides_as_one_ratio_does():
    x = features()
    for one, other in zip(
        mask_values(x, 0.3, Noise(0, 0), "audio"), mask_values(x, 0.3, Noise(0, 0), "audio", spread=0.0), strict=True
    ):
        assert torch.equal(one, other)


def test_every_row_has_its_own_pattern():
    _, visible = mask_values(features(), 0.5, Noise(0, 0), "audio")
    assert len(visible.unique(dim=0)) == len(visible)


def test_keyed_by_seed_step_and_modality():
    def pattern(seed=0, step=0, modality="audio"):
        return mask_values(features(), 0.5, Noise(seed, step), modality)[1]

    assert torch.equal(pattern(), pattern())
    for other in (pattern(seed=1), pattern(step=1), pattern(modality="visual")):
        assert (pattern() == other).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_unchanged_by_what_else_is_drawn():
    expected = mask_values(features(), 0.5, Noise(3, 7), "audio")[1]
    noise = Noise(3, 7)
    torch.manual_seed(99)
    noise.keep("dropout/clean/audio/0", features(), 0.5)
    mask_values(features(), 0.5, noise, "visual")
    assert torch.equal(mask_values(features(), 0.5, noise, "audio")[1], expected)


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    mask_values(features(), 0.5, Noise(0, 0), "audio")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("spread", [0.0, 0.2])
@pytest.mark.parametrize("split", [32, 50])
def test_two_processes_share_the_pattern_of_one(split, spread):
    x = features()
    whole, visible = mask_values(x, 0.7, Noise(0, 4), "audio", spread=spread)
    parts = [
        mask_values(x[first:last], 0.7, Noise(0, 4, first=first, total=64), "audio", spread=spread)
        for first, last in ((0, split), (split, 64))
    ]
    assert torch.equal(torch.cat([part[0] for part in parts]), whole)
    assert torch.equal(torch.cat([part[1] for part in parts]), visible)

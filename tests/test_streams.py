"""Every purpose has a generator of its own, the same wherever and whenever it is asked for."""

from __future__ import annotations

import pytest
import torch

from hscmae.streams import Noise, generator


def draw(*key):
    return torch.rand(8, generator=generator(*key), dtype=torch.float64).tolist()


def test_same_key_same_numbers_other_key_other_numbers():
    assert draw(0, "mask", 3) == draw(0, "mask", 3)
    keys = [
        (0, "mask", 3),
        (1, "mask", 3),
        (0, "dropout", 3),
        (0, "mask", 4),
        (0, "mask"),
        (13, "mask", 0),
        (1, "3/mask"),
    ]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)


def test_numbers_are_those_of_every_version():
    # A run resumed under a later version must draw what the earlier one would have drawn.
    assert generator(0, "weights").initial_seed() == 5409347080047710043
    assert generator(7, "mask/audio", 12).initial_seed() == 5591818109174972817


def test_generators_do_not_touch_each_other():
    first, second = generator(0, "a"), generator(0, "b")
    torch.rand(100, generator=second)
    assert torch.equal(torch.rand(4, generator=first), torch.rand(4, generator=generator(0, "a")))


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.999999, 1.0])
def test_keep_has_the_shape_type_and_share_asked_for(probability):
    like = torch.zeros(300, 200, dtype=torch.float64)
    kept = Noise(0, 0).keep("mask", like, probability)
    assert kept.shape == like.shape
    assert kept.dtype == like.dtype
    assert set(kept.unique().tolist()) <= {0.0, 1.0}
    assert kept.mean().item() == pytest.approx(probability, abs=0.005 if 0 < probability < 0.9 else 2e-4)


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (7, 3, 2)])
def test_keep_serves_any_number_of_values(shape):
    kept = torch.stack([Noise(0, step).keep("mask", torch.zeros(shape), 0.5) for step in range(2000)])
    assert (kept.mean(0) - 0.5).abs().max() < 0.06
    flat = kept.flatten(1) - kept.flatten(1).mean(0)
    assert (flat.T @ flat / 2000 - torch.diag(flat.var(0))).abs().max() < 0.03


def test_a_process_keeps_its_rows_of_the_global_batch():
    whole = Noise(0, 5).keep("mask", torch.zeros(10, 3), 0.5)
    part = Noise(0, 5, first=4, total=10).keep("mask", torch.zeros(3, 3), 0.5)
    assert torch.equal(part, whole[4:7])


def test_generators_that_outlive_the_step_draw_the_same_numbers():
    like, sources = torch.zeros(10, 3), {}
    for step in range(3):
        lasting, fresh = Noise(0, step), Noise(0, step)
        lasting.draw_from(sources)
        for purpose in ("mask", "dropout"):
            assert torch.equal(lasting.keep(purpose, like, 0.5), fresh.keep(purpose, like, 0.5))
        assert torch.equal(lasting.uniform("steps", like), fresh.uniform("steps", like))
    assert set(sources) == {"mask", "dropout", "steps"}

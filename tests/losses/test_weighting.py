"""Learned weights follow Kendall's formula inside [-2, 2]; fixed ones multiply."""

from __future__ import annotations

import math

import pytest
import torch

from hscmae.losses.weighting import LossWeights

LOSSES = {"global": torch.tensor(0.4), "local": torch.tensor(3.0)}


def test_fixed_weights_multiply_and_have_no_parameters():
    weights = LossWeights({"global": 0.5, "local": 2.0}, learned=False)
    assert weights(LOSSES).item() == pytest.approx(0.5 * 0.4 + 2.0 * 3.0)
    assert not list(weights.parameters())
    assert weights.current() == {"global": 0.5, "local": 2.0}


def test_learned_weights_start_at_those_given_and_follow_the_formula():
    weights = LossWeights({"global": 0.5, "local": 2.0}, learned=True)
    assert weights.current() == pytest.approx({"global": 0.5, "local": 2.0})
    with torch.no_grad():
        weights.log_variance["global"].fill_(0.7)
        weights.log_variance["local"].fill_(-1.1)
    total = weights(LOSSES)
    assert total.item() == pytest.approx(math.exp(-0.7) * 0.4 + 0.7 + math.exp(1.1) * 3.0 - 1.1, rel=1e-6)
    total.backward()
    assert weights.log_variance["global"].grad.item() == pytest.approx(1 - math.exp(-0.7) * 0.4, rel=1e-6)
    assert weights.current() == pytest.approx({"global": math.exp(-0.7), "local": math.exp(1.1)})


def test_descent_ends_where_the_weight_is_one_over_the_loss():
    weights = LossWeights({"local": 1.0}, learned=True)
    optimiser = torch.optim.SGD(weights.parameters(), lr=0.3)
    for _ in range(200):
        optimiser.zero_grad()
        weights({"local": torch.tensor(3.0)}).backward()
        optimiser.step()
        weights.clamp_()
    assert weights.current()["local"] == pytest.approx(1 / 3, rel=1e-4)


@pytest.mark.parametrize(("value", "expected"), [(5.0, 2.0), (-5.0, -2.0), (1.9, 1.9)])
def test_clamp(value, expected):
    weights = LossWeights({"global": 1.0}, learned=True)
    with torch.no_grad():
        weights.log_variance["global"].fill_(value)
    weights.clamp_()
    assert weights.log_variance["global"].item() == pytest.approx(expected)


@pytest.mark.parametrize(("weight", "start"), [(1e6, -2.0), (1e-6, 2.0)])
def test_the_start_is_bounded_too(weight, start):
    assert LossWeights({"global": weight}, learned=True).log_variance["global"].item() == start


@pytest.mark.parametrize("learned", [False, True])
def test_a_weight_of_zero_removes_the_loss(learned):
    weights = LossWeights({"global": 1.0, "local": 0.0}, learned=learned)
    assert list(weights.fixed) == ["global"]
    assert len(list(weights.parameters())) == int(learned)
    assert list(weights.current()) == ["global"]
    # With w = 0 the total is the remaining loss itself.
    assert weights({"global": LOSSES["global"]}).item() == pytest.approx(0.4)

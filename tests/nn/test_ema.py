"""The EMA teacher: every parameter and buffer moves, nothing trains, and it stays in evaluation mode."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hscmae.nn.ema import decay_at, make_teacher, update_teacher


def student():
    """A module with parameters, floating-point buffers and an integer one (``num_batches_tracked``)."""
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2))


def train(module, steps=3):
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(steps):
        optimiser.zero_grad()
        module(torch.randn(16, 4) + 3).square().mean().backward()
        optimiser.step()


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.99, 1.0])
def test_update_equals_the_formula(decay):
    torch.manual_seed(0)
    ours = student()
    teacher = make_teacher(ours)
    for _ in range(3):
        train(ours)
        before = {name: value.clone() for name, value in teacher.state_dict().items()}
        theirs = {name: value.clone() for name, value in ours.state_dict().items()}
        update_teacher(teacher, ours, decay)
        for name, value in teacher.state_dict().items():
            if value.is_floating_point():
                expected = decay * before[name] + (1 - decay) * theirs[name]
                torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6, msg=name)
            else:
                assert torch.equal(value, theirs[name]), name
        assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())
    assert teacher[1].num_batches_tracked == 9
    assert (teacher[1].running_mean == 0).all() == (decay == 1)


def test_decay_zero_copies_to_the_bit():
    torch.manual_seed(0)
    ours = student()
    teacher = make_teacher(ours)
    train(ours)
    update_teacher(teacher, ours, 0.0)
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in teacher.state_dict().items())


def test_evaluation_mode_no_gradient_and_no_shared_memory():
    ours = student().train()
    teacher = make_teacher(ours)
    kept = teacher[0].weight.clone()
    train(ours)
    assert torch.equal(teacher[0].weight, kept)
    update_teacher(teacher, ours, 0.9)
    assert ours.training
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in ours.parameters())
    x = torch.randn(5, 4)
    assert torch.equal(teacher(x), teacher(x))
    assert not teacher(x).requires_grad


def test_decay_rises_to_one_along_a_cosine():
    assert decay_at(0, 100, 0.9) == pytest.approx(0.9)
    assert decay_at(25, 100, 0.9) == pytest.approx(1 - 0.1 * (math.sqrt(0.5) + 1) / 2)
    assert decay_at(50, 100, 0.9) == pytest.approx(0.95)
    assert decay_at(100, 100, 0.9) == decay_at(130, 100, 0.9) == 1
    schedule = [decay_at(step, 100, 0.9) for step in range(101)]
    assert schedule == sorted(schedule)


def test_a_decay_of_zero_copies_at_every_step():
    assert {decay_at(step, 100, 0.0) for step in range(101)} == {0.0}

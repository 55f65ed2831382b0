"""Masked reconstruction: hidden values only, and a mean over the hidden values of everybody."""

from __future__ import annotations

import pytest
import torch

from hscmae.losses.reconstruction import masked_reconstruction


def case(n=6, d=5, seed=0):
    source = torch.Generator().manual_seed(seed)
    predicted, x = (torch.randn(n, d, generator=source, dtype=torch.float64) for _ in range(2))
    visible = (torch.rand(n, d, generator=source) < 0.4).double()
    return predicted, x, visible


@pytest.mark.parametrize("missing", [False, True])
def test_equals_loop(missing):
    predicted, x, visible = case()
    present = torch.tensor([True, False, True, True, False, True]) if missing else None
    error = count = 0.0
    for i in range(6):
        for j in range(5):
            if not visible[i, j] and (present is None or present[i]):
                error += (predicted[i, j].item() - x[i, j].item()) ** 2
                count += 1
    squares, hidden = masked_reconstruction(predicted, x, visible, present)
    assert squares.item() == pytest.approx(error, abs=1e-12)
    assert hidden.item() == count
    assert 0 < count < 30


def test_visible_values_are_not_reconstructed():
    predicted, x, visible = case()
    predicted.requires_grad_()
    squares, _ = masked_reconstruction(predicted, x, visible)
    (gradient,) = torch.autograd.grad(squares, predicted)
    torch.testing.assert_close(gradient, 2 * (predicted - x).detach() * (1 - visible))
    assert torch.all(gradient[visible == 1] == 0)


def test_values_of_missing_rows_are_never_read():
    predicted, x, visible = case()
    present = torch.arange(6) != 2
    expected = masked_reconstruction(predicted, x, visible, present)
    x[2] = torch.nan
    assert masked_reconstruction(predicted, x, visible, present) == expected


def test_the_parts_of_a_batch_add_up_to_the_whole():
    # Two processes hide different numbers of values: the mean of their means would not be the mean of all.
    whole = masked_reconstruction(*case())
    predicted, x, visible = case()
    parts = [masked_reconstruction(predicted[rows], x[rows], visible[rows]) for rows in (slice(0, 2), slice(2, 6))]
    assert parts[0][0] + parts[1][0] == pytest.approx(whole[0].item(), abs=1e-12)
    assert parts[0][1] + parts[1][1] == whole[1]


def test_gradcheck():
    predicted, x, visible = case()
    present = torch.arange(6) != 2
    assert torch.autograd.gradcheck(
        lambda p: masked_reconstruction(p, x, visible, present)[0], (predicted.requires_grad_(),)
    )

"""Pooling of sequences in the network, and hiding of whole steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hscmae.data.pooling import pool_steps
from hscmae.nn.pooling import Pooling, hide_steps
from hscmae.streams import Noise

LENGTHS = torch.tensor([5, 1, 3, 0, 4, 2])
VALID = torch.arange(5) < LENGTHS[:, None]


def sequences() -> torch.Tensor:
    return torch.randn(6, 5, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("how", ["mean", "max"])
def test_equals_pooling_of_the_data(how: str) -> None:
    expected = pool_steps(sequences().numpy(), LENGTHS.numpy(), how)  # type: ignore[arg-type]
    np.testing.assert_allclose(Pooling(7, how)(sequences(), VALID).numpy(), expected, atol=1e-6)


def test_attention_begins_as_the_mean() -> None:
    torch.testing.assert_close(
        Pooling(7, "attention")(sequences(), VALID), Pooling(7, "mean")(sequences(), VALID), rtol=0, atol=0
    )


def test_attention_is_a_softmax_over_valid_steps() -> None:
    pooling, x = Pooling(7, "attention"), sequences()
    assert pooling.score is not None
    torch.nn.init.normal_(pooling.score)
    pooled = pooling(x, VALID).detach()
    for row, length in enumerate(LENGTHS.tolist()):
        weights = [torch.exp(pooling.score @ x[row, t] / 7**0.5) for t in range(length)]
        expected = sum((w * x[row, t] for t, w in enumerate(weights)), torch.zeros(7)) / max(sum(weights), 1e-9)
        torch.testing.assert_close(pooled[row], expected.detach())


@pytest.mark.parametrize("how", ["mean", "max", "attention"])
def test_padding_never_matters_and_one_step_is_itself(how: str) -> None:
    pooling, x = Pooling(7, how), sequences()
    for parameter in pooling.parameters():
        torch.nn.init.normal_(parameter)
    other = torch.where(VALID[:, :, None], x, 1e6)
    torch.testing.assert_close(pooling(other, VALID), pooling(x, VALID), rtol=0, atol=0)
    torch.testing.assert_close(pooling(x[:, :1]), x[:, 0], rtol=0, atol=0)
    assert pooling(x[:, 0]) is not None and torch.equal(pooling(x[:, 0]), x[:, 0])


def test_attention_learns_to_find_the_step_that_matters() -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(256, 6, 8, generator=source)
    marked = torch.randint(6, (256,), generator=source)
    x[torch.arange(256), marked, 0] += 6  # column 0 says which step matters
    target = x[torch.arange(256), marked, 1:]
    pooling = Pooling(8, "attention")
    optimiser = torch.optim.Adam(pooling.parameters(), lr=0.3)
    before = float((pooling(x)[:, 1:] - target).square().mean().detach())
    for _ in range(60):
        optimiser.zero_grad()
        loss = (pooling(x)[:, 1:] - target).square().mean()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < before / 4


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.99])
def test_the_share_of_hidden_steps_rounds_down(ratio: float) -> None:
    visible = hide_steps(VALID, ratio, Noise(0, 3), "audio")
    assert not (visible & ~VALID).any()
    hidden = LENGTHS - visible.sum(1)
    assert hidden.tolist() == [int(ratio * n) for n in LENGTHS.tolist()]


def test_every_step_is_hidden_as_often() -> None:
    valid = torch.ones(4000, 4, dtype=torch.bool)
    visible = hide_steps(valid, 0.5, Noise(0, 0), "audio").float()
    torch.testing.assert_close(visible.mean(0), torch.full((4,), 0.5), atol=0.03, rtol=0)


def test_draws_have_streams_of_their_own() -> None:
    valid = torch.ones(50, 8, dtype=torch.bool)
    first = hide_steps(valid, 0.5, Noise(0, 3), "audio")
    assert torch.equal(first, hide_steps(valid, 0.5, Noise(0, 3), "audio"))
    for other in (Noise(1, 3), Noise(0, 4)):
        assert not torch.equal(first, hide_steps(valid, 0.5, other, "audio"))
    assert not torch.equal(first, hide_steps(valid, 0.5, Noise(0, 3), "visual"))
    part = hide_steps(valid[20:35], 0.5, Noise(0, 3, first=20, total=50), "audio")
    assert torch.equal(part, first[20:35])

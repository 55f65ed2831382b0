"""Mined soft neighbours against a double loop written from the definition."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from hscmae.losses.affinity import Neighbours, mine_neighbours


def embeddings(n, dim=5, seed=0, dtype=torch.float64):
    z = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(z, dim=1).to(dtype)


def naive(fused, candidates, itself, k, tau):
    """Row -> {candidate: weight}."""
    soft = []
    for i, t in enumerate(fused.tolist()):
        cosines = {}
        for j, c in enumerate(candidates.tolist()):
            if any(t) and any(c) and itself[i] != j:
                cosines[j] = sum(p * q for p, q in zip(t, c, strict=True))
        kept = sorted(cosines, key=cosines.__getitem__, reverse=True)[:k]
        total = sum(math.exp(cosines[j] / tau) for j in kept)
        soft.append({j: math.exp(cosines[j] / tau) / total for j in kept})
    return soft


def as_dicts(neighbours):
    return [
        {j: w for j, w in zip(index, weight, strict=True) if w > 0}
        for index, weight in zip(neighbours.index.tolist(), neighbours.weight.tolist(), strict=True)
    ]


def assert_same(neighbours, expected, tolerance=1e-12):
    for found, wanted in zip(as_dicts(neighbours), expected, strict=True):
        assert found == pytest.approx(wanted, abs=tolerance)


@pytest.mark.parametrize("tau", [0.05, 0.5])
@pytest.mark.parametrize("k", [1, 3, 8, 9, 50])
@pytest.mark.parametrize("memory", [0, 6])
def test_equals_double_loop(k, tau, memory):
    fused = embeddings(9)
    candidates = torch.cat([fused, embeddings(memory, seed=1)])
    itself = torch.arange(9)
    neighbours = mine_neighbours(fused, candidates, itself, k=k, tau=tau)
    assert_same(neighbours, naive(fused, candidates, itself.tolist(), k, tau))
    assert neighbours.index.shape == (9, min(k, len(candidates)))
    torch.testing.assert_close(neighbours.weight.sum(1), torch.ones(9, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_sample_is_never_its_own_neighbour():
    fused = embeddings(7)
    neighbours = mine_neighbours(fused, fused, torch.arange(7), k=7, tau=0.1)
    own = neighbours.index == torch.arange(7)[:, None]
    assert torch.all(neighbours.weight[own] == 0)
    assert torch.all((neighbours.weight > 0).sum(1) == 6)


def test_zero_rows_have_no_neighbours_and_are_nobodys():
    fused = embeddings(8)
    fused[3] = 0
    fused[:, 0] = -fused[:, 0].abs()  # many cosines below the zero row's 0
    itself = torch.arange(8)
    neighbours = mine_neighbours(fused, fused, itself, k=8, tau=0.1)
    assert_same(neighbours, naive(fused, fused, itself.tolist(), 8, 0.1))
    assert torch.all(neighbours.weight[3] == 0)
    assert all(3 not in row for row in as_dicts(neighbours))


def test_a_row_without_any_candidate_has_no_neighbours_and_the_others_do():
    fused = embeddings(3)
    candidates = torch.stack([torch.zeros(5, dtype=torch.float64), fused[1], torch.zeros(5, dtype=torch.float64)])
    neighbours = mine_neighbours(fused, candidates, torch.arange(3), k=2, tau=0.1)
    assert neighbours.weight.isfinite().all()
    assert neighbours.weight.sum(1).tolist() == pytest.approx([1, 0, 1])


def test_blocks_of_rows_change_nothing(monkeypatch):
    fused = embeddings(9)
    whole = mine_neighbours(fused, fused, torch.arange(9), k=4, tau=0.1)
    monkeypatch.setattr("hscmae.losses.affinity.BLOCK", 2 * 9)
    blocked = mine_neighbours(fused, fused, torch.arange(9), k=4, tau=0.1)
    assert as_dicts(blocked) == [pytest.approx(row, rel=1e-12) for row in as_dicts(whole)]


def test_tied_candidates_share_their_weight():
    fused = F.normalize(torch.ones(6, 3, dtype=torch.float64), dim=1)
    neighbours = mine_neighbours(fused, fused, torch.arange(6), k=4, tau=0.1)
    assert all(len(row) == 4 and i not in row for i, row in enumerate(as_dicts(neighbours)))
    torch.testing.assert_close(neighbours.weight, torch.full((6, 4), 0.25, dtype=torch.float64))


def test_float64_is_kept_to_the_last_digits():
    # Rounded through float32 the weights would be right to 1e-8 only, and two processes would differ from one.
    fused = embeddings(9)
    itself = torch.arange(9)
    neighbours = mine_neighbours(fused, fused, itself, k=4, tau=0.02)
    assert neighbours.weight.dtype == torch.float64
    assert_same(neighbours, naive(fused, fused, itself.tolist(), 4, 0.02), tolerance=1e-13)


def test_targets_carry_no_gradient():
    fused = embeddings(6).requires_grad_()
    assert not mine_neighbours(fused, fused, torch.arange(6), k=2, tau=0.1).weight.requires_grad


def test_weight_of_invalid_candidates_goes_to_the_valid_ones():
    neighbours = Neighbours(
        torch.tensor([[1, 2, 3], [0, 2, 3], [0, 1, 3]]),
        torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [0.1, 0.2, 0.7]], dtype=torch.float64),
    )
    restricted = neighbours.restricted_to(torch.tensor([False, True, False, True]))
    expected = [[0.5 / 0.7, 0, 0.2 / 0.7], [0, 0, 0], [0, 0.2 / 0.9, 0.7 / 0.9]]
    torch.testing.assert_close(restricted.weight, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)

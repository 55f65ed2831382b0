"""Affinity-weighted InfoNCE and plain InfoNCE against loops copied from their formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from hscmae.losses.affinity import Neighbours, mine_neighbours
from hscmae.losses.contrastive import affinity_infonce, infonce, softclip

N, MEMORY, DIM = 7, 5, 4
TREATMENTS = {
    "negative": {"pair_share": 0.0},
    "positive": {"pair_share": 0.3},
    "only the pair": {"pair_share": 1.0},
    "masked": {"mask_pair": True},
}
each_treatment = pytest.mark.parametrize("treatment", TREATMENTS.values(), ids=TREATMENTS)


def draw(n, seed):
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(memory=0, k=3):
    """Queries, keys, and the neighbours mined by some teacher."""
    teacher = F.normalize(draw(N + memory, 2), dim=1)
    neighbours = mine_neighbours(teacher[:N], teacher, torch.arange(N), k=k, tau=0.2)
    return draw(N, 0), draw(N + memory, 1), neighbours


def dense(neighbours, m):
    w = [[0.0] * m for _ in neighbours.index]
    for i, (index, weight) in enumerate(zip(neighbours.index.tolist(), neighbours.weight.tolist(), strict=True)):
        for j, x in zip(index, weight, strict=True):
            w[i][j] += x
    return w


def naive(query, keys, neighbours, *, tau, pair_share=0.0, mask_pair=False, query_valid=None, key_valid=None):
    q, k = ([[x / math.hypot(*row) for x in row] for row in z.tolist()] for z in (query, keys))
    n, m = len(q), len(k)
    query_there = [True] * n if query_valid is None else query_valid.tolist()
    key_there = [True] * m if key_valid is None else key_valid.tolist()
    total = mass = 0.0
    for i, soft in enumerate(dense(neighbours, m)):
        if not query_there[i]:
            continue
        similarity = [sum(a * b for a, b in zip(q[i], k[j], strict=True)) / tau for j in range(m)]
        denominator = sum(math.exp(similarity[j]) for j in range(m) if key_there[j] and not (mask_pair and i == j))
        known = sum(w for j, w in enumerate(soft) if key_there[j])
        for j in range(m):
            w = (1 - pair_share) * soft[j] / known if known and key_there[j] else 0.0
            w += pair_share if i == j and key_there[j] else 0.0
            if w:
                total -= w * math.log(math.exp(similarity[j]) / denominator)
                mass += w
    return total / mass if mass else 0.0


@each_treatment
@pytest.mark.parametrize("tau", [0.07, 0.5])
@pytest.mark.parametrize("memory", [0, MEMORY])
def test_equals_double_loop(memory, tau, treatment):
    query, keys, neighbours = case(memory)
    loss = affinity_infonce(query, keys, neighbours, tau=tau, **treatment).item()
    assert loss == pytest.approx(naive(query, keys, neighbours, tau=tau, **treatment), abs=1e-12)
    assert loss >= 0


@each_treatment
def test_missing_queries_and_keys_equal_double_loop(treatment):
    query, keys, neighbours = case(MEMORY)
    query_valid = torch.tensor([1, 1, 0, 1, 1, 1, 1], dtype=torch.bool)
    key_valid = torch.tensor([0, 1, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1], dtype=torch.bool)
    arguments = {"tau": 0.2, "query_valid": query_valid, "key_valid": key_valid, **treatment}
    loss = affinity_infonce(query, keys, neighbours, **arguments).item()
    assert loss == pytest.approx(naive(query, keys, neighbours, **arguments), abs=1e-12)


def test_missing_keys_are_neither_positive_nor_negative_and_missing_queries_nothing():
    query, keys, neighbours = case()
    query_valid = torch.arange(N) != 2
    key_valid = torch.arange(N) != 4

    def loss():
        return affinity_infonce(
            query, keys, neighbours, pair_share=0.2, query_valid=query_valid, key_valid=key_valid
        ).item()

    before = loss()
    query[2], keys[4] = draw(1, 8)[0], draw(1, 9)[0]
    assert loss() == before
    query[3] = draw(1, 10)[0]
    assert loss() != before


@each_treatment
def test_rows_without_neighbours(treatment):
    query, keys, neighbours = case()
    weight = neighbours.weight.clone()
    weight[[1, 5]] = 0
    lonely = Neighbours(neighbours.index, weight)
    loss = affinity_infonce(query, keys, lonely, tau=0.2, **treatment).item()
    assert loss == pytest.approx(naive(query, keys, lonely, tau=0.2, **treatment), abs=1e-12)


def test_nothing_to_learn_from_gives_zero_and_no_gradient():
    query, keys, neighbours = case()
    query, keys = query.requires_grad_(), keys.requires_grad_()
    nothing = torch.zeros(N, dtype=torch.bool)
    empty = Neighbours(neighbours.index, torch.zeros_like(neighbours.weight))
    losses = [
        affinity_infonce(query, keys, empty),
        affinity_infonce(query, keys, neighbours, query_valid=nothing),
        affinity_infonce(query, keys, neighbours, pair_share=0.5, key_valid=nothing),
    ]
    for loss in losses:
        assert loss.item() == 0
        assert all(torch.all(g == 0) for g in torch.autograd.grad(loss, (query, keys)))


@each_treatment
@pytest.mark.parametrize("missing", [False, True])
def test_gradcheck(missing, treatment):
    query, keys, neighbours = case(MEMORY)
    valid = {}
    if missing:
        valid = {"query_valid": torch.arange(N) != 2, "key_valid": torch.arange(N + MEMORY) % 5 != 1}

    def loss(q, k):
        return affinity_infonce(q, k, neighbours, tau=0.3, **valid, **treatment)

    assert torch.autograd.gradcheck(loss, (query.requires_grad_(), keys.requires_grad_()))


@each_treatment
@pytest.mark.parametrize("rows", [1, 3])
def test_blocks_of_rows_change_neither_the_loss_nor_its_gradients(monkeypatch, rows, treatment):
    query, keys, neighbours = case(MEMORY)
    valid = {"query_valid": torch.arange(N) != 2, "key_valid": torch.arange(N + MEMORY) % 5 != 1}

    def loss_and_gradients():
        q, k = query.clone().requires_grad_(), keys.clone().requires_grad_()
        loss = affinity_infonce(q, k, neighbours, tau=0.2, **valid, **treatment)
        return loss, *torch.autograd.grad(loss, (q, k))

    whole = loss_and_gradients()
    monkeypatch.setattr("hscmae.losses.affinity.BLOCK", rows * (N + MEMORY))
    for found, expected in zip(loss_and_gradients(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_a_share_of_the_queries_has_its_pairs_further_on():
    query, keys, neighbours = case(MEMORY)
    rows = slice(2, 5)
    part = Neighbours(neighbours.index[rows], neighbours.weight[rows])
    for treatment in TREATMENTS.values():
        only = (torch.arange(N) >= 2) & (torch.arange(N) < 5)
        expected = affinity_infonce(query, keys, neighbours, tau=0.2, query_valid=only, **treatment)
        found = affinity_infonce(query[rows], keys, part, tau=0.2, first=2, **treatment)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_pair_share_one_is_one_direction_of_infonce():
    query, keys, neighbours = case()
    logits = F.normalize(query, dim=1) @ F.normalize(keys, dim=1).T / 0.1
    expected = F.cross_entropy(logits, torch.arange(N))
    torch.testing.assert_close(affinity_infonce(query, keys, neighbours, tau=0.1, pair_share=1.0), expected)


def test_the_three_treatments_push_push_not_and_pull_the_own_pair():
    # Two clips whose only neighbour is the other: what moves key 0 along query 0 is its treatment as own pair.
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    keys = torch.tensor([[0.6, 0.8], [0.8, -0.6]], dtype=torch.float64, requires_grad=True)
    neighbours = Neighbours(torch.tensor([[1], [0]]), torch.ones(2, 1, dtype=torch.float64))
    only_first = torch.tensor([True, False])

    def push(**treatment):
        loss = affinity_infonce(query, keys, neighbours, tau=0.5, query_valid=only_first, **treatment)
        return torch.autograd.grad(loss, keys)[0][0, 0].item()

    assert push() > 0
    assert push(mask_pair=True) == 0
    assert push(pair_share=0.9) < 0


def test_a_masked_pair_cannot_have_a_share():
    query, keys, neighbours = case()
    with pytest.raises(ValueError, match="pair_share"):
        affinity_infonce(query, keys, neighbours, pair_share=0.1, mask_pair=True)


@pytest.mark.parametrize("tau", [0.07, 1.0])
@pytest.mark.parametrize("missing", [False, True])
def test_infonce_equals_loop(missing, tau):
    z1, z2 = draw(N, 0), 3 * draw(N, 1)
    valid = torch.arange(N) % 3 != 1 if missing else None
    rows = [i for i in range(N) if valid is None or valid[i]]

    def cosine(i, j):
        a, b = z1[i].tolist(), z2[j].tolist()
        return sum(p * q for p, q in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    total = 0.0
    for i in rows:
        there = math.log(sum(math.exp(cosine(i, j) / tau) for j in rows))
        back = math.log(sum(math.exp(cosine(j, i) / tau) for j in rows))
        total += (there + back) / 2 - cosine(i, i) / tau
    assert infonce(z1, z2, tau=tau, valid=valid).item() == pytest.approx(total / len(rows), abs=1e-12)


def test_infonce_gradcheck():
    z1, z2 = draw(N, 0).requires_grad_(), draw(N, 1).requires_grad_()
    valid = torch.arange(N) != 3
    assert torch.autograd.gradcheck(lambda a, b: infonce(a, b, tau=0.3, valid=valid), (z1, z2))


@pytest.mark.parametrize("soft_share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("missing", [False, True])
def test_softclip_equals_loop(missing, soft_share):
    z1, z2 = draw(N, 0), 3 * draw(N, 1)
    valid = torch.arange(N) % 3 != 1 if missing else None
    rows = [i for i in range(N) if valid is None or valid[i]]

    def cosine(x, i, y, j):
        a, b = x[i].tolist(), y[j].tolist()
        return sum(p * q for p, q in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    total = 0.0
    for query, key in ((z1, z2), (z2, z1)):
        for i in rows:
            all_keys = math.log(sum(math.exp(cosine(query, i, key, k) / 0.3) for k in rows))
            all_alike = sum(math.exp(cosine(query, i, query, k) / 0.2) for k in rows)
            for j in rows:
                target = (1 - soft_share) * (i == j)
                target += soft_share * math.exp(cosine(query, i, query, j) / 0.2) / all_alike
                total -= target * (cosine(query, i, key, j) / 0.3 - all_keys) / 2
    loss = softclip(z1, z2, tau=0.3, soft_share=soft_share, tau_target=0.2, valid=valid)
    assert loss.item() == pytest.approx(total / len(rows), abs=1e-12)


def test_softclip_with_hard_targets_is_infonce():
    z1, z2 = draw(N, 0), draw(N, 1)
    torch.testing.assert_close(softclip(z1, z2, tau=0.2, soft_share=0.0), infonce(z1, z2, tau=0.2))


def test_softclip_gradient_is_that_of_fixed_targets():
    # Finite differences would move the targets too, through which no gradient may flow.
    z1, z2 = draw(N, 0), draw(N, 1)
    q1, q2 = ((0.6 * torch.eye(N) + 0.4 * (F.normalize(z) @ F.normalize(z).T / 0.2).softmax(1)) for z in (z1, z2))

    def fixed(a, b):
        logits = F.normalize(a) @ F.normalize(b).T / 0.3
        return (F.cross_entropy(logits, q1) + F.cross_entropy(logits.T, q2)) / 2

    inputs = (z1.requires_grad_(), z2.requires_grad_())
    assert torch.autograd.gradcheck(fixed, inputs)
    found = torch.autograd.grad(softclip(z1, z2, tau=0.3, soft_share=0.4, tau_target=0.2), inputs)
    for gradient, expected in zip(found, torch.autograd.grad(fixed(z1, z2), inputs), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_softclip_gradcheck_with_hard_targets():
    inputs = (draw(N, 0).requires_grad_(), draw(N, 1).requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: softclip(a, b, tau=0.3, soft_share=0.0), inputs)

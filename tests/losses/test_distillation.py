"""Both distillations against loops; the relational one needs no common coordinates."""

from __future__ import annotations

import math

import pytest
import torch

from hscmae.losses.distillation import cosine_distillation, relational_distillation

N = 6
BOTH = [cosine_distillation, relational_distillation]
validity = pytest.mark.parametrize("valid", [None, torch.tensor([True, True, False, True, False, True])])


def draw(seed, dim=4):
    return torch.randn(N, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(dim=4):
    return torch.linalg.qr(draw(9, dim)[:dim])[0]


def cosine(a, b):
    a, b = a.tolist(), b.tolist()
    return sum(p * q for p, q in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


@validity
def test_cosine_equals_loop(valid):
    s, t = draw(0), draw(1)
    rows = [i for i in range(N) if valid is None or valid[i]]
    expected = sum(1 - cosine(s[i], t[i]) for i in rows) / len(rows)
    assert cosine_distillation(s, t, valid).item() == pytest.approx(expected, abs=1e-12)


@validity
def test_relational_equals_loop(valid):
    s, t = draw(0), draw(1, dim=3)
    rows = [i for i in range(N) if valid is None or valid[i]]
    terms = [(cosine(s[i], s[j]) - cosine(t[i], t[j])) ** 2 for i in rows for j in rows if i != j]
    assert relational_distillation(s, t, valid).item() == pytest.approx(sum(terms) / len(terms), abs=1e-12)


def test_only_the_relational_one_is_unchanged_by_a_rotation():
    s, t = draw(0), draw(1)
    turned = s @ rotation()
    assert relational_distillation(turned, t).item() == pytest.approx(relational_distillation(s, t).item(), abs=1e-12)
    assert abs(cosine_distillation(turned, t) - cosine_distillation(s, t)) > 0.05


@pytest.mark.parametrize("distill", BOTH)
def test_zero_exactly_where_the_student_has_arrived(distill):
    t = draw(1)
    assert distill(2 * t, t).item() == pytest.approx(0, abs=1e-12)
    assert distill(draw(0), t).item() > 0.05


@pytest.mark.parametrize("distill", BOTH)
@validity
def test_gradcheck(distill, valid):
    t = draw(1)
    assert torch.autograd.gradcheck(lambda s: distill(s, t, valid), (draw(0).requires_grad_(),))


@pytest.mark.parametrize("distill", BOTH)
def test_no_valid_row_gives_zero(distill):
    assert distill(draw(0), draw(1), torch.zeros(N, dtype=torch.bool)).item() == 0

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from hscmae.nn.anchors import MIN_TAU, attend

ROUNDING = torch.finfo(torch.float32).eps / 2


def naive(z: torch.Tensor, anchors: torch.Tensor, tau: float, share: float) -> torch.Tensor:
    rows = []
    for row in z:
        unit = row / row.norm()
        weight = [math.exp(float(unit @ anchor) / tau) for anchor in anchors]
        drawn = sum(w / sum(weight) * anchor for w, anchor in zip(weight, anchors, strict=True))
        rows.append((1 - share) * unit + share * drawn / drawn.norm())
    return torch.stack(rows)


@pytest.mark.parametrize(("n", "m", "dim"), [(1, 1, 2), (5, 3, 4), (1100, 20, 9)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("tau", [0.01, 0.05, 1.0])
def test_equals_its_definition(n: int, m: int, dim: int, share: float, tau: float) -> None:
    source = torch.Generator().manual_seed(n)
    z = torch.randn(n, dim, generator=source, dtype=torch.float64) * 3
    anchors = F.normalize(torch.randn(m, dim, generator=source, dtype=torch.float64), dim=1)
    torch.testing.assert_close(attend(z, anchors, tau=tau, share=share), naive(z, anchors, tau, share))


def test_no_share_changes_no_direction() -> None:
    z, anchors = torch.randn(6, 4), F.normalize(torch.randn(9, 4), dim=1)
    torch.testing.assert_close(attend(z, anchors, tau=0.1, share=0.0), F.normalize(z, dim=1))


def test_whole_share_at_a_low_temperature_is_the_nearest_anchor() -> None:
    z, anchors = torch.randn(6, 4).double(), F.normalize(torch.randn(9, 4).double(), dim=1)
    nearest = anchors[(F.normalize(z, dim=1) @ anchors.T).argmax(1)]
    torch.testing.assert_close(attend(z, anchors, tau=1e-7, share=1.0), nearest)


def test_a_zero_row_and_cancelling_anchors_stay_finite() -> None:
    anchors = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert torch.equal(attend(torch.zeros(1, 2), anchors, tau=0.1, share=0.6), torch.zeros(1, 2))


@pytest.mark.parametrize("tau", [0.005, MIN_TAU, 0.1])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_float32_holds_the_weights_of_the_nearest_and_of_the_farthest_anchors(tau: float, sign: float) -> None:
    anchors = 2048
    z = F.normalize(torch.randn(3, 4), dim=1)
    drawn = attend(z, sign * z[:1].expand(anchors, 4), tau=tau, share=1.0)
    # A sum of so many terms of one sign is off by up to as many roundings, and so is the norm that it is divided by.
    torch.testing.assert_close(drawn, sign * z[:1].expand(3, 4), rtol=2 * anchors * ROUNDING, atol=0)

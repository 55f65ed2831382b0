"""The choice of a ridge against one written out, every solve on its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import make_pairs
from hscmae.evaluation.selection import mutual_knn
from hscmae.linear.cca import covariances, ridge_cca
from hscmae.linear.smoothing import smoothed_cca
from hscmae.methods import get_method
from hscmae.methods.closed_form import RIDGES, choose_ridge
from hscmae.streams import generator
from hscmae.training.features import Batch

SMOOTH = {"k": 10, "tau": 0.2, "hops": 1}


def batch(n=150):
    """Rows of two modalities, a few of which lack the first."""
    x = {m: torch.from_numpy(v) for m, v in make_pairs(n).features.items()}
    present = {m: torch.ones(n, dtype=torch.bool) for m in x}
    present["audio"][::11] = False
    return Batch(x, present, torch.arange(n))


def direct(name, x, present, ridge):
    if name == "ridge-cca":
        return ridge_cca(covariances(x, present), 6, ridge)
    return smoothed_cca(x, 6, ridge=ridge, present=present, **SMOOTH)


@pytest.mark.parametrize("name", ["ridge-cca", "smoothed-cca"])
def test_the_choice_is_that_of_separate_solves(name):
    rows = batch()
    method = get_method(name)(dim=6, **(SMOOTH if name == "smoothed-cca" else {}))
    solved = []

    def solve(fit, ridge, moments):
        solved.append((fit, ridge, method._closed_form(fit, ridge, moments)))
        return solved[-1][2]

    chosen = choose_ridge(rows, solve, 0)
    order = torch.randperm(150, generator=generator(0, "ridge"))
    scores = np.zeros(len(RIDGES))
    for fold in range(3):
        held_out = order[fold::3]
        fit = torch.cat([order[other::3] for other in range(3) if other != fold])
        complete = held_out[rows.present["audio"][held_out]]
        for i, ridge in enumerate(RIDGES):
            maps = direct(
                name, {m: v[fit] for m, v in rows.x.items()}, {m: v[fit] for m, v in rows.present.items()}, ridge
            )
            scores[i] += mutual_knn(*(maps(m, v[complete]).numpy() for m, v in rows.x.items()))
            _, used, found = solved[fold * len(RIDGES) + i]
            assert used == ridge
            np.testing.assert_allclose(found.correlation, maps.correlation, atol=1e-10)
            for m in rows.x:
                np.testing.assert_allclose(found.weight[m], maps.weight[m], atol=1e-8)
    assert chosen == RIDGES[scores.argmax()]
    assert len(set(scores)) > 1

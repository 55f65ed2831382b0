"""What is chosen from measured steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hscmae.evaluation.selection import grounded_knn, grounded_rows, nearest
from hscmae.training.choice import Measurements, better, standard_error


def noisy(mean: float, seed: int = 0, pairs: int = 400, spread: float = 0.2) -> torch.Tensor:
    """Scores of a given mean, of the same pairs where the seed is the same."""
    draw = torch.randn(pairs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mean + spread * (draw - draw.mean()) / draw.std()


def measured(steps: dict[int, torch.Tensor], fold: int = 0) -> Measurements:
    return Measurements({f"{fold}/{step}": scores for step, scores in steps.items()})


def test_the_best_step_is_chosen_and_of_equal_ones_the_last() -> None:
    found = measured({s: noisy(m, s) for s, m in ((0, 0.50), (10, 0.60), (20, 0.585), (30, 0.57))})
    assert found.choose() == 10
    found.scores[0, 40] = found.scores[0, 10]
    assert found.choose() == 40
    assert measured({0: noisy(0.5), 10: noisy(0.49)}).choose() == 0


def test_folds_count_as_one_set_of_pairs() -> None:
    # One fold has many pairs and falls, the other few and rises.
    found = Measurements({"0/0": noisy(0.5), "0/10": noisy(0.49), "1/0": noisy(0.5, 1, 20), "1/10": noisy(0.6, 1, 20)})
    assert found.at(0).shape == (420,)
    assert found.choose() == 0
    found.scores[1, 10] += 0.2
    assert found.choose() == 10
    del found.scores[1, 10]
    assert found.steps == [0]


def test_measurements_are_kept_as_tensors() -> None:
    found = measured({0: noisy(0.5), 10: noisy(0.6)})
    again = Measurements(found.tensors())
    assert again.scores.keys() == found.scores.keys()
    assert all(torch.equal(again.scores[key], found.scores[key]) for key in found.scores)


def test_better_needs_more_than_a_standard_error_of_the_difference() -> None:
    score, other = noisy(0.5), noisy(0.0, 1)
    lead = 2 * other.std() / 400**0.5
    assert not better(score + other + 0.9 * lead, score)
    assert better(score + other + 1.1 * lead, score)


@pytest.mark.parametrize("n", [3, 14, 200])
def test_the_scores_of_single_pairs_have_the_criterion_as_mean(n: int) -> None:
    rng = np.random.default_rng(0)
    cause = rng.normal(size=(n, 4))
    a, v, x, y = (cause @ rng.normal(size=(4, d)) + rng.normal(size=(n, d)) for d in (6, 6, 9, 12))
    rows = grounded_rows(a, v, nearest(x, max(1, n // 10)), nearest(y, max(1, n // 10)))
    assert rows.shape == (n,)
    assert rows.mean() == pytest.approx(grounded_knn(a, v, x, y), abs=1e-12)


def test_the_error_of_the_criterion_is_that_of_new_pairs() -> None:
    values, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        cause = rng.normal(size=(150, 4))
        mixing = np.random.default_rng(99)
        a, v, x, y = (cause @ mixing.normal(size=(4, d)) + rng.normal(size=(150, d)) for d in (6, 6, 9, 12))
        rows = grounded_rows(a, v, nearest(x, 15), nearest(y, 15))
        values.append(rows.mean())
        errors.append(standard_error(torch.from_numpy(rows)))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.35)


def test_an_embedding_that_collapsed_does_not_agree_by_its_order() -> None:
    x = np.random.default_rng(0).normal(size=(100, 5))
    rows = grounded_rows(np.ones((100, 3)), np.ones((100, 3)), nearest(x, 10), nearest(x, 10))
    assert rows.mean() < 0.1

"""The choice of a ridge against one written out, every solve on its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hscmae
from conftest import make_pairs
from hscmae.config import Anchors
from hscmae.evaluation.selection import grounded_rows, mutual_rows, nearest
from hscmae.linear.cca import covariances, ridge_cca
from hscmae.linear.smoothing import fuse, refined_cca, smoothed_cca
from hscmae.methods import get_method
from hscmae.methods.closed_form import RIDGES, CrossFit, folds
from hscmae.nn.anchors import attend
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

    chosen = {usual: CrossFit(rows, solve, 0).choose_ridge(usual) for usual in (None, 3.0, 10.0)}
    order = torch.randperm(150, generator=generator(0, "ridge"))
    scores = [[] for _ in RIDGES]
    for fold in range(3):
        held_out = order[fold::3]
        fit = torch.cat([order[other::3] for other in range(3) if other != fold])
        complete = held_out[rows.present["audio"][held_out]]
        for i, ridge in enumerate(RIDGES):
            maps = direct(
                name, {m: v[fit] for m, v in rows.x.items()}, {m: v[fit] for m, v in rows.present.items()}, ridge
            )
            scores[i] += list(mutual_rows(*(maps(m, v[complete]).numpy() for m, v in rows.x.items())))
            _, used, found = solved[i * 3 + fold]
            assert used == ridge
            np.testing.assert_allclose(found.correlation, maps.correlation, atol=1e-10)
            for m in rows.x:
                np.testing.assert_allclose(found.weight[m], maps.weight[m], atol=1e-8)
    best = max(scores, key=np.mean)
    told = []
    for own in scores:
        lead = np.subtract(best, own)
        told.append(lead.mean() > 2 * lead.std(ddof=1) / len(lead) ** 0.5)
    kept = [ridge for ridge, worse in zip(RIDGES, told, strict=True) if not worse]
    assert chosen[None] == RIDGES[int(np.argmax([np.mean(own) for own in scores]))]
    for usual in (3.0, 10.0):
        assert chosen[usual] == min(kept, key=lambda ridge: max(ridge / usual, usual / ridge))
    assert any(told)


def of_one(right):
    """A closed form that knows the modalities' relation under one ridge alone."""

    def solve(fit, ridge, moments):
        return ridge_cca(moments, 6, 1.0 if ridge == right else 1e9)

    return solve


@pytest.mark.parametrize("right", RIDGES)
def test_a_ridge_that_is_seen_to_be_better_is_taken(right):
    start = CrossFit(batch(), of_one(right), 0)
    assert start.choose_ridge() == start.choose_ridge(3.0) == right


def test_of_ridges_that_agree_alike_the_usual_one_is_taken():
    assert CrossFit(batch(), of_one(None), 0).choose_ridge(30.0) == 30
    assert CrossFit(batch(), of_one(None), 0).choose_ridge(5.0) in (3, 10)


def test_with_too_few_rows_to_measure_on_the_usual_ridge_is_taken():
    assert CrossFit(batch(8), of_one(1.0), 0).choose_ridge(3.0) == 3


def solve(fit, ridge, moments):
    return ridge_cca(moments, 6, ridge)


def test_anchors_help_where_clips_of_a_kind_lie_together():
    rng = np.random.default_rng(0)
    centres = {m: rng.normal(size=(8, d)) for m, d in (("a", 20), ("v", 30))}
    kinds = rng.integers(8, size=600)
    x = {m: torch.from_numpy(c[kinds] + 2 * rng.normal(size=(600, c.shape[1]))) for m, c in centres.items()}
    rows = Batch(x, {m: torch.ones(600, dtype=torch.bool) for m in x}, torch.arange(600))
    assert CrossFit(rows, solve, 0).anchors_help(1.0, Anchors(share=0.6))


def test_anchors_that_wipe_out_what_tells_clips_apart_are_left_out():
    """Without kinds, every clip its own: an average over all others is as good as nothing."""
    rng = np.random.default_rng(0)
    cause = rng.normal(size=(600, 6))
    x = {
        m: torch.from_numpy(cause @ rng.normal(size=(6, d)) + 0.1 * rng.normal(size=(600, d)))
        for m, d in (("a", 9), ("v", 12))
    }
    rows = Batch(x, {m: torch.ones(600, dtype=torch.bool) for m in x}, torch.arange(600))
    assert not CrossFit(rows, solve, 0).anchors_help(1.0, Anchors(share=1.0, tau=1.0))


def test_with_too_few_rows_to_see_it_anchors_stay():
    rows = batch(160)
    few = Batch({m: v[:8] for m, v in rows.x.items()}, {m: v[:8] for m, v in rows.present.items()}, rows.rows[:8])
    assert CrossFit(few, solve, 0).anchors_help(1.0, Anchors(share=0.6))


@pytest.mark.parametrize("help_", [True, False])
def test_the_network_keeps_to_what_was_found(help_, monkeypatch, tmp_path):

    monkeypatch.setattr(CrossFit, "anchors_help", lambda *_: help_)
    quick = {"dim": 6, "network_width": 16, "training_steps": 4, "training_evaluations": 2}
    model = get_method("hscmae")(**quick).fit(make_pairs())
    assert (model.anchors_ is not None) == model.summary_["anchors"] == help_
    model.save(tmp_path / "model")
    again = hscmae.load(tmp_path / "model")
    np.testing.assert_array_equal(*(m.embed_pairs(make_pairs())["audio"] for m in (model, again)))


def refined(fit, held_out, ridge, anchors):
    """Scores of held-out pairs without a head and with one, from the definition."""
    maps = solve(fit, ridge, covariances(fit.x, fit.present))
    near = [nearest(x.numpy(), len(x) // 10) for x in held_out.x.values()]
    known, z = ({m: maps(m, x).float() for m, x in part.x.items()} for part in (fit, held_out))
    head = refined_cca(known, 6, ridge=0.1, present=fit.present)
    scores = []
    for change in (lambda _, x: x, lambda m, x: head(m, torch.nn.functional.normalize(x, dim=1))):
        own, targets = ({m: change(m, x) for m, x in part.items()} for part in (z, known))
        if anchors.share:
            targets = fuse(targets, fit.present)[: anchors.rows]
            own = {m: attend(x, targets, tau=anchors.tau, share=anchors.share) for m, x in own.items()}
        scores.append(grounded_rows(*(x.numpy() for x in own.values()), *near))
    return scores


@pytest.mark.parametrize("anchors", [Anchors(), Anchors(share=0.2, rows=50)])
def test_a_head_is_taken_where_it_is_better_by_a_standard_error(anchors):
    rng = np.random.default_rng(0)
    cause = rng.normal(size=(600, 6))
    x = {
        m: torch.from_numpy(cause @ rng.normal(size=(6, d)) + rng.normal(size=(600, d)))
        for m, d in (("a", 9), ("v", 12))
    }
    present = {"a": torch.arange(600) % 11 > 0, "v": torch.ones(600, dtype=torch.bool)}
    rows, told = Batch(x, present, torch.arange(600)), []
    for ridge in (0.3, 3.0, 30.0, 300.0):
        pairs = [refined(*parts, ridge, anchors) for parts in folds(rows, 0)]
        plain, headed = (np.concatenate(own) for own in zip(*pairs, strict=True))
        lead = headed - plain
        error = 2 * lead.std(ddof=1) / len(lead) ** 0.5
        told.append(CrossFit(rows, solve, 0).head_helps(ridge, 6, 0.1, anchors))
        assert told[-1] == (lead.mean() > error)
    assert set(told) == {True, False}


def test_a_head_mends_a_start_that_weighs_its_directions_badly_and_wrong_pairs_are_left_without():
    rng = np.random.default_rng(0)
    cause = rng.normal(size=(600, 6))
    x = {
        m: torch.from_numpy(cause @ rng.normal(size=(6, d)) + rng.normal(size=(600, d)))
        for m, d in (("a", 9), ("v", 12))
    }
    present = {m: torch.ones(600, dtype=torch.bool) for m in x}
    wrong = {"a": x["a"][torch.randperm(600)], "v": x["v"]}
    starts = [CrossFit(Batch(v, present, torch.arange(600)), solve, 0) for v in (x, wrong)]
    assert [start.head_helps(100.0, 6, 0.1, Anchors()) for start in starts] == [True, False]


def test_with_too_few_rows_to_see_it_there_is_no_head():
    rows = batch(8)
    assert not CrossFit(rows, solve, 0).head_helps(1.0, 4, 0.7, Anchors())


@pytest.mark.parametrize("help_", [True, False])
def test_the_network_has_a_head_where_that_was_found(help_, monkeypatch, tmp_path):
    monkeypatch.setattr(CrossFit, "head_helps", lambda *_: help_)
    quick = {"dim": 6, "network_width": 16, "training_steps": 4, "training_evaluations": 2, "weigh_pairs": False}
    pairs, model = make_pairs(), get_method("hscmae")(**quick).fit(make_pairs())
    assert (model.head_ is not None) == model.summary_["head"] == help_
    model.save(tmp_path / "model")
    again = hscmae.load(tmp_path / "model")
    np.testing.assert_array_equal(*(m.embed_pairs(pairs)["audio"] for m in (model, again)))
    if help_:
        head, model.head_, model.anchors_ = model.head_, None, None
        z = {m: torch.from_numpy(rows) for m, rows in model.embed_pairs(pairs.of_split("train")).items()}
        expected = refined_cca(z, 6, ridge=0.7).correlation.float()
        torch.testing.assert_close(head.correlation, expected, atol=1e-4, rtol=0)


def test_with_nothing_to_choose_by_there_is_no_head():
    quick = {"dim": 6, "network_width": 16, "training_steps": 4, "training_validation_share": 0.0}
    assert get_method("hscmae")(**quick).fit(make_pairs()).head_ is None

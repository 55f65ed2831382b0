"""The table's statistics against scipy and by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hscmae.benchmark import table
from hscmae.benchmark.jobs import Contender


def record(method: str, split: str, seed: int, value: float, **more: Any) -> dict[str, Any]:
    base = {"method": method, "split": split, "seed": seed, "status": "ok", "avg/mAP": value}
    return {**base, "fit_seconds": 1.0, "peak_rss_mb": 100.0, "n_queries": 20, "n_train": 80, **more}


def test_t_interval_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 10, 31, 60):
        values = rng.normal(size=n)
        expected = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
        assert table.t_interval(values.tolist()) == pytest.approx(expected, rel=2e-3)
    assert table.t_interval([0.5]) is None


def test_overlap_widens_as_nadeau_and_bengio_say() -> None:
    values = [0.1, 0.2, 0.4, 0.1]
    plain, wide = table.t_interval(values), table.t_interval(values, overlap=0.25)
    assert (wide[1] - wide[0]) / (plain[1] - plain[0]) == pytest.approx(math.sqrt((0.25 + 0.25) / 0.25))


def test_rows_are_paired_by_split_and_rank_the_best_first() -> None:
    who = [Contender("ridge-cca", "ridge-cca"), Contender("hscmae", "hscmae"), Contender("hscmae:paper", "hscmae")]
    ridge, ours = {"a": [0.5], "b": [0.3]}, {"a": [0.56, 0.60], "b": [0.33, 0.37]}
    records = [record("ridge-cca", s, i, v) for s, values in ridge.items() for i, v in enumerate(values)]
    records += [record("hscmae", s, i, v) for s, values in ours.items() for i, v in enumerate(values)]
    records += [record("hscmae:paper", s, 0, 0.45) for s in "ab"]
    records.append({**record("ridge-cca", "c", 0, 0.0), "status": "failed", "error": "it `broke` <b>", "avg/mAP": None})
    first, paper, second = table.rows(records, who)
    assert [first.name, paper.name, second.name] == ["hscmae", "hscmae:paper", "ridge-cca"]
    assert first.mean == pytest.approx((0.58 + 0.35) / 2)
    assert first.rival == "ridge-cca"  # not the other preset of the same method
    assert first.difference == pytest.approx((0.08 + 0.05) / 2)
    assert first.ratio == pytest.approx((0.58 / 0.5 + 0.35 / 0.3) / 2)
    assert first.between_seeds == pytest.approx(np.std([0.56, 0.60], ddof=1))
    assert first.corrected_ci[0] < first.difference_ci[0]
    assert (second.rival, second.failed, second.fits, second.error) == ("hscmae", 1, 3, "it `broke` <b>")
    text = table.markdown([first, paper, second], "avg/mAP", ["a", "b"])
    assert "1 of 3 fits of ridge-cca failed: `it 'broke' <b>`\n" in text  # code, so no markup
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {12}


def test_clip_interval_narrows_with_the_root_of_the_clips_and_skips_clips_that_do_not_count() -> None:
    rng = np.random.default_rng(0)
    ap = rng.random((400, 2))
    low, high = table.clip_interval(ap)
    # Clips' two directions are independent here: the variance of the mean is 1/12 / 2 / 400.
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 2 / 400), rel=0.1)
    with_gaps = np.concatenate([ap, np.full((50, 2), np.nan)])
    assert table.clip_interval(with_gaps) == pytest.approx((low, high), abs=3e-3)
    assert table.clip_interval(np.full((4, 2), np.nan)) is None


def test_one_split_compares_clip_by_clip() -> None:
    who = [Contender("a", "cca"), Contender("b", "pls")]
    ap = np.random.default_rng(0).random(200)
    records = []
    for name, shift in (("a", 0.0), ("b", 0.1)):
        values = {d: (ap + shift).tolist() for d in ("a2v", "v2a")}
        records.append(record(name, "file", 0, float(ap.mean() + shift), ap=values))
    # A split that the other has not is left out of the comparison.
    records.append(record("b", "other", 0, 0.9, ap={d: [0.9] * 200 for d in ("a2v", "v2a")}))
    assert table.rows(records, who)[0].difference_ci == pytest.approx((0.1, 0.1))
    best = table.rows(records[:2], who)[0]
    assert best.difference_ci == pytest.approx((0.1, 0.1))
    assert best.interval[1] - best.interval[0] > 0.05

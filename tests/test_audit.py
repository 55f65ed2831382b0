"""The audit finds pairs that were made wrong, estimates how many, and says which rows it cannot judge."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hscmae.linear.agreement as module
from hscmae import InputError, Pairs, SmoothedCCA, synthetic_pairs
from hscmae.audit import Audit, audit
from hscmae.cli import main
from hscmae.data.store import write_store

DIMS = {"audio": 64, "visual": 128}


def auroc(wrong: np.ndarray, score: np.ndarray) -> float:
    """Share of (wrong, right) couples in which the wrong pair scores higher, ties counting half."""
    higher = score[wrong][:, None] - score[~wrong]
    return float(((higher > 0) + 0.5 * (higher == 0)).mean())


@pytest.fixture(scope="module")
def made() -> tuple[Pairs, np.ndarray]:
    """Pairs of which a fifth are wrong; three rows lack a modality, eight are silent."""
    synthetic = synthetic_pairs(
        700, dims=DIMS, wrong_pairs=0.2, events=(1, 2), offscreen=0.1, noise=0.5, silent=0.0, test_share=0.1, seed=1
    )
    rows = synthetic.pairs.rows_of("train")
    pairs, wrong = synthetic.pairs.take(rows), synthetic.wrong[rows]
    audio = pairs.features["audio"].copy()
    audio[10:18] = 1.0
    present = {"audio": np.ones(len(rows), bool), "visual": np.ones(len(rows), bool)}
    present["visual"][[3, 4]] = False
    present["audio"][5] = False
    return replace(pairs, features={**pairs.features, "audio": audio}, present=present), wrong


@pytest.fixture(scope="module")
def model(made: tuple[Pairs, np.ndarray]) -> SmoothedCCA:
    return SmoothedCCA().fit(made[0])


@pytest.fixture(scope="module")
def found(made: tuple[Pairs, np.ndarray], model: SmoothedCCA) -> Audit:
    return audit(model, made[0])


def test_wrong_pairs_are_suspicious(made: tuple[Pairs, np.ndarray], found: Audit) -> None:
    scored = found.rank > 0
    assert auroc(made[1][scored], found.score[scored]) > 0.8
    assert found.wrong_share_ci[0] <= 0.2 <= found.wrong_share_ci[1]
    assert abs(found.wrong_share - 0.2) < 0.08
    # Random pairs agree better than a wrong one half of the time, than a right one seldom.
    assert abs(found.random_better[scored & made[1]].mean() - 0.5) < 0.1
    assert found.random_better[scored & ~made[1]].mean() < 0.25


def test_ranks_order_the_scores(found: Audit) -> None:
    rows = found.most_suspicious()
    assert found.rank[rows].tolist() == list(range(1, len(rows) + 1))
    assert (np.diff(found.score[rows]) <= 0).all()
    assert found.most_suspicious(7).tolist() == rows[:7].tolist()


def test_rows_that_are_no_pair_get_no_score(found: Audit) -> None:
    reasons = {3: "no visual", 4: "no visual", 5: "no audio"} | dict.fromkeys(range(10, 18), "silent audio")
    assert found.unscored == reasons
    assert np.flatnonzero(np.isnan(found.score)).tolist() == sorted(reasons)
    assert np.flatnonzero(found.rank == 0).tolist() == sorted(reasons)


def test_the_same_seed_gives_the_same_audit_whatever_the_labels(
    made: tuple[Pairs, np.ndarray], model: SmoothedCCA, found: Audit
) -> None:
    again, other = audit(model, made[0].without_labels()), audit(model, made[0], seed=1)
    np.testing.assert_array_equal(found.score, again.score)
    assert (found.wrong_share, found.wrong_share_ci) == (again.wrong_share, again.wrong_share_ci)
    assert not np.array_equal(found.score, other.score, equal_nan=True)


def test_a_model_judges_few_pairs_it_has_not_seen() -> None:
    made = synthetic_pairs(700, dims=DIMS, wrong_pairs=0.0, noise=0.5, silent=0.0, test_share=0.1, seed=2)
    test = made.pairs.of_split("test")
    audio = test.features["audio"].copy()
    audio[:20] = np.roll(audio[:20], 1, axis=0)
    test, wrong = replace(test, features={**test.features, "audio": audio}), np.arange(len(test)) < 20
    model = SmoothedCCA().fit(made.pairs)
    alone, with_model = (auroc(wrong, audit(model, test, seen=seen).score) for seen in (True, False))
    assert with_model > alone + 0.05


def test_pairs_may_be_seen_row_by_row() -> None:
    made = synthetic_pairs(700, dims=DIMS, wrong_pairs=0.0, noise=0.5, silent=0.0, test_share=0.2, seed=2).pairs
    test = made.rows_of("test")
    wrong = np.zeros(len(made), dtype=bool)
    wrong[test[:40]] = True
    audio = made.features["audio"].copy()
    audio[test[:40]] = np.roll(audio[test[:40]], 1, axis=0)
    made = replace(made, features={**made.features, "audio": audio})
    model = SmoothedCCA().fit(made)
    trained_on = made.split == b"train"
    found, alone = (audit(model, made, seen=seen) for seen in (trained_on, True))
    np.testing.assert_array_equal(audit(model, made, seen=np.ones(len(made), dtype=bool)).score, alone.score)
    assert auroc(wrong[test], found.score[test]) > auroc(wrong[test], alone.score[test]) + 0.02
    # On one scale: right pairs of either kind are about as suspicious.
    np.testing.assert_array_equal(np.argsort(found.score[trained_on]), np.argsort(alone.score[trained_on]))
    assert auroc(trained_on[~wrong], found.score[~wrong]) == pytest.approx(0.5, abs=0.2)


def test_maps_of_a_sample_judge_all(made: tuple[Pairs, np.ndarray], model: SmoothedCCA, monkeypatch) -> None:
    monkeypatch.setattr(module, "HELD_ROWS", 400)
    monkeypatch.setattr(module, "BLOCK", 64)
    seen = []
    found = audit(model, made[0], progress=lambda *at: seen.append(at))
    scored = found.rank > 0
    assert np.isfinite(found.score[scored]).all() and scored.sum() == len(made[1]) - 11
    assert auroc(made[1][scored], found.score[scored]) > 0.75
    assert ("solve maps", 24, 24) in seen and seen[-1] == ("score pairs", scored.sum(), scored.sum())


def test_blocks_change_nothing(made: tuple[Pairs, np.ndarray], model: SmoothedCCA, found: Audit, monkeypatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 64)
    np.testing.assert_allclose(audit(model, made[0]).score, found.score, atol=1e-6)


def test_memory_grows_by_less_than_a_kilobyte_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of NumPy's arrays; torch's are of blocks and of the rows that maps are solved on."""
    pairs = synthetic_pairs(6000, dims={"audio": 6, "visual": 9}, silent=0.0, test_share=0.0).pairs
    model = SmoothedCCA(dim=4).fit(pairs.take(np.arange(500)))
    for name, value in {"LANDMARKS": 64, "FIT_ROWS": 200, "HELD_ROWS": 500, "BLOCK": 512, "DIM": 4}.items():
        monkeypatch.setattr(module, name, value, raising=False)
    peaks = []
    for n in (2000, 6000):
        some = pairs.take(np.arange(n))
        tracemalloc.start()
        audit(model, some)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 4000 < 1000


@pytest.mark.parametrize("n", [72, 73, 81, 100])
def test_few_pairs_of_any_number(n: int) -> None:
    pairs = synthetic_pairs(n, dims={"audio": 6, "visual": 9}, silent=0.0, test_share=0.0).pairs
    found = audit(SmoothedCCA(dim=4).fit(pairs), pairs)
    assert np.isfinite(found.score).all()
    assert 0 <= found.wrong_share_ci[0] <= found.wrong_share_ci[1] <= 1


def test_unusable_input_is_named(made: tuple[Pairs, np.ndarray], model: SmoothedCCA) -> None:
    pairs = made[0]
    with pytest.raises(InputError, match="20 complete pairs are too few"):
        audit(model, pairs.take(np.arange(20, 40)))
    with pytest.raises(InputError, match="has no visual"):
        audit(model, Pairs({"audio": pairs.features["audio"]}))
    with pytest.raises(InputError, match="visual has 5 dimensions, the model 128"):
        audit(model, Pairs({"audio": pairs.features["audio"], "visual": pairs.features["visual"][:, :5]}))
    bad = pairs.features["visual"].copy()
    bad[[3, 7], 0] = np.nan  # row 3 lacks the modality
    with pytest.raises(InputError, match="visual: values that are not finite in row 7"):
        audit(model, replace(pairs, features={**pairs.features, "visual": bad}))


def test_command(
    made: tuple[Pairs, np.ndarray], model: SmoothedCCA, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "run")
    write_store(made[0], tmp_path / "store")
    assert main(["audit", str(tmp_path / "run"), str(tmp_path / "store"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {
        "scored", "n_trained_on", "estimated_wrong_share", "estimated_wrong_share_ci", "pairs", "unscored",
    }  # fmt: skip
    assert [pair["rank"] for pair in printed["pairs"]] == list(range(1, len(printed["pairs"]) + 1))
    assert set(printed["pairs"][0]) == {"id", "score", "rank", "random_better"}
    listed = [row["id"] for row in printed["pairs"] + printed["unscored"]]
    assert sorted(listed) == sorted(clip.decode() for clip in made[0].ids)
    assert main(["audit", str(tmp_path / "run"), str(tmp_path / "store"), "--top", "3"]) == 0
    shown = capsys.readouterr().out
    assert printed["pairs"][2]["id"] in shown
    assert printed["pairs"][3]["id"] not in shown
    assert "8 rows without score: silent audio" in shown

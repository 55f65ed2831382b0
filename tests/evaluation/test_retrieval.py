"""Retrieval metrics against loops, closed forms and other libraries."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from hscmae.data.pairs import Labels
from hscmae.errors import InputError
from hscmae.evaluation import retrieval
from hscmae.evaluation.grid import to_grid
from hscmae.evaluation.metrics import chance_ap
from hscmae.evaluation.ranking import rank
from hscmae.evaluation.retrieval import Direction, Retrieval

A2V = Direction("audio", "visual")
REAL = Path(__file__).parents[2] / "../shared/data/yt8m_ave15.h5"


def evaluate_embeddings(embeddings, labels=None, *, present=None, silent=None, bootstrap=1000, seed=0):
    return Retrieval(embeddings, labels, present=present, silent=silent).metrics(bootstrap=bootstrap, seed=seed)


def per_query(embeddings, labels=None, *, present=None):
    """Name of a direction -> the clips that query, and their ranking."""
    found = Retrieval(embeddings, labels, present=present)
    return {direction.name: (found.rows[direction.source], r) for direction, r in found.rankings.items()}


def multi(sets, n_classes):
    indptr = np.concatenate([[0], np.cumsum([len(s) for s in sets])]).astype(np.int64)
    flat = np.array([c for s in sets for c in s], dtype=np.int64)
    return Labels(flat, indptr, tuple(f"class {c}" for c in range(n_classes)))


def case(n=40, dim=5, n_classes=4, seed=0, single=True):
    rng = np.random.default_rng(seed)
    audio = rng.standard_normal((n, dim))
    embeddings = {"audio": audio, "visual": audio + rng.standard_normal((n, dim))}
    if single:
        return embeddings, Labels.single(rng.integers(0, n_classes, n), [f"class {c}" for c in range(n_classes)])
    sets = [rng.choice(n_classes, size=rng.integers(0, 4), replace=False).tolist() for _ in range(n)]
    return embeddings, multi(sets, n_classes)


def naive(source, target, sets, present_source, present_target):
    """Metrics of one direction by plain loops over clips: what ``Retrieval.metrics`` documents."""
    q, g = (to_grid(x).astype(int).tolist() for x in (source, target))
    clips = [j for j in range(len(g)) if present_target[j]]
    aps, cutoffs, ndcgs, pair_ranks, ties = [], [], [], [], 0
    for i in range(len(q)):
        if not present_source[i]:
            continue
        score = {j: sum(x * y for x, y in zip(q[i], g[j], strict=True)) for j in clips}
        gain = {j: len(set(sets[i]) & set(sets[j])) for j in clips}
        order = sorted(clips, key=lambda j: (-score[j], gain[j]))
        ties += sum(score[x] == score[y] for x, y in itertools.pairwise(order))
        if i in score:
            pair_ranks.append(sum(score[j] >= score[i] for j in clips))
        precisions, running = [], []
        for r, j in enumerate(order, start=1):
            if gain[j]:
                precisions.append((len(precisions) + 1) / r)
            running.append(sum(precisions) / len(precisions) if precisions else 0.0)
        if precisions:
            aps.append(sum(precisions) / len(precisions))
            cutoffs.append(sum(running) / len(running))
            best = sorted(gain.values(), reverse=True)
            ndcgs.append(
                sum(gain[j] / math.log2(r + 2) for r, j in enumerate(order[:10]))
                / sum(x / math.log2(r + 2) for r, x in enumerate(best[:10]))
            )
    mean = lambda x: sum(x) / len(x) if len(x) else None  # noqa: E731
    return {
        "mAP": mean(aps),
        "mAP_cutoffs": mean(cutoffs),
        "nDCG@10": mean(ndcgs),
        **{f"R@{k}": mean([r <= k for r in pair_ranks]) for k in (1, 5, 10)},
        "MeanR": mean(pair_ranks),
        "MedR": float(np.median(pair_ranks)) if pair_ranks else None,
        "ties": ties,
    }


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3, 17, 60])
def test_equals_the_definitions(n, single, ties, missing):
    embeddings, labels = case(n, seed=n, single=single)
    rng = np.random.default_rng(n)
    if ties:
        embeddings = {m: np.sign(np.round(x)) for m, x in embeddings.items()}
    present = {m: rng.random(n) < 0.7 if missing else np.ones(n, dtype=bool) for m in embeddings}
    for mask in present.values():
        mask[rng.integers(n)] = True
    found = evaluate_embeddings(embeddings, labels, present=present, bootstrap=0)
    sets = [labels.indices[s:e].tolist() for s, e in itertools.pairwise(labels.indptr)]
    expected = {
        "a2v": naive(embeddings["audio"], embeddings["visual"], sets, present["audio"], present["visual"]),
        "v2a": naive(embeddings["visual"], embeddings["audio"], sets, present["visual"], present["audio"]),
    }
    for name, metrics in expected.items():
        for key, value in metrics.items():
            assert found[f"{name}/{key}"] == pytest.approx(value, rel=1e-12), f"{name}/{key}"
    for key in expected["a2v"]:
        pair = [expected[name][key] for name in expected]
        value = None if None in pair else sum(pair) / 2
        assert found[f"avg/{key}"] == pytest.approx(value, rel=1e-12), f"avg/{key}"
    assert found["n_queries"] == int((present["audio"] | present["visual"]).sum())
    assert found["n_paired"] == int((present["audio"] & present["visual"]).sum())
    assert found["a2v/n_queries"] == found["v2a/n_gallery"] == int(present["audio"].sum())


def test_rows_in_messages_are_those_of_the_file():
    embeddings, _ = case()
    embeddings["visual"][[3, 7]] = np.nan
    with pytest.raises(InputError, match=r"visual: not finite in row 7$"):
        evaluate_embeddings(embeddings, present={"visual": np.arange(40) != 3})


def test_values_of_missing_rows_are_never_read():
    embeddings, labels = case()
    present = {"audio": np.arange(40) % 3 > 0, "visual": np.arange(40) % 5 > 0}
    expected = evaluate_embeddings(embeddings, labels, present=present, bootstrap=20)
    for m, x in embeddings.items():
        x[~present[m]] = np.nan
    assert evaluate_embeddings(embeddings, labels, present=present, bootstrap=20) == expected


def test_equals_scikit_learn_without_ties():
    sklearn = pytest.importorskip("sklearn.metrics")
    embeddings, labels = case(60)
    found = per_query(embeddings, labels)
    unit = {m: x / np.linalg.norm(x, axis=1, keepdims=True) for m, x in embeddings.items()}
    scores = unit["audio"] @ unit["visual"].T
    for name, table in (("a2v", scores), ("v2a", scores.T)):
        relevant = labels.indices[:, None] == labels.indices[None]
        ap = [sklearn.average_precision_score(relevant[i], table[i]) for i in range(60)]
        np.testing.assert_allclose(found[name][1].ap, ap, rtol=1e-12)
        ndcg = [sklearn.ndcg_score(relevant[i : i + 1], table[i : i + 1], k=10) for i in range(60)]
        np.testing.assert_allclose(found[name][1].ndcg, ndcg, rtol=1e-12)


def test_multi_label_equals_ir_measures():
    ir = pytest.importorskip("ir_measures")
    embeddings, labels = case(50, n_classes=6, single=False)
    unit = {m: x / np.linalg.norm(x, axis=1, keepdims=True) for m, x in embeddings.items()}
    scores, hot = unit["audio"] @ unit["visual"].T, labels.one_hot().astype(int)
    run = [ir.ScoredDoc(f"q{i}", f"d{j}", float(scores[i, j])) for i in range(50) for j in range(50)]
    qrels = [ir.Qrel(f"q{i}", f"d{j}", int(hot[i] @ hot[j])) for i in range(50) for j in range(50)]
    _, ranking = per_query(embeddings, labels)["a2v"]
    for measure, values in ((ir.AP, ranking.ap), (ir.nDCG @ 10, ranking.ndcg)):
        expected = {m.query_id: m.value for m in ir.iter_calc([measure], qrels, run)}
        judged = np.flatnonzero(~np.isnan(values))
        assert len(judged) > 30
        np.testing.assert_allclose(values[judged], [expected[f"q{i}"] for i in judged], rtol=1e-9)


def test_keys_without_labels():
    embeddings, _ = case()
    found = evaluate_embeddings(embeddings, bootstrap=10)
    assert not [key for key in found if "mAP" in key or "nDCG" in key]
    assert {"n_queries", "a2v/R@1", "v2a/R@10", "avg/MedR", "a2v/ties", "a2v/R@5_ci"} <= found.keys()


def test_contract_keys_and_json():
    embeddings, labels = case()
    found = evaluate_embeddings(embeddings, labels, bootstrap=10)
    metrics = ("mAP", "mAP_ci", "mAP_cutoffs", "R@1", "R@5", "R@10", "MedR", "MeanR", "nDCG@10", "ties")
    expected = {f"{name}/{key}" for name in ("a2v", "v2a", "avg") for key in metrics}
    assert expected | {"n_queries", "n_paired", "chance/mAP"} <= found.keys()
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_clips_without_labels_leave_the_metric_empty():
    embeddings, _ = case(6)
    found = evaluate_embeddings(embeddings, multi([[]] * 6, 3), bootstrap=10)
    assert found["a2v/mAP"] is found["avg/mAP"] is found["chance/mAP"] is None
    assert "a2v/mAP_ci" not in found and found["a2v/R@10"] == 1.0
    json.dumps(found, allow_nan=False)


def test_no_paired_clip_leaves_the_pair_metrics_empty():
    embeddings, labels = case(6)
    present = {"audio": np.arange(6) < 3, "visual": np.arange(6) >= 3}
    found = evaluate_embeddings(embeddings, labels, present=present, bootstrap=10)
    assert found["a2v/MedR"] is found["avg/R@1"] is None and found["n_paired"] == 0 and found["n_queries"] == 6


def test_silent_rows_are_counted_and_stay():
    embeddings, labels = case(20)
    embeddings["audio"][:6] = embeddings["audio"][0]
    silent = {"audio": np.arange(20) < 6}
    found = evaluate_embeddings(embeddings, labels, silent=silent, bootstrap=0)
    assert found["silent/audio"] == 6
    assert found["v2a/n_gallery"] == 20 and found["v2a/ties"] == 20 * 5
    del found["silent/audio"]
    assert found == evaluate_embeddings(embeddings, labels, bootstrap=0)


def test_interval_of_a_mean_is_the_percentile_bootstrap():
    """Drawn clip by clip with the same generator: the interval of the mean over directions, too."""
    embeddings, labels = case(30, single=False)
    present = {"audio": np.arange(30) != 4, "visual": np.arange(30) != 9}
    found = evaluate_embeddings(embeddings, labels, present=present, bootstrap=200, seed=3)
    ap = {}
    for name, (rows, ranking) in per_query(embeddings, labels, present=present).items():
        ap[name] = dict(zip(rows.tolist(), ranking.ap.tolist(), strict=True))
    rng, means = np.random.default_rng(3), {"a2v": [], "v2a": [], "avg": []}
    for _ in range(200):
        drawn = rng.integers(30, size=30).tolist()
        for name, values in ap.items():
            means[name].append(np.nanmean([values.get(i, np.nan) for i in drawn]))
        means["avg"].append((means["a2v"][-1] + means["v2a"][-1]) / 2)
    for name, values in means.items():
        assert found[f"{name}/mAP_ci"] == pytest.approx(np.percentile(values, (2.5, 97.5)).tolist(), rel=1e-12)


def test_interval_covers_the_mean_and_narrows():
    widths = []
    for n in (50, 800):
        embeddings, labels = case(n)
        found = evaluate_embeddings(embeddings, labels, bootstrap=300)
        low, high = found["avg/mAP_ci"]
        assert low < found["avg/mAP"] < high
        low, high = found["avg/R@10_ci"]
        assert low < found["avg/R@10"] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


@pytest.mark.parametrize(("n", "relevant"), [(1, 1), (2, 1), (4, 2), (6, 1), (6, 3), (6, 6)])
def test_chance_is_the_mean_over_all_orders(n, relevant):
    total, orders = 0.0, 0
    for places in itertools.combinations(range(1, n + 1), relevant):
        total += sum((hit + 1) / r for hit, r in enumerate(places)) / relevant
        orders += 1
    assert chance_ap([relevant], n)[0] == pytest.approx(total / orders, rel=1e-12)
    assert np.isnan(chance_ap([0], n)[0])


def test_chance_is_what_random_embeddings_reach():
    rng = np.random.default_rng(0)
    embeddings = {m: rng.standard_normal((1500, 16)) for m in ("audio", "visual")}
    found = evaluate_embeddings(embeddings, Labels.single(rng.integers(0, 10, 1500)), bootstrap=0)
    assert found["avg/mAP"] == pytest.approx(found["chance/mAP"], rel=0.02)


def test_names_of_directions():
    assert Direction("audio", "visual").name == "a2v"
    assert Direction("visual", "audio").name == "v2a"
    assert Direction("text", "visual").name == "text2visual"
    embeddings, labels = case(10)
    three = {"text": embeddings["audio"], "audio": embeddings["audio"], "visual": embeddings["visual"]}
    names = {"text2audio", "text2visual", "audio2text", "a2v", "visual2text", "v2a"}
    assert set(per_query(three, labels)) == names
    found = evaluate_embeddings(three, labels, bootstrap=0)
    assert found["avg/mAP"] == pytest.approx(np.mean([found[f"{name}/mAP"] for name in names]), rel=1e-12)


def test_per_class_is_the_mean_over_the_class():
    embeddings, labels = case(30, single=False)
    present = {"audio": np.arange(30) > 2}
    found = Retrieval(embeddings, labels, present=present).per_class()[A2V]
    rows, ranking = per_query(embeddings, labels, present=present)["a2v"]
    hot = labels.one_hot()[rows]
    for c, name in enumerate(labels.names):
        assert found[name] == pytest.approx(ranking.ap[hot[:, c]].mean(), rel=1e-12)


def test_a_class_without_queries_is_absent():
    embeddings, _ = case(3)
    found = Retrieval(embeddings, Labels.single([0, 0, 2], "abc"))
    assert [set(classes) for classes in found.per_class().values()] == [{"a", "c"}] * 2


def test_precision_recall_curve():
    """A perfect ranking keeps precision 1; a worked example: relevant at ranks 1 and 4 of 4."""
    embeddings = {"audio": np.eye(3), "visual": np.eye(3)}
    levels, precision = Retrieval(embeddings, Labels.single([0, 1, 2])).precision_recall()[A2V]
    assert levels.tolist() == pytest.approx([i / 10 for i in range(11)]) and np.array_equal(precision, np.ones(11))
    angles = np.deg2rad([0, 10, 20, 30])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    present = {"audio": np.arange(4) == 0}
    found = Retrieval({"audio": gallery, "visual": gallery}, Labels.single([0, 1, 1, 0]), present=present)
    np.testing.assert_allclose(found.precision_recall()[A2V][1], [1] * 6 + [0.5] * 5)


def test_without_labels_there_are_no_classes_and_no_curves():
    embeddings, _ = case(6)
    found = Retrieval(embeddings)
    assert found.per_class() == {} and found.precision_recall() == {}
    curves = Retrieval(embeddings, multi([[]] * 6, 3)).precision_recall()
    assert all(np.isnan(precision).all() for _, precision in curves.values())


def test_every_direction_is_ranked_once(monkeypatch):
    embeddings, labels = case()
    ranked = []
    monkeypatch.setattr(retrieval, "rank", lambda *args, **options: ranked.append(1) or rank(*args, **options))
    found = Retrieval(embeddings, labels)
    assert found.ranking(A2V) is found.ranking(A2V) and len(ranked) == 1
    found.metrics(bootstrap=5), found.metrics(bootstrap=0), found.per_class(), found.precision_recall()
    assert len(ranked) == 2


def test_progress_tells_the_stage_and_the_queries():
    embeddings, labels = case()
    seen = []
    Retrieval(embeddings, labels, progress=lambda *at: seen.append(at)).metrics(bootstrap=0)
    assert seen == [("rank a2v", 40, 40), ("rank v2a", 40, 40)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": {"audio": np.ones((3, 2))}}, "two modalities, got audio"),
        ({"embeddings": {"audio": np.ones((3, 2)), "visual": np.ones((4, 2))}}, "audio 3, visual 4"),
        ({"labels": Labels.single([0, 1])}, "labels have 2 rows, the embeddings have 3"),
        ({"present": {"visual": np.zeros(3, dtype=bool)}}, "visual: no rows"),
        ({"present": {"visual": np.ones(2, dtype=bool)}}, "present"),
        (
            {"embeddings": {"audio": np.ones((3, 2)), "visual": np.full((3, 2), np.inf)}},
            "visual: not finite in rows 0",
        ),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {"embeddings": {"audio": np.ones((3, 2)), "visual": np.ones((3, 2))}, "labels": None, "present": None}
    with pytest.raises(InputError, match=message):
        evaluate_embeddings(**(arguments | change))


@pytest.mark.real
@pytest.mark.skipif(not REAL.exists(), reason="../shared/data is absent")
def test_chance_level_of_real_labels():
    h5py = pytest.importorskip("h5py")
    with h5py.File(REAL) as file:
        labels = Labels.single(np.ravel(file["lab_test"]))
    rng = np.random.default_rng(0)
    embeddings = {m: rng.standard_normal((len(labels), 32)) for m in ("audio", "visual")}
    assert evaluate_embeddings(embeddings, labels, bootstrap=0)["chance/mAP"] == pytest.approx(0.09, abs=0.01)

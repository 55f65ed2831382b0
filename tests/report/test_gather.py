"""What a report shows, against definitions written out."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from report_job import make_job

from conftest import make_pairs
from hscmae.data.pairs import Labels
from hscmae.errors import InputError
from hscmae.evaluation.protocol import evaluate
from hscmae.evaluation.retrieval import Retrieval
from hscmae.methods import Method, get_method
from hscmae.report import gather


@pytest.fixture(scope="module")
def fitted() -> Method:
    return get_method("ridge-cca")(dim=6).fit(make_pairs())


def test_metrics_are_those_of_evaluate(fitted: Method) -> None:
    pairs = make_pairs()
    assert gather.findings(fitted, pairs, split="test").metrics == evaluate(fitted, pairs, seed=0)


def test_results_are_the_nearest_items_in_order(fitted: Method) -> None:
    found = gather.findings(fitted, make_pairs(), split="test")
    z = fitted.embed_pairs(make_pairs().of_split("test"))
    classes = found.clips.labels.indices
    for examples in found.examples:
        for query in examples.queries:
            scores = z[examples.direction.target] @ z[examples.direction.source][query.row]
            expected = sorted(range(len(scores)), key=lambda j: -scores[j])[: gather.RESULTS]
            assert [r.row for r in query.results] == expected
            assert [r.score for r in query.results] == pytest.approx(scores[expected], abs=1e-6)
            assert [r.relevant for r in query.results] == [classes[j] == classes[query.row] for j in expected]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_own_pair_stands_at_its_rank_among_ties_too(labelled: bool) -> None:
    rng = np.random.default_rng(0)
    z = {m: rng.integers(-1, 2, (60, 3)).astype(np.float32) for m in ("audio", "visual")}
    found = Retrieval(z, Labels.single(rng.integers(3, size=60)) if labelled else None)
    for direction, ranking in found.rankings.items():
        for row, rank in enumerate(ranking.pair_rank.tolist()):
            results = [r.row for r in gather._results(found, direction, row)]
            assert (results.index(row) + 1 if row in results else rank) == rank
            assert (row in results) == (rank <= gather.RESULTS)


def test_best_typical_and_worst_queries(fitted: Method) -> None:
    found = gather.findings(fitted, make_pairs(), split="test")
    for examples in found.examples:
        scores = {g: [q.score for q in examples.queries if q.group == g] for g in ("best", "typical", "worst")}
        assert [len(v) for v in scores.values()] == [gather.EXAMPLES] * 3
        # No class stands twice in a group, so that a typical query may be better than the third best: but not the
        # first, second or third of them than that of the best.
        best, typical, worst = (sorted(scores[group], reverse=True) for group in ("best", "typical", "worst"))
        assert all(b >= t >= w for b, t, w in zip(best, typical, worst, strict=True))
        rows = [q.row for q in examples.queries]
        assert len(set(rows)) == len(rows)
        for group in scores:  # four classes: three queries of each group can differ
            of = [found.clips.labels.indices[q.row] for q in examples.queries if q.group == group]
            assert len(set(of)) == gather.EXAMPLES


def test_the_best_query_is_the_best_and_the_worst_the_worst(fitted: Method) -> None:
    found = gather.findings(fitted, make_pairs(), split="test")
    of = Retrieval.of(fitted, make_pairs())
    for examples in found.examples:
        ap = of.ranking(examples.direction).ap
        assert examples.queries[0].score == ap.max()
        assert examples.queries[2 * gather.EXAMPLES].score == ap.min()


def test_few_queries_are_shown_once(fitted: Method) -> None:
    pairs = make_pairs().take(np.arange(0, 20))
    found = gather.findings(fitted, replace(pairs, split=None).take(np.arange(4)), split="test")
    for examples in found.examples:
        assert sorted(q.row for q in examples.queries) == [0, 1, 2, 3]


def test_without_labels_queries_are_chosen_by_the_rank_of_their_pair(fitted: Method) -> None:
    found = gather.findings(fitted, make_pairs().without_labels(), split="test")
    assert found.per_class == {} and found.curves == {} and found.confusion.size == 0
    for examples in found.examples:
        for q in examples.queries:
            assert q.score == 1 / q.pair_rank
            assert all(r.relevant == (r.row == q.row) for r in q.results)


def test_confusion_against_loops_with_several_labels_a_clip() -> None:
    rng = np.random.default_rng(0)
    pairs = make_pairs(n=60)
    sets = [sorted(rng.choice(5, size=rng.integers(0, 4), replace=False).tolist()) for _ in range(60)]
    indptr = np.cumsum([0, *map(len, sets)])
    labels = Labels(np.array([c for s in sets for c in s], dtype=np.int64), indptr, ("a", "b", "c", "d", "e"))
    method = get_method("ridge-cca")(dim=4).fit(pairs)
    found = gather.findings(method, replace(pairs, labels=labels), split="all")
    z = method.embed_pairs(pairs)
    expected = []
    for source, target in (("audio", "visual"), ("visual", "audio")):
        table = np.zeros((5, 5))
        for c in range(5):
            queries = [i for i in range(60) if c in sets[i]]
            for i in queries:
                first = np.argsort(-(z[target] @ z[source][i]))[: gather.TOP]
                for d in range(5):
                    table[c, d] += np.mean([d in sets[j] for j in first]) / len(queries)
        expected.append(table)
    assert found.classes.tolist() == [0, 1, 2, 3, 4]
    assert found.confusion == pytest.approx(np.mean(expected, axis=0))


def test_the_matrix_keeps_to_the_most_frequent_classes() -> None:
    pairs = make_pairs(n=200, classes=30)
    found = gather.findings(get_method("ridge-cca")(dim=4).fit(pairs), pairs, split="all")
    counts = np.bincount(pairs.labels.indices, minlength=30)
    assert len(found.classes) == gather.CLASSES
    assert counts[found.classes].min() >= np.sort(counts)[-gather.CLASSES]


def test_the_principal_map_keeps_distances_of_flat_data() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(7, 2)))[0]
    flat = {m: rng.normal(size=(9, 2)) * [3, 1] for m in ("a", "b")}
    pca = gather.projections({m: (x @ basis.T).astype(np.float32) for m, x in flat.items()})[0]
    before, after = (np.concatenate(list(p.values())) for p in (flat, pca.points))
    distances = [np.linalg.norm(x[:, None] - x[None], axis=2) for x in (before, after)]
    assert distances[1] == pytest.approx(distances[0], abs=1e-5)
    shares = [int(title.split("(")[1].split("%")[0]) for title in pca.axes]
    assert sum(shares) in (99, 100, 101) and shares[0] > shares[1]


def test_one_dimension_still_gives_a_map() -> None:
    pca = gather.projections({"a": np.ones((3, 1), np.float32), "b": -np.ones((3, 1), np.float32)})[0]
    assert pca.points["a"].shape == (3, 2)
    assert np.isfinite(pca.points["a"]).all()


def test_umap_is_a_second_map_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Umap:
        def __init__(self, **settings: object) -> None:
            assert settings["metric"] == "cosine" and settings["random_state"] == 3

        def fit_transform(self, x: np.ndarray) -> np.ndarray:
            return x[:, :2].astype(np.float32)

    z = {m: np.random.default_rng(i).normal(size=(40, 5)).astype(np.float32) for i, m in enumerate("ab")}
    assert [p.name for p in gather.projections(z)] == ["PCA"]
    for name in ("umap", "umap.umap_"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(UMAP=Umap))
    maps = gather.projections(z, seed=3)
    assert [p.name for p in maps] == ["PCA", "UMAP"]
    assert maps[1].points["b"] == pytest.approx(z["b"][:, :2])


def test_large_splits_are_sampled_for_the_map(fitted: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "MAP_CLIPS", 10)
    found = gather.findings(fitted, make_pairs(), split="test")
    assert len(found.map_rows) == 10 == len(found.projections[0].points["audio"])
    assert len(set(found.map_rows.tolist())) == 10


def test_missing_modalities_have_no_pair_and_no_place_in_results(fitted: Method) -> None:
    pairs = make_pairs()
    lacks = np.ones(len(pairs), dtype=bool)
    lacks[::10] = False
    found = gather.findings(fitted, replace(pairs, present={"visual": lacks}), split="test")
    absent = set(np.flatnonzero(~found.clips.present["visual"]).tolist())
    assert absent
    assert np.isnan(found.pair_cosine[sorted(absent)]).all()
    (to_visual,) = [examples for examples in found.examples if examples.direction.target == "visual"]
    assert not absent & {r.row for q in to_visual.queries for r in q.results}


def test_a_silent_row_is_known_from_all_splits(fitted: Method) -> None:
    pairs = make_pairs()
    features = {m: x.copy() for m, x in pairs.features.items()}
    features["audio"][[0, 1, 2, 3, 5]] = 0  # five rows, of which two are test rows
    found = gather.findings(fitted, replace(pairs, features=features), split="test")
    assert np.flatnonzero(found.silent["audio"]).tolist() == [0, 1]


def test_suspicious_pairs_are_training_pairs_in_the_audit_s_order(fitted: Method) -> None:
    pairs = make_pairs()
    known = frozenset(pairs.ids[:40].tolist())
    found = gather.suspicious_pairs(fitted, pairs, known)
    assert found is not None
    assert found.audited == found.of == int((pairs.split == b"train").sum())
    assert (found.pairs.split == b"train").all()
    assert found.scores == sorted(found.scores, reverse=True)
    assert found.known_wrong == [name in known for name in found.pairs.ids.tolist()]


def test_of_many_pairs_some_drawn_at_random_are_audited(fitted: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "AUDITED", 90)
    pairs = make_pairs()
    features = {m: x.copy() for m, x in pairs.features.items()}
    features["audio"][1:14] = 0  # silent: ten of them are training rows
    found = gather.suspicious_pairs(fitted, replace(pairs, features=features))
    assert found is not None
    assert (found.audited, found.of) == (90, 128 - 11)
    assert not set(found.pairs.ids.tolist()) & set(pairs.ids[1:14].tolist())


def test_confusion_of_many_queries_looks_at_some(fitted: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = make_pairs(2000)
    whole = gather.findings(fitted, pairs, split="all").confusion
    monkeypatch.setattr(gather, "CONFUSED", 1000)
    some = gather.findings(fitted, pairs, split="all").confusion
    assert not np.array_equal(some, whole)
    assert some == pytest.approx(whole, abs=0.05)


def test_too_few_pairs_are_not_audited(fitted: Method) -> None:
    assert gather.suspicious_pairs(fitted, replace(make_pairs(n=20), split=None)) is None


def test_records_of_a_run_and_of_one_in_closed_form(tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", make_pairs())
    records = gather.read_records(job.run)
    assert {r["phase"] for r in records} >= {"select", "refit"}
    assert gather.read_records(tmp_path) == []


@pytest.mark.parametrize("line", ["{", "[]", '{"step": 1}', "3"])
def test_a_damaged_record_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "phase": "select"}\n' + line + "\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl: line 2"):
        gather.read_records(tmp_path)


def test_data_without_the_model_s_modality(fitted: Method) -> None:
    pairs = make_pairs()
    alone = replace(pairs, features={"audio": pairs.features["audio"]}, present={})
    with pytest.raises(InputError, match="has no visual"):
        gather.findings(fitted, alone, split="test")

"""The ranking core against a double loop written from the definitions."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hscmae.data.pairs import Labels
from hscmae.errors import InputError
from hscmae.evaluation import ranking, ranking_cpu, ranking_job
from hscmae.evaluation.grid import to_grid
from hscmae.evaluation.ranking_gpu import rank_on_gpu
from hscmae.evaluation.ranking_job import MAX_GAIN, Ranking

rank = partial(ranking.rank, device="cpu")
CPU = torch.device("cpu")


def rank_as_on_gpu(*arguments, **options):
    """``rank`` by the code for GPUs, which runs on any device; here on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "rank_on_cpu", lambda job, progress: rank_on_gpu(job, CPU, progress))
        return rank(*arguments, **options)


def multi(sets, n_classes):
    indptr = np.concatenate([[0], np.cumsum([len(s) for s in sets])]).astype(np.int64)
    flat = np.array([c for s in sets for c in s], dtype=np.int64)
    return Labels(flat, indptr, tuple(f"class {c}" for c in range(n_classes)))


def naive(scores, gains, pairs=None, k=10, levels=()):
    """Each query's summaries, one rank at a time, with plain Python numbers."""
    result = []
    for i, row in enumerate(scores):
        n = len(row)
        shared = gains[i] if gains is not None else [0] * n
        # Highest score first; of equal scores the less relevant first.
        order = sorted(range(n), key=lambda j: (-row[j], shared[j]))
        pair = -1 if pairs is None else pairs[i]
        pair_rank = 0 if pair < 0 else sum(1 for j in range(n) if row[j] >= row[pair])
        ties = sum(1 for r in range(1, n) if row[order[r]] == row[order[r - 1]])
        hits, total, running, precisions = 0, 0.0, [], []
        for r, j in enumerate(order, start=1):
            if shared[j] > 0:
                hits += 1
                total += hits / r
                precisions.append((hits, hits / r))
            running.append(total / hits if hits else 0.0)
        dcg = sum(shared[j] / math.log2(r + 1) for r, j in enumerate(order[:k], start=1))
        ideal = sum(g / math.log2(r + 1) for r, g in enumerate(sorted(shared, reverse=True)[:k], start=1))
        curve = [max((p for h, p in precisions if h >= level * hits - 1e-9), default=math.nan) for level in levels]
        if hits:
            result.append((pair_rank, ties, hits, total / hits, sum(running) / n, dcg / ideal, curve))
        else:
            result.append((pair_rank, ties, 0, math.nan, math.nan, math.nan, [math.nan] * len(levels)))
    return result


def check(found: Ranking, expected):
    columns = list(zip(*expected, strict=True))
    for name, column in zip(("pair_rank", "ties", "n_relevant"), columns, strict=False):
        np.testing.assert_array_equal(getattr(found, name), column, err_msg=name)
    for name, column in zip(("ap", "ap_cutoffs", "ndcg", "precision"), columns[3:], strict=True):
        np.testing.assert_allclose(getattr(found, name), column, rtol=1e-12, atol=0, err_msg=name)


def exact_scores(q, g):
    """Cosines in whole numbers of the grid, as Python integers."""
    q, g = (to_grid(x).astype(int).tolist() for x in (q, g))
    return [[sum(x * y for x, y in zip(a, b, strict=True)) for b in g] for a in q]


def random_case(rng, n_queries, n_gallery, dim, dtype, *, ties):
    if ties:  # few distinct rows: many equal scores
        values = rng.integers(-1, 2, (4, dim)).astype(dtype)
        q, g = values[rng.integers(4, size=n_queries)], values[rng.integers(4, size=n_gallery)]
    else:
        q, g = rng.standard_normal((n_queries, dim)).astype(dtype), rng.standard_normal((n_gallery, dim)).astype(dtype)
    sets = [rng.choice(6, size=rng.integers(0, 4), replace=False).tolist() for _ in range(n_queries + n_gallery)]
    return q, g, multi(sets[:n_queries], 6), multi(sets[n_queries:], 6)


def shared_counts(labels):
    a, b = labels[0].one_hot(), labels[1].one_hot()
    return [[int((x & y).sum()) for y in b] for x in a]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n_queries", "n_gallery"), [(1, 1), (1, 7), (7, 1), (2, 3), (13, 60), (60, 13), (31, 31)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equals_the_definitions(n_queries, n_gallery, ties, dtype):
    rng = np.random.default_rng(n_queries * 100 + n_gallery)
    q, g, *labels = random_case(rng, n_queries, n_gallery, 5, dtype, ties=ties)
    pairs = rng.integers(-1, n_gallery, n_queries)
    levels = np.linspace(0, 1, 11)
    found = rank(q, g, pairs=pairs, labels=tuple(labels), recall_levels=levels, block_rows=4)
    check(found, naive(exact_scores(q, g), shared_counts(labels), pairs, 10, levels))


def test_single_label_equals_the_definitions():
    rng = np.random.default_rng(1)
    q, g = rng.standard_normal((40, 6)), rng.standard_normal((50, 6))
    labels = Labels.single(rng.integers(0, 5, 40), "abcdefg"), Labels.single(rng.integers(0, 5, 50), "abcdefg")
    check(rank(q, g, labels=labels, k=3, block_rows=7), naive(exact_scores(q, g), shared_counts(labels), k=3))


def test_without_labels_only_the_pair_counts():
    rng = np.random.default_rng(2)
    q, g = rng.standard_normal((2, 30, 4))
    found = rank(q, g, pairs=np.arange(30))
    check(found, naive(exact_scores(q, g), None, range(30)))
    assert np.isnan(found.ap).all() and np.isnan(found.ndcg).all()


@pytest.mark.parametrize("relevant", [range(5), [0], [4], [1, 3]])
def test_everything_tied_is_the_worst_order(relevant):
    n, m = 5, len(relevant)
    labels = Labels.single([1], "xy"), Labels.single([int(j in relevant) for j in range(n)], "xy")
    found = rank(np.ones((1, 3)), np.ones((n, 3)), pairs=[0], labels=labels)
    assert found.pair_rank.tolist() == [n]
    assert found.ties.tolist() == [n - 1]
    assert found.ap[0] == pytest.approx(sum((i + 1) / (n - m + i + 1) for i in range(m)) / m, rel=1e-15)


def test_the_worked_example_of_ties():
    """Two of four relevant, everything tied: precisions 1/3 and 2/4, hence 0.41666, where scikit-learn gives 0.5."""
    labels = Labels.single([0], "xy"), Labels.single([0, 1, 0, 1], "xy")
    assert rank(np.ones((1, 2)), np.ones((4, 2)), labels=labels).ap[0] == pytest.approx(5 / 12, rel=1e-15)


@pytest.mark.parametrize("n", [3, 64, 65, 257])
def test_identical_embeddings_tie_wherever_they_stand(n):
    rng = np.random.default_rng(n)
    q, g = rng.standard_normal((n, 37)).astype(np.float32), rng.standard_normal((n, 37)).astype(np.float32)
    g[n // 2] = g[-1] = g[0]
    found = rank(q, g, pairs=np.zeros(n, dtype=int))
    np.testing.assert_array_equal(found.ties, np.full(n, 2))
    np.testing.assert_array_equal(found.pair_rank, rank(q, g, pairs=np.full(n, n - 1)).pair_rank)


def test_scale_of_the_rows_does_not_matter():
    rng = np.random.default_rng(3)
    q, g = rng.standard_normal((2, 20, 8))
    labels = (Labels.single(np.arange(20) % 3),) * 2
    expected = rank(q, g, labels=labels)
    for factor in (1e-300, 2.0**-20, 2.0**30, 1e300):
        np.testing.assert_array_equal(rank(q * factor, g, labels=labels).ap, expected.ap)


def test_block_size_and_threads_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    q, g = rng.standard_normal((101, 128)).astype(np.float32), rng.standard_normal((173, 128)).astype(np.float32)
    sets = [rng.choice(20, size=rng.integers(0, 4), replace=False).tolist() for _ in range(274)]
    labels = multi(sets[:101], 20), multi(sets[101:], 20)
    pairs = rng.integers(-1, 173, 101)
    levels = (0.0, 0.3, 1.0)
    expected = rank(q, g, pairs=pairs, labels=labels, recall_levels=levels, block_rows=1)
    threads = torch.get_num_threads()
    try:
        for rows, n_threads in itertools.product((2, 3, 50, 100, 101, None), (1, 2)):
            torch.set_num_threads(n_threads)
            monkeypatch.setattr(ranking_cpu, "CACHED_SCORES", 100 * (rows or 1))
            found = rank(q, g, pairs=pairs, labels=labels, recall_levels=levels, block_rows=rows)
            for name in ("pair_rank", "ties", "n_relevant", "ap", "ap_cutoffs", "ndcg", "precision"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=f"{name} {rows}")
    finally:
        torch.set_num_threads(threads)


def test_scores_are_exact_on_the_grid():
    rng = np.random.default_rng(5)
    for dim in (1, 2, 128, 3000):
        x = to_grid(rng.standard_normal((4, dim)))
        assert np.array_equal(x, np.rint(x))
        product = x @ x.T
        exact = [[sum(int(u) * int(w) for u, w in zip(a, b, strict=True)) for b in x] for a in x]
        assert [[int(p) for p in row] for row in product] == exact
        assert max(map(max, exact)) < 2**52
        assert min(exact[i][i] for i in range(4)) > 2**52 * (1 - 1e-5)


def test_the_longest_row_stays_on_the_grid():
    """Rounding cannot lift a row above 2^26, not even where it always rounds up."""
    for dim in (1, 4, 100, 4096, 100_000):
        assert np.square(to_grid(np.ones((1, dim)))).sum() < 2**52


def test_a_recall_level_is_met_by_the_fewest_items_that_reach_it():
    """Ten relevant items; the precision after each is 1, 1, 1, 4/7, 5/9, 6/11, 7/13, 8/15, 9/17, 10/20."""
    angles = np.deg2rad(np.arange(20.0))
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    relevant = np.array([1, 1, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1])
    labels = Labels.single([1], "xy"), Labels.single(relevant, "xy")
    found = rank(gallery[:1], gallery, labels=labels, recall_levels=(0, 0.1, 0.3, 0.31, 0.7, 0.9, 0.91, 1))
    np.testing.assert_allclose(found.precision[0], [1, 1, 1, 4 / 7, 7 / 13, 9 / 17, 0.5, 0.5], rtol=1e-15)


def test_rows_of_zeros_tie_with_everything():
    q = np.array([[0.0, 0.0], [1.0, 0.0]])
    found = rank(q, np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]), pairs=[0, 2])
    assert found.pair_rank.tolist() == [3, 2]
    assert found.ties.tolist() == [2, 0]


def test_tensors_of_every_type_are_taken():
    rng = np.random.default_rng(6)
    q, g = rng.integers(-8, 9, (2, 12, 4)).astype(np.float32)
    labels = (Labels.single(np.arange(12) % 3),) * 2
    expected = rank(q, g, labels=labels).ap
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        tensors = (torch.from_numpy(x).to(dtype).requires_grad_() for x in (q, g))
        np.testing.assert_array_equal(rank(*tensors, labels=labels).ap, expected)


def test_a_label_given_twice_counts_once():
    q, g = np.array([[1.0, 0.0]]), np.array([[1.0, 0.1], [1.0, 0.0]])
    twice = multi([[0, 0, 1]], 2), multi([[0], [1, 1, 1]], 2)
    once = multi([[0, 1]], 2), multi([[0], [1]], 2)
    assert rank(q, g, labels=once).ndcg[0] == 1
    np.testing.assert_array_equal(rank(q, g, labels=twice).ndcg, rank(q, g, labels=once).ndcg)


@pytest.mark.parametrize("rank", [rank, rank_as_on_gpu])
def test_the_pair_ranks_behind_its_ties_whatever_their_gain(rank):
    every = multi([range(MAX_GAIN)], MAX_GAIN), multi([range(MAX_GAIN), [], [0]], MAX_GAIN)
    found = rank(np.ones((1, 2)), np.ones((3, 2)), pairs=[1], labels=every)
    assert found.pair_rank.tolist() == [3] and found.ties.tolist() == [2]


def test_gains_up_to_the_limit_are_told_apart():
    every = [list(range(MAX_GAIN)), list(range(MAX_GAIN - 1)), [0], [MAX_GAIN]]
    labels = multi(every[:1], MAX_GAIN + 1), multi(every, MAX_GAIN + 1)
    rng = np.random.default_rng(7)
    q, g = rng.standard_normal((1, 3)), rng.standard_normal((4, 3))
    check(rank(q, g, labels=labels), naive(exact_scores(q, g), shared_counts(labels)))


@pytest.mark.parametrize("single", [True, False])
def test_a_perfect_order_scores_one_to_the_bit(single):
    angles = np.deg2rad(np.arange(30.0))
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for m in range(1, 31):
        relevant = Labels.single((np.arange(30) < m).astype(int), "xy")
        if not single:
            relevant = multi([[0, 1, 2][: 3 * (m - i) // m] if i < m else [3] for i in range(30)], 4)
        query = Labels.single([1], "xy") if single else multi([[0, 1, 2]], 4)
        found = rank(gallery[:1], gallery, labels=(query, relevant))
        assert found.ap[0] == found.ndcg[0] == 1, m


def test_empty_queries():
    found = rank(np.empty((0, 3)), np.ones((2, 3)), recall_levels=(0.5, 1.0))
    assert found.ap.shape == found.ties.shape == (0,) and found.precision.shape == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries": np.ones((2, 3)), "gallery": np.ones((2, 4))}, "dimension 3"),
        ({"queries": np.ones((2, 3)), "gallery": np.ones((0, 3))}, "no rows"),
        ({"queries": np.ones(3), "gallery": np.ones((2, 3))}, r"queries: expected shape \(rows, dim\)"),
        (
            {"queries": np.ones((2, 3)), "gallery": np.array([[1, 2, 3], [1, np.nan, 3]])},
            "gallery: not finite in row 1",
        ),
        ({"queries": [["a", "b"]], "gallery": np.ones((2, 2))}, "queries: expected an array of numbers"),
        ({"queries": np.ones((2, 3)), "gallery": np.ones((2, 3)), "pairs": [0]}, "one entry for each row"),
        ({"queries": np.ones((2, 3)), "gallery": np.ones((2, 3)), "pairs": [0, 2]}, "pairs"),
        (
            {
                "queries": np.ones((2, 3)),
                "gallery": np.ones((2, 3)),
                "labels": (Labels.single([0]), Labels.single([0, 0])),
            },
            "one entry for each row",
        ),
        (
            {
                "queries": np.ones((1, 3)),
                "gallery": np.ones((1, 3)),
                "labels": (Labels.single([0]), multi([range(MAX_GAIN + 1)], MAX_GAIN + 1)),
            },
            "labels of the gallery: more than 255 labels in row 0",
        ),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        rank(**arguments)


def test_blocks_stay_small(monkeypatch):
    """No block holds more scores than it may, whatever the sizes."""
    seen = []
    product = torch.mm
    monkeypatch.setattr(ranking_job, "BLOCK_SCORES", 100)
    monkeypatch.setattr(torch, "mm", lambda *args, out: seen.append(tuple(out.shape)) or product(*args, out=out))
    rank(np.ones((11, 2)), np.ones((30, 2)))
    assert seen == [(3, 30)] * 3 + [(2, 30)]


@pytest.mark.parametrize("rows", [1, 7, None])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n_queries", "n_gallery"), [(0, 3), (1, 1), (5, 1), (1, 9), (40, 60)])
def test_the_code_for_gpus_equals_the_code_for_cpus(n_queries, n_gallery, ties, rows):
    rng = np.random.default_rng(n_queries)
    q, g, *labels = random_case(rng, n_queries, n_gallery, 5, np.float32, ties=ties)
    pairs = rng.integers(-1, n_gallery, n_queries)
    for of in (None, tuple(labels)):
        arguments = {"pairs": pairs, "labels": of, "recall_levels": (0, 0.3, 1.0), "k": 4, "block_rows": rows}
        same(rank_as_on_gpu(q, g, **arguments), rank(q, g, **arguments))


def same(found, expected):
    for name in ("n_gallery", "pair_rank", "ties", "n_relevant"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for name in ("ap", "ap_cutoffs", "ndcg", "precision"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12, err_msg=name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_ranks_alike():
    rng = np.random.default_rng(8)
    q, g, *labels = random_case(rng, 300, 500, 64, np.float32, ties=False)
    pairs = rng.integers(-1, 500, 300)
    arguments = {"pairs": pairs, "labels": tuple(labels), "recall_levels": (0.1, 1.0)}
    expected = rank(q, g, **arguments)
    same(ranking.rank(torch.from_numpy(q).cuda(), torch.from_numpy(g).cuda(), **arguments), expected)
    same(ranking.rank(q, g, **arguments), expected)


@pytest.mark.parametrize(("there", "where"), [(True, "cuda"), (False, "cpu")])
def test_ranks_on_the_gpu_where_there_is_one(monkeypatch, there, where):
    ranked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(ranking, "rank_on_cpu", lambda job, progress: ranked.append("cpu"))
    monkeypatch.setattr(ranking, "rank_on_gpu", lambda job, device, progress: ranked.append(device.type))
    ranking.rank(np.ones((1, 2)), np.ones((3, 2)))
    ranking.rank(torch.ones((1, 2)), np.ones((3, 2)))
    ranking.rank(np.ones((1, 2)), np.ones((3, 2)), device="cpu")
    assert ranked == [where, where, "cpu"]


@pytest.mark.parametrize("rank", [rank, rank_as_on_gpu])
def test_progress_counts_queries(rank):
    seen = []
    rank(np.ones((7, 2)), np.ones((3, 2)), block_rows=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 7), (6, 7), (7, 7)]


sizes = {
    "seed": st.integers(0, 2**32 - 1),
    "n_queries": st.integers(1, 20),
    "n_gallery": st.integers(1, 40),
    "dim": st.integers(1, 6),
    "k": st.integers(1, 12),
    "rows": st.integers(1, 21),
    "ties": st.booleans(),
}


def agrees(seed, n_queries, n_gallery, dim, k, rows, ties):
    rng = np.random.default_rng(seed)
    q, g, *labels = random_case(rng, n_queries, n_gallery, dim, np.float32, ties=ties)
    pairs, levels = rng.integers(-1, n_gallery, n_queries), rng.uniform(0, 1, 3)
    found = rank(q, g, pairs=pairs, labels=tuple(labels), k=k, recall_levels=levels, block_rows=rows)
    check(found, naive(exact_scores(q, g), shared_counts(labels), pairs, k, levels))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(**sizes)
def test_any_case_equals_the_definitions(**case):
    agrees(**case)


@pytest.mark.long
@settings(max_examples=5000, deadline=None)
@given(**sizes)
def test_thousands_of_cases_equal_the_definitions(**case):
    agrees(**case)

"""Exact search gives what a ranking of everything on the grid gives, ties included, however it is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hscmae.errors import InputError
from hscmae.evaluation.grid import GRID_BITS, to_grid
from hscmae.evaluation.ranking import rank
from hscmae.search import exact
from hscmae.search.exact import ExactSearch, Fused


def unit(x: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.where(norms > 0, norms, 1)).astype(np.float32)


def naive(queries: np.ndarray, gallery: np.ndarray, k: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A stable sort of all scores on the grid."""
    scores = (to_grid(queries) @ to_grid(gallery).T)[:, rows]
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows[order], np.take_along_axis(scores, order, 1) / (2.0**GRID_BITS - np.sqrt(gallery.shape[1]) - 1) ** 2


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 300),
    st.integers(1, 6),
    st.integers(1, 20),
    st.sampled_from(["normal", "coarse", "equal", "rising", "long"]),
    st.sampled_from(["all", "flags", "few"]),
)
@settings(max_examples=150, deadline=None)
def test_equal_to_a_sort_of_everything(seed: int, n: int, dim: int, k: int, kind: str, filtered: str) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, dim))
    if kind == "coarse":  # many ties, and scores that float32 cannot tell apart
        x = np.round(x) + rng.choice([0, 1e-7], (n, 1))
    if kind == "equal":
        x[:] = x[0]
    x = x.astype(np.float32) * 7 if kind == "long" else unit(x)
    queries = np.concatenate([rng.standard_normal((3, dim)), x[:2]])
    if kind == "rising":
        x = x[np.argsort(x @ queries[0])]
    rows = np.arange(n)
    if filtered == "flags":
        rows = np.flatnonzero(rng.random(n) < 0.7)
    elif filtered == "few":
        rows = rng.choice(n, min(n, 4), replace=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "SCORES", 40)
        patch.setattr(exact, "BLOCK_ROWS", 7)
        patch.setattr(exact, "QUERIES", 4)
        patch.setattr(exact, "MOST_KEPT", 5)
        found = ExactSearch(x)(queries, k, rows=rows if filtered != "all" else None)
    expected_rows, expected = naive(queries, x, k, np.sort(rows))
    np.testing.assert_array_equal(found.rows, expected_rows)
    np.testing.assert_array_equal(found.scores, expected)


def test_the_rank_of_the_pair_is_that_of_the_evaluation() -> None:
    rng = np.random.default_rng(0)
    gallery, queries = unit(rng.standard_normal((500, 16))), unit(rng.standard_normal((300, 16)))
    found = ExactSearch(gallery)(queries, k=500)
    pairs = rng.integers(0, 500, 300)
    place = (found.rows == pairs[:, None]).argmax(axis=1) + 1
    np.testing.assert_array_equal(place, rank(queries, gallery, pairs=pairs).pair_rank)


def test_a_margin_too_small_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    near = unit(rng.standard_normal((1, 64)) + 1e-7 * rng.standard_normal((5000, 64)))
    query = near[:1]
    expected, _ = naive(query, near, 10, np.arange(5000))
    search = ExactSearch(near)
    np.testing.assert_array_equal(search(query).rows, expected)
    search._margin = 0.0
    assert (search(query).rows != expected).any()


def test_fused_rows_are_the_normalised_sum_of_what_is_there() -> None:
    rng = np.random.default_rng(2)
    a, v = unit(rng.standard_normal((40, 8))), unit(rng.standard_normal((40, 8)))
    a[3], v[5], a[6], v[6] = 0, 0, 0, 0
    fused = Fused(a, v)
    expected = a.astype(float) + v
    expected[[0, 1, 2]] /= np.linalg.norm(expected[[0, 1, 2]], axis=1, keepdims=True)
    np.testing.assert_allclose(fused[:3], expected[:3], atol=1e-7)
    np.testing.assert_allclose(fused[[3, 5, 6]], [v[3], a[5], np.zeros(8)], atol=1e-7)
    found = ExactSearch(fused)(a[:2], k=4)
    np.testing.assert_array_equal(found.rows, naive(a[:2], fused[:], 4, np.arange(40))[0])


def test_memory_mapped_and_half_precision(tmp_path: Path) -> None:
    x = unit(np.random.default_rng(3).standard_normal((100, 8))).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(ExactSearch(mapped)(x[:3], 5).rows, naive(x[:3], x, 5, np.arange(100))[0])


def test_none_to_search_or_to_find() -> None:
    search = ExactSearch(np.eye(3, dtype=np.float32))
    assert search(np.zeros((0, 3)), 2).rows.shape == (0, 2)
    assert search(np.eye(3), 2, rows=np.zeros(3, bool)).rows.shape == (3, 0)
    assert ExactSearch(np.zeros((0, 3), np.float32))(np.eye(3), 2).scores.shape == (3, 0)


def test_what_is_refused() -> None:
    search = ExactSearch(np.eye(3, dtype=np.float32))
    with pytest.raises(InputError, match="2 dimensions, the embeddings 3"):
        search(np.ones((1, 2)))
    with pytest.raises(InputError, match="k must be at least 1"):
        search(np.ones((1, 3)), 0)
    with pytest.raises(InputError, match="not finite in row 1"):
        ExactSearch(np.array([[1.0, 0.0], [np.nan, 0.0]], np.float32))
    with pytest.raises(InputError, match="expected shape"):
        ExactSearch(np.zeros((2, 2, 2), np.float32))

"""Exact search by cosine in a gallery on disk or in memory: blocks of matrix products, then exact scores for the few.

A float32 product costs half of a float64 one and is wrong by less than a known margin. So blocks are multiplied in
float32, every row that could be among the best ``k`` within that margin is kept, and the kept ones are scored again on
the grid of ``evaluation.grid``, where scalar products do not round: scores and ties are those of ``evaluation.rank``.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import BoolArray, Float64Array, IntArray
from hscmae.errors import InputError, describe_rows
from hscmae.evaluation.grid import GRID_BITS, as_rows, to_grid

Float32Array = npt.NDArray[np.float32]

QUERIES = 256  # multiplied at a time
SCORES = 2**19  # float32 scores held at a time: 2 MiB, which a cache holds
BLOCK_ROWS = 2**16
CACHED_ROWS = 1024  # fused at a time
NORM_TOLERANCE = 1e-3  # rows further from unit norm are normalised first, in memory
MOST_KEPT = 2**20  # candidates after which ties are cut exactly
UNIT = 2.0**-24  # rounding of one float32 operation


class Rows(Protocol):
    """A gallery: an array of shape (n, dim), or what gives blocks of one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


class Found(NamedTuple):
    """The best rows of each query: ``rows`` and ``scores`` (cosines), both (n_queries, min(k, rows searched))."""

    rows: IntArray
    scores: Float64Array


class Fused:
    """Fused embeddings ``norm(sum of the modalities that a row has)``, made block by block; unit rows, or zero ones.

    Args:
        embeddings: modality -> unit-norm rows, shape (n, dim), zero where a row lacks it.
    """

    def __init__(self, *embeddings: npt.NDArray[Any]) -> None:
        self._parts = embeddings
        self.shape = embeddings[0].shape

    def __getitem__(self, rows: Any) -> Float32Array:
        parts = [part[rows] for part in self._parts]  # (rows, dim) each
        fused = np.empty(parts[0].shape, np.float32)
        for start in range(0, len(fused), CACHED_ROWS):
            # Summed in float64, so that no result depends on how the rows are cut into blocks.
            total: Float64Array = np.sum(
                [part[start : start + CACHED_ROWS] for part in parts], axis=0, dtype=np.float64
            )
            norms = np.sqrt(np.einsum("ij,ij->i", total, total))[:, None]
            np.divide(total, np.where(norms > 0, norms, 1.0), out=fused[start : start + CACHED_ROWS], casting="unsafe")
        return fused


class ExactSearch:
    """A gallery that is searched exactly.

    >>> search = ExactSearch(np.eye(3, dtype=np.float32))
    >>> found = search([[1.0, 0.9, 0.0]], k=2)
    >>> found.rows.tolist(), found.scores.round(3).tolist()
    ([[0, 1]], [[0.743, 0.669]])

    Args:
        gallery: shape (n, dim), float16 or float32 as a rule memory-mapped, of any norm; unit rows are searched where
            they lie, others are normalised into memory. A row of zeros has cosine 0 with everything.
        name: what to call it in messages.

    Raises:
        InputError: not two-dimensional, or values that are not finite.
    """

    def __init__(self, gallery: Rows, name: str = "embeddings") -> None:
        if len(gallery.shape) != 2:
            raise InputError(f"{name}: expected shape (rows, dim), got {gallery.shape}")
        self._given = self._gallery = gallery
        self.rows, self.dim = gallery.shape
        off = 0.0
        for start in range(0, self.rows, BLOCK_ROWS):
            norms = _norms(np.asarray(gallery[start : start + BLOCK_ROWS]))
            if not np.isfinite(norms).all():
                bad = np.flatnonzero(~np.isfinite(norms)) + start
                raise InputError(f"{name}: not finite in {describe_rows(bad.tolist())}")
            off = max(off, float(np.abs(norms[norms > 0] - 1).max(initial=0.0)))
        if off > NORM_TOLERANCE:
            self._gallery = _unit(np.asarray(gallery[:])).astype(np.float32)
            off = self.dim * UNIT
        # What a float32 score may be wrong by: its own sum (Higham's gamma), the query's rounding, the rows' norms as
        # measured, and the grid.
        self._margin = 2 * ((2 * self.dim + 8) * UNIT + off + np.sqrt(self.dim) * 2.0**-GRID_BITS)

    def __call__(self, queries: npt.ArrayLike, k: int = 10, *, rows: IntArray | BoolArray | None = None) -> Found:
        """The ``k`` rows of highest cosine for each query, the best first, equal ones by row number.

        Args:
            queries: shape (n_queries, dim), of any norm.
            k: how many.
            rows: those that may be found, by number or as flags; all by default. As many as ``k`` of them are found.

        Raises:
            InputError: another dimension, or values that are not finite.
        """
        q = as_rows(queries, "queries")
        if q.shape[1] != self.dim:
            raise InputError(f"queries have {q.shape[1]} dimensions, the embeddings {self.dim}")
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        among = None if rows is None else np.unique(np.arange(self.rows)[rows])
        among = None if among is None or len(among) == self.rows else among
        total = self.rows if among is None else len(among)
        k = min(k, total)
        if not len(q) or not total:
            return Found(np.zeros((len(q), k), np.int64), np.zeros((len(q), k)))
        parts = [self._search(q[first : first + QUERIES], k, among) for first in range(0, len(q), QUERIES)]
        return Found(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def score(self, queries: npt.ArrayLike, rows: npt.ArrayLike) -> Float64Array:
        """Exact cosines of each query with the row of the same place; shape (n,)."""
        at, places = np.unique(np.asarray(rows, np.int64), return_inverse=True)
        return _products(to_grid(queries, "queries"), to_grid(self._given[at])[places])

    def _search(self, queries: Float64Array, k: int, among: IntArray | None) -> Found:
        total = self.rows if among is None else len(among)
        exact = to_grid(queries, "queries")
        unit = _unit(queries).astype(np.float32)  # (q, dim)
        pool = _Pool(len(queries), k, self._margin)
        step = min(BLOCK_ROWS, max(1, SCORES // len(queries)))
        scores = np.empty((len(queries), min(step, total)), np.float32)
        for start in range(0, total, step):
            stop = min(start + step, total)
            block, numbers = self._block(start, stop, among)
            found = scores[:, : stop - start] if stop - start == scores.shape[1] else None
            pool.take(np.matmul(unit, np.asarray(block, np.float32).T, out=found), start, numbers)
            if pool.held > MOST_KEPT + len(queries) * k:
                pool.keep_best(exact, self._given)
        cosines = pool.keep_best(exact, self._given)
        return Found(pool.row.reshape(len(queries), k), cosines.reshape(len(queries), k))

    def _block(self, start: int, stop: int, among: IntArray | None) -> tuple[Any, IntArray | None]:
        """Rows of the gallery, and their numbers where these are not ``start`` and those that follow it."""
        if among is None:
            return self._gallery[start:stop], None
        numbers = among[start:stop]
        first, last = int(numbers[0]), int(numbers[-1]) + 1
        return self._gallery[first:last] if last - first == len(numbers) else self._gallery[numbers], numbers


class _Pool:
    """Rows that may be among the best ``k`` of their query, as far as blocks were seen.

    Attributes:
        query, row: the pairs held, sorted by query after ``raise_bars`` and ``keep_best``.
        score: their float32 scores.
    """

    def __init__(self, queries: int, k: int, margin: float) -> None:
        self.k, self.margin = k, np.float32(margin)
        self.bar = np.full(queries, -np.inf, np.float32)  # (q,): what a row must reach
        self.query, self.row = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.score = np.zeros(0, np.float32)
        self._new: list[tuple[IntArray, IntArray, Float32Array]] = []
        self._count = 0

    @property
    def held(self) -> int:
        return len(self.row) + self._count

    def take(self, scores: Float32Array, start: int, numbers: IntArray | None) -> None:
        """Keep what reaches the bar of a block of scores, shape (q, rows)."""
        hit = np.flatnonzero(scores.max(axis=1) >= self.bar)
        if not len(hit):
            return
        scores = scores if len(hit) == len(scores) else scores[hit]  # (hit, rows)
        enough = scores >= self.bar[hit, None]
        if scores.shape[1] > self.k and np.count_nonzero(enough) > 8 * self.k * len(hit):
            best = np.partition(scores, -self.k, axis=1)[:, -self.k]
            self.bar[hit] = np.maximum(self.bar[hit], best - self.margin)
            enough = scores >= self.bar[hit, None]
        at, column = np.divmod(np.flatnonzero(enough), scores.shape[1])
        self._new.append((hit[at], column + start if numbers is None else numbers[column], scores[at, column]))
        self._count += len(at)
        if self._count > self.k * len(self.bar) / 4:
            self.raise_bars()

    def raise_bars(self) -> None:
        """Raise each query's bar to what the k-th best so far allows, and drop what is below."""
        parts = [(self.query, self.row, self.score), *self._new]
        query, row, score = (np.concatenate(column) for column in zip(*parts, strict=True))
        self._new, self._count = [], 0
        order = np.lexsort((-score, query))
        query, row, score = query[order], row[order], score[order]
        first, after = np.searchsorted(query, [np.arange(len(self.bar)), np.arange(1, len(self.bar) + 1)])
        full = np.flatnonzero(after - first >= self.k)
        self.bar[full] = np.maximum(self.bar[full], score[first[full] + self.k - 1] - self.margin)
        keep = score >= self.bar[query]
        self.query, self.row, self.score = query[keep], row[keep], score[keep]

    def keep_best(self, exact: Float64Array, gallery: Rows) -> Float64Array:
        """Keep the ``k`` best of each query alone, by exact scores and row numbers; their cosines in that order."""
        self.raise_bars()
        cosines = np.empty(len(self.row))
        for start in range(0, len(self.row), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            rows, places = np.unique(self.row[part], return_inverse=True)
            cosines[part] = _products(exact[self.query[part]], to_grid(gallery[rows])[places])
        order = np.lexsort((self.row, -cosines, self.query))
        query = self.query[order]
        order = order[np.arange(len(query)) - np.searchsorted(query, query) < self.k]
        self.query, self.row, self.score = self.query[order], self.row[order], self.score[order]
        best: Float64Array = cosines[order]
        return best


def _products(a: Float64Array, b: Float64Array) -> Float64Array:
    """Cosines of rows on the grid: exact sums of whole numbers, then one division."""
    scale = 2.0**GRID_BITS - np.sqrt(a.shape[1]) - 1
    cosines: Float64Array = np.einsum("ij,ij->i", a, b) / scale**2
    return cosines


def _norms(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    x = x if x.dtype == np.float32 else x.astype(np.float64)
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", x, x)))


def _unit(x: npt.NDArray[Any]) -> Float64Array:
    """Rows at unit norm in float64; zero rows stay."""
    rows: Float64Array = np.asarray(x, np.float64)
    largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1.0)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    unit: Float64Array = rows / np.where(norms > 0, norms, 1.0)
    return unit

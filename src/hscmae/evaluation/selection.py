"""Label-free criteria on held-out pairs: what to choose the epoch and the settings by when nobody has labels.

All take the embeddings of n held-out pairs in the two modalities, row ``i`` of one paired with row ``i`` of the other,
and return one number. Neither ``alignment_gap`` nor ``mutual_knn`` compares models of different dimension: both favour
few dimensions, so fix the dimension or watch ``effective_rank`` beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import Float64Array, FloatArray
from hscmae.errors import InputError
from hscmae.evaluation.grid import BLOCK_SCORES, as_rows


def alignment_gap(a: FloatArray, v: FloatArray) -> float:
    """Mean cosine of true pairs minus mean cosine of all pairs; higher is better, 0 for unrelated embeddings.

    ``mean_i cos(a_i, v_i) - mean_ij cos(a_i, v_j)``: alignment (Wang and Isola, ICML 2020) corrected for the cosine
    that any two rows share, so that a collapsed embedding scores 0.

    Args:
        a: embeddings of one modality, shape (n, dim).
        v: embeddings of the other, shape (n, dim), paired by row.

    Raises:
        InputError: shapes that differ, no rows, or values that are not finite.
    """
    a, v = map(unit_rows, paired(a, v))
    return float(np.einsum("ij,ij->", a, v) / len(a) - a.mean(axis=0) @ v.mean(axis=0))


SCALES = (20, 10, 5)


def scales(n: int) -> tuple[int, ...]:
    """How many neighbours the agreement of n held-out pairs is averaged over: a twentieth, a tenth and a fifth of them.

    Kinds are shares of a corpus, so neighbourhoods are. Few neighbours follow single ones and favour too little
    regularisation, many reach past small kinds and favour too much (``docs/selection.md``).
    """
    return tuple(sorted({max(1, n // parts) for parts in SCALES}))


def mutual_knn(a: FloatArray, v: FloatArray, k: int | None = None) -> float:
    """Mean share of a clip's k nearest neighbours (cosine, itself excluded) that the modalities have in common.

    ``mean_i |N_k(a_i) & N_k(v_i)| / k``, in [0, 1], higher is better (mutual k-NN alignment: Huh et al., The Platonic
    Representation Hypothesis, ICML 2024). k is at most n - 1; the dimensions may differ. Of neighbours that tie for
    the k-th place arbitrary ones are kept, independently in the two modalities.

    Args:
        a: embeddings of one modality, shape (n, dim).
        v: embeddings of the other, shape (n, dim'), paired by row.
        k: number of neighbours; the mean over ``scales(n)`` where not given.

    Raises:
        InputError: numbers of rows that differ, fewer than two rows, k below 1, or values that are not finite.
    """
    a, v = paired(a, v, same_dim=False)
    ks = scales(len(a)) if k is None else (min(k, len(a) - 1),)
    place = _places_in_both(*_nearest_of_both(a, v, max(ks)))
    return float(np.mean([np.count_nonzero(place < k) / (len(a) * k) for k in ks]))


def mutual_rows(a: FloatArray, v: FloatArray) -> Float64Array:
    """What each pair adds to ``mutual_knn``, shape (n,): their mean is that criterion, averaged over ``scales(n)``.

    Args:
        a: embeddings of one modality, shape (n, dim).
        v: embeddings of the other, shape (n, dim'), paired by row.

    Raises:
        InputError: see ``mutual_knn``.
    """
    a, v = paired(a, v, same_dim=False)
    ks = scales(len(a))
    return _in_common(*_nearest_of_both(a, v, max(ks)), ks)


def _nearest_of_both(a: FloatArray, v: FloatArray, k: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    # In another order, so that a collapsed embedding, where everything ties, does not agree by the order of its rows.
    order = np.random.default_rng(0).permutation(len(v))
    shuffled = nearest(v[order], k)
    near_v = np.empty_like(shuffled)
    near_v[order] = order[shuffled]
    return nearest(a, k), near_v


def feature_knn(a: FloatArray, v: FloatArray, x: FloatArray, y: FloatArray, k: int | None = None) -> float:
    """Mean share of the k items that a query finds in the other modality which its partner is near by its features.

    ``mean_i |N_k(a_i; v) & N_k(y_i)| / k`` and the same from v to a, the two averaged; in [0, 1], higher is better. The
    features are the same for every model, so that an embedding cannot gain by using few dimensions, as it can in
    ``mutual_knn``. A query's own partner does not count.

    Args:
        a: embeddings of one modality, shape (n, dim).
        v: embeddings of the other, shape (n, dim).
        x: standardised features of the first modality, shape (n, d_1).
        y: those of the other, shape (n, d_2).
        k: number of neighbours; a tenth of n where not given.

    Raises:
        InputError: see ``mutual_knn``.
    """
    a, v = paired(a, v)
    x, y = paired(x, y, same_dim=False)
    k = max(1, len(a) // 10) if k is None else k
    both = [_places_in_both(nearest(z, k, among), nearest(own, k)) for z, among, own in ((a, v, y), (v, a, x))]
    return float(np.mean([len(place) / (len(a) * min(k, len(a) - 1)) for place in both]))


def grounded_knn(a: FloatArray, v: FloatArray, x: FloatArray, y: FloatArray) -> float:
    """``mutual_knn`` times the root of ``feature_knn``: what settings are tuned by, in [0, 1], higher is better.

    A search over many settings finds those that agree because they blur (few dimensions in use, much smoothing). The
    second factor falls there (``docs/selection.md``). Arguments and errors as in ``feature_knn``.
    """
    return mutual_knn(a, v) * math.sqrt(feature_knn(a, v, x, y))


def grounded_rows(
    a: FloatArray, v: FloatArray, near_x: npt.NDArray[np.intp], near_y: npt.NDArray[np.intp], power: float = 0.5
) -> Float64Array:
    """What each pair adds to ``grounded_knn``: n numbers whose mean it is, for the error of a difference of two models.

    With the means m and f of the pairs' agreements ``m_i`` (``mutual_knn``) and ``f_i`` (``feature_knn``), and
    ``g = m f^p``, a pair's number is ``g + f^p (m_i - m) + g p (f_i - f) / f`` (the delta method).

    Args:
        a: embeddings of one modality, shape (n, dim).
        v: embeddings of the other, shape (n, dim).
        near_x: ``nearest(x, n // 10)`` of the first modality's standardised features, once for all models.
        near_y: the same of the other's.
        power: p; 1/2 in ``grounded_knn``.

    Raises:
        InputError: see ``mutual_knn``.
    """
    a, v = paired(a, v)
    mutual = mutual_rows(a, v)
    k = near_x.shape[1]
    directions = ((a, v, near_y), (v, a, near_x))
    feature = np.mean([_in_common(nearest(z, k, among), near, (k,)) for z, among, near in directions], axis=0)
    m, f = float(mutual.mean()), float(feature.mean())
    rows: Float64Array = m * f**power + f**power * (mutual - m)
    if f:
        rows += m * power * (feature - f) * f ** (power - 1)
    return rows


def _in_common(first: npt.NDArray[np.intp], second: npt.NDArray[np.intp], ks: Sequence[int]) -> Float64Array:
    """Share of the first k of each row's neighbours that both lists have, the mean over ``ks``, shape (n,)."""
    n, rows = len(first), np.arange(len(first))[:, None]
    place = np.full((n, n), n)
    place[rows, first] = np.arange(first.shape[1])
    found = place[rows, second]  # (n, k), where the second list's neighbours stand in the first
    share: Float64Array = np.mean([(found[:, :k] < k).mean(axis=1) for k in ks], axis=0)
    return share


def _places_in_both(first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Of the neighbours that a row has in both lists, the worse of its two places, from 0; all rows in one array.

    Such a neighbour belongs to both lists of k from that place on.
    """
    shift = np.arange(len(first))[:, None] * len(first)
    _, *places = np.intersect1d(first + shift, second + shift, assume_unique=True, return_indices=True)
    worse: npt.NDArray[np.intp] = np.maximum(*(at % first.shape[1] for at in places))
    return worse


def nearest(x: FloatArray, k: int, among: FloatArray | None = None) -> npt.NDArray[np.intp]:
    """The k rows of ``among`` nearest to each row by cosine, the nearest first, shape (n, min(k, n - 1)).

    Args:
        x: embeddings, shape (n, dim).
        k: number of neighbours.
        among: what is searched, shape (n, dim), paired by row; ``x`` itself where not given. A row's own is left out.

    Raises:
        InputError: fewer than two rows, k below 1, or values that are not finite.
    """
    x = unit_rows(x).astype(np.float32)
    gallery = x if among is None else unit_rows(among).astype(np.float32)
    if len(x) < 2 or k < 1:
        raise InputError(f"nearest neighbours need two rows and k of at least 1, got {len(x)} and {k}")
    n, k = len(x), min(k, len(x) - 1)
    step = max(1, BLOCK_SCORES // n)
    blocks = []
    for start in range(0, n, step):
        away = x[start : start + step] @ -gallery.T
        away[np.arange(len(away)), np.arange(start, start + len(away))] = np.inf
        near = np.argpartition(away, k - 1, axis=1)[:, :k]
        by_distance = np.argsort(np.take_along_axis(away, near, axis=1), axis=1)
        blocks.append(np.take_along_axis(near, by_distance, axis=1))
    return np.concatenate(blocks)


def effective_rank(x: FloatArray) -> float:
    """Number of dimensions that the centred embedding really uses, between 1 and dim (0 if it is constant).

    ``exp(-sum_i p_i log p_i)`` with ``p_i = s_i / sum_j s_j``, ``s`` the singular values (Roy and Vetterli, EUSIPCO
    2007).

    Args:
        x: embeddings, shape (n, dim).

    Raises:
        InputError: not two-dimensional, no rows, or values that are not finite.
    """
    values = np.linalg.svd(centred(_checked(x)), compute_uv=False)
    if not values.any():
        return 0.0
    share = values[values > 0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def unit_rows(x: FloatArray) -> Float64Array:
    """Rows at unit norm in float64; rows of zeros stay as they are.

    Raises:
        InputError: not two-dimensional, no rows, or values that are not finite.
    """
    x = _checked(x)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1.0)


def centred(x: Float64Array) -> Float64Array:
    """Columns of mean 0; the first row goes first, so that a constant column becomes 0 and not rounding noise."""
    moved: Float64Array = x - x[0]
    moved -= moved.mean(axis=0)
    return moved


def _checked(x: FloatArray) -> Float64Array:
    rows = as_rows(x)
    if not len(rows):
        raise InputError("embeddings have no rows")
    return rows


def paired(a: FloatArray, v: FloatArray, *, same_dim: bool = True) -> tuple[Float64Array, Float64Array]:
    """Both in float64; raises ``InputError`` unless they match by row, and by dimension where it must be the same."""
    a, v = _checked(a), _checked(v)
    if len(a) != len(v) or (same_dim and a.shape != v.shape):
        raise InputError(f"embeddings of held-out pairs must match by row, got shapes {a.shape} and {v.shape}")
    return a, v

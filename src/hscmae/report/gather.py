"""What a report shows, computed from a fitted method and its data; nothing here knows about HTML.

All figures come from ``evaluation``; added are only those that make a picture: a 2-d map, the confusion among classes,
and which queries to show.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hscmae.audit import audit
from hscmae.data.pairs import BoolArray, Float64Array, IntArray, Labels, Pairs
from hscmae.errors import InputError
from hscmae.evaluation.grid import GRID_BITS, to_grid
from hscmae.evaluation.metrics import Rows
from hscmae.evaluation.retrieval import Direction, Progress, Retrieval
from hscmae.linear.agreement import MIN_PAIRS
from hscmae.methods.base import Float32Array, Method

TOP = 10  # results that confusion looks at
RESULTS = 6  # results shown for a query
EXAMPLES = 3  # queries shown as the best, as typical and as the worst
MAP_CLIPS = 1500  # clips on the map; more are sampled, here and below
CONFUSED = 2000  # queries of a direction that confusion looks at
AUDITED = 2000  # training pairs that are audited
UMAP_NEIGHBOURS = 15
CLASSES = 20  # classes in the confusion matrix
SUSPICIOUS = 24


@dataclass(frozen=True)
class Result:
    """One item of a ranked list: its clip, cosine, and whether it shares a label with the query."""

    row: int
    score: float
    relevant: bool


@dataclass(frozen=True)
class Query:
    """One query with its first results.

    Attributes:
        row: its clip.
        group: "best", "typical" or "worst".
        score: its average precision or, without labels, the reciprocal rank of its true pair.
        pair_rank: rank of its true pair; 0 where it has none.
        results: the first ``RESULTS``.
    """

    row: int
    group: str
    score: float
    pair_rank: int
    results: list[Result]


@dataclass(frozen=True)
class Examples:
    """Queries to show of one direction of retrieval."""

    direction: Direction
    queries: list[Query]


@dataclass(frozen=True)
class Projection:
    """A 2-d map: its name, titles of its axes, and modality -> coordinates of the map's rows, shape (n, 2)."""

    name: str
    axes: tuple[str, str]
    points: Mapping[str, Float64Array]


@dataclass(frozen=True)
class Findings:
    """How a method does on one split.

    Attributes:
        clips: the rows of the split, without their features.
        silent: modality -> which of them are silent, shape (n,).
        metrics: what ``evaluate`` gives.
        examples: queries to show, by direction.
        per_class: direction -> class -> mean AP; empty without labels.
        curves: direction -> recall levels and interpolated precision; empty without labels.
        prevalence: mean share of relevant items, the precision of a random order; 0 without labels.
        pair_cosine: cosine of each row's own pair, shape (n,); NaN where it lacks a modality.
        classes: numbers of the classes in ``confusion``, the most frequent ones.
        confusion: share of the first ``TOP`` results of queries of a class (row) that carry a class (column); of at
            most ``CONFUSED`` queries a direction.
        map_rows: rows on the map, at most ``MAP_CLIPS``.
        projections: PCA and, where installed, UMAP.
    """

    clips: Pairs
    silent: Mapping[str, BoolArray]
    metrics: dict[str, Any]
    examples: list[Examples]
    per_class: dict[Direction, dict[str, float]]
    curves: dict[Direction, tuple[Float64Array, Float64Array]]
    prevalence: float
    pair_cosine: Float64Array
    classes: Rows
    confusion: Float64Array
    map_rows: Rows
    projections: list[Projection]


@dataclass(frozen=True)
class Suspicious:
    """What an audit says of the training pairs; see ``audit.Audit``.

    Attributes:
        pairs: the most suspicious pairs, the worst first.
        scores: their suspicion.
        random_better: share of random pairs that agree better than each of them.
        audited: number of pairs audited, at most ``AUDITED``.
        of: number of pairs that could be.
        wrong_share: estimated share of wrong pairs.
        wrong_share_ci: its 95% interval.
        known_wrong: whether each is known to be wrong; empty where the truth is not known.
    """

    pairs: Pairs
    scores: list[float]
    random_better: list[float]
    audited: int
    of: int
    wrong_share: float
    wrong_share_ci: tuple[float, float]
    known_wrong: list[bool]


def read_records(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``; none for a method in closed form.

    Raises:
        InputError: a line that is not a JSON object.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        return []
    records = []
    for i, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            record = json.loads(line)
            _ = record["step"], record["phase"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: line {i} is not a record of training") from None
        records.append(record)
    return records


def findings(method: Method, data: Pairs, *, split: str, seed: int = 0, progress: Progress | None = None) -> Findings:
    """Evaluate on a split and choose what to show.

    Raises:
        InputError: the data lacks one of the method's modalities, or has no such rows.
    """
    found = Retrieval.of(method, data, split=split, progress=progress)
    labels, z = found.labels, found.embeddings
    classes = np.zeros(0, dtype=np.intp)
    if labels is not None:
        counts = np.bincount(labels.indices, minlength=len(labels.names))
        classes = np.sort(np.argsort(-counts, kind="stable")[: min(CLASSES, int((counts > 0).sum()))])
    shares = [r.n_relevant[r.n_relevant > 0] / r.n_gallery for r in found.rankings.values()]
    present = list(found.present.values())
    map_rows = _sample(np.flatnonzero(np.logical_or.reduce(present)), MAP_CLIPS, seed)
    confusions = [] if labels is None else [_confusion(found, d, labels, classes, seed) for d in found.directions]
    return Findings(
        clips=replace(data.without_features().of_split(str(found.split)), present=found.present, lengths={}),
        silent=found.silent,
        metrics=found.metrics(),
        examples=[Examples(direction, _queries(found, direction)) for direction in found.directions],
        per_class=found.per_class(),
        curves=found.precision_recall(),
        prevalence=float(np.concatenate(shares).mean()) if any(map(len, shares)) else 0.0,
        pair_cosine=np.where(np.logical_and.reduce(present), np.prod(list(z.values()), 0).sum(1), np.nan),
        classes=classes,
        confusion=np.mean(confusions, axis=0) if confusions else np.zeros((0, 0)),
        map_rows=map_rows,
        projections=projections({m: x[map_rows] for m, x in z.items()}, seed=seed),
    )


def projections(z: Mapping[str, Float32Array], *, seed: int = 0) -> list[Projection]:
    """2-d maps of all modalities' embeddings together: PCA, and UMAP where it is installed."""
    joint = np.concatenate(list(z.values())).astype(np.float64)
    centred = joint - joint.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    variance = s**2 / max(float((s**2).sum()), np.finfo(float).tiny)
    flat = np.zeros((len(joint), 2))
    flat[:, : min(2, len(s))] = (u * s)[:, :2]
    shares = [f"{share:.0%}" for share in (*variance[:2], 0.0, 0.0)]
    titles = f"first principal component ({shares[0]} of variance)", f"second ({shares[1]} of variance)"
    maps = [Projection("PCA", titles, _by_modality(flat, z))]
    if (umap := _umap()) is not None and len(joint) > 2 * UMAP_NEIGHBOURS:
        model = umap.UMAP(n_neighbors=UMAP_NEIGHBOURS, metric="cosine", random_state=seed, n_jobs=1)
        flat = np.asarray(model.fit_transform(joint), dtype=np.float64)
        maps.append(Projection("UMAP", ("first UMAP coordinate (no unit)", "second (no unit)"), _by_modality(flat, z)))
    return maps


def _umap() -> ModuleType | None:
    try:
        return importlib.import_module("umap.umap_")
    except ImportError:
        return None


def suspicious_pairs(
    method: Method, data: Pairs, known_wrong: frozenset[bytes] | None = None, progress: Progress | None = None
) -> Suspicious | None:
    """The training pairs (all, where there is no split) that an audit finds most suspicious; too few: ``None``.

    Of more than ``AUDITED`` pairs as many drawn at random are audited.
    """
    rows = data.rows_of("all" if data.split is None else "train")
    present = data.usable(among=rows).present
    complete = rows[np.logical_and.reduce([present[m][rows] for m in method.dims_])]
    if len(complete) < MIN_PAIRS:
        return None
    seed = method.config.seed
    pairs = data.take(_sample(complete, AUDITED, seed))
    found = audit(method, pairs, seed=seed, progress=progress)
    worst = found.most_suspicious(SUSPICIOUS)
    return Suspicious(
        pairs=pairs.take(worst),
        scores=found.score[worst].tolist(),
        random_better=found.random_better[worst].tolist(),
        audited=len(pairs),
        of=len(complete),
        wrong_share=found.wrong_share,
        wrong_share_ci=found.wrong_share_ci,
        known_wrong=[] if known_wrong is None else [name in known_wrong for name in pairs.ids[worst].tolist()],
    )


def _sample(rows: Rows, limit: int, seed: int) -> Rows:
    """All rows or ``limit`` of them drawn at random, ascending."""
    return rows if len(rows) <= limit else np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))


def _queries(found: Retrieval, direction: Direction) -> list[Query]:
    """The queries to show of one direction, chosen by their AP or, without labels, by the rank of their pair."""
    ranking, rows = found.ranking(direction), found.rows[direction.source]
    value = np.where(ranking.pair_rank > 0, 1 / np.maximum(ranking.pair_rank, 1), np.nan)  # (n_queries,)
    if found.labels is not None:
        value = ranking.ap
    return [
        Query(
            row=int(rows[i]),
            group=group,
            score=float(value[i]),
            pair_rank=int(ranking.pair_rank[i]),
            results=_results(found, direction, int(rows[i])),
        )
        for group, i in _pick(value, rows, found.labels)
    ]


def _pick(value: Float64Array, queries: Rows, labels: Labels | None) -> list[tuple[str, int]]:
    """Which queries to show: the best, those nearest to the median, the worst; each of other classes if possible."""
    valid = np.flatnonzero(~np.isnan(value))
    if not len(valid):
        return []
    order = valid[np.argsort(-value[valid], kind="stable")]
    typical = valid[np.argsort(np.abs(value[valid] - np.median(value[valid])), kind="stable")]
    picked: list[tuple[str, int]] = []
    for group, candidates in (("best", order), ("typical", typical), ("worst", order[::-1])):
        taken = {i for _, i in picked}
        fresh: list[int] = []
        again: list[int] = []
        seen = set()
        for i in candidates.tolist():
            if i in taken:
                continue
            of = i if labels is None else _classes_of(labels, int(queries[i]))
            (again if of in seen else fresh).append(i)
            seen.add(of)
            if len(fresh) == EXAMPLES:
                break
        picked += [(group, i) for i in (fresh + again)[:EXAMPLES]]
    return picked


def _results(found: Retrieval, direction: Direction, row: int) -> list[Result]:
    """The first results of the clip ``row``, in the order of its ranking: ties count against the method."""
    gallery, z = found.rows[direction.target], found.embeddings
    scores = to_grid(z[direction.target][gallery]) @ to_grid(z[direction.source][[row]])[0]  # (n_gallery,)
    own = gallery == row
    relevant = own if found.labels is None else _shared_labels(found.labels, row)[gallery]
    best = np.lexsort((relevant, own, -scores))[:RESULTS]
    return [Result(int(gallery[j]), float(scores[j]) / 4**GRID_BITS, bool(relevant[j])) for j in best]


def _shared_labels(labels: Labels, row: int) -> IntArray:
    """How many of the classes of ``row`` each clip carries, shape (n,)."""
    shared = np.isin(labels.indices, _classes_of(labels, row))
    rows = np.repeat(np.arange(len(labels)), np.diff(labels.indptr))[shared]
    each_once = np.unique(rows * len(labels.names) + labels.indices[shared]) // len(labels.names)
    return np.bincount(each_once, minlength=len(labels))


def _confusion(found: Retrieval, direction: Direction, labels: Labels, classes: Rows, seed: int) -> Float64Array:
    """Share of the first ``TOP`` results that carry a class (column), by class of the query (row)."""
    queries, gallery = _sample(found.rows[direction.source], CONFUSED, seed), found.rows[direction.target]
    place = np.full(len(labels.names), -1)
    place[classes] = np.arange(len(classes))
    column = place[labels.indices]
    carries = np.zeros((found.n, len(classes)), dtype=bool)
    carries[np.repeat(np.arange(found.n), np.diff(labels.indptr))[column >= 0], column[column >= 0]] = True
    k = min(TOP, len(gallery))
    items = np.ascontiguousarray(found.embeddings[direction.target][gallery].T)  # (dim, n_gallery)
    total = np.zeros((len(classes), len(classes)))
    for start in range(0, len(queries), 512):
        block = queries[start : start + 512]
        away = -(found.embeddings[direction.source][block] @ items)  # (block, n_gallery)
        nearest = gallery[np.argpartition(away, k - 1, axis=1)[:, :k]]  # (block, k)
        total += carries[block].T @ carries[nearest].mean(axis=1)
    count = carries[queries].sum(axis=0)
    return np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], np.nan)


def _classes_of(labels: Labels, row: int) -> tuple[int, ...]:
    return tuple(labels.indices[labels.indptr[row] : labels.indptr[row + 1]].tolist())


def _by_modality(flat: Float64Array, z: Mapping[str, Float32Array]) -> dict[str, Float64Array]:
    parts = np.split(flat, np.cumsum([len(x) for x in z.values()])[:-1])
    return dict(zip(z, parts, strict=True))

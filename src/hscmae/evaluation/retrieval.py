"""``Retrieval``: what paired embeddings find across modalities. One object, from which every figure is read.

For every direction each present row of one modality ranks the present rows of the other, once, however much is then
asked of it: metrics with intervals, means of classes, precision-recall curves, single queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from hscmae.data.pairs import BoolArray, Float64Array, FloatArray, Labels, Pairs
from hscmae.errors import InputError
from hscmae.evaluation.grid import as_rows
from hscmae.evaluation.metrics import Rows, bootstrap_intervals, chance_ap, mean_of, per_class, per_clip
from hscmae.evaluation.ranking import rank
from hscmae.evaluation.ranking_job import Ranking

RECALL_LEVELS = np.linspace(0, 1, 11)
SHORT = {"audio": "a", "visual": "v"}

Progress = Callable[[str, int, int], None]  # stage, done, total


class Embedder(Protocol):
    """What evaluation needs of a method."""

    @property
    def dims_(self) -> Mapping[str, int]: ...

    def require_modalities(self, pairs: Pairs) -> None: ...

    def trained_on(self, pairs: Pairs) -> BoolArray | None: ...

    def embed(
        self, modality: str, x: npt.ArrayLike, *, present: BoolArray | None, lengths: npt.NDArray[np.int64] | None
    ) -> FloatArray: ...


@dataclass(frozen=True)
class Direction:
    """The modality that queries and the one that is searched."""

    source: str
    target: str

    @property
    def name(self) -> str:
        """``a2v`` and ``v2a`` for audio and visual, else ``{source}2{target}``.

        >>> Direction("audio", "visual").name, Direction("text", "visual").name
        ('a2v', 'text2visual')
        """
        if self.source in SHORT and self.target in SHORT:
            return f"{SHORT[self.source]}2{SHORT[self.target]}"
        return f"{self.source}2{self.target}"


class Retrieval:
    """Embeddings of n clips in two modalities or more, and what they find.

    >>> same = np.eye(3)
    >>> found = Retrieval({"audio": same, "visual": same}, Labels.single([0, 1, 2]))
    >>> found.metrics(bootstrap=0)["a2v/mAP"]
    1.0

    Args:
        embeddings: modality name -> array or tensor, shape (n, dim), of any norm.
        labels: labels of the n clips, or ``None``.
        present: modality name -> which rows have it, shape (n,); a row that lacks a modality neither queries with it
            nor is found by it. All rows, where not given.
        silent: modality name -> rows whose input was silent, shape (n,); only counted.
        trained_on: rows that what embeds was trained on, shape (n,), where that is known; only counted.
        split: what the clips are called in ``metrics``, if anything.
        device: where to rank; by default the GPU where there is one.
        progress: called with a stage's name, what is done and what there is.

    Raises:
        InputError: fewer than two modalities, shapes that do not fit, a modality without a present row, or values that
            are not finite.
    """

    def __init__(
        self,
        embeddings: Mapping[str, Any],
        labels: Labels | None = None,
        *,
        present: Mapping[str, BoolArray] | None = None,
        silent: Mapping[str, BoolArray] | None = None,
        trained_on: BoolArray | None = None,
        split: str | None = None,
        device: str | torch.device | None = None,
        progress: Progress | None = None,
    ) -> None:
        if len(embeddings) < 2:
            raise InputError(f"retrieval needs two modalities, got {', '.join(embeddings) or 'none'}")
        sizes = {m: len(x) for m, x in embeddings.items()}
        n = next(iter(sizes.values()))
        if len(set(sizes.values())) > 1:
            raise InputError(
                "embeddings have different numbers of rows: " + ", ".join(f"{m} {s}" for m, s in sizes.items())
            )
        if labels is not None and len(labels) != n:
            raise InputError(f"labels have {len(labels)} rows, the embeddings have {n}")
        self.embeddings, self.labels, self.n, self.split = embeddings, labels, n, split
        self.present = {m: np.ones(n, dtype=bool) for m in embeddings} | {
            m: np.asarray(mask, dtype=bool) for m, mask in (present or {}).items() if m in embeddings
        }
        self.silent, self.trained_on = dict(silent or {}), trained_on
        self.rows: dict[str, Rows] = {}  # modality -> clips that have it, (n_m,)
        for m, mask in self.present.items():
            if mask.shape != (n,):
                raise InputError(f"present[{m!r}] has shape {mask.shape}, expected ({n},)")
            self.rows[m] = np.flatnonzero(mask)
            if not len(self.rows[m]):
                raise InputError(f"{m}: no rows to rank")
            as_rows(embeddings[m], m, mask)
        self.directions = [Direction(source, target) for source, target in permutations(embeddings, 2)]
        self._rankings: dict[Direction, Ranking] = {}
        self._device, self._progress = device, progress

    @classmethod
    def of(
        cls,
        method: Embedder,
        data: Pairs | Mapping[str, npt.ArrayLike],
        *,
        split: str = "test",
        device: str | torch.device | None = None,
        progress: Progress | None = None,
    ) -> Retrieval:
        """Embed the rows of one split with a fitted method.

        Args:
            method: fitted; any of ``hscmae.methods``.
            data: pairs, with labels for mAP. Where they have no split and "test" is asked for, all rows count.
            split: "train", "val", "test" or "all".
            device: where to rank.
            progress: called with a stage's name, what is done and what there is.

        Raises:
            InputError: the data lacks one of the method's modalities, or has no such rows.
        """
        pairs = Pairs.of(data)
        method.require_modalities(pairs)
        return cls.embedded(
            method.embed,
            pairs,
            tuple(method.dims_),
            split=split,
            trained_on=method.trained_on,
            device=device,
            progress=progress,
        )

    @classmethod
    def embedded(
        cls,
        embed: Callable[..., FloatArray],
        pairs: Pairs,
        modalities: tuple[str, ...],
        *,
        split: str,
        trained_on: Callable[[Pairs], BoolArray | None] = lambda _: None,
        device: str | torch.device | None = None,
        progress: Progress | None = None,
    ) -> Retrieval:
        """``of`` for anything that embeds: ``embed(modality, features, present=..., lengths=...)`` gives (n, dim)."""
        chosen = "all" if pairs.split is None and split == "test" else split
        rows = pairs.rows_of(chosen)
        vectors = pairs.pooled()
        # A vector is known for silence by how many rows of the whole file share it.
        silent = vectors.silent()
        scored = pairs.of_split(chosen)
        embeddings = {}
        for done, m in enumerate(modalities):
            if progress is not None:
                progress("embed", done, len(modalities))
            embeddings[m] = embed(m, scored.features[m], present=scored.present[m], lengths=scored.lengths.get(m))
        if progress is not None:
            progress("embed", len(modalities), len(modalities))
        return cls(
            embeddings,
            scored.labels,
            present={m: vectors.present[m][rows] for m in modalities},
            silent={m: silent[m][rows] for m in modalities},
            trained_on=trained_on(scored),
            split=chosen,
            device=device,
            progress=progress,
        )

    def ranking(self, direction: Direction) -> Ranking:
        """What the clips ``rows[direction.source]`` find among the clips ``rows[direction.target]``."""
        if direction not in self._rankings:
            queries, gallery = self.rows[direction.source], self.rows[direction.target]
            position = np.full(self.n, -1)  # of each clip in the gallery
            position[gallery] = np.arange(len(gallery))
            report, stage = self._progress, f"rank {direction.name}"
            self._rankings[direction] = rank(
                self.embeddings[direction.source][queries],
                self.embeddings[direction.target][gallery],
                pairs=position[queries],
                labels=None if self.labels is None else (self.labels.take(queries), self.labels.take(gallery)),
                recall_levels=() if self.labels is None else RECALL_LEVELS,
                device=self._device,
                progress=None if report is None else lambda done, total: report(stage, done, total),
            )
        return self._rankings[direction]

    @property
    def rankings(self) -> dict[Direction, Ranking]:
        """``ranking`` of every direction."""
        return {direction: self.ranking(direction) for direction in self.directions}

    @cached_property
    def values(self) -> dict[Direction, dict[str, Float64Array]]:
        """Direction -> metric -> its value for each clip as a query, shape (n,); NaN where the clip does not count."""
        return {
            direction: per_clip(ranking, self.rows[direction.source], self.n, labelled=self.labels is not None)
            for direction, ranking in self.rankings.items()
        }

    def metrics(self, *, bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
        """Cross-modal retrieval metrics, as a flat, JSON-ready dictionary.

        For each direction ``D`` (``a2v``, ``v2a``, or ``{from}2{to}``) and their plain mean ``avg``:

        - ``D/n_queries``, ``D/n_gallery``: present rows of either modality;
        - ``D/R@k``: share of queries whose true pair is among the first k; ``D/MedR``, ``D/MeanR``: median and mean
          rank of the true pair (queries whose pair lacks the other modality are left out);
        - ``D/mAP``: mean over queries with a relevant item of the mean precision at each relevant rank; relevant items
          share a label with the query, its own pair included;
        - ``D/mAP_cutoffs``: the same with each query's running AP averaged over all cutoffs (reads higher; only for
          comparison with figures published that way);
        - ``D/nDCG@10``: gain = number of shared labels, discount 1 / log2(1 + rank);
        - ``D/ties``: number of items whose score equals that of the item before them, over all lists. Ties count
          against the method.

        A mean also has ``..._ci``: its 95% percentile bootstrap interval over clips. Top-level keys: ``split`` where it
        is known, ``n_queries`` (clips that query in any direction), ``n_paired`` (clips with every modality),
        ``n_trained_on`` (rows that the model was trained on, where that is known: their figures say little of others),
        ``silent/{modality}`` (rows marked silent; they are ranked like any other), ``chance/mAP`` (expected mAP of a
        random order). Without labels the keys that need them are absent.

        Args:
            bootstrap: number of resamples; 0 leaves the intervals out.
            seed: of the resampling.
        """
        values = {direction.name: columns for direction, columns in self.values.items()}
        means: dict[str, dict[str, float | None]] = {
            name: {key: mean_of(x) for key, x in columns.items()} for name, columns in values.items()
        }
        for direction, ranking in self.rankings.items():
            found = ranking.pair_rank[ranking.pair_rank > 0]
            means[direction.name]["MedR"] = float(np.median(found)) if len(found) else None
            means[direction.name]["ties"] = int(ranking.ties.sum())
        means["avg"] = {
            key: None if any(means[name][key] is None for name in values) else mean_of([means[d][key] for d in values])
            for key in next(iter(means.values()))
        }
        intervals = bootstrap_intervals(values, self.n, bootstrap, seed) if bootstrap else {}

        masks = list(self.present.values())
        result: dict[str, Any] = {} if self.split is None else {"split": self.split}
        result["n_queries"] = int(np.logical_or.reduce(masks).sum())
        result["n_paired"] = int(np.logical_and.reduce(masks).sum())
        if self.trained_on is not None:
            result["n_trained_on"] = int(self.trained_on.sum())
        for m, mask in self.silent.items():
            result[f"silent/{m}"] = int(np.sum(mask))
        for name, metrics in means.items():
            for key, value in metrics.items():
                result[f"{name}/{key}"] = value
                if key in intervals.get(name, {}):
                    result[f"{name}/{key}_ci"] = intervals[name][key]
        for direction, ranking in self.rankings.items():
            result[f"{direction.name}/n_queries"] = len(self.rows[direction.source])
            result[f"{direction.name}/n_gallery"] = ranking.n_gallery
        if self.labels is not None:
            chances = [mean_of(chance_ap(r.n_relevant, r.n_gallery)) for r in self.rankings.values()]
            result["chance/mAP"] = None if None in chances else mean_of(chances)
        return result

    def per_class(self) -> dict[Direction, dict[str, float]]:
        """Direction -> class name -> mean AP of the queries that carry the class; nothing without labels."""
        if self.labels is None:
            return {}
        return {d: per_class(ranking, self.labels.take(self.rows[d.source])) for d, ranking in self.rankings.items()}

    def precision_recall(self) -> dict[Direction, tuple[Float64Array, Float64Array]]:
        """Direction -> (recall levels, interpolated precision), shape (11,) each, the mean over queries.

        Interpolated precision at recall r is the highest precision at any rank whose recall is at least r (Manning,
        Raghavan and Schuetze, Introduction to Information Retrieval, section 8.4). Queries without a relevant item are
        left out; NaN where there is no other, and nothing without labels.
        """
        if self.labels is None:
            return {}
        curves = {}
        for direction, ranking in self.rankings.items():
            valid = ranking.n_relevant > 0
            mean = ranking.precision[valid].mean(axis=0) if valid.any() else np.full(len(RECALL_LEVELS), np.nan)
            curves[direction] = RECALL_LEVELS, mean
        return curves

"""``Archive``: embedded clips that are searched by a clip, a media file or features, and said where to be found.

What it searches is a store that ``hscmae embed`` wrote, or the folder that ``hscmae build`` made around one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import IntArray
from hscmae.data.recipe import recipe_of
from hscmae.data.store import is_store, open_store, read_manifest
from hscmae.errors import InputError
from hscmae.extract.media import MediaClip
from hscmae.extract.windows import split_id
from hscmae.search.clips import Clips, path_of, present_rows
from hscmae.search.exact import ExactSearch, Float32Array, Found, Fused
from hscmae.search.notebook import Tile, tiles_html

if TYPE_CHECKING:
    from hscmae.extract.jail import Jail
    from hscmae.extract.pipeline import Job
    from hscmae.methods.base import Method

ARCHIVE, FORMAT = "archive.json", "hscmae-archive"
FEATURES, RUN, EMBEDDINGS, REPORT = "features", "run", "embeddings", "report.html"
BOTH = "both"
SAME_CLIP = 1 - 1e-4  # cosine above which a file of a clip's name is that clip
NEAR_DUPLICATE = 1 - 1e-4  # cosine above which two results are told as one


class Candidates(Protocol):
    """What may propose results in place of exact search: ``index.Index``."""

    def search(self, space: str, z: Float32Array, k: int, where: Sequence[str] = ()) -> list[list[str]]: ...


@dataclass(frozen=True)
class Result:
    """A clip that was found.

    Attributes:
        rank: 1 is best.
        id: the clip.
        modality: what of it was compared with the query: a modality, or "both".
        score: cosine.
        path: its file, relative to the folder that was named when the media were read, if known.
        start, end: seconds in that file, if known.
    """

    rank: int
    id: str
    modality: str
    score: float
    path: str | None = None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Answer:
    """What a search gives: its direction and the results. A notebook shows them, with pictures and sounds.

    Attributes:
        query: what was searched by.
        source, target: the query's modality, and what it was compared with.
        results: the best first.
        archive: what was searched, where the media are found.
    """

    query: str
    source: str
    target: str
    results: list[Result]
    archive: Archive | None = field(default=None, repr=False, compare=False)

    def _repr_html_(self) -> str:
        tiles = [Tile(f"{r.rank}. {r.score:.3f}", *self._shown(r)) for r in self.results]
        if self.archive is not None and (row := self.archive.clips.row_of.get(self.query)) is not None:
            tiles.insert(0, Tile("query", *self._shown(self.archive.result(0, row, self.source, 1.0))))
        return tiles_html(f"{self.target} that goes with the {self.source} of {self.query}", tiles)

    def _shown(self, result: Result) -> tuple[list[str], MediaClip | None]:
        if self.archive is None:
            return [result.id], None
        clips = self.archive.clips
        return [result.id, *clips.labels(clips.row_of[result.id])], self.archive.media_clip(result)

    def as_json(self) -> dict[str, Any]:
        return {
            "query": self.query,
            "from": self.source,
            "to": self.target,
            "results": [vars(result) for result in self.results],
        }


@dataclass(frozen=True)
class Query:
    """A query, embedded.

    Attributes:
        text: what it is called.
        source: its modality, or "both".
        z: unit rows, shape (n, dim), the windows of one query.
        own: rows of the archive that are the query itself, and no result.
    """

    text: str
    source: str
    z: Float32Array
    own: Sequence[int] = ()


class Archive:
    """Embeddings that can be searched; see ``open``.

    Attributes:
        folder: the embedding store.
        clips: ids, labels and media of its rows.
        modalities: those that it holds.
        roots: folders that the paths of results are relative to, where they are known.
    """

    def __init__(self, folder: Path, *, run: Path | None, roots: Sequence[Path], weights: Sequence[Path]) -> None:
        self.folder, self.roots, self._weights = folder, list(roots), list(weights)
        self._manifest = read_manifest(folder)
        self._pairs = open_store(folder, verify=None)
        self.clips = Clips(self._pairs, folder)
        self.modalities = self._pairs.modalities
        if len(set(self._pairs.dims.values())) > 1 or any(x.ndim != 2 for x in self._pairs.features.values()):
            raise InputError(f"{folder}: holds features, not embeddings; make them with hscmae embed RUN {folder}")
        self._run = run
        self._spaces: dict[str, ExactSearch] = {}

    @classmethod
    def open(cls, folder: str | Path, *, run: str | Path | None = None, weights: Sequence[str | Path] = ()) -> Archive:
        """Open an archive, or an embedding store.

        Args:
            folder: what ``hscmae build`` or ``hscmae embed`` wrote.
            run: the model, for queries that are files; the one that the archive or its embeddings name by default.
            weights: files and folders with extractors' weights, for queries that are media.

        Raises:
            InputError: neither, damaged, or ``run`` is another model than made the embeddings.
        """
        folder = Path(folder)
        given, places = None if run is None else Path(run), [Path(w) for w in weights]
        if is_store(folder):
            archive = cls(folder, run=given, roots=[], weights=places)
            if given is not None:
                archive._require_model(given)
            return archive
        if not is_store(folder / EMBEDDINGS):
            raise InputError(f"{folder}: neither an archive (hscmae build) nor embeddings (hscmae embed)")
        about = read_about(folder)
        archive = cls(
            folder / EMBEDDINGS,
            run=given or folder / RUN,
            roots=[Path(p) for p in about.get("media", [])],
            weights=[*places, *(Path(p) for p in about.get("weights", []))],
        )
        if given is not None:
            archive._require_model(given)
        return archive

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return next(iter(self._pairs.dims.values()))

    @property
    def model(self) -> dict[str, str] | None:
        """Path and SHA-256 of the model that made the embeddings, where they name it."""
        found = self._manifest.get("model")
        return found if isinstance(found, dict) else None

    @property
    def spaces(self) -> tuple[str, ...]:
        """What can be searched: the modalities and, of two, both fused."""
        return (*self.modalities, BOTH) if len(self.modalities) > 1 else self.modalities

    def __len__(self) -> int:
        return len(self._pairs)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *exc: object) -> None:
        self._spaces.clear()

    def search(
        self,
        query: str | Path | npt.NDArray[Any],
        k: int = 10,
        *,
        from_: str | None = None,
        to: str | None = None,
        where: Sequence[str] = (),
        group: bool = False,
        at: float | None = None,
        index: Candidates | None = None,
    ) -> list[Result]:
        """The clips nearest to a query, the best first; the query's own clip is left out.

        Args:
            query: a clip's id, a media file, an ``.npy`` file with a feature row, or features as an array, shape (d,)
                or (n, d) for the windows of one query, of which each result takes the best.
            k: how many; as many are found as match.
            from_: the query's modality, or "both"; the first that it has by default.
            to: a modality, or "both" fused; the other one by default.
            where: ``COLUMN=VALUE`` texts that must be true of a result: a label, a column of ``media.csv``, ...
            group: tell windows of one recording, and near-duplicates, as one: the best of them.
            at: seconds in the media file at which the query's window begins; its best window by default.
            index: search this index instead of the embeddings; scores are exact all the same.

        Raises:
            InputError: nothing of that name, a modality that is not there, or a file that cannot be read.
        """
        return self.answer(query, k, from_=from_, to=to, where=where, group=group, at=at, index=index).results

    def answer(
        self,
        query: str | Path | npt.NDArray[Any],
        k: int = 10,
        *,
        from_: str | None = None,
        to: str | None = None,
        where: Sequence[str] = (),
        group: bool = False,
        at: float | None = None,
        index: Candidates | None = None,
    ) -> Answer:
        """``search``, with the direction that was chosen; arguments as there."""
        for name in (from_, to):
            if name is not None and name not in self.spaces:
                raise InputError(f"no {name!r} in {self.folder}: it has {', '.join(self.spaces)}")
        asked = self._query(query, from_, at)
        return self.answer_query(asked, k, to=to, where=where, group=group, index=index)

    def answer_query(
        self,
        asked: Query,
        k: int = 10,
        *,
        to: str | None = None,
        where: Sequence[str] = (),
        among: IntArray | None = None,
        group: bool = False,
        index: Candidates | None = None,
    ) -> Answer:
        """``answer`` to a query that is embedded already.

        Args:
            asked: the query.
            k, to, where, group, index: see ``search``.
            among: rows of which ``where`` is known to be true, ascending; looked up where not given.
        """
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        target = to or self.other(asked.source)
        rows = self._rows(target, self.clips.where(where) if among is None else among)
        own = set(asked.own)
        if group:
            own |= {other for row in asked.own for other in self.clips.windows_of[self.clips.recording(row)]}
        wanted = k
        while True:
            found = self._nearest(target, asked.z, wanted + len(own), rows, where, index)
            pairs = [(row, score) for row, score in zip(*found, strict=True) if row not in own]
            best = self._folded(target, pairs) if group else pairs
            if len(best) >= k or len(found.rows) < wanted + len(own):
                break
            wanted *= 4
        results = [self.result(rank, row, target, score) for rank, (row, score) in enumerate(best[:k], start=1)]
        return Answer(asked.text, asked.source, target, results, self)

    def answers(self, asked: Sequence[Query], k: int, to: str, *, index: Candidates | None = None) -> list[Answer]:
        """``answer_query`` to queries of one row each: the same answers, found together at the price of few."""
        z = np.concatenate([query.z for query in asked])  # (queries, dim)
        wanted = k + max(len(query.own) for query in asked)
        if index is None:
            rows, scores = self.space(to)(z, wanted, rows=self._rows(to, None))
            found = [Found(row, score) for row, score in zip(rows, scores, strict=True)]
        else:
            found = self._scored(to, z, index.search(to, z, wanted))
        return [
            Answer(query.text, query.source, to, self._results(to, best, k, set(query.own)))
            for query, best in zip(asked, found, strict=True)
        ]

    def other(self, source: str) -> str:
        """The modality that a query of ``source`` is compared with by default."""
        return next((m for m in self.modalities if m != source), self.modalities[0])

    def space(self, name: str) -> ExactSearch:
        """Exact search of a modality, or of "both" fused."""
        if name not in self._spaces:
            self._spaces[name] = ExactSearch(self.embeddings(name), f"{self.folder}: {name}")
        return self._spaces[name]

    def embeddings(self, name: str) -> Any:
        """Rows of a modality, or of "both" fused; see ``exact.Rows``."""
        features = self._pairs.features
        return Fused(*features.values()) if name == BOTH else features[name]

    def present(self, name: str) -> npt.NDArray[np.bool_]:
        """Which rows have a modality, or any for "both"."""
        return present_rows(self._pairs, self.modalities if name == BOTH else [name])

    def file(self, result: Result) -> Path | None:
        """Where a result's media file is, if it can be found."""
        return self._found(result.path)

    def media_clip(self, result: Result) -> MediaClip | None:
        """Sound and picture of a result, of its own seconds, as far as their files can be found."""
        line = self.clips.media.get(result.id, {})
        audio, visual = (self._found(line.get(m)) for m in ("audio", "visual"))
        span = None if result.start is None or result.end is None else (result.start, result.end)
        return None if audio is None and visual is None else MediaClip(result.id, audio, visual, span=span)

    def _found(self, name: str | None) -> Path | None:
        # An archive may be somebody else's: what it names outside of its roots is not looked at.
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            return None
        return next((file for root in self.roots if (file := root / name).is_file()), None)

    # ------------------------------------------------------------------------------------------------------ the query

    def _query(self, query: str | Path | npt.NDArray[Any], source: str | None, at: float | None) -> Query:
        if not isinstance(query, (str, Path)):
            return self._of_features("features", np.asarray(query), source)
        text = str(query)
        if text in self.clips.row_of and not (at is not None and Path(query).is_file()):
            return self.query_clip(text, source)
        if not Path(query).is_file():
            raise self.clips.unknown(text)
        if Path(query).suffix == ".npy":
            from hscmae.data.npyfile import load_mapped

            return self._of_features(text, load_mapped(Path(query)), source)
        return self._of_media(Path(query), source, at)

    def query_clip(self, name: str, source: str | None = None) -> Query:
        """A clip as a query.

        Raises:
            InputError: no such clip, or without the modality.
        """
        if name not in self.clips.row_of:
            raise InputError(f"{name}: no clip of this id")
        row = self.clips.row_of[name]
        has = [m for m in self.modalities if self._pairs.present[m][row]]
        if source not in (None, BOTH, *has) or not has:
            raise InputError(f"{name}: has no {source or 'modality'}; it has {', '.join(has) or 'none'}")
        source = source or has[0]
        return Query(name, source, np.asarray(self.embeddings(source)[row : row + 1], np.float32), [row])

    def _of_features(self, name: str, features: npt.NDArray[Any], source: str | None) -> Query:
        dims = self.method.dims_
        rows = np.atleast_2d(features)
        if source is None:
            fitting = [m for m in self.modalities if dims[m] == rows.shape[-1]]
            if len(fitting) != 1:
                known = ", ".join(f"{m} {dims[m]}" for m in self.modalities)
                why = f"fits {' and '.join(fitting)}: say --from" if fitting else f"the model's are {known}"
                raise InputError(f"{name}: {rows.shape[-1]} dimensions, {why}")
            source = fitting[0]
        if source == BOTH:
            raise InputError(f"{name}: one row of features is of one modality: say --from")
        return Query(name, source, self.method.embed(source, rows), [])

    def _of_media(self, path: Path, source: str | None, at: float | None) -> Query:
        return self.query_media(path, source, replace(self.job, at=at))

    def query_media(self, path: Path, source: str | None, job: Job, jail: Jail | None = None) -> Query:
        """A media file as a query, extracted by ``job`` or one like it with other limits, decoded by ``jail`` if given.

        Raises:
            InputError: cannot be read, or without the modality.
        """
        from hscmae.extract import features_of

        method = self.method
        found = features_of(path, self.recipe, job=job, jail=jail)
        has = [m for m in self.modalities if m in found.features and found.present[m].any()]
        if not has or source not in (None, BOTH, *has):
            raise InputError(f"{path}: has no {source or ' or '.join(self.modalities)}")
        source = source or has[0]
        embedded = method.embed_checked(found)
        chosen = has if source == BOTH else [source]
        keep = present_rows(found, chosen)
        parts = [embedded[m] for m in chosen]
        z = parts[0] if len(parts) == 1 else Fused(*parts)[:]
        own = [
            row
            for m in has
            for row in self.clips.rows_of_file(path, m)
            if float((embedded[m] @ np.asarray(self._pairs.features[m][row], np.float32)).max()) > SAME_CLIP
        ]
        return Query(str(path), source, z[keep], sorted({*own}))

    @cached_property
    def method(self) -> Method:
        """The model that made the embeddings, loaded when a query needs it."""
        from hscmae.methods import load

        named = self.model
        run = self._run or (None if named is None else Path(named["path"]))
        if run is None or not run.exists():
            raise InputError(f"{self.folder}: the model that made it is needed for a query that is a file: name --run")
        self._require_model(run)
        return load(run)

    @cached_property
    def job(self) -> Job:
        """The recipe's networks, loaded when the first query needs them."""
        from hscmae.extract.recipe import job_for

        return job_for(self.recipe, self._weights)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """How a query's features are extracted."""
        found = recipe_of(self.folder)
        if found is None:
            raise InputError(f"{self.folder}: was not made of media, so no media file can be compared with it")
        return found

    def _require_model(self, run: Path) -> None:
        from hscmae.artifact import read_config  # its import of torch takes a second, and a clip's id needs no model

        named, given = self.model, read_config(run)["sha256"]
        if named is None:
            raise InputError(f"{self.folder}: does not say which model made it: embed it anew with hscmae embed {run}")
        if named.get("sha256") != given:
            raise InputError(
                f"{run}: is not the model that made {self.folder} (weights {given[:12]}..., not "
                f"{str(named.get('sha256'))[:12]}...)"
            )

    # -------------------------------------------------------------------------------------------------------- results

    def _rows(self, target: str, rows: IntArray | None) -> IntArray | None:
        present = self.present(target)
        if rows is not None:
            return rows[present[rows]]
        return None if present.all() else np.flatnonzero(present)

    def _nearest(
        self,
        target: str,
        z: Float32Array,
        k: int,
        rows: IntArray | None,
        where: Sequence[str],
        index: Candidates | None,
    ) -> Found:
        """The ``k`` rows nearest to any window of the query."""
        if index is None:
            found = self.space(target)(z, k, rows=rows)
            if len(z) == 1:
                return Found(found.rows[0], found.scores[0])
            row, score = found.rows.ravel(), found.scores.ravel()
        else:
            scored = self._scored(target, z, index.search(target, z, k, where))
            row, score = (np.concatenate(column) for column in zip(*scored, strict=True))
        order = np.lexsort((row, -score))
        _, first = np.unique(row[order], return_index=True)
        best = order[np.sort(first)][:k]
        return Found(row[best], score[best])

    def _scored(self, target: str, z: Float32Array, names: Sequence[Sequence[str]]) -> list[Found]:
        """An index's candidates for each row of ``z`` with their exact scores, the best first."""
        rows = [
            np.array([self.clips.row_of[name] for name in found if name in self.clips.row_of], np.int64)
            for found in names
        ]
        sizes = [len(found) for found in rows]
        scores = np.split(
            self.space(target).score(np.repeat(z, sizes, axis=0), np.concatenate(rows)), np.cumsum(sizes)[:-1]
        )
        orders = [np.lexsort((row, -score)) for row, score in zip(rows, scores, strict=True)]
        return [Found(row[best], score[best]) for row, score, best in zip(rows, scores, orders, strict=True)]

    def _results(self, target: str, found: Found, k: int, own: set[int]) -> list[Result]:
        pairs = [(row, score) for row, score in zip(*(part.tolist() for part in found), strict=True) if row not in own]
        return [self.result(rank, row, target, score) for rank, (row, score) in enumerate(pairs[:k], start=1)]

    def _folded(self, target: str, pairs: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
        """The best of each recording and of each set of near-duplicates."""
        kept: list[tuple[int, float]] = []
        recordings: set[bytes] = set()
        z = np.zeros((0, self.dim), np.float32)
        rows = self.embeddings(target)
        for row, score in pairs:
            here = np.asarray(rows[row : row + 1], np.float32)
            if self.clips.recording(row) in recordings or (len(z) and float((z @ here[0]).max()) > NEAR_DUPLICATE):
                continue
            recordings.add(self.clips.recording(row))
            z = np.concatenate([z, here])
            kept.append((row, score))
        return kept

    def result(self, rank: int, row: int, target: str, score: float) -> Result:
        """A row as a result."""
        name = self.clips.id(row)
        line = self.clips.media.get(name, {})
        _, start, end = split_id(self.clips.keys[row])
        start = float(line["start"]) if line.get("start") else start
        end = float(line["end"]) if line.get("end") else end
        return Result(int(rank), name, target, float(score), path_of(line, target), start, end)


def read_about(folder: Path) -> dict[str, Any]:
    """An archive's own file: where its media and weights were when it was built.

    Raises:
        InputError: damaged.
    """
    path = folder / ARCHIVE
    try:
        about = json.loads(path.read_bytes()) if path.is_file() else {}
        if not isinstance(about, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error})") from None
    return about

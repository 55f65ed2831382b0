"""LanceDB: an embedded, updatable table with filters, in a folder or in object storage.

Every add and remove is a commit of its own: one that is killed leaves the version before it. Small tables are searched
flat, which is exact; from ``MANY`` clips on, ``finish`` makes an approximate index a space.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np

from hscmae.errors import InputError, RunError
from hscmae.extras import require
from hscmae.search.backend import Backend, Float32Array, Tags, digests_of

CLIPS, META, VERSION = "clips", "hscmae", 1
MANY = 50_000
PROBES, REFINE = 20, 10  # partitions looked into; candidates, times k, compared by their whole vectors
AT_ONCE = 64  # queries


class LanceBackend(Backend):
    """An index at a place.

    Args:
        place: a folder, or an address that LanceDB knows (``s3://...``).
        dim, spaces: of a new index; those of an old one must be the same.

    Raises:
        InputError: damaged, or of other spaces.
    """

    def __init__(self, place: str, dim: int = 0, spaces: Sequence[str] = ()) -> None:
        os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of every table that it makes
        lancedb, self._arrow = require("lancedb", "lancedb"), require("pyarrow", "lancedb")
        self.place = place
        self._db = _told(place, lambda: lancedb.connect(place))
        names = _told(place, lambda: self._db.list_tables().tables)
        if CLIPS in names and META in names:
            text = _told(place, lambda: self._db.open_table(META).to_arrow()["about"][0].as_py())
            try:
                meta = json.loads(text)
                self.dim, self.spaces, self.about = meta["dim"], tuple(meta["spaces"]), meta["about"]
                if meta["version"] != VERSION:
                    raise ValueError(f"version {meta['version']}")
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{place}: not an index that this release reads ({error})") from None
            if (dim and dim != self.dim) or (spaces and tuple(spaces) != self.spaces):
                raise InputError(f"{place}: an index of {self.dim} dimensions in {', '.join(self.spaces)}")
            self._table = _told(place, lambda: self._db.open_table(CLIPS))
        elif not dim:
            raise InputError(f"{place}: not an index")
        elif CLIPS in names:
            raise InputError(f"{place}: holds a table {CLIPS!r} that hscmae did not make; name another place")
        else:
            self.dim, self.spaces, self.about = dim, tuple(spaces), {}
            self.bind({})  # first: a table without it is another program's
            self._table = _told(place, lambda: self._db.create_table(CLIPS, schema=self._schema))

    @classmethod
    def at(cls, place: str, table: str, dim: int = 0, spaces: Sequence[str] = ()) -> Self:
        return cls(place, dim, spaces)

    @classmethod
    def knows(cls, place: str) -> bool:
        return "://" in place or Path(place).is_dir()

    @property
    def _schema(self) -> Any:
        pa = self._arrow
        vectors = [pa.field(space, pa.list_(pa.float32(), self.dim)) for space in self.spaces]
        texts = [pa.field("id", pa.string()), pa.field("digest", pa.string())]
        return pa.schema([*texts, pa.field("tags", pa.list_(pa.string())), *vectors])

    def add(self, ids: Sequence[str], vectors: Mapping[str, Float32Array], tags: Sequence[Tags]) -> None:
        if not len(ids):
            return
        pa = self._arrow
        columns: list[Any] = [
            pa.array(ids, pa.string()),
            pa.array(digests_of(vectors, tags, self.spaces), pa.string()),
            pa.array([list(own) for own in tags], pa.list_(pa.string())),
        ]
        for space in self.spaces:
            x = np.ascontiguousarray(vectors[space], np.float32)
            lacks = pa.array(~x.any(axis=1))
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), self.dim, mask=lacks))
        rows = pa.Table.from_arrays(columns, schema=self._schema)
        self._told(
            lambda: (
                self._table.merge_insert("id")
                .when_matched_update_all()
                .when_not_matched_insert_all()
                # "null": a clip that lacks a modality is no fault.
                .execute(rows, on_bad_vectors="null", timeout=timedelta(minutes=30))
            )
        )

    def remove(self, ids: Sequence[str]) -> None:
        for first in range(0, len(ids), 1000):
            listed = ", ".join(map(_literal, ids[first : first + 1000]))
            self._told(lambda listed=listed: self._table.delete(f"id IN ({listed})"))

    def search(
        self, space: str, queries: Float32Array, k: int, where: Sequence[str] = ()
    ) -> list[list[tuple[str, float]]]:
        # Clips without a vector have no distance, and are left out by LanceDB: to filter them would read all vectors.
        condition = carries(where) if where else ""
        found: list[list[tuple[str, float]]] = []
        for first in range(0, len(queries), AT_ONCE):
            block = queries[first : first + AT_ONCE]
            answers = self._told(lambda block=block: self._ask(space, block, k, condition))
            here: list[list[tuple[str, float]]] = [[] for _ in block]
            places = answers["query_index"].to_pylist() if len(block) > 1 else [0] * len(answers)
            ids, distances = answers["id"].to_pylist(), answers["_distance"].to_pylist()
            for place, name, distance in zip(places, ids, distances, strict=True):
                here[place].append((name, 1 - distance))
            found += [sorted(results, key=lambda result: -result[1])[:k] for results in here]
        return found

    def _ask(self, space: str, queries: Float32Array, k: int, condition: str) -> Any:
        asked = list(np.asarray(queries, np.float32)) if len(queries) > 1 else np.asarray(queries[0], np.float32)
        query = self._table.search(asked, vector_column_name=space).distance_type("cosine")
        query = query.where(condition, prefilter=True) if condition else query
        query = query.limit(k).select(["id", "_distance"])
        return query.nprobes(PROBES).refine_factor(REFINE).to_arrow()

    def count(self) -> int:
        return int(self._told(self._table.count_rows))

    def digests(self) -> dict[str, str]:
        rows = self._told(lambda: self._table.search().select(["id", "digest"]).limit(None).to_arrow())
        return dict(zip(rows["id"].to_pylist(), rows["digest"].to_pylist(), strict=True))

    def bind(self, about: Mapping[str, Any]) -> None:
        self.about = dict(about)
        meta = {"version": VERSION, "dim": self.dim, "spaces": list(self.spaces), "about": self.about}
        rows = self._arrow.table({"about": [json.dumps(meta)]})
        self._told(lambda: self._db.create_table(META, rows, mode="overwrite"))

    def finish(self) -> None:
        self._told(self._table.optimize)
        if self.count() >= MANY:
            kinds = require("lancedb.index", "lancedb")
            configs = {"tags": kinds.LabelList()} | {m: kinds.HnswSq(distance_type="cosine") for m in self.spaces}
            for column, config in configs.items():
                self._told(lambda column=column, config=config: self._table.create_index(column, config=config))

    def close(self) -> None:
        pass

    def _told(self, work: Any) -> Any:
        return _told(self.place, work)


def _told(place: str, work: Any) -> Any:
    """What ``work`` gives; LanceDB's own errors as one line that names the index."""
    try:
        return work()
    except (ValueError, OSError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        damaged = any(word in text.lower() for word in ("not found", "invalid", "corrupt", "eof", "range", "parse"))
        kind = InputError if damaged or isinstance(error, ValueError) else RunError
        raise kind(f"{place}: LanceDB: {text}") from error


def carries(tags: Sequence[str]) -> str:
    """The filter of clips that carry all of the tags, in words that LanceDB answers from its index of tags."""
    return f"array_has_all(tags, [{', '.join(map(_literal, tags))}])"


def _literal(text: str) -> str:
    """A text as a literal of SQL, which LanceDB's filters have no parameters for."""
    return "'" + text.replace("'", "''") + "'"

"""An index of an archive's embeddings: made, updated, bound to them and their model, and searched through.

An index proposes candidates; their scores are always computed from the embedding store itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hscmae.data.store import MANIFEST as STORE_MANIFEST
from hscmae.errors import InputError
from hscmae.search.archive import Archive
from hscmae.search.backend import Backend, Float32Array, digests_of
from hscmae.search.faiss import FaissBackend
from hscmae.search.lancedb import LanceBackend
from hscmae.search.pgvector import PgBackend

# By name; a place is the first one's that knows it.
BACKENDS: dict[str, type[Backend]] = {"pgvector": PgBackend, "faiss": FaissBackend, "lancedb": LanceBackend}
BLOCK = 4096  # clips added at a time
RECALL, RECALL_AT, RECALL_QUERIES = 0.98, 10, 1000
MORE = 16  # candidates beyond k: what rounding may have put in another order


@dataclass
class Indexed:
    """What ``index`` did: clips by what became of them, and recall@10 against exact search by space."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0
    recall: dict[str, float] = field(default_factory=dict)


class Index:
    """A backend, searched for an archive."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def search(self, space: str, z: Float32Array, k: int, where: Sequence[str] = ()) -> list[list[str]]:
        """Ids of candidates for each query, some more than ``k``."""
        if space not in self.backend.spaces:
            raise InputError(f"the index has no {space!r}, but {', '.join(self.backend.spaces)}")
        return [[name for name, _ in found] for found in self.backend.search(space, z, k + MORE, where)]


def about(archive: Archive) -> dict[str, Any]:
    """What binds an index: the model's and the embeddings' SHA-256."""
    manifest = (archive.folder / STORE_MANIFEST).read_bytes()
    model = archive.model or {}
    return {"model": model.get("sha256"), "embeddings": hashlib.sha256(manifest).hexdigest()}


def make_index(
    archive: Archive,
    kind: str,
    place: str,
    *,
    table: str = "hscmae",
    update: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Indexed:
    """Index an archive's embeddings, or bring an index up to date: what changed is replaced, what vanished removed.

    Args:
        archive: the embeddings.
        kind: of ``BACKENDS``.
        place, table: see ``Backend.at``.
        update: there may be an index of the same model already.
        progress: called with clips done and clips in all.

    Raises:
        InputError: no such backend; something is there and ``update`` is not set, or the index is of another model.
        RunError: faiss does not reach the recall that is promised, or a database fails.
    """
    if kind not in BACKENDS:
        raise InputError(f"unknown backend {kind!r}; there are {', '.join(BACKENDS)}")
    name = place if BACKENDS[kind].in_folder else table
    if name == place and "://" not in place:
        folder = Path(place)
        if folder.exists() and (folder.is_file() or any(folder.iterdir())) and not update:
            raise InputError(f"{place}: exists already; --update brings an index up to date")
        if update and not folder.exists():
            raise InputError(f"{place}: no index to update")
    done = Indexed()
    clips, spaces = archive.clips, archive.spaces
    with BACKENDS[kind].at(place, table, archive.dim, spaces) as backend:
        bound = backend.about
        if bound and not update:
            raise InputError(f"{name}: exists already; --update brings it up to date")
        if bound and bound.get("model") != about(archive)["model"]:
            raise InputError(f"{name}: an index of another model's embeddings; make a new one")
        known = backend.digests()
        for start in range(0, len(archive), BLOCK):
            rows = range(start, min(start + BLOCK, len(archive)))
            ids = [clips.id(row) for row in rows]
            tags = [clips.tags(row) for row in rows]
            vectors = {m: np.asarray(archive.embeddings(m)[start : rows.stop], np.float32) for m in spaces}
            now = digests_of(vectors, tags, spaces)
            new = [i for i, name in enumerate(ids) if known.get(name) != now[i]]
            done.changed += sum(ids[i] in known for i in new)
            done.added += sum(ids[i] not in known for i in new)
            done.kept += len(ids) - len(new)
            if new:
                backend.add([ids[i] for i in new], {m: x[new] for m, x in vectors.items()}, [tags[i] for i in new])
            if progress is not None:
                progress(rows.stop, len(archive))
        gone = [name for name in known if name not in clips.row_of]
        if gone:
            backend.remove(gone)
            done.removed = len(gone)
        if done.added or done.changed or done.removed or not bound:
            backend.finish()
        for space in spaces:
            done.recall[space] = _recall(archive, backend, space)
        backend.bind(about(archive))
    return done


def _recall(archive: Archive, backend: Backend, space: str) -> float:
    """Recall@10 of a space on queries from the collection; searching harder until it is as promised, where it can."""
    rows = np.flatnonzero(archive.present(space))
    rows = np.random.default_rng(0).permutation(rows)[:RECALL_QUERIES]
    other = next((m for m in archive.modalities if m != space), space)
    asked = rows[archive.present(other)[rows]]
    queries = np.asarray(archive.embeddings(other)[np.sort(asked)], np.float32)
    if not len(queries):
        return 1.0
    usable = np.flatnonzero(archive.present(space))
    expected = archive.space(space)(queries, RECALL_AT, rows=usable)
    while True:
        found = backend.search(space, queries, RECALL_AT)
        hits = [
            len({archive.clips.row_of[name] for name, _ in results} & set(best))
            for results, best in zip(found, expected.rows.tolist(), strict=True)
        ]
        recall = sum(hits) / expected.rows.size
        if recall >= RECALL or not backend.search_harder(space):
            return recall


@contextmanager
def open_index(place: str, archive: Archive, *, table: str = "hscmae") -> Iterator[Index]:
    """An index of an archive, for searching it.

    Raises:
        InputError: no index, a damaged one, or one of other embeddings or of another model.
    """
    kind = next((backend for backend in BACKENDS.values() if backend.knows(place)), None)
    if kind is None:
        raise InputError(f"{place}: not an index; make it with hscmae index")
    with kind.at(place, table) as backend:
        _require_bound(backend.about, archive, place if kind.in_folder else f"table {table}")
        yield Index(backend)


def _require_bound(bound: dict[str, Any], archive: Archive, place: str) -> None:
    expected = about(archive)
    if bound.get("model") != expected["model"]:
        raise InputError(f"{place}: an index of another model's embeddings than {archive.folder}")
    if bound.get("embeddings") != expected["embeddings"]:
        raise InputError(f"{place}: an index of other embeddings than {archive.folder}: hscmae index ... --update")

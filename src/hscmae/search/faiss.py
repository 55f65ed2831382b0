"""FAISS: a graph (HNSW) a space in memory-mapped files, for thousands of queries a second on one machine.

The folder holds ``manifest.json``, a ``.faiss`` file a space and ``clips-*.npz``. The manifest, written last, names
each file with its SHA-256; all are verified before FAISS reads a byte. Files carry a part of their hash in their names,
so a new generation never overwrites one that is being read. A graph cannot forget: clips removed are passed over in
searches until they are a quarter, then it is built anew.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.store import sha256
from hscmae.errors import InputError
from hscmae.extras import require
from hscmae.files import write_atomic
from hscmae.search.backend import Backend, Float32Array, Tags, digests_of

MANIFEST, FORMAT, VERSION = "manifest.json", "hscmae-index", 1
LINKS = 32  # of a node of the graph
CONSTRUCTION, EFFORT, MOST_EFFORT = 100, 64, 4096  # nodes looked at: in building; in a search, at first and at most
FEW, SMALL = 20_000, 1_000  # clips that a filter leaves, or that there are: as fast looked at one by one
DEAD_SHARE = 0.25


class FaissBackend(Backend):
    """An index in a folder.

    Args:
        folder: made on ``close`` if missing.
        dim, spaces: of a new index; those of an old one must be the same.

    Raises:
        InputError: damaged, tampered with, or of other spaces.
    """

    def __init__(self, folder: Path, dim: int = 0, spaces: Sequence[str] = ()) -> None:
        self._faiss = require("faiss", "faiss")
        self.folder, self.dim, self.spaces = folder, dim, tuple(spaces)
        self.about: dict[str, Any] = {}
        self.effort = dict.fromkeys(spaces, EFFORT)
        self._ids: list[str] = []
        self._digests: list[str] = []
        self._tags: list[Tags] = []
        self._alive = np.zeros(0, bool)
        self._slot: dict[str, int] = {}
        self._known: dict[str, npt.NDArray[np.bool_]] = {}
        self._changed = not (folder / MANIFEST).is_file()
        self._writable = self._changed
        self._files: dict[str, str] = {}
        if self._changed:
            self._graphs = {space: self._new_graph() for space in spaces}
            self._members = {space: np.zeros(0, np.int64) for space in spaces}  # position in the graph -> slot
        else:
            self._read(mapped=True)
            if (dim and dim != self.dim) or (spaces and tuple(spaces) != self.spaces):
                raise InputError(f"{folder}: an index of {self.dim} dimensions in {', '.join(self.spaces)}")

    def add(self, ids: Sequence[str], vectors: Mapping[str, Float32Array], tags: Sequence[Tags]) -> None:
        self._to_write()
        self.remove(ids)
        first = len(self._ids)
        self._ids += ids
        self._tags += tags
        self._digests += digests_of(vectors, tags, self.spaces)
        self._alive = np.concatenate([self._alive, np.ones(len(ids), bool)])
        self._slot |= {name: first + place for place, name in enumerate(ids)}
        for space in self.spaces:
            x = np.ascontiguousarray(vectors[space], np.float32)
            has = np.flatnonzero(x.any(axis=1))
            self._graphs[space].add(x[has])
            self._members[space] = np.concatenate([self._members[space], first + has])
        self._changed = True

    def remove(self, ids: Sequence[str]) -> None:
        known = [name for name in dict.fromkeys(ids) if name in self._slot]
        if known:
            self._to_write()  # reads the clips anew: only then are they forgotten
            self._alive[[self._slot.pop(name) for name in known]] = False
            self._changed = True

    def search(
        self, space: str, queries: Float32Array, k: int, where: Sequence[str] = ()
    ) -> list[list[tuple[str, float]]]:
        graph, members = self._graphs[space], self._members[space]
        everything = not where and bool(self._alive.all())
        usable = np.ones(len(members), bool) if everything else self._alive[members]
        for tag in where:
            usable &= self._with(tag)[members]
        total = int(usable.sum())
        queries = np.ascontiguousarray(queries, np.float32)
        if total <= (FEW if where else SMALL) or k * 2 > total:
            return self._one_by_one(space, queries, k, np.flatnonzero(usable))
        bits = None if total == len(usable) else np.packbits(usable, bitorder="little")
        chosen = {} if bits is None else {"sel": self._faiss.IDSelectorBitmap(len(usable), self._faiss.swig_ptr(bits))}
        effort = self._faiss.SearchParametersHNSW(efSearch=max(self.effort[space], 2 * k), **chosen)
        scores, at = graph.search(queries, k, params=effort)  # (q, k) each
        names = map(self._ids.__getitem__, members[at].ravel().tolist())
        listed = list(zip(names, scores.ravel().tolist(), strict=True))
        found = [listed[start : start + k] for start in range(0, len(listed), k)]
        short = np.flatnonzero((at < 0).any(axis=1)).tolist()  # a filter left islands
        if short:
            rest = self._one_by_one(space, queries[short], k, np.flatnonzero(usable))
            for place, results in zip(short, rest, strict=True):
                found[place] = results
        return found

    def count(self) -> int:
        return len(self._slot)

    def digests(self) -> dict[str, str]:
        return {name: self._digests[slot] for name, slot in self._slot.items()}

    def bind(self, about: Mapping[str, Any]) -> None:
        self.about, self._changed = dict(about), True

    def set_effort(self, space: str, effort: int) -> None:
        """How many nodes a search looks at: more is slower and finds more of the nearest."""
        self.effort[space], self._changed = effort, True

    def close(self) -> None:
        if not self._changed:
            return
        if len(self._ids) and (~self._alive).mean() > DEAD_SHARE:
            self._rebuild()
        self.folder.mkdir(parents=True, exist_ok=True)
        entries = {"clips": self._write("clips", ".npz", self._packed())}
        for space in self.spaces:
            content = self._faiss.serialize_index(self._graphs[space]).tobytes()
            entries[space] = self._write(space, ".faiss", content)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "backend": "faiss",
            "dim": self.dim,
            "spaces": list(self.spaces),
            "effort": self.effort,
            "about": self.about,
            "files": entries,
        }
        write_atomic(self.folder / MANIFEST, json.dumps(manifest, indent=1).encode())
        current = {entry["name"] for entry in entries.values()}
        for name in set(self._files.values()) - current:
            (self.folder / name).unlink(missing_ok=True)
        self._files = {key: entry["name"] for key, entry in entries.items()}
        self._changed = False

    def abandon(self) -> None:
        self._changed = False

    # ---------------------------------------------------------------------------------------------------------- inside

    def _new_graph(self) -> Any:
        graph = self._faiss.IndexHNSWFlat(self.dim, LINKS, self._faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = CONSTRUCTION
        return graph

    def _with(self, tag: str) -> npt.NDArray[np.bool_]:
        """Which slots have a tag."""
        if tag not in self._known or len(self._known[tag]) != len(self._tags):
            self._known[tag] = np.array([tag in tags for tags in self._tags], bool)
        return self._known[tag]

    def _one_by_one(
        self, space: str, queries: Float32Array, k: int, positions: npt.NDArray[np.int64]
    ) -> list[list[tuple[str, float]]]:
        if not len(positions):
            return [[] for _ in queries]
        x = self._graphs[space].reconstruct_batch(positions)  # (n, dim)
        scores = queries @ x.T  # (q, n)
        slots = self._members[space][positions]
        return [
            [(self._ids[slots[place]], float(row[place])) for place in np.argsort(-row, kind="stable")[:k]]
            for row in scores
        ]

    def _rebuild(self) -> None:
        """Leave out what was removed."""
        keep, self._known = np.flatnonzero(self._alive), {}
        new_slot = np.cumsum(self._alive) - 1
        for space in self.spaces:
            members = self._members[space]
            positions = np.flatnonzero(self._alive[members])
            graph = self._new_graph()
            if len(positions):
                graph.add(self._graphs[space].reconstruct_batch(positions))
            self._graphs[space], self._members[space] = graph, new_slot[members[positions]]
        self._ids = [self._ids[slot] for slot in keep]
        self._digests = [self._digests[slot] for slot in keep]
        self._tags = [self._tags[slot] for slot in keep]
        self._alive = np.ones(len(keep), bool)
        self._slot = {name: slot for slot, name in enumerate(self._ids)}

    def _packed(self) -> bytes:
        names = sorted({tag for tags in self._tags for tag in tags})
        number = {tag: place for place, tag in enumerate(names)}
        arrays: dict[str, Any] = {
            "ids": np.array([name.encode() for name in self._ids], np.bytes_),
            "digests": np.array([digest.encode() for digest in self._digests], np.bytes_),
            "alive": self._alive,
            "tag_names": np.array([tag.encode() for tag in names], np.bytes_),
            "tags": np.array([number[tag] for tags in self._tags for tag in tags], np.int64),
            "tag_starts": np.cumsum([0, *(len(tags) for tags in self._tags)], dtype=np.int64),
        }
        arrays |= {f"members:{space}": members for space, members in self._members.items()}
        out = io.BytesIO()
        np.savez(out, **arrays)
        return out.getvalue()

    def _write(self, key: str, ending: str, content: bytes) -> dict[str, str]:
        digest = hashlib.sha256(content).hexdigest()
        name = f"{key}-{digest[:16]}{ending}"
        write_atomic(self.folder / name, content)
        return {"name": name, "sha256": digest}

    def _read(self, *, mapped: bool) -> None:
        """Verify the files and load them, or map the graphs."""
        self._known = {}
        manifest = read_manifest(self.folder)
        self.dim, self.spaces = manifest["dim"], tuple(manifest["spaces"])
        self.about, self.effort = manifest["about"], manifest["effort"]
        for entry in manifest["files"].values():
            path = self.folder / entry["name"]
            if Path(entry["name"]).name != entry["name"] or not path.is_file():
                raise InputError(f"{path}: missing")
            if sha256(path) != entry["sha256"]:
                raise InputError(f"{path}: SHA-256 differs from the manifest's: the file was changed or damaged")
        self._files = {key: entry["name"] for key, entry in manifest["files"].items()}
        with np.load(self.folder / self._files["clips"], allow_pickle=False) as saved:
            self._ids = [name.decode() for name in saved["ids"].tolist()]
            self._digests = [digest.decode() for digest in saved["digests"].tolist()]
            self._alive = saved["alive"]
            names = [tag.decode() for tag in saved["tag_names"].tolist()]
            flat, starts = saved["tags"].tolist(), saved["tag_starts"].tolist()
            self._tags = [[names[t] for t in flat[a:b]] for a, b in pairwise(starts)]
            self._members = {space: saved[f"members:{space}"] for space in self.spaces}
        self._slot = {name: slot for slot, name in enumerate(self._ids) if self._alive[slot]}
        flags = self._faiss.IO_FLAG_MMAP_IFC if mapped else 0
        self._graphs = {
            space: self._faiss.read_index(str(self.folder / self._files[space]), flags) for space in self.spaces
        }

    def _to_write(self) -> None:
        """Mapped graphs cannot grow: load them."""
        if not self._writable:
            self._read(mapped=False)
            self._writable = True


def read_manifest(folder: Path) -> dict[str, Any]:
    """An index's manifest.

    Raises:
        InputError: none, damaged, or of a version that this release does not know.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT or manifest["version"] != VERSION:
            raise InputError(f"{path}: not an index that this release reads")
        known = {"dim", "spaces", "effort", "about", "files", "backend"} <= manifest.keys()
        spaces = set(manifest["spaces"]) | {"clips"} == set(manifest["files"])
        if not (known and spaces and all({"name", "sha256"} <= e.keys() for e in manifest["files"].values())):
            raise ValueError("incomplete")
    except OSError:
        raise InputError(f"{folder}: not an index (no {MANIFEST})") from None
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error})") from None
    return manifest

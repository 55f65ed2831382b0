"""The store: a folder of plain ``.npy`` files and a manifest, memory-mapped when read.

``{m}.npy`` holds a modality's features, ``ids.npy`` fixed-width bytes; ``{m}_present.npy``, ``{m}_lengths.npy``,
``labels.npy`` (or ``label_indices.npy`` and ``label_indptr.npy``) and ``split.npy`` are there where the data has them.
``manifest.json`` holds format version, shapes, types, SHA-256 of each file, class names and source. No pickle.

A store is built in a hidden folder beside its place and renamed when whole, so a half-written one never has its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from hscmae.data.npyfile import load_mapped
from hscmae.data.pairs import Labels, Pairs
from hscmae.data.table import (
    BLOCK_ROWS,
    Problem,
    Report,
    Table,
    concatenate,
    duplicate_ids,
    non_finite_rows,
    refuse,
    repeated_rows,
)
from hscmae.errors import InputError
from hscmae.files import FolderKind, name_file, named, partial_folder, publish, recover, write_atomic

FORMAT = "hscmae-store"
VERSION = 1
MANIFEST = "manifest.json"
JOURNAL = "journal.json"
STORE = FolderKind("a store", [MANIFEST], FORMAT, [MANIFEST], listings=("files", "extra"))
VERIFY_BYTES = 2**30  # reading checks the checksums of stores up to this size; `inspect` those of any
RESERVED = ("ids", "labels", "label_indices", "label_indptr", "split", "class_names", "label_names")


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder with a manifest."""
    return (Path(path) / MANIFEST).is_file()


matches = is_store


def size_of(path: str | os.PathLike[str]) -> int:
    """Bytes of all the store's files."""
    return sum(file.stat().st_size for file in Path(path).iterdir() if file.is_file())


# --------------------------------------------------------------------------------------------------------- writing


class StoreWriter:
    """Writes a store block by block; a context manager that publishes on success and cleans up on an exception.

    >>> import tempfile, numpy as np
    >>> folder = Path(tempfile.mkdtemp()) / "clips"
    >>> with StoreWriter(folder) as writer:
    ...     for start in (0, 2):
    ...         ids = np.array([f"clip{start}", f"clip{start + 1}"], "S")
    ...         writer.append(Pairs({"audio": np.ones((2, 3), np.float32)}, ids))
    >>> len(open_store(folder))
    4

    Args:
        folder: where the store shall be.
        overwrite: replace what is there, once the new store is whole.
        resume: go on from the last ``checkpoint`` of a writer that was killed; starts afresh where there is none.
        dtype: float16 or float32 to convert features to; as they come where not given (float64 becomes float32).
        source: what the manifest names as the origin.
        made_by: a digest of what the store is made of and how, kept in the manifest.
        recipe: how the features were extracted, for the manifest; see ``data.recipe``.
        model: what made the embeddings, for the manifest: its path and the SHA-256 of its weights.

    Attributes:
        origin: what the manifest says of where the data comes from: source, licence, citation.
        extra: files beside the arrays, name -> content; checksummed in the manifest.
        rows: rows written so far, those before a resumption included.
        state: what the last checkpoint was given; empty at the start.

    Raises:
        InputError: the folder is there already, and ``overwrite`` is not set or it is no store.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        resume: bool = False,
        dtype: npt.DTypeLike | None = None,
        source: str = "",
        made_by: str | None = None,
        recipe: Mapping[str, Any] | None = None,
        model: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(folder)
        recover(self.folder)
        if self.folder.exists() and not overwrite:
            raise InputError(f"{folder}: exists already (--overwrite replaces it)")
        if self.folder.exists():
            STORE.require_ours(self.folder)
        self.dtype = None if dtype is None else np.dtype(dtype)
        if self.dtype is not None and self.dtype not in (np.float16, np.float32):
            raise InputError(f"a store holds float16 or float32, not {self.dtype}")
        self.source, self.made_by = source, made_by
        self.recipe, self.model = recipe, model
        self.origin: dict[str, str] = {}
        self.extra: dict[str, bytes] = {}
        self.rows = 0
        self.state: dict[str, Any] = {}
        self._partial = partial_folder(self.folder)
        self._files: dict[str, _GrowingArray] = {}
        self._columns: list[Pairs] = []  # everything but the features, which are on disk
        self._saved_columns = 0
        if resume and (self._partial / JOURNAL).is_file():
            self._restore()
        else:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)

    def append(self, pairs: Pairs) -> None:
        """Add rows.

        Raises:
            InputError: NaN or infinite features, or other modalities, dimensions or columns than the rows before.
        """
        if not len(pairs):
            return
        if self._columns:
            _check_same_kind(self._columns[0], pairs)
        for m, x in pairs.features.items():
            bad = non_finite_rows(x, pairs.present[m], pairs.lengths.get(m))
            if len(bad):
                refuse(pairs.source, Problem("not-finite", m, "NaN or infinite values", tuple(bad + self.rows)))
            _check_name(m, pairs.source)
            stored = self.dtype or np.dtype(np.float16 if x.dtype == np.float16 else np.float32)
            with np.errstate(over="ignore"):
                values = np.where(_column_of(pairs.present[m], x.ndim), x, 0).astype(stored)
            bad = non_finite_rows(values, pairs.present[m], pairs.lengths.get(m))
            if len(bad):
                refuse(pairs.source, Problem("overflow", m, f"values too large for {stored}", tuple(bad + self.rows)))
            if m not in self._files:
                self._files[m] = _GrowingArray(self._partial / f"{m}.npy", stored, values.shape[1:])
            file = self._files[m]
            if (file.dtype, file.tail) != (stored, values.shape[1:]):
                here, before = f"{stored} {values.shape[1:]}", f"{file.dtype} {file.tail}"
                raise InputError(f"{pairs.source}: {m}: rows of {here} cannot follow rows of {before}")
            file.append(values)
        self._columns.append(pairs.without_features())
        self.rows += len(pairs)

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Make all rows so far survive a kill; ``state`` (JSON) is given back to a resumed writer."""
        for file in self._files.values():
            file.sync()
        if len(self._columns) > self._saved_columns:
            name = f"columns-{self.rows}.npz"
            with (self._partial / name).open("wb") as out:
                np.savez(out, **_pack(concatenate(self._columns[self._saved_columns :])))  # type: ignore[arg-type]
                sync(out)
            self._saved_columns = len(self._columns)
        names = self._columns[0].labels.names if self._columns and self._columns[0].labels else None
        shapes = {m: [file.dtype.str, list(file.tail)] for m, file in self._files.items()}
        has_ids = all(part.has_ids for part in self._columns)
        journal = {"rows": self.rows, "state": dict(state), "files": shapes, "class_names": names, "has_ids": has_ids}
        write_atomic(self._partial / JOURNAL, json.dumps(journal).encode())

    def close(self) -> None:
        """Publish the store under its name.

        Raises:
            InputError: no rows, or ids twice.
        """
        if not self.rows:
            raise InputError(f"{self.folder}: no rows to write")
        columns = concatenate(self._columns)
        repeated = repeated_rows(columns.ids)
        if len(repeated):
            refuse(self.source or str(self.folder), duplicate_ids(columns.ids, repeated))
        for name, array in column_files(columns).items():
            with (self._partial / f"{name}.npy").open("wb") as out:
                np.lib.format.write_array(out, array, allow_pickle=False)
                sync(out)
        for file in self._files.values():
            file.close()
        names = [f"{m}.npy" for m in self._files] + [f"{name}.npy" for name in column_files(columns)]
        for stray in self._partial.iterdir():
            if stray.name not in names:
                stray.unlink()
        for name, content in self.extra.items():
            write_atomic(self._partial / name, content)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "rows": self.rows,
            "modalities": list(self._files),
            "class_names": None if columns.labels is None else list(columns.labels.names),
            "source": self.source or columns.source,
            "made_by": self.made_by,
            "made_up_ids": not columns.has_ids,
            "origin": self.origin,
            "files": {name: _describe(self._partial / name) for name in names},
        }
        if self.recipe is not None:
            manifest["recipe"] = dict(self.recipe)
        if self.model is not None:
            manifest["model"] = dict(self.model)
        if self.extra:
            manifest["extra"] = {name: {"sha256": sha256(self._partial / name)} for name in self.extra}
        write_atomic(self._partial / MANIFEST, json.dumps(manifest, indent=1).encode())
        publish(self._partial, self.folder, STORE)

    @property
    def resumable(self) -> bool:
        """Whether a checkpoint was made."""
        return (self._partial / JOURNAL).is_file()

    def discard(self) -> None:
        """Leave nothing behind."""
        for file in self._files.values():
            file.abandon()
        shutil.rmtree(self._partial, ignore_errors=True)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        name_file(error, self.folder)
        try:
            if kind is None:
                with named(self.folder):
                    self.close()
        except BaseException:
            self.discard()
            raise
        if kind is not None and (issubclass(kind, Exception) or not self.resumable):
            self.discard()  # but an interrupted writer keeps what it has, to be resumed

    def _restore(self) -> None:
        journal = json.loads((self._partial / JOURNAL).read_bytes())
        self.rows, self.state = journal["rows"], journal["state"]
        for m, (dtype, tail) in journal["files"].items():
            self._files[m] = _GrowingArray(self._partial / f"{m}.npy", np.dtype(dtype), tuple(tail), self.rows)
        parts = sorted(self._partial.glob("columns-*.npz"), key=lambda part: int(part.stem.split("-")[1]))
        for part in parts:
            if int(part.stem.split("-")[1]) <= self.rows:
                with np.load(part, allow_pickle=False) as saved:
                    self._columns.append(_unpack(saved, journal["class_names"], journal["has_ids"]))
        self._saved_columns = len(self._columns)


def write_store(pairs: Pairs, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write ``pairs`` as a store; see ``StoreWriter``.

    Raises:
        InputError: the folder is there already, features that are not finite, or ids twice.
    """
    with StoreWriter(folder, overwrite=overwrite, source=pairs.source) as writer:
        for start in range(0, len(pairs), BLOCK_ROWS):
            writer.append(pairs[start : start + BLOCK_ROWS])


def interrupted_state(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What the last checkpoint of an interrupted writer of ``folder`` was given; empty where there is none."""
    journal = partial_folder(Path(folder)) / JOURNAL
    state: dict[str, Any] = json.loads(journal.read_bytes())["state"] if journal.is_file() else {}
    return state


def made_by(folder: str | os.PathLike[str]) -> str | None:
    """What the writer of a finished store was given as ``made_by``."""
    recorded = read_manifest(Path(folder)).get("made_by")
    return None if recorded is None else str(recorded)


class _GrowingArray:
    """A ``.npy`` file to which rows are appended; its header gets the final shape on closing."""

    def __init__(self, path: Path, dtype: np.dtype[Any], tail: tuple[int, ...], rows: int = 0) -> None:
        self.path, self.dtype, self.tail, self.rows = path, dtype, tail, rows
        self._file: BinaryIO = path.open("r+b" if rows else "w+b")
        self._write_header()
        end = self._file.tell() + rows * int(np.prod(tail)) * dtype.itemsize
        if self._file.seek(0, os.SEEK_END) < end:
            raise InputError(f"{path}: shorter than its checkpoint says; run it without --resume")
        self._file.truncate(end)
        self._file.seek(0, os.SEEK_END)

    def _write_header(self) -> None:
        """NumPy pads headers so that a longer first axis fits in the same place."""
        self._file.seek(0)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.tail)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, values: npt.NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(values).data)
        self.rows += len(values)

    def sync(self) -> None:
        sync(self._file)

    def close(self) -> None:
        self._write_header()
        sync(self._file)
        self._file.close()

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # what is left in the buffer may not fit on the disk either
            self._file.close()


def _check_name(modality: str, source: str) -> None:
    """Refuse names that are no file names or that the layouts give another meaning."""
    taken = modality in RESERVED or modality.endswith(("_present", "_lengths", "_train", "_val", "_test", "_feat"))
    if taken or not modality.isprintable() or "/" in modality or modality.startswith("."):
        raise InputError(f"{source}: {modality!r} cannot be the name of a modality in a store")


def _check_same_kind(first: Pairs, pairs: Pairs) -> None:
    """Refuse rows that cannot follow ``first`` in one store."""
    for what, of_first, of_these in (
        ("modalities", list(first.features), list(pairs.features)),
        ("labels", first.labels is not None, pairs.labels is not None),
        ("a split", first.split is not None, pairs.split is not None),
        ("lengths", sorted(first.lengths), sorted(pairs.lengths)),
    ):
        if of_first != of_these:
            raise InputError(
                f"{pairs.source}: does not go with {first.source}: they differ in {what} ({of_first}, {of_these})"
            )
    if first.labels is not None and pairs.labels is not None:
        short, long = sorted((first.labels.names, pairs.labels.names), key=len)
        if long[: len(short)] != short:
            raise InputError(f"{pairs.source}: does not go with {first.source}: they differ in class names")


def _column_of(flags: npt.NDArray[Any], ndim: int) -> npt.NDArray[Any]:
    """Flags of shape (n,) as (n, 1, ...), to spread over rows."""
    return flags.reshape(-1, *(1,) * (ndim - 1))


def column_files(columns: Pairs, single_label: bool | None = None) -> dict[str, npt.NDArray[Any]]:
    """What is stored besides features, by name; class numbers alone where every clip has one, or as told."""
    single = single_label if single_label is not None else columns.labels is not None and columns.labels.is_single
    files: dict[str, npt.NDArray[Any]] = {"ids": columns.ids}
    files |= {f"{m}_present": p for m, p in columns.present.items() if not p.all()}
    files |= {f"{m}_lengths": v.astype(np.int64) for m, v in columns.lengths.items()}
    if columns.labels is not None and single:
        files["labels"] = columns.labels.indices
    elif columns.labels is not None:
        files |= {"label_indices": columns.labels.indices, "label_indptr": columns.labels.indptr}
    if columns.split is not None:
        files["split"] = columns.split
    return files


def _pack(columns: Pairs) -> dict[str, npt.NDArray[Any]]:
    """A checkpoint's columns as arrays."""
    packed: dict[str, npt.NDArray[Any]] = {f"present:{m}": p for m, p in columns.present.items()}
    packed |= {f"lengths:{m}": v for m, v in columns.lengths.items()} | {"ids": columns.ids}
    if columns.labels is not None:
        packed |= {"indices": columns.labels.indices, "indptr": columns.labels.indptr}
    if columns.split is not None:
        packed["split"] = columns.split
    return packed


def _unpack(saved: Mapping[str, npt.NDArray[Any]], class_names: list[str] | None, has_ids: bool) -> Pairs:
    """The inverse of ``_pack``."""
    present = {key.removeprefix("present:"): saved[key] for key in saved if key.startswith("present:")}
    return Pairs(
        {m: np.zeros((len(p), 1), np.float16) for m, p in present.items()},
        saved["ids"],
        present,
        Labels(saved["indices"], saved["indptr"], tuple(class_names or ())) if "indices" in saved else None,
        saved.get("split"),
        {key.removeprefix("lengths:"): saved[key] for key in saved if key.startswith("lengths:")},
        has_ids=has_ids,
    )


def sync(file: BinaryIO) -> None:
    """Flush an open file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """SHA-256 of a file's content as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(path: Path) -> dict[str, Any]:
    array = load_mapped(path)
    return {"shape": list(array.shape), "dtype": array.dtype.str, "sha256": sha256(path)}


# --------------------------------------------------------------------------------------------------------- reading


def open_store(folder: str | os.PathLike[str], verify: bool | None = False) -> Pairs:
    """A store as memory-mapped ``Pairs``.

    Args:
        folder: the store.
        verify: check every file's SHA-256 as well as its shape and type (reads all of it); ``None``: for stores up to
            ``VERIFY_BYTES``.

    Raises:
        InputError: not a store, a file missing or not what the manifest says, or a checksum that is wrong.
    """
    with open_table(Path(folder), refuse, verify=verify) as table:
        return mapped(table)


def mapped(table: Table) -> Pairs:
    """An opened store as memory-mapped ``Pairs``."""
    return Pairs(
        features={m: np.asanyarray(x) for m, x in table.features.items()},
        ids=table.ids,  # type: ignore[arg-type]  # a store always has ids
        present=table.present,
        labels=table.labels,
        split=table.split,
        lengths=table.lengths,
        source=table.source,
        has_ids=table.has_ids,
    )


def open_table(path: Path, report: Report, *, verify: bool | None = None) -> Table:
    """A store as a ``Table`` of memory-mapped features; see ``open_store``.

    Where ``verify`` is not given, the checksums of stores up to ``VERIFY_BYTES`` are checked.
    """
    folder = path
    if verify is None:
        verify = size_of(folder) <= VERIFY_BYTES
    manifest = read_manifest(folder)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, entry in manifest["files"].items():
        array = _open_array(folder, name, entry, report)
        if array is None:
            continue
        if verify and sha256(folder / name) != entry["sha256"]:
            report(
                str(folder),
                Problem("checksum", name, "SHA-256 differs from the manifest's: the file was changed or damaged"),
            )
        arrays[name.removesuffix(".npy")] = array
    for name, entry in manifest.get("extra", {}).items():
        if not (folder / name).is_file():
            report(str(folder), Problem("missing-dataset", name, "missing"))
        elif verify and sha256(folder / name) != entry["sha256"]:
            report(
                str(folder),
                Problem("checksum", name, "SHA-256 differs from the manifest's: the file was changed or damaged"),
            )
    rows = manifest["rows"]
    for key in [
        key for key, a in arrays.items() if key != "label_indices" and len(a) != rows + (key == "label_indptr")
    ]:
        report(
            str(folder), Problem("row-count", f"{key}.npy", f"{len(arrays.pop(key))} rows, the manifest says {rows}")
        )
    features = {m: arrays[m] for m in manifest["modalities"] if m in arrays}
    if not features or "ids" not in arrays:
        raise InputError(f"{folder}: no features or no ids in this store")
    for m, x in features.items():
        if x.ndim not in (2, 3) or x.dtype.kind != "f":
            raise InputError(f"{folder}: {m}.npy: expected floating point rows, got {x.dtype} {x.shape}")
    return Table(
        source=str(folder),
        format="store",
        features=dict(features),
        ids=np.asarray(arrays["ids"]),
        made_up_ids=bool(manifest.get("made_up_ids", False)),
        present={m: np.asarray(arrays[f"{m}_present"]) for m in features if f"{m}_present" in arrays},
        labels=_labels(arrays, manifest, folder),
        split=np.asarray(arrays["split"]) if "split" in arrays else None,
        lengths={m: np.asarray(arrays[f"{m}_lengths"]) for m in features if f"{m}_lengths" in arrays},
        origin=manifest.get("origin", {}),
    )


def read_extra(folder: Path, name: str) -> bytes | None:
    """A file that a store has beside its arrays; ``None`` where it has none of the name.

    Raises:
        InputError: not a store, or a file that is missing or was changed.
    """
    entry = read_manifest(folder).get("extra", {}).get(name)
    if entry is None:
        return None
    path = folder / name
    if not path.is_file():
        raise InputError(f"{path}: missing")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise InputError(f"{path}: SHA-256 differs from the manifest's: the file was changed or damaged")
    return content


def read_manifest(folder: Path) -> dict[str, Any]:
    """A store's manifest.

    Raises:
        InputError: none, damaged, or of a version that this release does not know.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: not a store (no {MANIFEST})")
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        known = manifest["format"] == FORMAT
        version = manifest["version"]
        names = manifest["class_names"] or []
        valid = (
            isinstance(manifest["rows"], int)
            and all(isinstance(name, str) for name in [*names, *manifest["modalities"], *manifest["files"]])
            and all({"shape", "dtype", "sha256"} <= entry.keys() for entry in manifest["files"].values())
            and all(isinstance(text, str) for text in manifest.get("origin", {}).values())
            and all(Path(n).name == n and "sha256" in entry for n, entry in manifest.get("extra", {}).items())
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not a valid manifest") from error
    if not known or not valid:
        raise InputError(f"{path}: not a valid manifest of an {FORMAT}")
    if version != VERSION:
        raise InputError(f"{path}: store version {version}, this release reads version {VERSION}")
    return manifest


def _open_array(folder: Path, name: str, entry: Mapping[str, Any], report: Report) -> npt.NDArray[Any] | None:
    """Map one file, if it is what the manifest says; names that lead out of the folder are refused."""
    path = folder / name
    if Path(name).name != name or not name.endswith(".npy"):
        raise InputError(f"{folder}: {MANIFEST} names {name!r}, which is not a file of the store")
    if not path.is_file():
        report(str(folder), Problem("missing-dataset", name, "missing"))
        return None
    try:
        array = load_mapped(path)
    except InputError as error:
        report(str(folder), Problem("truncated", name, str(error).removeprefix(f"{path}: ")))
        return None
    if list(array.shape) != entry["shape"] or array.dtype.str != entry["dtype"]:
        message = f"holds {array.dtype.str} {list(array.shape)}, the manifest says {entry['dtype']} {entry['shape']}"
        report(str(folder), Problem("wrong-type", name, message))
        return None
    return array


def _labels(arrays: Mapping[str, npt.NDArray[Any]], manifest: Mapping[str, Any], folder: Path) -> Labels | None:
    names = tuple(manifest["class_names"] or ())
    try:
        if "labels" in arrays:
            return Labels.single(np.asarray(arrays["labels"]), names)
        if "label_indices" in arrays and "label_indptr" in arrays:
            return Labels(np.asarray(arrays["label_indices"]), np.asarray(arrays["label_indptr"]), names)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    return None

"""``Pairs``: the one view of paired features that everything else uses.

A ``Pairs`` holds one feature array per modality, keyed by the modality's name; row ``i`` of every array belongs to
clip ``i``. Labels, ids and splits are optional, and no training code ever reads the labels. Arrays may be
memory-mapped: nothing here copies features before rows are asked for. A row that lacks a modality has ``False`` in
``present`` (its feature values are then meaningless and never read).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.coercion import SPLITS as SPLITS
from hscmae.data.coercion import as_array, as_features, as_flags, as_lengths, as_split, as_text
from hscmae.data.pooling import How, pool_steps
from hscmae.errors import InputError, describe_rows

FloatArray = npt.NDArray[Any]  # float16, float32 or float64
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

COLUMNS = ("ids", "labels", "split")
SILENT_MIN_ROWS = 5


@dataclass(frozen=True, eq=False)
class Labels:
    """Class labels of ``n`` clips in compressed sparse rows; a single-label file has one entry a row.

    Clip ``i`` carries the classes ``indices[indptr[i]:indptr[i + 1]]``.

    Attributes:
        indices: class numbers, shape (nnz,), each in ``[0, n_classes)``.
        indptr: row starts, shape (n + 1,).
        names: class names, or "0", "1", ... where the file gives none; their number is ``n_classes``.
    """

    indices: IntArray
    indptr: IntArray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        indptr, indices = self.indptr, self.indices
        if indptr.ndim != 1 or indices.ndim != 1 or len(indptr) < 1:
            raise InputError("label_indices and label_indptr must be one-dimensional")
        if indptr[0] != 0 or indptr[-1] != len(indices) or np.any(np.diff(indptr) < 0):
            raise InputError("label_indptr must rise from 0 to the number of label_indices")
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self.names)):
            bad = np.flatnonzero((indices < 0) | (indices >= len(self.names)))
            rows = np.searchsorted(indptr, bad, side="right") - 1
            where = describe_rows(np.unique(rows).tolist())
            raise InputError(f"labels out of range 0..{len(self.names) - 1} in {where}")

    @classmethod
    def single(cls, classes: npt.ArrayLike, names: Sequence[str] | None = None) -> Labels:
        """Labels of clips that carry exactly one class each; ``classes`` has shape (n,)."""
        indices = np.asarray(classes, dtype=np.int64)
        if names is None:
            names = [str(i) for i in range(int(indices.max(initial=-1)) + 1)]
        return cls(indices, np.arange(len(indices) + 1, dtype=np.int64), tuple(names))

    @classmethod
    def of(cls, labels: Labels | npt.ArrayLike, what: str = "labels") -> Labels:
        """``labels`` itself, or labels from an array: numbers or names (n,), or membership (n, n_classes) of 0 and 1.

        A row whose number is -1 or whose name is empty has none.

        >>> Labels.of(["dog", "cat", "", "dog"])
        Labels(4 clips, 2 classes: cat, dog)
        >>> Labels.of([[True, True], [False, True]]).indices
        array([0, 1, 1])

        Raises:
            InputError: anything else.
        """
        if isinstance(labels, Labels):
            return labels
        array = as_array(labels, what)
        if array.ndim == 2 and np.isin(array, (0, 1)).all():
            rows, indices = np.nonzero(array)
            names = tuple(str(c) for c in range(array.shape[1]))
        elif array.ndim == 1 and array.dtype.kind in "iuf" and (array >= -1).all() and (array % 1 == 0).all():
            rows = np.flatnonzero(array >= 0)
            indices = array[rows]
            names = tuple(str(c) for c in range(int(indices.max(initial=-1)) + 1))
        elif array.ndim == 1 and array.dtype.kind in "USO":
            text = as_text(array, what)
            rows = np.flatnonzero(text != b"")
            values, indices = np.unique(text[rows], return_inverse=True)
            names = tuple(value.decode("utf-8", "replace") for value in values.tolist())
        else:
            raise InputError(
                f"{what}: expected class numbers from 0 on (-1: none), class names, or rows of 0 and 1, "
                f"got {array.dtype} of shape {array.shape}"
            )
        indptr = np.concatenate([[0], np.bincount(rows, minlength=len(array)).cumsum()])
        return cls(indices.astype(np.int64), indptr.astype(np.int64), names)

    def __repr__(self) -> str:
        shown = ", ".join(self.names[:5]) + (", ..." if len(self.names) > 5 else "")
        return f"Labels({len(self)} clips, {len(self.names)} classes: {shown})"

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def is_single(self) -> bool:
        """Whether every clip carries exactly one class."""
        return bool(np.all(np.diff(self.indptr) == 1))

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> Labels:
        """The labels of ``rows``, in that order."""
        starts, ends = self.indptr[rows], self.indptr[np.asarray(rows) + 1]
        lengths = ends - starts
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        within = np.arange(int(indptr[-1])) - np.repeat(indptr[:-1], lengths)
        return Labels(self.indices[np.repeat(starts, lengths) + within], indptr, self.names)

    def one_hot(self) -> BoolArray:
        """Membership of clips in classes as a dense array, shape (n, n_classes)."""
        hot = np.zeros((len(self), len(self.names)), dtype=bool)
        hot[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices] = True
        return hot


@dataclass(frozen=True, eq=False)
class Pairs:
    """Paired features of ``n`` clips.

    Attributes:
        features: modality name -> array of shape (n, d), or (n, t, d) for sequences; float16, float32 or float64, into
            which tensors and whole numbers are turned. A file with one modality alone is a ``Pairs`` with one entry.
        ids: one identifier a clip as UTF-8 bytes, shape (n,), also from strings or whole numbers; row numbers where
            none are given.
        present: modality name -> whether each row has that modality, shape (n,); all ``True`` where not given.
        labels: class labels or ``None``; also from an array, as ``Labels.of`` takes it.
        split: "train", "val" or "test" for each row as bytes, shape (n,), or ``None`` where the file has no split.
        lengths: modality name -> number of valid steps of each row, for sequences only; all steps where not given.
        source: what to call this data in messages (usually the file's path).
        has_ids: whether the ids are the data's own, so that they name the same clips in another file. Row numbers do
            not: they never match.

    Raises:
        InputError: arrays of differing numbers of rows, of the wrong rank or type, or a split that is no split.

    >>> Pairs({"audio": np.zeros((3, 8)), "visual": np.zeros((3, 5, 16))}, labels=["dog", "cat", "dog"])
    Pairs(3 rows: audio 8, visual 5 x 16; 2 classes)
    """

    features: Mapping[str, FloatArray]
    ids: npt.NDArray[np.bytes_] = None  # type: ignore[assignment]
    present: Mapping[str, BoolArray] = field(default_factory=dict)
    labels: Labels | None = None
    split: npt.NDArray[np.bytes_] | None = None
    lengths: Mapping[str, IntArray] = field(default_factory=dict)
    source: str = "input"
    has_ids: bool | None = None

    def __post_init__(self) -> None:
        here = self.source
        if not self.features:
            raise InputError(f"{here}: no features")
        if unnamed := [name for name in self.features if not isinstance(name, str)]:
            raise InputError(f"{here}: expected names of modalities, got {unnamed[0]!r}")
        features = {name: as_features(x, f"{here}: {name}") for name, x in self.features.items()}
        for name, x in features.items():
            if x.ndim not in (2, 3):
                raise InputError(
                    f"{here}: {name}: expected rank 2 (rows, dims) or 3 (rows, steps, dims), got shape {x.shape}"
                )
        rows = {name: len(x) for name, x in features.items()}
        n = next(iter(rows.values()))
        if len(set(rows.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise InputError(f"{here}: modalities have different numbers of rows: {listed}")
        for column in ("present", "lengths"):
            if unknown := [m for m in getattr(self, column) if m not in features]:
                raise InputError(f"{here}: {unknown[0]}_{column}: there is no modality of this name")
        present = {m: as_flags(p, f"{here}: {m}_present") for m, p in self.present.items()}
        steps = {m: x.shape[1] for m, x in features.items() if x.ndim == 3}
        lengths = {m: as_lengths(v, f"{here}: {m}_lengths", steps.get(m)) for m, v in self.lengths.items()}
        row_numbers = np.arange(n).astype(f"S{max(1, len(str(max(n - 1, 0))))}")
        columns: dict[str, Any] = {
            "features": features,
            "ids": row_numbers if self.ids is None else as_text(self.ids, f"{here}: ids"),
            "present": {m: present.get(m, np.ones(n, dtype=bool)) for m in features},
            "labels": None if self.labels is None else Labels.of(self.labels, f"{here}: labels"),
            "split": None if self.split is None else as_split(self.split, f"{here}: split"),
            "lengths": {m: np.full(n, t, dtype=np.int64) for m, t in steps.items()} | lengths,
            "has_ids": self.ids is not None if self.has_ids is None else self.has_ids,
        }
        aligned = {name: columns[name] for name in ("ids", "labels", "split")}
        aligned |= {f"{m}_present": p for m, p in columns["present"].items()}
        aligned |= {f"{m}_lengths": v for m, v in columns["lengths"].items()}
        for name, array in aligned.items():
            if array is not None and len(array) != n:
                raise InputError(f"{here}: {name} has {len(array)} rows, the features have {n}")
        for name, value in columns.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, data: Pairs | Mapping[str, npt.ArrayLike]) -> Pairs:
        """``data`` itself if it is a ``Pairs``, else a ``Pairs`` over a mapping of modality name to array.

        As in a file, what is called ``ids``, ``labels`` or ``split`` is that column and no modality.

        >>> Pairs.of({"audio": np.zeros((3, 8)), "visual": np.zeros((3, 5)), "labels": ["dog", "cat", "dog"]})
        Pairs(3 rows: audio 8, visual 5; 2 classes)
        """
        if isinstance(data, Pairs):
            return data
        if not isinstance(data, Mapping):
            raise InputError(f"expected Pairs or a mapping of modality name to array, got {type(data).__name__}")
        features = {name: x for name, x in data.items() if name not in COLUMNS}
        return cls(features, **{name: x for name, x in data.items() if name in COLUMNS})  # type: ignore[arg-type]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{m} {' x '.join(str(size) for size in x.shape[1:])}" for m, x in self.features.items())
        parts = [f"{len(self)} rows: {shapes}"]
        if self.labels is not None:
            parts.append(f"{len(self.labels.names)} classes")
        if self.split is not None:
            counts = {s: np.count_nonzero(self.split == s.encode()) for s in SPLITS}
            parts.append(", ".join(f"{count} {s}" for s, count in counts.items() if count))
        return f"Pairs({'; '.join(parts)})"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int]:
        """(n,): what scikit-learn's splitters ask for."""
        return (len(self),)

    def __getitem__(self, key: Any) -> Pairs:
        """Rows by slice, boolean mask or integer array, as scikit-learn's splitters index."""
        if isinstance(key, tuple):
            key = key[0]
        return self.take(np.arange(len(self))[key])

    def __iter__(self) -> Iterator[Pairs]:
        raise TypeError("Pairs is indexed by rows, not iterated over")

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.features)

    @property
    def dims(self) -> dict[str, int]:
        """Feature dimension of each modality."""
        return {name: int(x.shape[-1]) for name, x in self.features.items()}

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> Pairs:
        """The given rows, in that order (copies them into memory)."""
        rows = np.asarray(rows)
        return replace(
            self,
            features={m: x[rows] for m, x in self.features.items()},
            ids=self.ids[rows],
            present={m: p[rows] for m, p in self.present.items()},
            labels=None if self.labels is None else self.labels.take(rows),
            split=None if self.split is None else self.split[rows],
            lengths={m: v[rows] for m, v in self.lengths.items()},
        )

    def rows_of(self, split: str) -> npt.NDArray[np.intp]:
        """Row numbers of one split ("train", "val", "test" or "all"), ascending.

        Raises:
            InputError: the data has no split, or no such rows.
        """
        if split == "all":
            return np.arange(len(self))
        return split_rows(self.split, split, self.source)

    def of_split(self, split: str) -> Pairs:
        """The rows of one split; see ``rows_of``."""
        return self if split == "all" else self.take(self.rows_of(split))

    def without_labels(self) -> Pairs:
        """The same pairs with the labels removed: what training is given."""
        return replace(self, labels=None)

    def without_features(self) -> Pairs:
        """The same rows with everything but the features, which are one column of zeros each."""
        return replace(self, features={m: np.zeros((len(self), 1), np.float16) for m in self.features})

    def complete(self) -> BoolArray:
        """Which rows have every modality, shape (n,)."""
        mask = np.ones(len(self), dtype=bool)
        for p in self.present.values():
            mask &= p
        return mask

    def pooled(self, how: How = "mean") -> Pairs:
        """Every sequence pooled over its valid steps; vectors stay as they are.

        A row without valid steps lacks the modality afterwards.

        Raises:
            InputError: ``how`` is neither "mean" nor "max".
        """
        features = {m: pool_steps(self.features[m], lengths, how) for m, lengths in self.lengths.items()}
        present = {m: self.present[m] & (lengths > 0) for m, lengths in self.lengths.items()}
        return replace(self, features={**self.features, **features}, present={**self.present, **present}, lengths={})

    def silent(self, how: How = "mean", *, among: npt.NDArray[np.integer[Any]] | None = None) -> dict[str, BoolArray]:
        """Modality -> rows whose pooled vector is shared by ``SILENT_MIN_ROWS`` rows or more, shape (n,).

        Extractors give one fixed vector for silence (or a black frame), so such a vector says that the modality is
        missing, not that these clips are alike.

        Args:
            how: how sequences are pooled.
            among: the rows that are counted, all of them by default. Other rows are judged by what is known from
                these: they are silent if they hold such a vector.
        """
        vectors = self.pooled(how)
        counted = np.ones(len(self), dtype=bool) if among is None else np.isin(np.arange(len(self)), among)
        return {m: _shared(np.asarray(x), vectors.present[m], counted) for m, x in vectors.features.items()}

    def usable(self, how: How = "mean", *, among: npt.NDArray[np.integer[Any]] | None = None) -> Pairs:
        """``pooled``, with every silent row of a modality marked as lacking it; arguments as of ``silent``.

        This is what a row is worth everywhere: in training, in choosing, in an audit.
        """
        vectors = self.pooled(how)
        silent = vectors.silent(among=among)
        return replace(vectors, present={m: p & ~silent[m] for m, p in vectors.present.items()})


def split_rows(column: npt.NDArray[np.bytes_] | None, split: str, source: str) -> npt.NDArray[np.intp]:
    """Row numbers of one split in a column of splits, ascending.

    Raises:
        InputError: no such split, no column, or no such rows.
    """
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)} or all, got {split!r}")
    if column is None:
        raise InputError(f"{source}: the file has no split; use --holdout or --split all")
    rows = np.flatnonzero(column == split.encode())
    if not len(rows):
        raise InputError(f"{source}: no rows in split {split!r}")
    return rows


def _shared(x: FloatArray, present: BoolArray, counted: BoolArray) -> BoolArray:
    """Which of the rows of ``x``, shape (n, d), that are present hold a vector of many of those counted, shape (n,)."""
    rows = np.flatnonzero(present)
    # Equal rows have equal sums: rows whose sum is rare, nearly all, need no digest.
    suspects = rows[_frequent(bit_sums(x)[rows], counted[rows])]
    shared = np.zeros(len(x), dtype=bool)
    shared[suspects[_frequent(row_keys(x[row] for row in suspects), counted[suspects])]] = True
    return shared


def _frequent(keys: npt.NDArray[Any], counted: BoolArray) -> BoolArray:
    """Which keys occur ``SILENT_MIN_ROWS`` times or more among those counted."""
    values, group = np.unique(keys, return_inverse=True)
    frequent: BoolArray = np.bincount(group[counted], minlength=len(values))[group] >= SILENT_MIN_ROWS
    return frequent


def row_keys(rows: Iterable[FloatArray]) -> IntArray:
    """A number for each row that equal rows share and, but for a chance of 2**-64, no others; shape (n,)."""
    digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.fromiter((int.from_bytes(digest, "little", signed=True) for digest in digests), np.int64)


def bit_sums(x: FloatArray, block: int = 4096) -> npt.NDArray[np.uint64]:
    """The sum of each row's bits, read as whole numbers, modulo 2**64: equal for equal rows; shape (n,).

    Whole numbers, because sums of floats may depend on the order in which they are added.
    """
    sums = np.zeros(len(x), np.uint64)
    for start in range(0, len(x), block):
        rows = np.ascontiguousarray(x[start : start + block])
        octets = rows.reshape(len(rows), -1).view(np.uint8)
        word = next(size for size in (8, 4, 2, 1) if octets.shape[1] % size == 0)
        sums[start : start + block] = octets.view(f"u{word}").sum(axis=1, dtype=np.uint64)
    return sums

"""Rows known again: which of a file's rows a model was trained on, whatever the file is called or however it is cut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import BoolArray, IntArray, Pairs

BLOCK = 1024  # rows converted at a time


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Keys of rows, 64 bits each: equal rows share one and, but for a chance of 2**-64, no others.

    Attributes:
        content: of the features in float32, shape (n,), int64: a row keeps it in another format or file.
        ids: of the ids, shape (n,), int64, or ``None`` where the data has none of its own.
    """

    content: IntArray
    ids: IntArray | None

    def among(self, other: Fingerprint) -> BoolArray:
        """Which of these rows are among those of ``other``, by id or by content; shape (n,)."""
        found: BoolArray = np.isin(self.content, other.content)
        if self.ids is not None and other.ids is not None:
            found |= np.isin(self.ids, other.ids)
        return found

    def holds(self, other: Fingerprint) -> bool:
        """Whether every row of ``other`` is among these, by content."""
        return bool(np.isin(other.content, self.content).all())


def fingerprint(
    pairs: Pairs, modalities: Sequence[str] | None = None, rows: npt.NDArray[np.intp] | None = None
) -> Fingerprint:
    """Keys of the given rows of ``pairs``, read in one pass.

    >>> a = fingerprint(Pairs({"audio": np.eye(3)}))
    >>> b = fingerprint(Pairs({"audio": np.eye(3, dtype=np.float32)[1:]}))
    >>> a.among(b).tolist(), a.holds(b), b.holds(a)
    ([False, True, True], True, False)

    Args:
        pairs: the data.
        modalities: those that count, in this order; all by default. A modality that a row lacks
            and steps beyond a sequence's length do not.
        rows: row numbers, shape (n,); all by default.
    """
    rows = np.arange(len(pairs)) if rows is None else rows
    modalities = pairs.modalities if modalities is None else modalities
    content = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), BLOCK):
        here = rows[start : start + BLOCK]
        with np.errstate(over="ignore"):
            x = {m: np.asarray(pairs.features[m][here]).astype(np.float32) for m in modalities}
        for place, row in enumerate(here):
            parts = [
                x[m][place, : pairs.lengths[m][row]] if m in pairs.lengths else x[m][place]
                for m in modalities
                if pairs.present[m][row]
            ]
            content[start + place] = _key([str([p.shape for p in parts]).encode(), *(p.tobytes() for p in parts)])
    ids = np.fromiter((_key([clip]) for clip in pairs.ids[rows].tolist()), np.int64, len(rows))
    return Fingerprint(content, ids if pairs.has_ids else None)


def joined(parts: Iterable[Fingerprint]) -> Fingerprint:
    """The keys of several blocks of one file."""
    blocks = list(parts)
    ids = [block.ids for block in blocks if block.ids is not None]
    return Fingerprint(
        np.concatenate([block.content for block in blocks]), np.concatenate(ids) if len(ids) == len(blocks) else None
    )


def _key(parts: Iterable[bytes]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "little", signed=True)

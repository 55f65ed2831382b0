"""Who trains and who is held out: by id, by place, or at random from a seed.

Held-out rows by id hash fall on the same side in every file that contains the clip, on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hscmae.data import readers
from hscmae.data.fingerprint import fingerprint
from hscmae.data.pairs import Pairs
from hscmae.data.table import Table
from hscmae.errors import InputError

SplitArray = npt.NDArray[np.bytes_]
RowNumbers = npt.NDArray[np.intp]


def holdout(ids: npt.NDArray[np.bytes_], spec: str, source: str = "input") -> SplitArray:
    """A split into "train" and "test" by ``spec``, as bytes of shape (n,).

    Args:
        ids: the clips' ids, shape (n,).
        spec: ``id-hash:SHARE``: a clip is held out when the SHA-256 of its id, read as a fraction, is below SHARE;
            ``tail:SHARE``: the last rows are held out.
        source: what to call the data in messages.

    Raises:
        InputError: a malformed ``spec``, or one that leaves no rows on a side.
    """
    kind, _, text = spec.partition(":")
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if kind not in ("id-hash", "tail") or not 0 < share < 1:
        raise InputError(f"holdout must be id-hash:SHARE or tail:SHARE with a share between 0 and 1, got {spec!r}")
    if kind == "id-hash":
        held_out = np.array([_hash(clip) < share for clip in ids.tolist()], dtype=bool)
    else:
        held_out = np.arange(len(ids)) >= len(ids) - round(len(ids) * share)
    if held_out.all() or not held_out.any():
        raise InputError(f"{source}: holdout {spec} leaves no rows to {'train on' if held_out.any() else 'test on'}")
    return _split_array(held_out)


def refuse_holdout(split: SplitArray | None, source: str) -> None:
    """Refuse a holdout for data that has a split of its own.

    Raises:
        InputError: it has.
    """
    if split is not None:
        raise InputError(f"{source}: has a split of its own: leave out the holdout, or choose by --split")


def apply_holdout(table: Table, spec: str) -> None:
    """Give an opened file the split of ``holdout``.

    Raises:
        InputError: the file has a split of its own; else as ``holdout``.
    """
    refuse_holdout(table.split, table.source)
    ids = np.arange(len(table)).astype("S") if table.ids is None else table.ids
    table.split = holdout(ids, spec, table.source)


def validation_rows(n_or_ids: int | npt.NDArray[np.bytes_], share: float, seed: int) -> tuple[RowNumbers, RowNumbers]:
    """Cut training rows into a fit and a validation part, at random from ``seed``.

    Args:
        n_or_ids: the number of rows, or their ids; with ids the choice does not depend on the rows' order.
        share: the validation part's share; at least one row stays on either side.
        seed: the choice's seed.

    Returns:
        Row numbers of the fit part and of the validation part, each ascending.

    Raises:
        InputError: fewer than two rows, or a share not between 0 and 1.
    """
    n = n_or_ids if isinstance(n_or_ids, int) else len(n_or_ids)
    if n < 2 or not 0 < share < 1:
        raise InputError(f"cannot take a validation share of {share} out of {n} rows")
    if isinstance(n_or_ids, int):
        order = np.random.default_rng(seed).permutation(n)
    else:
        order = np.argsort([_hash(clip, f"{seed}/".encode()) for clip in n_or_ids.tolist()], kind="stable")
    size = min(max(round(n * share), 1), n - 1)
    return np.sort(order[size:]), np.sort(order[:size])


def resplit(pairs: Pairs, seed: int, test_share: float, stratify: bool = False) -> Pairs:
    """The same rows with a new random split into "train" and "test".

    Args:
        pairs: the data.
        seed: the split's seed.
        test_share: the test part's share of the rows.
        stratify: keep the share within each class (single labels only), to the nearest row.

    Raises:
        InputError: a share that leaves no rows on a side; ``stratify`` without single labels.
    """
    n = len(pairs)
    size = round(n * test_share)
    if not 0 < size < n:
        raise InputError(f"{pairs.source}: a test share of {test_share} leaves no rows on one side")
    shuffled = np.random.default_rng(seed).permutation(n)
    if stratify:
        if pairs.labels is None or not pairs.labels.is_single:
            raise InputError(f"{pairs.source}: a stratified split needs exactly one label a clip")
        # Each row gets its place within its class, as a fraction: the lowest fractions are spread over the classes.
        classes = pairs.labels.indices[shuffled]
        by_class = np.argsort(classes, kind="stable")
        counts = np.bincount(classes)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        place = (np.arange(n) - starts[classes[by_class]] + 0.5) / counts[classes[by_class]]
        shuffled = shuffled[by_class][np.argsort(place, kind="stable")]
    held_out = np.zeros(n, dtype=bool)
    held_out[shuffled[:size]] = True
    return replace(pairs, split=_split_array(held_out))


def exclude_ids(pairs: Pairs, ids: Iterable[bytes]) -> Pairs:
    """The rows whose id is not among ``ids``.

    Raises:
        InputError: none are left, or the data has no ids of its own.
    """
    if not pairs.has_ids:
        raise InputError(f"{pairs.source}: has no ids, so that no row can be left out by its id")
    excluded = np.isin(pairs.ids, np.array(list(ids) or [b""], dtype=np.bytes_))
    if excluded.all():
        raise InputError(f"{pairs.source}: every row is excluded")
    return pairs.take(np.flatnonzero(~excluded))


def without_clips_of(pairs: Pairs, other: Pairs) -> Pairs:
    """The rows of clips that ``other`` does not have: by id where both have ids, by the features' content otherwise.

    Raises:
        InputError: none are left.
    """
    if pairs.has_ids and other.has_ids:
        return exclude_ids(pairs, other.ids.tolist())
    common = [m for m in other.modalities if m in pairs.features]
    known = fingerprint(pairs, common).among(fingerprint(other, common))
    if known.all():
        raise InputError(f"{pairs.source}: every row is also in {other.source}")
    return pairs.take(np.flatnonzero(~known))


def read_ids(path: str | PathLike[str]) -> SplitArray:
    """Ids from a text file, one a line (empty lines and lines starting with # do not count), or of a feature file.

    Raises:
        InputError: the file cannot be read or holds no ids.
    """
    path = Path(path)
    if path.is_file() and not readers.is_known(path):
        try:
            text = path.read_bytes()
            if b"\0" in text:
                raise ValueError("not text")
            # Ids are names of files, which need not be UTF-8.
            lines = [line.strip() for line in text.decode("utf-8-sig", "surrogateescape").splitlines()]
        except (ValueError, OSError) as error:
            raise InputError(f"{path}: neither a text file with an id a line nor a feature file") from error
        ids = [line.encode("utf-8", "surrogateescape") for line in lines if line and not line.startswith("#")]
        if not ids:
            raise InputError(f"{path}: no ids")
        return np.array(ids, dtype=np.bytes_)
    with readers.open_table(path) as table:
        if table.ids is None or not table.has_ids:
            raise InputError(f"{path}: the file has no ids")
        return table.ids


def _hash(clip: bytes, key: bytes = b"") -> float:
    """SHA-256 of ``key + clip`` as a fraction in [0, 1): its first 53 bits, exact in a float."""
    return (int.from_bytes(hashlib.sha256(key + clip).digest()[:8], "big") >> 11) / 2**53


def _split_array(held_out: npt.NDArray[np.bool_]) -> SplitArray:
    return np.where(held_out, b"test", b"train").astype("S5")

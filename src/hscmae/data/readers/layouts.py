"""The layouts by name of dataset, whatever container holds them: HDF5, ``.npz`` or a folder of ``.npy``.

Three are known. *split*: ``{m}_train``, ``lab_train``, ``ids_train`` and the same with ``_val``, ``_test`` (how AVE and
VEGAS features are published). *feat*: ``{m}_feat``, ``Label_ID``, ``Train_test`` or ``Split``. *plain*: ``{m}`` with
``ids``, ``labels`` or ``label_indices`` and ``label_indptr``, ``split``. All may hold ``{m}_present`` and
``{m}_lengths``. Each is renamed to plain first, so one piece of code reads them all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.coercion import as_text
from hscmae.data.pairs import SPLITS, IntArray, Labels
from hscmae.data.table import Problem, Report, RowArray, Stacked, Table, stack_labels
from hscmae.errors import InputError

ALIASES = {
    "lab": "labels", "label": "labels", "Label_ID": "labels", "id": "ids",
    "Train_test": "split", "Split": "split", "label_names": "class_names",
}  # fmt: skip
COLUMNS = ("ids", "labels", "label_indices", "label_indptr", "split", "class_names")
MAX_CLASSES = 10_000_000

log = logging.getLogger(__name__)


def table(
    arrays: Mapping[str, RowArray], source: str, container: str, report: Report, class_names: Any = None
) -> Table:
    """A ``Table`` over named arrays in any of the three layouts.

    Args:
        arrays: dataset name -> array.
        source: the file, for messages.
        container: what holds the arrays, for ``Table.format``.
        report: told of everything wrong; where it returns, what is wrong is left out.
        class_names: names given beside the arrays (an HDF5 attribute).

    Raises:
        InputError: no features at all; else as ``report`` decides.
    """
    parts = {s: {k.removesuffix(f"_{s}"): a for k, a in arrays.items() if k.endswith(f"_{s}")} for s in SPLITS}
    parts = {s: part for s, part in parts.items() if any(_is_feature(key) for key in part)}
    if any(_is_feature(key.removesuffix("_feat")) and key.endswith("_feat") for key in arrays):
        layout = "feat"
        keep = (*ALIASES, *COLUMNS)
        parts = {"": {k.removesuffix("_feat"): a for k, a in arrays.items() if k.endswith("_feat") or k in keep}}
    elif parts:
        layout = "split"
    else:
        layout, parts = "plain", {"": dict(arrays)}
    parts = {s: {ALIASES.get(key, key): a for key, a in part.items()} for s, part in parts.items()}

    names = _names(class_names if class_names is not None else arrays.get("class_names", arrays.get("label_names")))
    if layout == "split":
        _check_parts_agree(parts, source, report)
    result = Table(source, f"{container}, {layout} layout", _features(parts, source, report))
    if not result.features:
        found = ", ".join(sorted(arrays)[:12]) or "nothing"
        report(
            source,
            Problem("missing-dataset", "", f"no features (expected audio_train, audio or audio_feat, found {found})"),
        )
        return result
    rows = {s: _rows_of_part(part, f"_{s}" if s else "", source, report) for s, part in parts.items()}
    suffixed = {f"_{s}" if s else "": part for s, part in parts.items()}
    if all("ids" in part for part in parts.values()):
        ids = [_ids(part["ids"], f"ids{s}", source, report) for s, part in suffixed.items()]
        result.ids = np.concatenate([column for column in ids if column is not None] or [np.empty(0, "S1")])
    result.labels = _all_labels(suffixed, names, source, report)
    result.present = {m: _flags(m, "present", suffixed, bool) for m in _with(parts, "present", result.features)}
    result.lengths = {m: _flags(m, "lengths", suffixed, np.int64) for m in _with(parts, "lengths", result.features)}
    for m, lengths in result.lengths.items():
        x = result.features[m]
        bad = np.flatnonzero((lengths < 0) | (lengths > (x.shape[1] if len(x.shape) == 3 else 0)))
        if len(bad):
            report(source, Problem("length-range", f"{m}_lengths", f"lengths outside 0..{x.shape[1]}", tuple(bad)))
            result.lengths[m] = np.clip(lengths, 0, x.shape[1])
    if layout == "split":
        result.split = np.repeat(np.array([s.encode() for s in rows], dtype="S5"), list(rows.values()))
    elif "split" in parts[""]:
        key = next(k for k in arrays if ALIASES.get(k, k) == "split")
        result.split = _split(np.asarray(arrays[key][:]), key, source, report)
    return result


def is_named_for(key: str) -> bool:
    """Whether a dataset of this name would be a column, or a modality's part by its ending."""
    endings = (*(f"_{s}" for s in SPLITS), "_feat", "_present", "_lengths")
    return key in (*ALIASES, *COLUMNS) or key.endswith(endings)


def _is_feature(key: str) -> bool:
    """Whether a plain name is a modality's rather than a column's."""
    return ALIASES.get(key, key) not in COLUMNS and not key.endswith(("_present", "_lengths"))


def _with(parts: Mapping[str, Mapping[str, RowArray]], suffix: str, features: Mapping[str, RowArray]) -> list[str]:
    """Modalities that have ``{m}_{suffix}`` in every part."""
    return [m for m in features if all(f"{m}_{suffix}" in part for part in parts.values())]


def _flags(m: str, name: str, parts: Mapping[str, Mapping[str, RowArray]], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate([np.asarray(part[f"{m}_{name}"][:]).astype(dtype).ravel() for part in parts.values()])


def _check_parts_agree(parts: Mapping[str, Mapping[str, RowArray]], source: str, report: Report) -> None:
    """Report datasets that one split has and another lacks, and dimensions that differ between splits."""
    for key in sorted({key for part in parts.values() for key in part}):
        having = [s for s in parts if key in parts[s]]
        shown = {"labels": "lab"}.get(key, key)
        for s in parts:
            if s not in having:
                report(source, Problem("missing-dataset", f"{shown}_{s}", f"missing, but {shown}_{having[0]} is there"))
        shapes = {parts[s][key].shape[1:] for s in having if len(parts[s][key].shape) in (2, 3)}
        if _is_feature(key) and len(shapes) > 1:
            listed = ", ".join(f"{shown}_{s} {parts[s][key].shape}" for s in having)
            report(source, Problem("dimensions", shown, f"dimensions differ between splits: {listed}"))


def _features(parts: Mapping[str, Mapping[str, RowArray]], source: str, report: Report) -> dict[str, RowArray]:
    """The modalities' arrays, those of several splits one after the other."""
    features: dict[str, list[RowArray]] = {}
    for s, part in parts.items():
        for key, array in part.items():
            if not _is_feature(key):
                continue
            shown = f"{key}_{s}" if s else key
            if len(array.shape) not in (2, 3) or 0 in array.shape[1:]:
                message = f"expected shape (rows, dims) or (rows, steps, dims), got {tuple(array.shape)}"
                report(source, Problem("wrong-rank", shown, message))
            elif array.dtype.kind != "f" or array.dtype.itemsize > 8:
                report(source, Problem("wrong-type", shown, f"expected floating point features, got {array.dtype}"))
            elif key not in features or features[key][0].shape[1:] == array.shape[1:]:
                features.setdefault(key, []).append(array)
    return {key: arrays[0] if len(arrays) == 1 else Stacked(arrays) for key, arrays in features.items()}


def _rows_of_part(part: Mapping[str, RowArray], suffix: str, source: str, report: Report) -> int:
    """The number of rows of one split; reports columns that differ."""
    rows = {
        key: (int(array.shape[0]) if array.shape else 0) - (key == "label_indptr")
        for key, array in part.items()
        if key not in ("label_indices", "class_names")
    }
    features = [count for key, count in rows.items() if _is_feature(key)]
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{'lab' if key == 'labels' and suffix else key}{suffix} {n}" for key, n in rows.items())
        report(source, Problem("row-count", "", f"row counts differ: {listed}"))
    return features[0] if features else 0


def _text(values: npt.NDArray[Any]) -> npt.NDArray[np.bytes_]:
    """Strings, bytes or whole numbers as UTF-8 bytes of fixed width."""
    if values.dtype.kind == "S":
        return values.astype(f"S{values.dtype.itemsize}")  # h5py's type carries metadata that .npy cannot hold
    return np.array([v if isinstance(v, bytes) else str(v).encode() for v in values.tolist()], dtype=np.bytes_)


def _names(values: Any) -> tuple[str, ...] | None:
    """Class names from an attribute or dataset; ``None`` where they are not a list of names."""
    if values is None:
        return None
    column = np.asarray(values[:] if isinstance(values, np.ndarray) or hasattr(values, "shape") else values)
    if column.ndim != 1:
        return None
    return tuple(name.decode("utf-8", "replace") for name in _text(column).tolist())


def _ids(array: RowArray, key: str, source: str, report: Report) -> npt.NDArray[np.bytes_] | None:
    if len(array.shape) not in (1, 2) or (len(array.shape) == 2 and array.shape[1] != 1):
        report(source, Problem("wrong-rank", key, f"expected one id a row, got shape {tuple(array.shape)}"))
        return None
    if array.dtype.kind not in "SUOiu":
        report(source, Problem("wrong-type", key, f"expected text or whole numbers, got {array.dtype}"))
        return None
    ids = _text(np.asarray(array[:]).ravel())
    empty = np.flatnonzero(ids == b"")
    if len(empty):
        report(source, Problem("empty-ids", key, "empty ids", tuple(empty)))
    return ids


def _split(values: npt.NDArray[Any], key: str, source: str, report: Report) -> npt.NDArray[np.bytes_] | None:
    """Split names as bytes, from words or codes.

    No convention says whether 0 or 1 means training, so of two codes the one with more rows does; three codes ascend
    from train over val to test.
    """
    if values.dtype.kind in "iubf":
        codes, counts = np.unique(values, return_counts=True)
        if len(codes) == 2 and counts[0] != counts[1]:
            names = [b"train", b"test"] if counts[0] > counts[1] else [b"test", b"train"]
            log.warning("%s: %s: code %s, with more rows, is read as train", source, key, codes[counts.argmax()])
        elif len(codes) == 3 and counts[0] == counts.max():
            names = [b"train", b"val", b"test"]
        else:
            listed = ", ".join(str(code) for code in codes[:4])
            message = f"cannot tell train from test by the codes {listed}; write train, val, test"
            report(source, Problem("split-values", key, message))
            return None
        return np.array(names, dtype="S5")[np.searchsorted(codes, values.ravel())]
    words = np.char.strip(np.char.lower(_text(values.ravel())))
    for long, short in ((b"training", b"train"), (b"validation", b"val"), (b"valid", b"val"), (b"testing", b"test")):
        words = np.where(words == long, short, words)
    bad = np.flatnonzero(~np.isin(words, [s.encode() for s in SPLITS]))
    if len(bad):
        report(source, Problem("split-values", key, "expected train, val or test", tuple(bad)))
        return None
    return words.astype("S5")


def _all_labels(
    parts: Mapping[str, Mapping[str, RowArray]], names: tuple[str, ...] | None, source: str, report: Report
) -> Labels | None:
    """The labels of all parts with one list of names; ``None`` where a part has none or they are unusable."""
    if any(_is_text(part.get("labels")) for part in parts.values()):
        return _named_labels(parts, source, report)
    found = []
    for suffix, part in parts.items():
        if "label_indices" in part and "label_indptr" in part:
            csr = _csr(part["label_indices"], part["label_indptr"], suffix, source, report)
        elif "labels" in part:
            csr = _decode(part["labels"], f"{'lab' if suffix else 'labels'}{suffix}", source, report)
        else:
            return None
        if csr is None:
            return None
        found.append(csr)
    largest = max((int(indices.max(initial=-1)) + 1 for indices, _, _ in found), default=0)
    width = max((hot for _, _, hot in found), default=0)
    if names is None:
        names = tuple(str(i) for i in range(max(largest, width)))
    ok = True
    for (indices, indptr, _), suffix in zip(found, parts, strict=True):
        bad = np.flatnonzero((indices < 0) | (indices >= len(names)))
        if len(bad):
            ok = False
            rows = np.unique(np.searchsorted(indptr, bad, side="right") - 1)
            message = f"labels out of range 0..{len(names) - 1}"
            report(source, Problem("label-range", f"{'lab' if suffix else 'labels'}{suffix}", message, tuple(rows)))
    return stack_labels([Labels(indices, indptr, names) for indices, indptr, _ in found]) if ok else None


def _is_text(array: RowArray | None) -> bool:
    """Whether an array holds text, one a row."""
    return array is not None and len(array.shape) == 1 and array.dtype.kind in "SUO"


def _named_labels(parts: Mapping[str, Mapping[str, RowArray]], source: str, report: Report) -> Labels | None:
    """Labels given as class names (n,), the same of all parts; a clip whose name is empty has none."""
    columns = []
    for suffix, part in parts.items():
        array, key = part.get("labels"), f"{'lab' if suffix else 'labels'}{suffix}"
        if array is None:
            return None
        try:
            if not _is_text(array):
                raise InputError("not text")
            columns.append(as_text(np.asarray(array[:]), key))
        except InputError:
            message = f"expected class names, as in the other parts, got {array.dtype} {tuple(array.shape)}"
            report(source, Problem("wrong-type", key, message))
            return None
    return Labels.of(np.concatenate(columns), f"{source}: labels")


def _csr(
    indices: RowArray, indptr: RowArray, suffix: str, source: str, report: Report
) -> tuple[IntArray, IntArray, int] | None:
    name = f"label_indptr{suffix}"
    if any(len(a.shape) != 1 or a.dtype.kind not in "iu" for a in (indices, indptr)):
        report(
            source, Problem("wrong-type", name, "label_indices and label_indptr must be whole numbers in one dimension")
        )
        return None
    starts, classes = np.asarray(indptr[:]).astype(np.int64), np.asarray(indices[:]).astype(np.int64)
    if not len(starts) or starts[0] != 0 or starts[-1] != len(classes) or np.any(np.diff(starts) < 0):
        report(source, Problem("label-indptr", name, "must rise from 0 to the number of label_indices"))
        return None
    return classes, starts, 0


def _decode(array: RowArray, key: str, source: str, report: Report) -> tuple[IntArray, IntArray, int] | None:
    """Labels given as integers (n,) or (n, 1), where -1 is none, or as one-hot or multi-hot (n, classes)."""
    if len(array.shape) not in (1, 2) or array.dtype.kind not in "biuf":
        report(
            source,
            Problem(
                "wrong-type", key, f"expected class numbers or one-hot rows, got {array.dtype} {tuple(array.shape)}"
            ),
        )
        return None
    values = np.asarray(array[:])
    if values.ndim == 2 and values.shape[1] != 1:
        hot = values != 0
        bad = np.flatnonzero((hot & (values != 1)).any(axis=1))
        if len(bad):
            report(source, Problem("label-range", key, "one-hot rows may hold 0 and 1 only", tuple(bad)))
            return None
        indptr: IntArray = np.concatenate([[0], np.cumsum(hot.sum(axis=1))]).astype(np.int64)
        return np.nonzero(hot)[1].astype(np.int64), indptr, values.shape[1]
    values = values.ravel()
    usable = (values >= -1) & (values < MAX_CLASSES)
    bad = np.flatnonzero(~usable | (np.floor(np.where(usable, values, 0)) != values))
    if len(bad):
        report(source, Problem("label-range", key, "labels must be whole numbers from 0 on (-1: none)", tuple(bad)))
        return None
    known = values >= 0
    starts: IntArray = np.concatenate([[0], np.cumsum(known)]).astype(np.int64)
    return values[known].astype(np.int64), starts, 0

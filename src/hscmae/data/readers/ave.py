"""The original AVE release: a folder with ``audio_feature.h5``, ``visual_feature.h5``, ``labels.h5`` and the orders.

Audio is (4143, 10, 128), a row a second; visual is (4143, 10, 7, 7, 512), of several gigabytes, whose spatial mean is
taken block by block; labels are one-hot per second with the background as last class. A clip's class is the most
frequent one of its seconds that are not background. ``train_order.h5``, ``val_order.h5`` and ``test_order.h5`` list
rows. Ids and class names come from ``Annotations.txt`` where it lies beside them.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import SPLITS, Labels
from hscmae.data.readers import hdf5
from hscmae.data.table import Problem, Report, RowArray, Table

KEY = "avadataset"
FEATURES = {"audio": "audio_feature.h5", "visual": "visual_feature.h5"}


def matches(path: Path) -> bool:
    """Whether the folder holds one of the release's feature files."""
    return path.is_dir() and any((path / name).is_file() for name in FEATURES.values())


class SpatialMean:
    """A feature map (n, steps, ..., d) as its mean over the axes between steps and values, (n, steps, d)."""

    def __init__(self, maps: RowArray) -> None:
        self.maps, self.dtype = maps, maps.dtype
        self.shape = (maps.shape[0], maps.shape[1], maps.shape[-1])

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        block = np.asarray(self.maps[rows])
        places = block.reshape(*block.shape[:2], -1, block.shape[-1])
        means: npt.NDArray[Any] = places.mean(axis=2, dtype=np.float64).astype(self.dtype)
        return means


def open_table(path: Path, report: Report) -> Table:
    """Open the folder; its features stay on disk.

    Raises:
        InputError: a file that is not fit to be opened; else as ``report`` decides.
    """
    source = str(path)
    with ExitStack() as stack:
        result = Table(source, "AVE release", {})
        for m, name in FEATURES.items():
            array = _dataset(path / name, KEY, report, stack)
            if array is None:
                continue
            if len(array.shape) < 3 or 0 in array.shape[1:]:
                message = f"expected (clips, seconds, ..., dims), got {array.shape}"
                report(source, Problem("wrong-rank", name, message))
            elif array.dtype.kind != "f" or array.dtype.itemsize > 8:
                report(source, Problem("wrong-type", name, f"expected floating point features, got {array.dtype}"))
            else:
                raw = int(np.prod(array.shape[1:], dtype=np.int64)) * array.dtype.itemsize
                result.raw_row_bytes = max(result.raw_row_bytes, raw)
                result.features[m] = array if len(array.shape) == 3 else SpatialMean(array)
        if not result.features:
            report(source, Problem("missing-dataset", "", "no usable audio_feature.h5 or visual_feature.h5"))
            return result
        n = len(result)
        rows = {FEATURES[m]: x.shape[0] for m, x in result.features.items()}
        classes = _dataset(path / "labels.h5", KEY, report, stack) if (path / "labels.h5").is_file() else None
        if classes is not None:
            rows["labels.h5"] = classes.shape[0] if classes.shape else 0
        if len(set(rows.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in rows.items())
            report(source, Problem("row-count", "", f"row counts differ: {listed}"))
        annotations = _annotations(path / "Annotations.txt", n)
        if annotations is not None:
            result.ids = _unique([fields[1].encode() for fields in annotations])
        if classes is not None:
            result.labels = _labels(classes, annotations, source, report)
        result.split = _split(path, n, report, stack)
        result.resources = stack.pop_all()
        return result


def _dataset(path: Path, key: str, report: Report, stack: ExitStack) -> RowArray | None:
    if not path.is_file():
        report(str(path.parent), Problem("missing-dataset", path.name, "no such file"))
        return None
    arrays, _ = hdf5.open_datasets(path, report, stack)
    if key not in arrays:
        found = ", ".join(sorted(arrays)[:8]) or "nothing"
        report(str(path.parent), Problem("missing-dataset", path.name, f"no dataset {key!r} (found {found})"))
    return arrays.get(key)


def _labels(array: RowArray, annotations: list[list[str]] | None, source: str, report: Report) -> Labels | None:
    """Clip classes from one-hot seconds (n, steps, classes + background); a clip all background has none."""
    if len(array.shape) != 3 or array.shape[2] < 2 or array.dtype.kind not in "biuf":
        message = f"expected (clips, seconds, classes + background), got {array.dtype} {array.shape}"
        report(source, Problem("wrong-rank", "labels.h5", message))
        return None
    seconds = np.asarray(array[:]) != 0
    votes = seconds[:, :, :-1].sum(axis=1)
    known = votes.any(axis=1)
    classes = votes.argmax(axis=1)
    names = [str(i) for i in range(votes.shape[1])]
    if annotations is not None and len(annotations) == len(votes):
        for i in range(len(names)):
            called = [
                fields[0] for fields, of_class in zip(annotations, known & (classes == i), strict=True) if of_class
            ]
            names[i] = max(sorted(set(called)), key=called.count) if called else names[i]
    indptr = np.concatenate([[0], np.cumsum(known)]).astype(np.int64)
    return Labels(classes[known].astype(np.int64), indptr, tuple(names))


def _split(path: Path, n: int, report: Report, stack: ExitStack) -> npt.NDArray[np.bytes_] | None:
    """Splits from the order files; ``None`` where there are none or they do not cover the rows once each."""
    split = np.full(n, b"", dtype="S5")
    orders = [s for s in SPLITS if (path / f"{s}_order.h5").is_file()]
    for s in orders:
        name = f"{s}_order.h5"
        order = _dataset(path / name, "order", report, stack)
        if order is None:
            return None
        if len(order.shape) != 1 or order.dtype.kind not in "iu":
            report(str(path), Problem("wrong-type", name, f"expected row numbers, got {order.dtype} {order.shape}"))
            return None
        rows = np.asarray(order[:]).astype(np.int64)
        outside = np.flatnonzero((rows < 0) | (rows >= n))
        if len(outside):
            report(str(path), Problem("order-range", name, f"row numbers outside 0..{n - 1}", tuple(outside)))
            return None
        taken = rows[split[rows] != b""]
        if len(taken) or len(np.unique(rows)) < len(rows):
            report(str(path), Problem("order-overlap", name, "rows named twice by the orders", tuple(np.unique(taken))))
            return None
        split[rows] = s.encode()
    missing = np.flatnonzero(split == b"")
    if orders and len(missing):
        report(str(path), Problem("order-missing", "", "no order file names these rows", tuple(missing)))
        return None
    return split if orders else None


def _annotations(path: Path, n: int) -> list[list[str]] | None:
    """Lines ``Category&VideoID&...``, one a row; ``None`` where the file is absent or of another length."""
    if not path.is_file():
        return None
    lines = [line.split("&") for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if "&" in line]
    lines = [fields for fields in lines if fields[:2] != ["Category", "VideoID"]]
    return lines if len(lines) == n else None


def _unique(ids: list[bytes]) -> npt.NDArray[np.bytes_]:
    """Ids as they are, but ``#2``, ``#3`` ... after those that a video has had before."""
    seen: dict[bytes, int] = {}
    unique = []
    for name in ids:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else name + f"#{seen[name]}".encode())
    return np.array(unique, dtype=np.bytes_)

"""The tasks of ``quality``: real pairs of several kinds, each cut several times into training and test rows.

A cut holds out what falls below a share by the hash of an id under the cut's own key: it was fixed before anything was
fitted, and is the same on every machine. Rows that belong together (one picture, one recording, one corpus) fall
together.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import hscmae
from benchmarks.studies.real_media import features
from hscmae.data.pairs import Labels, Pairs
from hscmae.data.splits import SplitArray, holdout
from hscmae.demo.run import make_data

SHARE = "id-hash:0.2"
DEMO_CLIPS = 1200


Split = Callable[[Pairs, int], SplitArray]
Cuts = Callable[[Path], Iterator[Pairs]]


@dataclass(frozen=True)
class Task:
    """What is measured on.

    Attributes:
        title: in documents.
        chosen_on: whether settings of HSC-MAE or of a rival were chosen on (training rows of) this data.
        cuts: folder of the data -> the data with each of its splits.
    """

    title: str
    chosen_on: bool
    cuts: Cuts


def cut(load: Callable[[Path], Pairs], split: Split, times: int = 5) -> Cuts:
    """All rows of the data, cut several times."""

    def cuts(data: Path) -> Iterator[Pairs]:
        whole = load(data)
        for number in range(times):
            yield replace(whole, split=split(whole, number))

    return cuts


def development(pairs: Pairs, split: int) -> Pairs:
    """The training rows alone, a fifth of them held out by id hash under a key of the split's own."""
    train = pairs if pairs.split is None else pairs.take(pairs.rows_of("train"))
    keyed = np.array([f"{split}/".encode() + clip for clip in train.ids.tolist()], dtype=np.bytes_)
    return replace(train, split=holdout(keyed, "id-hash:0.2"))


def by_id(pairs: Pairs, number: int) -> SplitArray:
    """A fifth of the clips by their ids."""
    return _keyed(pairs, pairs.ids.tolist(), number)


def by_picture(pairs: Pairs, number: int) -> SplitArray:
    """A fifth of the pictures: rows that share one fall together."""
    second = pairs.features[pairs.modalities[1]]
    return _keyed(pairs, [hashlib.sha256(row.tobytes()).hexdigest().encode() for row in second], number)


def by_fold(pairs: Pairs, number: int) -> SplitArray:
    """One fold of recordings: folders ``fold1`` to ``fold5``, the last one first."""
    held_out = np.array([clip.startswith(b"fold%d/" % (5 - number)) for clip in pairs.ids.tolist()])
    return np.where(held_out, b"test", b"train")


def _keyed(pairs: Pairs, ids: list[bytes], number: int) -> SplitArray:
    return holdout(np.array([b"cut-%d/" % number + name for name in ids], dtype=np.bytes_), SHARE, pairs.source)


def read(name: str) -> Callable[[Path], Pairs]:
    """All rows of a file, its own split left aside."""
    return lambda data: replace(hscmae.read(data / name), split=None)


def pool(data: Path) -> Pairs:
    """The clips of the pool that are not in the 15 classes."""
    known, whole = hscmae.read(data / "yt8m_ave15.h5").ids, hscmae.read(data / "yt8m_pool.h5")
    return whole.take(np.flatnonzero(~np.isin(whole.ids, known)))


def of_labels(whole: Pairs, first: int, last: int) -> Pairs:
    """The clips that carry exactly one of the labels from ``first`` to ``last`` by frequency, 0 the most frequent."""
    assert whole.labels is not None
    labels = whole.labels
    often = np.argsort(-np.bincount(labels.indices), kind="stable")[first:last]
    of_these = np.isin(labels.indices, often)
    row = np.repeat(np.arange(len(whole)), np.diff(labels.indptr))[of_these]
    once = np.bincount(row, minlength=len(whole)) == 1
    label = np.zeros(len(whole), dtype=np.int64)
    label[row] = labels.indices[of_these]
    whole = whole.take(np.flatnonzero(once))
    return replace(whole, labels=Labels.single(np.searchsorted(np.sort(often), label[once])))


def ten_classes(data: Path) -> Pairs:
    """Of VEGAS's shape: clips of one of ten labels, the 16th to the 25th by frequency."""
    return of_labels(pool(data), 15, 25)


def clips(data: Path) -> Pairs:
    """Real sounds and pictures beside the folder of features, by YAMNet and EfficientNet-Lite0."""
    with tempfile.TemporaryDirectory() as folder:
        return _in_memory(features(data.parent / "media", data.parent / "models", Path(folder)).pooled())


def demo(data: Path) -> Iterator[Pairs]:
    """Five corpora of the demo, each with its own split."""
    for seed in range(5):
        with tempfile.TemporaryDirectory() as folder:
            yield _in_memory(make_data(Path(folder), clips=DEMO_CLIPS, seed=seed, progress=lambda *at: None).pooled())


def _in_memory(pairs: Pairs) -> Pairs:
    return replace(pairs, features={m: np.array(x) for m, x in pairs.features.items()})


TASKS = {
    "ave15": Task("YouTube-8M, 15 classes, 1,629 clips", True, cut(read("yt8m_ave15.h5"), by_id)),
    "vegas10": Task("YouTube-8M, 10 other classes", False, cut(ten_classes, by_id)),
    "mfeat": Task("two descriptions of written digits, 2,000 pairs", True, cut(read("mfeat.h5"), by_id)),
    "digits": Task("spoken and written digits, 3,000 pairs", True, cut(read("digits.h5"), by_picture)),
    "ccv": Task("consumer videos, bags of words, 6,773 clips", True, cut(read("ccv.h5"), by_id)),
    "clips": Task("200 real clips, YAMNet and EfficientNet", True, cut(clips, by_fold)),
    "demo": Task("five made corpora of the demo, light features", True, demo),
    "pool": Task("YouTube-8M, 27,000 clips with several labels", True, cut(pool, by_id, 1)),
}

"""What takes longer than a request: suspicious pairs and the map, computed in a process of its own.

``python -P -m hscmae.serve.compute KIND ARCHIVE OUTPUT`` writes one file, whole or not at all.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.audit import audit
from hscmae.data.store import open_store
from hscmae.errors import HscmaeError
from hscmae.extract.jail import die_with_parent
from hscmae.extras import require
from hscmae.files import write_atomic
from hscmae.methods import load
from hscmae.search.archive import BOTH, FEATURES, RUN, Archive

SUSPICIOUS = 2000  # pairs that are listed, the most suspicious first
LANDMARKS = 1200  # clips that t-SNE places; the others stand among those that they are like
PERPLEXITY, NEAREST, SHARPNESS = 30.0, 5, 0.05
CLUSTERS, MOST_COLOURS = 10, 24
BLOCK = 4096
NOWHERE = 65535  # a clip that lacks the modality; a clip without label

Float = npt.NDArray[np.float32]


def suspicious(folder: Path) -> bytes:
    """The pairs that an audit finds most suspicious, and the estimated share of wrong ones, as JSON."""
    pairs = open_store(folder / FEATURES)
    found = audit(load(folder / RUN), pairs)
    worst = found.most_suspicious(SUSPICIOUS)
    return json.dumps(
        {
            "wrong_share": found.wrong_share,
            "wrong_share_ci": found.wrong_share_ci,
            "scored": int((found.rank > 0).sum()),
            "pairs": [
                {
                    "id": name.decode("utf-8", "backslashreplace"),
                    "score": round(float(found.score[row]), 4),
                    "random_better": round(float(found.random_better[row]), 4),
                }
                for name, row in zip(found.ids[worst].tolist(), worst.tolist(), strict=True)
            ],
        }
    ).encode()


def picture(folder: Path) -> bytes:
    """The map: a line of JSON that says what follows, then ``uint16`` numbers in little-endian order.

    These are x and y of each clip for each modality, shape (modalities, clips, 2), then each clip's label and its
    cluster, shape (2, clips). ``NOWHERE`` is for what a clip lacks.
    """
    archive = Archive.open(folder)
    n = len(archive)
    present = [archive.present(m) for m in archive.modalities]
    rng = np.random.default_rng(0)
    some = np.sort(rng.permutation(np.flatnonzero(np.logical_or.reduce(present)))[:LANDMARKS])
    z = [
        np.asarray(archive.embeddings(m)[some], np.float32)[flags[some]]
        for m, flags in zip(archive.modalities, present, strict=True)
    ]
    landmarks = np.concatenate(z)  # (landmarks, dim)
    flat = _flattened(landmarks)  # (landmarks, 2)
    low, high = flat.min(axis=0), flat.max(axis=0)
    places = np.full((len(present), n, 2), NOWHERE, "<u2")
    for m, (name, flags) in enumerate(zip(archive.modalities, present, strict=True)):
        rows = np.flatnonzero(flags)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            here = _placed(np.asarray(archive.embeddings(name)[block], np.float32), landmarks, flat, rng)
            unit = np.clip((here - low) / np.maximum(high - low, 1e-9), 0, 1)
            places[m, block] = np.round(unit * (NOWHERE - 1)).astype("<u2")
    labels, names = _labels(archive)
    clusters, titles = _clusters(archive, labels, names)
    head = {"clips": n, "modalities": archive.modalities, "labels": names, "clusters": titles}
    return json.dumps(head).encode() + b"\n" + places.tobytes() + labels.tobytes() + clusters.tobytes()


def _flattened(z: Float) -> npt.NDArray[np.float64]:
    manifold = require("sklearn.manifold", "serve")
    if len(z) < 8:
        return np.asarray(np.linalg.svd(z - z.mean(axis=0), full_matrices=False)[0][:, :2], np.float64)
    model = manifold.TSNE(
        metric="cosine", init="random", perplexity=min(PERPLEXITY, (len(z) - 1) / 3), random_state=0, n_jobs=1
    )
    return np.asarray(model.fit_transform(z), np.float64)


def _placed(z: Float, landmarks: Float, flat: npt.NDArray[np.float64], rng: np.random.Generator) -> Any:
    """Each row among the landmarks nearest to it; landmarks themselves stay where they are."""
    cosines = z @ landmarks.T  # (rows, landmarks)
    k = min(NEAREST, len(landmarks))
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    best = np.take_along_axis(cosines, nearest, axis=1)
    weights = np.exp((best - best.max(axis=1, keepdims=True)) / SHARPNESS)
    weights /= weights.sum(axis=1, keepdims=True)
    here = np.einsum("nk,nkd->nd", weights, flat[nearest])
    exact = best.max(axis=1) > 1 - 1e-5
    here[exact] = flat[nearest[exact, best[exact].argmax(axis=1)]]
    spread = 0.004 * (flat.max(axis=0) - flat.min(axis=0))
    here[~exact] += rng.normal(size=(int((~exact).sum()), 2)) * spread
    return here


def _labels(archive: Archive) -> tuple[npt.NDArray[np.uint16], list[str]]:
    """Each clip's first label among the most frequent ones, and their names."""
    first = [next(iter(archive.clips.labels(row)), None) for row in range(len(archive))]
    known, counts = np.unique([name for name in first if name is not None] or [""], return_counts=True)
    names = [str(name) for name in known[np.argsort(-counts, kind="stable")][:MOST_COLOURS] if name]
    number = {name: i for i, name in enumerate(names)}
    return np.array([number.get(name or "", NOWHERE) for name in first], "<u2"), names


def _clusters(
    archive: Archive, labels: npt.NDArray[np.uint16], names: list[str]
) -> tuple[npt.NDArray[np.uint16], list[str]]:
    cluster = require("sklearn.cluster", "serve")
    space = archive.embeddings(BOTH if len(archive.modalities) > 1 else archive.modalities[0])
    count = max(1, min(CLUSTERS, len(archive) // 8))
    rows = np.sort(np.random.default_rng(0).permutation(len(archive))[:20_000])
    model = cluster.KMeans(count, n_init=4, random_state=0).fit(np.asarray(space[rows], np.float32))
    found = np.concatenate(
        [model.predict(np.asarray(space[s : s + BLOCK], np.float32)) for s in range(0, len(archive), BLOCK)]
    )
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    ranked = place[found].astype("<u2")
    titles = []
    for c in range(count):
        own = labels[(ranked == c) & (labels != NOWHERE)]
        most = f", mostly {names[int(np.bincount(own).argmax())]}" if len(own) else ""
        titles.append(f"cluster {c + 1}{most}")
    return ranked, titles


KINDS = {"suspicious": suspicious, "map": picture}


def main(arguments: list[str]) -> int:
    kind, folder, output = arguments
    die_with_parent()
    os.nice(10)
    try:
        write_atomic(Path(output), KINDS[kind](Path(folder)))
    except HscmaeError as error:
        print(f"{error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

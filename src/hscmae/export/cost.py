"""What fewer bits cost: mAP where there are labels, and how many nearest neighbours change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import Pairs
from hscmae.evaluation.retrieval import Retrieval
from hscmae.evaluation.selection import nearest
from hscmae.export.precision import PRECISIONS, Precision, with_precision
from hscmae.export.runtime import OnnxModel
from hscmae.methods.base import Method

if TYPE_CHECKING:
    import onnx

NEIGHBOURS = 10


@dataclass(frozen=True)
class Cost:
    """One precision on some pairs.

    Attributes:
        precision: of the matrices.
        size: bytes of all files.
        map: mean average precision, both directions averaged; ``None`` without labels.
        lost: how much below that of the model; ``None`` without labels.
        agreement: share of each row's ten nearest rows of the other modality that are the model's, too.
    """

    precision: Precision
    size: int
    map: float | None
    lost: float | None
    agreement: float


def costs(method: Method, graphs: Mapping[str, onnx.ModelProto], data: Pairs, *, split: str = "test") -> list[Cost]:
    """What each precision costs on one split of ``data``; all rows where it has no split.

    Args:
        method: fitted.
        graphs: modality -> what ``to_graph`` gave.
        data: pairs; with labels for mAP.
        split: "train", "val", "test" or "all".

    Raises:
        InputError: see ``Retrieval.of``; fewer than two complete pairs.
    """
    trained = Retrieval.of(method, data, split=split)
    best, near = trained.metrics(bootstrap=0).get("avg/mAP"), _nearest(trained)
    found = []
    for precision in PRECISIONS:
        files = {m: with_precision(graph, precision).SerializeToString() for m, graph in graphs.items()}
        exported = Retrieval.of(OnnxModel(method, files), data, split=split)
        score = exported.metrics(bootstrap=0).get("avg/mAP")
        lost = None if best is None or score is None else best - score
        same = [(a[:, :, None] == b[:, None, :]).any(2).mean() for a, b in zip(near, _nearest(exported), strict=True)]
        size = sum(len(content) for content in files.values())
        found.append(Cost(precision, size, score, lost, float(np.mean(same))))
    return found


def _nearest(found: Retrieval) -> list[npt.NDArray[np.intp]]:
    complete = np.stack(list(found.present.values())).all(0)
    z = {m: x[complete] for m, x in found.embeddings.items()}
    return [nearest(z[way.source], NEIGHBOURS, z[way.target]) for way in found.directions]

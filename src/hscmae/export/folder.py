"""``export_onnx``: the folder that goes to another program, checked before it gets its name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from hscmae.artifact import read_config
from hscmae.errors import InputError, RunError
from hscmae.export.graph import takes_steps, to_graph
from hscmae.export.precision import PRECISIONS, with_precision
from hscmae.export.runtime import OnnxModel
from hscmae.files import FolderKind, output_folder, require_apart, write_atomic
from hscmae.methods.base import Method
from hscmae.version import __version__

if TYPE_CHECKING:
    import onnx

VERSION = 1
FORMAT = "hscmae-onnx"
MANIFEST = "export.json"
EXPORT = FolderKind("an export", [MANIFEST], FORMAT, [MANIFEST, "*.onnx"])
TOLERANCE = 1e-5
RARE = 0.01  # of the rows may lie where the model has hardly a direction, and float32's rounding is magnified
BATCHES = (1, 7, 500)  # rows of the graphs' trial


def export_onnx(
    method: Method,
    folder: str | Path,
    *,
    precision: str = "float32",
    overwrite: bool = False,
    run: str | Path | None = None,
    graphs: Mapping[str, onnx.ModelProto] | None = None,
) -> dict[str, Any]:
    """Write one ONNX file a modality, and ``export.json``, which says what they take and give.

    A file takes raw features, shape (rows, d), and gives unit-norm embeddings, shape (rows, dim); see ``to_graph``. In
    float32 they are compared with the method's own, to 1e-5 in 99 of 100 made-up rows, before the folder gets its name.

    Args:
        method: fitted; any of ``hscmae.methods``.
        folder: made if missing; an export that is there is replaced only where ``overwrite`` is set.
        precision: how matrices are held: "float32", "float16" or "int8"; arithmetic is in float32.
        overwrite: replace an export that is there.
        run: the folder that ``method`` was loaded from; the export then names the weights' hash.
        graphs: modality -> what ``to_graph`` gave, where that is at hand.

    Returns:
        What ``export.json`` holds: dimensions, files and their hashes, the recipe of the features, and
        ``largest_difference`` to the method's own embeddings on trial rows.

    Raises:
        InputError: not fitted, no such precision, the extra ``onnx`` is not installed, or ``folder`` is not ours.
        RunError: the graphs do not compute what the method does; nothing is written.

    >>> from hscmae import RidgeCCA, synthetic_pairs
    >>> pairs = synthetic_pairs(100, dims={"audio": 8, "visual": 12}, seed=0).pairs
    >>> told = export_onnx(RidgeCCA(dim=4, ridge=3.0).fit(pairs), getfixture("tmp_path") / "onnx")
    >>> told["modalities"]["audio"]["file"], told["largest_difference"] < 1e-5
    ('audio.onnx', True)
    """
    folder = Path(folder)
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if run is not None:
        require_apart(folder, Path(run))
    method.require_fitted()
    with output_folder(folder, EXPORT, resume=False, overwrite=overwrite, resumable=lambda _: False) as place:
        graphs = graphs or {m: to_graph(method, m) for m in method.dims_}
        whole = {m: graph.SerializeToString() for m, graph in graphs.items()}
        apart = differences(method, whole)
        if not (apart > TOLERANCE).mean() <= RARE:
            raise RunError(f"the exported graphs differ from the model by {apart.max():.1e}, more than {TOLERANCE:.0e}")
        files = whole
        if precision != "float32":
            files = {m: with_precision(graph, precision).SerializeToString() for m, graph in graphs.items()}
            apart = differences(method, files)
        told = _manifest(method, files, precision, float(apart.max()), run)
        for m, content in files.items():
            write_atomic(place / _file_of(m), content)
        write_atomic(place / MANIFEST, (json.dumps(told, indent=2) + "\n").encode())
    return told


def differences(method: Method, graphs: Mapping[str, bytes]) -> npt.NDArray[np.float64]:
    """How far embeddings of graphs lie from the method's, for each of many made-up rows in batches of several sizes."""
    exported, random = OnnxModel(method, graphs), np.random.default_rng(0)
    apart = []
    for m, d in method.dims_.items():
        scaler = method.scalers_[m]
        for n in BATCHES:
            shape = (n, 4, d) if takes_steps(method) else (n, d)
            x = scaler.mean + scaler.scale * random.normal(size=shape).astype(np.float32)
            lengths = 1 + np.arange(n) % 4 if takes_steps(method) else None
            away = np.abs(exported.embed(m, x, lengths=lengths) - method.embed(m, x, lengths=lengths)).max(1)
            apart.append(np.where(np.isfinite(away), away, np.inf))
    return np.concatenate(apart)


def _manifest(
    method: Method, files: Mapping[str, bytes], precision: str, apart: float, run: str | Path | None
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "format": FORMAT,
        "format_version": VERSION,
        "method": method.name,
        "dim": method.config.dim,
        "precision": precision,
        "input": "sequences" if takes_steps(method) else "vectors",
        "pooling": method.config.pooling,
        "modalities": {
            m: {"file": _file_of(m), "dim": d, "sha256": hashlib.sha256(files[m]).hexdigest()}
            for m, d in method.dims_.items()
        },
        "largest_difference": apart,
        "hscmae": __version__,
    }
    if method.recipe_ is not None:
        told["recipe"] = dict(method.recipe_)
    if run is not None:
        told["model_sha256"] = read_config(Path(run))["sha256"]
    return told


def _file_of(modality: str) -> str:
    """A file's name of a modality's, which may be any string."""
    return f"{quote(modality, safe=' ')}.onnx"

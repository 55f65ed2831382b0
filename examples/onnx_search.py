"""Search without torch and without hscmae: what `hscmae export RUN --output DIR` wrote, numpy and onnxruntime.

    python examples/onnx_search.py DIR QUERIES.npy GALLERY.npy

QUERIES.npy holds features of the first modality, shape (n, d), as extracted for training (export.json tells how);
GALLERY.npy those of the second. Prints for each query its three best matches, as row:cosine.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def embed(folder: Path, modality: str, features: np.ndarray) -> np.ndarray:
    """Unit-norm embeddings, shape (n, dim): their inner products are cosines."""
    entry = json.loads((folder / "export.json").read_text())["modalities"][modality]
    if features.shape[1] != entry["dim"]:
        sys.exit(f"{modality}: {features.shape[1]} values a row, the model takes {entry['dim']}")
    session = onnxruntime.InferenceSession(folder / entry["file"], providers=["CPUExecutionProvider"])
    return session.run(None, {"features": features.astype(np.float32)})[0]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    modalities = json.loads((folder / "export.json").read_text())["modalities"]
    queries, gallery = (embed(folder, m, np.load(file)) for m, file in zip(modalities, sys.argv[2:4], strict=True))
    for row, cosines in enumerate(queries @ gallery.T):
        best = np.argsort(-cosines)[:3]
        print(row, *(f"{match}:{cosines[match]:.3f}" for match in best))

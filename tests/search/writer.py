"""A process that changes an index batch by batch, saying when each is acknowledged, until it is killed.

    python -m search.writer KIND PLACE SEED

``changes`` is the sequence, by number; the test replays as much of it as was acknowledged.
"""

from __future__ import annotations

import sys

import numpy as np

from hscmae.search.backend import Backend
from hscmae.search.index import BACKENDS

DIM, SPACES = 16, ("audio", "visual")  # from 10 dimensions on LanceDB looks into the vectors that it is given
TABLE = "written"


def unit(x: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.where(norms > 0, norms, 1)).astype(np.float32)


def change(seed: int, number: int) -> tuple[list[str], dict[str, np.ndarray] | None]:
    """The ids of a change, and their vectors; ``None`` for a removal."""
    rng = np.random.default_rng([seed, number])
    ids = [f"clip {i}" for i in rng.choice(40, rng.integers(1, 12), replace=False)]
    if number % 3 == 2:
        return ids, None
    x = rng.standard_normal((len(SPACES), len(ids), DIM))
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    return ids, {space: x[i].astype(np.float32) for i, space in enumerate(SPACES)}


def apply(backend: Backend, seed: int, number: int) -> None:
    ids, vectors = change(seed, number)
    if vectors is None:
        backend.remove(ids)
    else:
        backend.add(ids, vectors, [[f"number={number}"]] * len(ids))


def main(kind: str, place: str, seed: int) -> None:
    backend = BACKENDS[kind].at(place, TABLE, DIM, SPACES)
    print("ready", flush=True)
    for number in range(10_000):
        apply(backend, seed, number)
        if kind == "faiss":  # a file: kept when closed
            backend.close()
        print(number, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

"""Search: exact against the machine's own rates, and everything beside the library underneath, in one run.

    python -m benchmarks.timings.search [--curves]

The first rows hold exact search against reading the same bytes and multiplying the same matrices. Then each backend is
put beside its library called directly with the same settings, and exact search beside FAISS's flat index and vicinity.
``--curves`` measures recall, queries a second and memory from 10,000 to 1,000,000 clips and writes docs/scaling.md's
table and plot data (benchmarks/results/search.json).
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages import RESULTS, fill, table
from benchmarks.timings.figures import figure
from hscmae.search.exact import BLOCK_ROWS, QUERIES, SCORES, ExactSearch
from hscmae.search.faiss import CONSTRUCTION, LINKS, FaissBackend
from hscmae.search.lancedb import PROBES, REFINE, LanceBackend

DIM, K, MANY = 64, 10, 1_000_000
KINDS = ("exact", "faiss", "lancedb")
SIZES = (10_000, 100_000, 1_000_000)
PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def clips(n: int, dim: int = DIM) -> np.ndarray:
    """Unit rows of many loose clusters, as embeddings of events are; float32, shape (n, dim)."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((500, dim), dtype=np.float32)
    x = centres[rng.integers(0, 500, n)] + 0.8 * rng.standard_normal((n, dim), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def queries_of(x: np.ndarray, n: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    q = x[rng.choice(len(x), n)] + 0.05 * rng.standard_normal((n, x.shape[1]), dtype=np.float32)
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def best(*works: Callable[[], Any], times: int = 5) -> list[float]:
    """Seconds of each, the best of several turns, taken by turns so that all see the same machine."""
    seconds = [float("inf")] * len(works)
    for _ in range(times):
        for place, work in enumerate(works):
            start = time.perf_counter()
            work()
            seconds[place] = min(seconds[place], time.perf_counter() - start)
    return seconds


def limits(n: int = MANY) -> list[dict[str, Any]]:
    """Exact search against the memory's read rate and the matrix rate."""
    x = clips(n)
    q = queries_of(x, QUERIES)
    search = ExactSearch(x)
    step = SCORES // QUERIES
    scores = np.empty((QUERIES, step), np.float32)

    def multiply() -> None:
        for start in range(0, n - step + 1, step):
            np.matmul(q, x[start : start + step].T, out=scores)

    pieces = [x[start : start + BLOCK_ROWS] for start in range(0, n, BLOCK_ROWS)]
    read, one, product, many = best(
        lambda: [piece.max() for piece in pieces], lambda: search(q[:1], K), multiply, lambda: search(q, K)
    )
    return [
        figure(
            f"exact, one query, {n:,} x {DIM}", one * 1e3, "ms", ">= 0.6 x",
            reference=f"reading the same bytes {read * 1e3:.1f} ms", ratio=read / one,
        ),
        figure(
            f"exact, {QUERIES} queries, {n:,} x {DIM}", many * 1e3, "ms", ">= 0.5 x",
            reference=f"the matrix product alone {product * 1e3:.0f} ms", ratio=product / many,
        ),
    ]  # fmt: skip


def rivals(n: int = 100_000) -> list[dict[str, Any]]:
    """Each backend beside the library underneath, and exact search beside other exact ones."""
    import faiss

    x, rows = clips(n), []
    q = queries_of(x, QUERIES)
    names = [str(i) for i in range(n)]
    exact = ExactSearch(x)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(x)
    for asked in (q[:1], q):
        ours, theirs = best(lambda a=asked: exact(a, K), lambda a=asked: flat.search(a, K))
        rows.append(_beside(f"exact, {len(asked)} queries, {n:,} clips", ours, "FAISS flat", theirs, len(asked)))
    try:
        from vicinity import Backend as Kind
        from vicinity import Metric, Vicinity

        basic = Vicinity.from_vectors_and_items(x, names, backend_type=Kind.BASIC, metric=Metric.COSINE)
        ours, theirs = best(lambda: exact(q, K), lambda: basic.query(q, k=K), times=2)
        rows.append(_beside(f"exact, {QUERIES} queries, {n:,} clips", ours, "vicinity", theirs, QUERIES))
    except ImportError:
        rows.append(figure("exact beside vicinity", None, "ms", reason="vicinity is not installed"))

    with tempfile.TemporaryDirectory() as folder:
        backend = FaissBackend(Path(folder) / "faiss", DIM, ("audio",))
        backend.add(names, {"audio": x}, [[]] * n)
        graph = faiss.IndexHNSWFlat(DIM, LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = CONSTRUCTION
        graph.add(x)
        effort = faiss.SearchParametersHNSW(efSearch=backend.effort["audio"])
        ours, theirs = best(lambda: backend.search("audio", q, K), lambda: graph.search(q, K, params=effort))
        rows.append(_beside(f"faiss, {QUERIES} queries, {n:,} clips", ours, "faiss directly", theirs, QUERIES))

        small = 20_000  # flat: what both do without an index
        lance = LanceBackend(str(Path(folder) / "lance"), DIM, ("audio",))
        lance.add(names[:small], {"audio": x[:small]}, [[]] * small)
        lance.finish()

        def directly() -> None:
            asked = list(q[:64])
            found = lance._table.search(asked, vector_column_name="audio").distance_type("cosine").limit(K)
            found.select(["id", "_distance"]).nprobes(PROBES).refine_factor(REFINE).to_arrow().to_pylist()

        ours, theirs = best(lambda: lance.search("audio", q[:64], K), directly)
        rows.append(_beside(f"lancedb, 64 queries, {small:,} clips", ours, "lancedb directly", theirs, 64))
    return rows


def _beside(name: str, ours: float, rival: str, theirs: float, queries: int) -> dict[str, Any]:
    return figure(
        f"search: {name}", ours * 1e3, "ms", "<= 1.1 x",
        reference=f"{rival} {theirs * 1e3:.1f} ms ({queries / theirs:.0f} queries/s)", ratio=ours / theirs,
    )  # fmt: skip


def curve(kind: str, n: int) -> dict[str, Any]:
    """Recall@10, queries a second (256 at once and one by one), seconds to build and MiB of one backend at one size.

    In a process of its own: its peak memory is its own.
    """
    x = clips(n)
    q = queries_of(x, QUERIES)
    expected = ExactSearch(x)(q, K).rows.tolist()
    before = _peak()
    names = [str(i) for i in range(n)]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if kind == "exact":
            exact = ExactSearch(x)

            def ask(a: np.ndarray) -> list[list[int]]:
                return exact(a, K).rows.tolist()
        else:
            backend = (
                FaissBackend(Path(folder) / "f", DIM, ("audio",))
                if kind == "faiss"
                else LanceBackend(folder, DIM, ("audio",))
            )
            for first in range(0, n, 50_000):
                part = slice(first, first + 50_000)
                backend.add(names[part], {"audio": x[part]}, [[]] * len(names[part]))
            backend.finish()

            def ask(a: np.ndarray) -> list[list[int]]:
                return [[int(name) for name, _ in found] for found in backend.search("audio", a, K)]

        def recall() -> float:
            return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(ask(q), expected, strict=True)]))

        reached = recall()
        while kind == "faiss" and reached < 0.98:
            backend.search_harder("audio")
            reached = recall()
        built = time.perf_counter() - start
        many, one = best(lambda: ask(q), lambda: [ask(q[i : i + 1]) for i in range(16)], times=3)
    return {
        "backend": kind,
        "clips": n,
        "recall": reached,
        "together": QUERIES / many,
        "singly": 16 / one,
        "built": built,
        "mib": (_peak() - before) / 2**20,
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


HEAD = (
    "backend", "clips", "recall@10", "queries/s, 256 at once", "queries/s, one by one", "built in", "more memory"
)  # fmt: skip


def line(r: dict[str, Any]) -> list[str]:
    """A result as cells under ``HEAD``."""
    speeds = [f"{r['together']:,.0f}", f"{r['singly']:,.0f}"]
    return [
        r["backend"],
        f"{r['clips']:,}",
        f"{r['recall']:.3f}",
        *speeds,
        f"{r['built']:.0f} s",
        f"{r['mib']:.0f} MiB",
    ]


def rows() -> list[dict[str, Any]]:
    """For the table of all timings."""
    return limits() + rivals()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", action="store_true", help="measure recall, speed and memory by size")
    parser.add_argument("--most", type=int, default=MANY, help="clips of the largest size")
    parser.add_argument("--backends", nargs="+", default=KINDS, choices=KINDS, help="others' figures are kept")
    given = parser.parse_args()
    if not given.curves:
        for row in rows():
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} x"
            print(f"{row['name']}: {row['value']:.1f} {row['unit']}; {row['reference']}; {ratio} ({row['target']})")
        return
    kept = RESULTS / "search.json"
    found = [r for r in json.loads(kept.read_text()) if r["backend"] not in given.backends] if kept.exists() else []
    for n in (size for size in SIZES if size <= given.most):
        for kind in given.backends:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                found.append(process.submit(curve, kind, n).result())
            print(" | ".join(line(found[-1])), flush=True)
    found.sort(key=lambda r: (r["clips"], KINDS.index(r["backend"])))
    kept.write_text(json.dumps(found, indent=1) + "\n")
    fill(PAGE, "benchmarks/timings/search.py", {"scaling": table(HEAD, [line(r) for r in found])})


if __name__ == "__main__":
    main()

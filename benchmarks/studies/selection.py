"""Which label-free criterion on held-out pairs should choose settings, epochs and dimension?

    python -m benchmarks.studies.selection DATA [--tasks ave15 vegas ...] [--only closed folds deep]    # resumable
    python -m benchmarks.studies.selection --report    # from the csv alone

``DATA`` is the folder of ``yt8m_ave15.h5`` and ``yt8m_pool.h5``. A job fits one model without labels and writes one row
a candidate (a truncation, a share of anchors, or a measured step of that fit) to ``results/selection.csv``: its test
mAP and every criterion on held-out pairs. ``selection_report.py`` turns them into ``docs/selection.md``'s figures.
"""

from __future__ import annotations

import argparse
import copy
import csv
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score

import hscmae
from benchmarks.pages import RESULTS
from benchmarks.studies import selection_report
from benchmarks.studies.criteria import held_out_correlation, linear_cka, mean_rank, paired_mrr
from hscmae.benchmark.damage import with_wrong_pairs
from hscmae.data.pairs import Labels, Pairs
from hscmae.data.splits import exclude_ids, resplit, validation_rows
from hscmae.demo.run import make_data
from hscmae.evaluation.retrieval import Retrieval
from hscmae.evaluation.selection import alignment_gap, effective_rank, mutual_knn, nearest
from hscmae.linear.smoothing import fuse
from hscmae.methods import get_method
from hscmae.methods.base import Method
from hscmae.nn.anchors import attend

Rows = npt.NDArray[np.intp]
Views = dict[str, np.ndarray]  # modality -> embeddings of unit norm
Settings = dict[str, Any]

TABLE = RESULTS / "selection.csv"
RESPLIT, TEST_SHARE, HELD_OUT_SHARE, FOLDS = 100, 0.2, 1 / 7, 3
SMALL = 186  # held-out pairs of ave15, the least that one meets
DIM, DIMS = 64, (1, 2, 4, 8, 16, 32, 64, 128)
ANCHORS = {"tau": 0.1, "share": 0.6}
ONE_OF = (
    *("Car", "Dance", "Guitar", "Piano", "Association football"),
    *("Cartoon", "Food", "Animal", "Motorcycle", "Mobile phone"),
)
TASKS = ("ave15", "vegas", "multi", "ave15-wrong", "ave15/101", "demo/0", "demo/1")
WITH_NETWORKS = ("ave15", "vegas", "multi")
WRONG = 0.4  # of the training pairs, held-out ones as well
VEGAS_CLIPS, MULTI_CLIPS, MULTI_TRAIN = 4000, 6000, 4000


# --- tasks -----------------------------------------------------------------------------------------------------------


@cache
def task(name: str, folder: Path) -> Pairs:
    """Complete clips with a split into train, val (a seventh of the training pairs) and test.

    Args:
        name: one of ``TASKS``.
        folder: of the two files.
    """
    kind, _, damage = name.partition("-")
    if kind.startswith("demo"):
        with tempfile.TemporaryDirectory() as media:
            pairs = make_data(Path(media), clips=1000, seed=int(kind.partition("/")[2]), progress=lambda *_: None)
            pairs = pairs.usable()
            pairs = pairs.take(np.flatnonzero(pairs.complete()))
    elif kind.startswith("ave15"):
        _, _, seed = kind.partition("/")
        pairs = resplit(hscmae.read(folder / "yt8m_ave15.h5"), int(seed or RESPLIT), TEST_SHARE)
        pairs = with_wrong_pairs(pairs, WRONG if damage else 0.0, 0)
    else:
        ave15 = hscmae.read(folder / "yt8m_ave15.h5")
        pool = exclude_ids(hscmae.read(folder / "yt8m_pool.h5"), ave15.of_split("test").ids.tolist())
        pool = pool.take(np.flatnonzero(pool.usable().complete()))
        order = np.random.default_rng(0).permutation(len(pool))
        if name == "vegas":
            assert pool.labels is not None
            of = pool.labels.one_hot()[:, [pool.labels.names.index(c) for c in ONE_OF]]
            rows = order[of[order].sum(axis=1) == 1][:VEGAS_CLIPS]
            pairs = replace(pool.take(rows), labels=Labels.single(of[rows].argmax(axis=1), ONE_OF))
            pairs = resplit(pairs, RESPLIT, TEST_SHARE)
        else:
            pairs = resplit(pool.take(order[:MULTI_CLIPS]), RESPLIT, 1 - MULTI_TRAIN / MULTI_CLIPS)
    assert pairs.split is not None
    train = pairs.rows_of("train")
    split = pairs.split.copy()
    split[train[validation_rows(pairs.ids[train], HELD_OUT_SHARE, 0)[1]]] = b"val"
    return replace(pairs, split=split)


# --- criteria --------------------------------------------------------------------------------------------------------


def criteria(z: Views, raw: Views) -> dict[str, float]:
    """Every criterion on held-out pairs, higher is better, and the effective rank; ``raw`` are their features."""
    a, v = z.values()
    n = len(a)
    ks = {"5": 5, "10": 10, "20": 20, "50": 50, "100": 100, "n/20": n // 20, "n/10": n // 10, "n/5": n // 5}
    found = {
        "gap": alignment_gap(a, v),
        "cka": linear_cka(a, v),
        "mean_rank": -mean_rank(a, v),
        "mrr": paired_mrr(a, v),
        "correlation": held_out_correlation(a, v),
        "rsa": rsa(a, v),
        "rank": (effective_rank(a) * effective_rank(v)) ** 0.5,
        "ami_joint": clusters_agree(a, v, joint=True),
        "ami_apart": clusters_agree(a, v, joint=False),
    }
    found |= {f"knn_{name}": mutual_knn(a, v, k) for name, k in ks.items()}
    for name in ("50", "n/10"):
        found[f"hub_{name}"] = found[f"knn_{name}"] - hub_agreement(a, v, ks[name])
    for name in ("20", "n/10", "n/5"):
        found[f"cross_{name}"] = cross_knn(a, v, ks[name])
        found[f"raw_{name}"] = raw_knn(z, raw, ks[name])
    return found


def rsa(a: np.ndarray, v: np.ndarray) -> float:
    """Representational similarity: Spearman of the two modalities' cosines, over all pairs of clips."""
    above = np.triu_indices(len(a), 1)
    ranks = [rankdata((x @ x.T)[above]) for x in (a, v)]
    return 0.0 if any(r.std() == 0 for r in ranks) else float(np.corrcoef(*ranks)[0, 1])


def hub_agreement(a: np.ndarray, v: np.ndarray, k: int) -> float:
    """The mutual k-NN agreement of clips with other clips: what hubs alone give, whoever is paired with whom."""
    often = [np.bincount(nearest(x, k).ravel(), minlength=len(x)) for x in (a, v)]
    return float(often[0] @ often[1] / (len(a) ** 2 * k))


def clusters_agree(a: np.ndarray, v: np.ndarray, joint: bool, clusters: int = 20) -> float:
    """Mutual information, adjusted for chance, of the clusters of a clip's two embeddings; k-means on all or each."""
    means = KMeans(clusters, n_init=1, random_state=0)
    if joint:
        both = means.fit_predict(np.concatenate([a, v]))
        return float(adjusted_mutual_info_score(both[: len(a)], both[len(a) :]))
    return float(adjusted_mutual_info_score(means.fit_predict(a), means.fit_predict(v)))


def top(scores: np.ndarray, k: int, seed: int) -> Rows:
    """The k highest columns of each row, a row's own clip excluded, ties broken at random."""
    away = -scores + 1e-7 * np.random.default_rng(seed).random(scores.shape)
    np.fill_diagonal(away, np.inf)
    return np.argpartition(away, k - 1, axis=1)[:, :k]


def overlap(first: Rows, second: Rows) -> float:
    """Mean share of two lists of k that they have in common."""
    shift = np.arange(len(first))[:, None] * len(first)
    return len(np.intersect1d(first + shift, second + shift, assume_unique=True)) / first.size


def cross_knn(a: np.ndarray, v: np.ndarray, k: int) -> float:
    """What a query finds in the other modality against what its partner finds there, itself excluded."""
    found = [overlap(top(q @ g.T, k, 1), top(g @ g.T, k, 2)) for q, g in ((a, v), (v, a))]
    return float(np.mean(found))


def raw_knn(z: Views, raw: Views, k: int) -> float:
    """What a query finds in the other modality against the neighbours of its partner by the features themselves."""
    (a, v), (x, y) = z.values(), raw.values()
    found = [overlap(top(q @ g.T, k, 1), top(f @ f.T, k, 2)) for q, g, f in ((a, v, y), (v, a, x))]
    return float(np.mean(found))


# --- jobs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One fit, or the four of a cross-fitted one."""

    task: str
    kind: str  # closed, folds, deep
    method: str
    settings: Settings = field(default_factory=dict)
    preset: str = "default"

    @property
    def key(self) -> tuple[str, str, str, str]:
        settings = self.settings if self.preset == "default" else {"preset": self.preset, **self.settings}
        return self.task, self.kind, self.method, json.dumps(settings, sort_keys=True)


def jobs(name: str) -> Iterator[Job]:
    """Every fit of a task, the cheapest kind first."""
    for ridge in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0):
        yield Job(name, "closed", "ridge-cca", {"ridge": ridge})
        yield Job(name, "folds", "ridge-cca", {"ridge": ridge})
    for ridge in (1.0, 10.0, 100.0):
        yield Job(name, "closed", "ridge-cca", {"ridge": ridge, "scale": False})
    for scale in (True, False):
        yield Job(name, "closed", "pls", {"scale": scale})
    for k, ridge in product((50, 20, 10, 150), (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)):
        yield Job(name, "closed", "smoothed-cca", {"ridge": ridge, "k": k})
        if k in (20, 50):
            yield Job(name, "folds", "smoothed-cca", {"ridge": ridge, "k": k})
    for ridge in (10.0, 1.0):
        for dim in DIMS:
            if dim != DIM:
                yield Job(name, "closed", "smoothed-cca", {"ridge": ridge, "dim": dim})
        for tau in (0.03, 0.3, 1.0):
            yield Job(name, "closed", "smoothed-cca", {"ridge": ridge, "tau": tau})
        yield Job(name, "closed", "smoothed-cca", {"ridge": ridge, "hops": 2})
    if name not in WITH_NETWORKS:
        return
    for settings in (
        {},
        {"loss_tau": 0.1, "network_dropout": 0.3},
        {"training_lr": 3e-3, "network_dropout": 0.0},
        {"dim": 16},
    ):
        yield Job(name, "deep", "infonce", settings)
    for settings in (
        {"warm_start_ridge": 10.0},
        {"warm_start_ridge": 1.0},
        {"warm_start_ridge": 10.0, "masking_ratio": 0.3, "affinity_k": 10, "anchors_share": 0.0},
        {"warm_start_ridge": 10.0, "dim": 16},
    ):
        yield Job(name, "deep", "hscmae", settings)
    for settings in ({}, {"training_lr": 3e-3, "masking_ratio": 0.7, "affinity_k": 20}, {"dim": 16}):
        yield Job(name, "deep", "hscmae", settings, "paper")


@dataclass(frozen=True)
class Candidate:
    """Something to choose: what it is, its embeddings of held-out and of test rows."""

    family: str
    dim: int
    step: int
    held_out: list[tuple[Views, Views]]  # embeddings and features, once or once a fold
    test: Views


def solve(job: Job, pairs: Pairs) -> Method:
    dim = max(DIMS) if job.method in ("ridge-cca", "pls") else job.settings.get("dim", DIM)
    return get_method(job.method)(**{**job.settings, "dim": dim}).fit(pairs)


def closed_views(model: Any, job: Job, train: Pairs, rows: Pairs) -> dict[tuple[str, int], Views]:
    """(family, dim) -> embeddings of ``rows``: exact truncations where directions come in order; with anchors."""

    def raw(pairs: Pairs) -> dict[str, torch.Tensor]:
        return {m: model.maps_(m, model._vectors(m, x, None)) for m, x in pairs.features.items()}

    z, training, found = raw(rows), raw(train), {}
    family = job.method + ("" if job.settings.get("scale", True) else " unscaled")
    for dim in DIMS if job.method in ("ridge-cca", "pls") else (model.config.dim,):
        cut = {m: F.normalize(x[:, :dim], dim=1) for m, x in z.items()}
        found[family, dim] = {m: x.numpy() for m, x in cut.items()}
        if job.method == "smoothed-cca":
            anchors = fuse({m: x[:, :dim] for m, x in training.items()})
            leaning = {m: F.normalize(attend(x, anchors, **ANCHORS), dim=1).numpy() for m, x in cut.items()}
            found[f"{family} + anchors", dim] = leaning
    return found


def features(model: Method, rows: Pairs) -> Views:
    """Standardised features at unit norm."""
    return {m: F.normalize(model._vectors(m, x, None), dim=1).numpy() for m, x in rows.features.items()}


def closed(job: Job, pairs: Pairs) -> list[Candidate]:
    """Fitted on the training rows but a seventh, which is held out."""
    train, held_out, test = (pairs.of_split(part) for part in ("train", "val", "test"))
    model = solve(job, pairs)
    ours, theirs = (closed_views(model, job, train, rows) for rows in (held_out, test))
    x = features(model, held_out)
    return [Candidate(family, dim, 0, [(z, x)], theirs[family, dim]) for (family, dim), z in ours.items()]


def folds(job: Job, pairs: Pairs) -> list[Candidate]:
    """Criteria over three folds of all training rows, as a ridge is chosen; mAP of the fit on all of them."""
    assert pairs.split is not None
    train, test = pairs.take(np.flatnonzero(pairs.split != b"test")), pairs.of_split("test")
    order = np.random.default_rng(0).permutation(len(train))
    held_out: dict[tuple[str, int], list[tuple[Views, Views]]] = {}
    for fold in range(FOLDS):
        out = np.zeros(len(train), dtype=bool)
        out[order[fold::FOLDS]] = True
        fit, rest = (replace(train.take(np.flatnonzero(rows)), split=None) for rows in (~out, out))
        model = solve(job, fit)
        for key, z in closed_views(model, job, fit, rest).items():
            held_out.setdefault(key, []).append((z, features(model, rest)))
    whole = replace(train, split=None)
    final = closed_views(solve(job, whole), job, whole, test)
    return [Candidate(family, dim, 0, held_out[family, dim], z) for (family, dim), z in final.items()]


def deep(job: Job, pairs: Pairs) -> list[Candidate]:
    """Every measured step of one training on the training rows but a seventh."""
    held_out, test = pairs.of_split("val"), pairs.of_split("test")
    candidates: list[Candidate] = []
    family = job.method + ("" if job.preset == "default" else f" {job.preset}")

    class Traced(get_method(job.method)):  # type: ignore[misc]
        def _measure(self, objective: Any, rows: Any, validation: Any) -> Any:
            self.head_ = self._fit_head(objective, rows)
            self.network_ = copy.deepcopy(self._trained(objective)).eval()
            self.anchors_ = self._fit_anchors(rows.pairs, rows.rows)
            z, z_test = self.embed_pairs(held_out), self.embed_pairs(test)
            step = len(candidates)
            candidates.append(Candidate(family, self.config.dim, step, [(z, features(self, held_out))], z_test))
            return super()._measure(objective, rows, validation)

    still = {"training_refit": False, "training_patience": 1000, "training_device": "cpu"}
    Traced(preset=job.preset, **job.settings, **still).fit(pairs)
    return candidates


RUN: Mapping[str, Callable[[Job, Pairs], list[Candidate]]] = {"closed": closed, "folds": folds, "deep": deep}


def measured(job: Job, pairs: Pairs) -> list[dict[str, Any]]:
    """The rows of the csv that come of a job; ``small`` rows repeat the criteria on 186 held-out pairs."""
    began = time.perf_counter()
    candidates = RUN[job.kind](job, pairs)
    seconds = round(time.perf_counter() - began, 2)
    test, rows = pairs.of_split("test"), []
    for c in candidates:
        score = Retrieval(c.test, test.labels).metrics(bootstrap=0)["avg/mAP"]
        same = dict(zip(("task", "kind", "method", "settings"), job.key, strict=True))
        same |= {"family": c.family, "dim": c.dim, "step": c.step, "fit_seconds": seconds, "mAP": round(score, 5)}
        variants = {"all": c.held_out}
        if job.kind != "folds" and len(next(iter(c.held_out[0][0].values()))) > SMALL:
            variants["small"] = [tuple({m: x[:SMALL] for m, x in part.items()} for part in c.held_out[0])]
        for held_out, parts in variants.items():
            each = [criteria(*part) for part in parts]
            mean = {name: round(float(np.mean([one[name] for one in each])), 5) for name in each[0]}
            rows.append({**same, "held_out": held_out, "n": len(next(iter(parts[0][0].values()))), **mean})
    return rows


def append(rows: list[dict[str, Any]]) -> None:
    """Add rows to the csv, its header first."""
    TABLE.parent.mkdir(exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    if not TABLE.exists():
        writer.writeheader()
    writer.writerows(rows)
    with TABLE.open("ab", buffering=0) as file:  # one write: two processes may fill the file at a time
        file.write(text.getvalue().encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="folder of yt8m_ave15.h5 and yt8m_pool.h5")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--only", nargs="+", default=tuple(RUN), choices=tuple(RUN))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no job after so long")
    parser.add_argument("--report", action="store_true", help="tables and plots from the csv, nothing fitted")
    arguments = parser.parse_args()
    if arguments.report:
        selection_report.report(TABLE)
        return
    if arguments.data is None:
        parser.error("DATA is needed, or --report")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Number of distinct clusters")  # few dimensions, many ties
    began = time.perf_counter()
    done = set()
    if TABLE.exists():
        with TABLE.open(encoding="utf-8", newline="") as file:
            done = {tuple(row[name] for name in ("task", "kind", "method", "settings")) for row in csv.DictReader(file)}
    for name in arguments.tasks:
        for job in sorted(jobs(name), key=lambda job: list(RUN).index(job.kind)):
            if job.kind not in arguments.only or job.key in done:
                continue
            if time.perf_counter() - began > arguments.seconds:
                print("out of time; the same command goes on")
                return
            rows = measured(job, task(name, arguments.data))
            append(rows)
            best = max(row["mAP"] for row in rows)
            print(f"{' '.join(job.key)}: {rows[0]['fit_seconds']} s, best mAP {best:.4f}", flush=True)


if __name__ == "__main__":
    main()

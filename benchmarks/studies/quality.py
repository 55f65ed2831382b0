"""The quality of every method on every task, and ``docs/benchmark.md`` and README's figures from it.

    python -m benchmarks.studies.quality DATA [--output bench] [--tasks ave15 ...] [--jobs 2] [--report]
    python -m benchmarks.studies.quality --made-up    # every method once on made-up pairs, in minutes; no document

DATA is a folder with ``yt8m_ave15.h5`` and ``yt8m_pool.h5``. Each task is a `hscmae benchmark` into a folder of its
own, and goes on where it was killed. ``--report`` only writes the document from what is there.

- ave15: ten random resplits of the 1,629 clips, which were looked at in development.
- ave15-tuned: the first two of them, every method tuned by six label-free trials on the first.
- ave15-hash: the same clips, cut by id hash, read once; and the curves.
- vegas10: of VEGAS's shape. Of the pool's labels by frequency, ten that development did not use (the 16th to the
  25th); clips that carry exactly one of them, without the clips of ave15; three resplits.
- pool: all other clips of the pool with all their labels, cut by id hash.
- ablation, sensitivity: HSC-MAE's parts, and its mask ratio, on the first resplit of ave15, a development split.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import hscmae
from benchmarks.pages import ROOT, fill, table
from hscmae.benchmark.ablation import ablate, variants
from hscmae.benchmark.curves import curve_lines
from hscmae.benchmark.jobs import OURS, Contender, contenders
from hscmae.benchmark.protocol import benchmark
from hscmae.benchmark.runner import Record, Running
from hscmae.benchmark.table import METRICS, by_split, paired, rows
from hscmae.cli.progress import jobs_progress
from hscmae.config import HSCMAEConfig
from hscmae.data.pairs import Labels, Pairs
from hscmae.data.splits import holdout

DOCUMENT = ROOT / "docs" / "benchmark.md"
PLOTS = ROOT / "docs" / "benchmark"
HASH = "id-hash:0.2"
ANCHORED = ("ridge-cca", "smoothed-cca", "smoothed-kernel-cca")  # closed forms that are also given HSC-MAE's anchors


@dataclass(frozen=True)
class Task:
    """One benchmark: what it is called in the document, and how it is run."""

    title: str
    seeds: int = 1
    splits: int = 0
    trials: int = 0
    curves: tuple[str, ...] = ()


TASKS = {
    "ave15": Task("15 classes, 1,629 clips, ten resplits", splits=10),
    "ave15-tuned": Task("The same clips, two resplits, every method tuned", splits=2, trials=6),
    "ave15-hash": Task("The same clips, cut by id hash", seeds=2, curves=("wrong-pairs", "co-occurrence", "partial")),
    "vegas10": Task("10 classes, of VEGAS's shape, three resplits", splits=3),
    "pool": Task("27,000 clips with several labels each, cut by id hash"),
}


@dataclass(frozen=True)
class Ablation:
    """What is changed in HSC-MAE: names as ``hscmae ablate --parts`` takes them, all parts where empty."""

    title: str
    seeds: int
    parts: tuple[str, ...] = ()


ABLATIONS = {
    "ablation": Ablation("HSC-MAE's parts, one changed at a time", seeds=3),
    "sensitivity": Ablation("HSC-MAE's sensitivity to the mask ratio", seeds=2, parts=("masking.ratio",)),
}


def who() -> list[Contender]:
    """Every method, and closed forms with anchors."""
    share = HSCMAEConfig().anchors.share
    anchored = [Contender(f"{name} + anchors", name, settings={"anchors": {"share": share}}) for name in ANCHORED]
    return [*contenders(["all"]), *anchored]


def pairs_of(task: str, data: Path) -> Pairs:
    """The data of a task, with its split where it has one of its own."""
    ave = hscmae.read(data / "yt8m_ave15.h5")
    if task in ("ave15", "ave15-tuned"):
        return ave
    if task == "ave15-hash":
        return replace(ave, split=holdout(ave.ids, HASH, ave.source))
    pool = hscmae.read(data / "yt8m_pool.h5")
    pool = pool.take(np.flatnonzero(~np.isin(pool.ids, ave.ids)))
    if task == "pool":
        return replace(pool, split=holdout(pool.ids, HASH, pool.source))
    assert pool.labels is not None
    labels = pool.labels
    often = np.argsort(-np.bincount(labels.indices), kind="stable")[15:25]
    of_these = np.isin(labels.indices, often)
    row = np.repeat(np.arange(len(pool)), np.diff(labels.indptr))[of_these]
    once = np.bincount(row, minlength=len(pool)) == 1
    label = np.zeros(len(pool), dtype=np.int64)
    label[row] = labels.indices[of_these]
    pool = pool.take(np.flatnonzero(once))
    return replace(pool, labels=Labels.single(np.searchsorted(np.sort(often), label[once])))


def results(folder: Path) -> list[Record]:
    """A task's fits on undamaged pairs, with each clip's AP."""
    found = [json.loads(file.read_bytes()) for file in sorted((folder / "fits").iterdir())]
    return [record for record in found if not record["damage"]]


def ratios(folder: Path) -> str:
    """HSC-MAE against the two rivals that the project's targets name."""
    values = {name: by_split(results(folder), name, METRICS[0]) for name in (OURS, "ridge-cca", "cav-mae")}
    found = {name: np.mean(paired(values[OURS], values[name], lambda a, b: a / b)) for name in values if name != OURS}
    words = ", to ".join(f"{name} {ratio:.3f}" for name, ratio in found.items())
    return f"Mean paired ratio of HSC-MAE to {words}."


def main_table(folder: Path) -> str:
    """README's table: every method on one task, and how far HSC-MAE is ahead of it."""
    lines = []
    for row in rows(results(folder), who(), against=OURS):
        low, high = row.difference_ci or (0.0, 0.0)
        ahead = "" if row.name == OURS else f"{-high:+.3f} to {-low:+.3f}"
        name = f"**{row.name}**" if row.name == OURS else row.name + " (*reads labels*)" * row.reads_labels
        lines.append((name, f"{row.mean:.3f}", ahead))
    return table(("method", "mAP", "HSC-MAE ahead by (95%, paired by split)"), lines)


def other_tasks(output: Path) -> str:
    """README's table of the other tasks: HSC-MAE and its best rivals, with anchors and without."""
    lines = []
    for name, task in list(TASKS.items())[1:]:
        if task.trials:
            continue
        found = results(output / name)
        cells = [task.title]
        for rivals in (contenders(["all"]), who()):
            ours = next(row for row in rows(found, rivals) if row.name == OURS)
            low, high = ours.difference_ci or (0.0, 0.0)
            best = next(row for row in rows(found, rivals) if row.name == ours.rival)
            cells.append(f"{best.name} {best.mean:.3f}: {low:+.3f} to {high:+.3f}")
        ridge = next(row for row in rows(found, who()) if row.name == "ridge-cca")
        lines.append((cells[0], f"{ridge.mean:.3f}", f"**{ours.mean:.3f}**", *cells[1:]))
    head = (
        "task",
        "ridge-cca",
        "**hscmae**",
        "best rival, HSC-MAE's lead (95%)",
        "the same with anchors for closed forms",
    )
    return table(head, lines)


def losses(folder: Path) -> str:
    """What wrong pairs cost each method, in words."""
    lines, _ = curve_lines(json.loads((folder / "curves.json").read_bytes()), "wrong-pairs")
    told = []
    for name in (OURS, "smoothed-kernel-cca", "smoothed-cca", "ridge-cca", "mae", "infonce"):
        at = dict(zip(*lines[name], strict=True))
        told.append(f"{name} {at[0.4] / at[0] - 1:+.1%} and {at[0.6] / at[0] - 1:+.1%}")
    return "Change of mAP with 40 and 60% of the training pairs permuted: " + "; ".join(told) + "."


def write_document(output: Path) -> None:
    """``docs/benchmark.md`` and its plots, from the folders of the tasks that have been run; then README's figures."""
    text = [
        "# Benchmark",
        "",
        "Regenerated by `make bench-quality DATA=FOLDER`. What is measured how: [benchmarking.md](benchmarking.md).",
        "YouTube-8M features (VGGish audio, Inception visual): not comparable with figures published on AVE or VEGAS.",
        "Where it says *tuned*, settings come of six label-free trials on the first split's training rows, as many for",
        "each method. Elsewhere they are defaults, those of deep rivals chosen by agreement on ave15's training rows.",
        "Closed forms choose their ridge. *+ anchors*: a closed form that is given HSC-MAE's anchors as well.",
        "",
    ]
    PLOTS.mkdir(exist_ok=True)
    for name, task in (TASKS | ABLATIONS).items():
        folder = output / name
        written = folder / ("benchmark.md" if name in TASKS else "ablation.md")
        if not written.exists():
            continue
        report = written.read_text(encoding="utf-8")
        text += [f"## {task.title}", "", report.replace("\n# ", "\n### ").removeprefix("# ").strip(), ""]
        text += [ratios(folder), ""] if name in TASKS else []
        for plot in sorted(folder.glob("*.svg")):
            shutil.copy(plot, PLOTS / f"{name}-{plot.name}")
            text += [f"![{name}: {plot.stem}](benchmark/{name}-{plot.name})", ""]
    DOCUMENT.write_text("\n".join(text), encoding="utf-8")
    if all((output / name / "benchmark.md").exists() for name in TASKS):
        parts = {
            "methods": main_table(output / "ave15"),
            "wrong pairs": losses(output / "ave15-hash"),
            "tasks": other_tasks(output),
        }
        fill(ROOT / "README.md", "benchmarks/studies/quality.py", parts)


def made_up(output: Path, jobs: int) -> None:
    """Every method through the protocol on made-up pairs; prints the table."""
    pairs = hscmae.synthetic_pairs(600, seed=0).pairs
    with jobs_progress(enabled=True) as progress:
        benchmark(
            pairs,
            output,
            who(),
            seeds=1,
            splits=1,
            overwrite=True,
            jobs=jobs,
            threads=1,
            progress=progress,
        )
    print((output / "benchmark.md").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--made-up", action="store_true", help="every method once on made-up pairs")
    parser.add_argument("--output", type=Path, default=Path("bench"))
    parser.add_argument("--tasks", nargs="+", default=[*TASKS, *ABLATIONS], choices=[*TASKS, *ABLATIONS])
    parser.add_argument("--jobs", type=int, default=2, help="fits at a time, of one thread each")
    parser.add_argument("--report", action="store_true", help="only write the document")
    arguments = parser.parse_args()
    if arguments.made_up:
        made_up(arguments.output / "made-up", arguments.jobs)
        return
    if arguments.data is None:
        parser.error("DATA is needed, or --made-up")
    for name in [] if arguments.report else arguments.tasks:
        folder = arguments.output / name
        with jobs_progress(enabled=True) as progress:
            running: Running = {
                "resume": folder.exists(),
                "jobs": arguments.jobs,
                "threads": 1,
                "progress": progress,
            }
            if name in ABLATIONS:
                parts = variants(*contenders([OURS]), ABLATIONS[name].parts)
                ablate(
                    pairs_of("ave15", arguments.data), folder, parts, seeds=ABLATIONS[name].seeds, splits=1, **running
                )
                continue
            task = TASKS[name]
            benchmark(
                pairs_of(name, arguments.data),
                folder,
                who(),
                seeds=task.seeds,
                splits=task.splits,
                trials=task.trials,
                own_split=HASH,
                curves=task.curves,
                **running,
            )
    write_document(arguments.output)


if __name__ == "__main__":
    main()

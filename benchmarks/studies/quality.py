"""The quality of every method on every task, and ``docs/benchmark.md`` and README's figures from it.

    python -m benchmarks.studies.quality DATA [--output bench] [--tasks ave15 ...] [--cuts 5] [--without dccae ...]
    python -m benchmarks.studies.quality --made-up    # every method once on made-up pairs, in minutes; no document

DATA is a folder with the files that ``tasks`` names; real clips are looked for beside it. Each cut of a task is a
`hscmae benchmark` into a folder of its own, and goes on where it was killed; the first cut of every task comes before
the second of any. ``--report`` only writes the document from what is there.

- every task, default settings: all methods on the first cut, those that came near HSC-MAE there on the others; beside
  the methods as published, rivals that are given HSC-MAE's anchors, and deep ones its kernel view too.
- wrong-pairs: the first cut of ave15 with 20, 40 and 60% of the training pairs permuted.
- sensitivity: HSC-MAE with one fixed mask ratio for all, from 0.1 to 0.9, on development cuts of training rows.
- ablation: HSC-MAE's parts, on such a cut of ave15. paper: the paper's, from its random start, on four sets.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import hscmae
from benchmarks.pages import ROOT, fill, table
from benchmarks.studies.tasks import TASKS, development
from hscmae.benchmark.ablation import ablate, variants
from hscmae.benchmark.curves import curve_lines
from hscmae.benchmark.jobs import OURS, Contender, contenders
from hscmae.benchmark.plots import draw
from hscmae.benchmark.protocol import benchmark
from hscmae.benchmark.runner import Record, Running
from hscmae.benchmark.table import METRICS, Row, by_split, markdown, rows
from hscmae.cli.progress import jobs_progress
from hscmae.config import HSCMAEConfig
from hscmae.data.pairs import Pairs
from hscmae.methods import get_method

DOCUMENT = ROOT / "docs" / "benchmark.md"
PLOTS = ROOT / "docs" / "benchmark"
SCRIPT = "benchmarks/studies/quality.py"
CLOSED = ("ridge-cca", "smoothed-cca", "kernel-cca", "smoothed-kernel-cca")
DEEP = ("dcca", "dccae", "infonce", "softclip", "mae", "cav-mae")
STRONG = "ridge-cca"
GIVEN = " + anchors, weights of pairs"
DAMAGED = (OURS, "smoothed-kernel-cca", f"smoothed-kernel-cca{GIVEN}", STRONG, "mae", "cav-mae", "infonce")
FILES = ("yt8m_ave15.h5", "mfeat.h5", "digits.h5", "ccv.h5", "yt8m_pool.h5")
POOL_ROWS = 4000
NEAR = 0.95  # of HSC-MAE's mAP on the first cut: who stays below it is not measured on the others


def who() -> list[Contender]:
    """Every method, and rivals that are given what HSC-MAE has beside its losses."""
    default = HSCMAEConfig()
    share = {"anchors": {"share": default.anchors.share}}
    weighted = share | {"weigh_pairs": True}
    kernel = weighted | {"linear": default.view.linear}
    view = share | {"view": {"kind": "kernel"}}
    closed = [Contender(f"{name}{GIVEN}", name, settings=kernel if "kernel" in name else weighted) for name in CLOSED]
    head = {"head": {"final": default.head.final, "ridge": default.head.ridge}}
    bare = [name for name in DEEP if get_method(name)().config.head.final == "none"]
    deep = [
        Contender(f"{name} + kernel view, anchors, head", name, settings=view | head)
        if name in bare
        else Contender(f"{name} + kernel view, anchors", name, settings=view)
        for name in DEEP
    ]
    return [*contenders(["all", f"{OURS}:paper-tuned"]), *closed, *deep]


def paper_parts() -> list[Contender]:
    """The paper's method from its random start, level by level, and what may make a level earn its place."""
    (tuned,) = contenders([f"{OURS}:paper-tuned"])
    whole = tuned.changed({"affinity": {"warmup": 0}})  # the preset brings it in: that is one of what is asked

    def without(*levels: str) -> dict[str, Any]:
        return {"loss": {f"{level}_weight": 0.0 for level in levels}}

    changes = {
        "global": without("local", "sample"),
        "local": without("global", "sample"),
        "global, local": without("sample"),
        "global, sample": without("local"),
        "and distillation": {"loss": {"distill_weight": 1.0}},
        "teacher through a head": {"head": {"refresh": 10}},
        "fixed weights": {"loss": {"learn_weights": False}},
        "local level brought in over 100 steps": {"affinity": {"warmup": 100}},
        "own pair half of the positives": {"affinity": {"pair_share": 0.5}},
    }
    return [
        replace(whole, part="whole"),
        *(replace(whole.changed(c), name=n, part="paper") for n, c in changes.items()),
    ]


@dataclass(frozen=True)
class Ablation:
    """What is changed in HSC-MAE: names as ``hscmae ablate --parts`` takes them, all parts where empty."""

    title: str
    seeds: int
    files: tuple[str, ...] = FILES[:1]
    parts: tuple[str, ...] = ()


ABLATIONS = {
    "ablation": Ablation("HSC-MAE's parts, one changed at a time", seeds=2),
    "paper": Ablation("The paper's method from its random start", 1, FILES[:4]),
    "sensitivity": Ablation("One mask ratio for all in place of a row's own", 1, FILES, parts=("masking.ratio",)),
}


def development_pairs(file: Path) -> Pairs:
    """A cut of the training rows; of the pool so many that a fit takes a minute."""
    pairs = development(hscmae.read(file), 0)
    if len(pairs) <= 2 * POOL_ROWS:
        return pairs
    return pairs.take(np.sort(np.random.default_rng(0).permutation(len(pairs))[:POOL_ROWS]))


def results(folder: Path) -> list[Record]:
    """A task's fits on undamaged pairs, with each clip's AP."""
    found = [json.loads(file.read_bytes()) for file in sorted(folder.glob("*/fits/*.json"))]
    return [record for record in found if not record["damage"]]


def summary_rows(folder: Path) -> list[Row]:
    """Best first by what is paired with HSC-MAE: means over unlike cuts have no order."""
    found = results(folder)
    names = {record["method"] for record in found}
    listed = rows(found, [contender for contender in who() if contender.name in names], OURS)
    lead = {row.name: row.difference for row in listed if row.difference is not None} | {OURS: 0.0}
    return sorted(listed, key=lambda row: -lead.get(row.name, -np.inf))


def ratios(output: Path) -> dict[str, dict[str, float]]:
    """Method -> task -> mean paired ratio of mAP to ridge CCA's."""
    found: dict[str, dict[str, float]] = {}
    for name in TASKS:
        for row in summary_rows(output / name) if (output / name).exists() else []:
            if row.ratio is not None:
                found.setdefault(row.name, {})[name] = row.ratio
    return found


def summary_picture(found: dict[str, dict[str, float]]):  # type: ignore[no-untyped-def]
    """Ratio to ridge CCA: a row a method, best first by the geometric mean, a mark a task."""
    from matplotlib.figure import Figure

    tasks = list(found[OURS])
    whole = {name: of for name, of in found.items() if len(of) == len(tasks) and not name.startswith("random")}
    order = sorted(whole, key=lambda name: np.mean(np.log(np.maximum(list(whole[name].values()), 0.1))))
    figure = Figure(figsize=(9.5, 0.29 * len(order) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    for number, task in enumerate(tasks):
        x = [max(whole[name][task], 0.45) for name in order]
        colour = f"C{number}"
        axes.scatter(x, range(len(order)), marker="osD^vPX*"[number % 8], s=42, color=colour, label=task, alpha=0.85)
    for at, name in enumerate(order):
        low, high = min(whole[name].values()), max(whole[name].values())
        axes.plot([max(low, 0.45), max(high, 0.45)], [at, at], color="#CCCCCC", zorder=0)
    axes.axvline(1.0, color="#888888", linewidth=1)
    axes.set_yticks(range(len(order)), order)
    for tick, name in zip(axes.get_yticklabels(), order, strict=True):
        tick.set_fontweight("bold" if name == OURS else "normal")
    axes.set_xlabel("mAP relative to ridge CCA, mean over cuts (what is below 0.45 stands at 0.45)")
    axes.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0), fontsize=9)
    return figure


def best_rival(found: Sequence[Row], *, tricks: bool) -> Row:
    """The best method that reads no labels and is not ours, with our parts or as published."""
    rivals = [r for r in found if not r.ours and not r.reads_labels and (tricks or "+" not in r.name)]
    return max(rivals, key=lambda row: -np.inf if row.difference is None else row.difference)


def tasks_table(output: Path) -> str:
    """HSC-MAE and its best rivals, as published and with our parts."""
    lines = []
    for name, task in TASKS.items():
        found = summary_rows(output / name) if (output / name).exists() else []
        if not {OURS, STRONG} <= {row.name for row in found}:
            continue
        ours, ridge = (next(row for row in found if row.name == wanted) for wanted in (OURS, STRONG))
        cuts = len(by_split(results(output / name), OURS, METRICS[0]))
        cells = [task.title + ("" if task.chosen_on else " *"), cuts, f"{ridge.mean:.3f}", f"**{ours.mean:.3f}**"]
        for tricks in (False, True):
            rival = best_rival(found, tricks=tricks)
            low, high = rival.difference_ci or (np.nan, np.nan)
            cells.append(f"{rival.name} {rival.mean:.3f}: {-high:+.3f} to {-low:+.3f}")
        lines.append(cells)
    head = ("task", "cuts", "ridge-cca", "**hscmae**", "best rival as published: HSC-MAE's lead (95%)")
    return table((*head, "best rival with HSC-MAE's anchors or kernel view"), lines)


def main_table(folder: Path) -> str:
    """README's table: every method on one task, best first, and how far HSC-MAE is ahead of it."""
    lines, found = [], results(folder)
    for row in summary_rows(folder):
        low, high = row.difference_ci or (0.0, 0.0)
        ahead = "" if row.name == OURS else f"{-high:+.3f} to {-low:+.3f}"
        name = f"**{row.name}**" if row.name == OURS else row.name + " (*reads labels*)" * row.reads_labels
        lines.append((name, len(by_split(found, row.name, METRICS[0])), f"{row.mean:.3f}", ahead))
    return table(("method", "cuts", "mAP", "HSC-MAE ahead by (95%, paired by cut)"), lines)


def losses(folder: Path) -> str:
    """What wrong pairs cost each method, in words."""
    lines, _ = curve_lines(json.loads((folder / "curves.json").read_bytes()), "wrong-pairs")
    told = []
    for name in DAMAGED:
        at = dict(zip(*lines[name], strict=True))
        told.append(f"{name} {at[0.4] / at[0] - 1:+.1%} and {at[0.6] / at[0] - 1:+.1%}")
    return "Change of mAP with 40 and 60% of the training pairs permuted: " + "; ".join(told) + "."


def sensitivity(folder: Path) -> str:
    """mAP at each fixed mask ratio beside the default's, a row a set, and how far the default is from the best."""
    lines: list[list[str]] = []
    for part in sorted(folder.iterdir()):
        scores = {name.partition("=")[2]: float(np.mean(of)) for name, of in _means(results_of(part)).items()}
        ours = scores.pop("", None)
        if ours is None or not scores:
            continue  # begun, and not at its end
        fixed = [f"{scores[ratio]:.4f}" for ratio in sorted(scores)]
        lines.append([part.name, f"**{ours:.4f}**", *fixed, f"{ours / max(scores.values()) - 1:+.1%}"])
    return table(("set", "a row's own ratio", *sorted(scores), "to the best fixed"), lines)


def results_of(folder: Path) -> list[Record]:
    return [json.loads(file.read_bytes()) for file in sorted((folder / "fits").glob("*.json"))]


def _means(found: Sequence[Record]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for record in found:
        values.setdefault(record["method"], []).append(record[METRICS[0]])
    return values


def write_document(output: Path) -> None:
    """``docs/benchmark.md`` and its plots, from what has been run; then README's figures."""
    confirmed = ", ".join(name for name, task in TASKS.items() if not task.chosen_on)
    text = [
        "# Benchmark",
        "",
        "Regenerated by `make bench-quality DATA=FOLDER`. What is measured how: [benchmarking.md](benchmarking.md).",
        "Settings are defaults; closed forms choose their ridge, deep methods their steps, without labels. A cut holds",
        "out a fifth of the clips by id hash (of the pictures, recordings or corpora where rows belong together).",
        "Every method is measured on the first cut, but for some on the pool (left out by `--without`, for time); on",
        f"others, where it reached {NEAR:.0%} of HSC-MAE's mAP there. Tables are ordered by the paired difference.",
        f"HSC-MAE's settings were chosen on training rows of all tasks but {confirmed} (*).",
        "*+ anchors*, *weights of pairs*, *kernel view*, *head*: a rival that is given these parts of HSC-MAE as well;",
        "a kernel method with them has its kernel, too, and a network that has a CCA head of its own keeps that.",
        "Seconds are those of a busy machine; [performance.md](performance.md) has times that can be compared.",
        "",
        tasks_table(output),
        "",
        "![mAP relative to ridge CCA, every method on every task](benchmark/summary.svg)",
        "",
    ]
    PLOTS.mkdir(exist_ok=True)
    draw(PLOTS, "summary", summary_picture, ratios(output))
    (PLOTS / "summary.png").unlink()
    for name, task in TASKS.items():
        if found := results(output / name):
            cuts = sorted({record["split"] for record in found})
            text += [f"## {task.title}", "", markdown(summary_rows(output / name), METRICS[0], cuts).strip(), ""]
    parts = {"methods": main_table(output / "ave15"), "tasks": tasks_table(output)}
    if (output / "wrong-pairs" / "curves.json").exists():
        shutil.copy(output / "wrong-pairs" / "curve-wrong-pairs.svg", PLOTS)
        parts["wrong pairs"] = losses(output / "wrong-pairs")
        picture = "![mAP against the share of wrong training pairs](benchmark/curve-wrong-pairs.svg)"
        text += ["## Wrong pairs", "", parts["wrong pairs"], "", picture, ""]
    if (output / "sensitivity").exists():
        text += [f"## {ABLATIONS['sensitivity'].title}", "", sensitivity(output / "sensitivity"), ""]
    for name in ("ablation", "paper"):
        for report in sorted((output / name).glob("*/ablation.md")):
            body = report.read_text(encoding="utf-8").replace("\n# ", "\n### ").removeprefix("# ").strip()
            text += [f"## {ABLATIONS[name].title}: {report.parent.name}", "", body, ""]
    DOCUMENT.write_text("\n".join(text), encoding="utf-8")
    fill(ROOT / "README.md", SCRIPT, parts)


def made_up(output: Path, jobs: int) -> None:
    """Every method through the protocol on made-up pairs; prints the table."""
    pairs = hscmae.synthetic_pairs(600, seed=0).pairs
    with jobs_progress(enabled=True) as progress:
        benchmark(
            pairs,
            output,
            contenders(["all"]),
            seeds=1,
            splits=1,
            overwrite=True,
            jobs=jobs,
            threads=1,
            progress=progress,
        )
    print((output / "benchmark.md").read_text(encoding="utf-8"))


def run_tasks(names: Sequence[str], data: Path, output: Path, cuts: int, jobs: int, without: Sequence[str]) -> None:
    """The first cut of each task, then the second of each; methods named in ``without`` are left out."""
    waiting: dict[str, Iterator[Pairs]] = {name: TASKS[name].cuts(data) for name in names}
    for number in range(cuts):
        for name in names:
            cut = f"cut-{number}"
            pairs = next(waiting[name], None)
            if pairs is None or (output / name / cut / "results.json").exists():
                continue
            first = results(output / name)
            able = [c for c in who() if c.name not in without and (number == 0 or _may_lead(c, first))]
            with _running(output / name / cut, jobs) as running:
                benchmark(pairs, output / name / cut, able, seeds=1, own_split=cut, **running)


def _may_lead(contender: Contender, found: Sequence[Record]) -> bool:
    """Whether a contender came near enough to HSC-MAE on the first cut to be measured on the others."""
    first = {r["method"]: r.get(METRICS[0]) or 0.0 for r in found if r["split"] == "cut-0"}
    return contender.name in (OURS, STRONG) or first.get(contender.name, 0.0) > NEAR * first[OURS]


def run_wrong_pairs(data: Path, output: Path, jobs: int) -> None:
    pairs = next(TASKS["ave15"].cuts(data))
    damaged = [contender for contender in who() if contender.name in DAMAGED]
    with _running(output, jobs) as running:
        benchmark(pairs, output, damaged, seeds=1, own_split="cut-0", curves=("wrong-pairs",), **running)


def run_ablation(name: str, data: Path, output: Path, jobs: int) -> None:
    what = ABLATIONS[name]
    for file in what.files:
        place = output / Path(file).stem
        with _running(place, jobs) as running:
            parts = paper_parts() if name == "paper" else variants(*contenders([OURS]), what.parts)
            ablate(development_pairs(data / file), place, parts, seeds=what.seeds, splits=0, **running)


@contextmanager
def _running(folder: Path, jobs: int) -> Iterator[Running]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with jobs_progress(enabled=True) as progress:
        yield {"resume": folder.exists(), "jobs": jobs, "threads": 1, "progress": progress}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [*TASKS, "wrong-pairs", *ABLATIONS]
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--made-up", action="store_true", help="every method once on made-up pairs")
    parser.add_argument("--output", type=Path, default=Path("bench"))
    parser.add_argument("--tasks", nargs="+", default=everything, choices=everything)
    parser.add_argument("--cuts", type=int, default=5, help="of a task, at most")
    parser.add_argument("--without", nargs="+", default=[], metavar="METHOD", help="methods to leave out of tasks")
    parser.add_argument("--jobs", type=int, default=2, help="fits at a time, of one thread each")
    parser.add_argument("--report", action="store_true", help="only write the document")
    arguments = parser.parse_args()
    if arguments.made_up:
        made_up(arguments.output / "made-up", arguments.jobs)
        return
    if arguments.data is None:
        parser.error("DATA is needed, or --made-up")
    if not arguments.report:
        data, output, jobs = arguments.data, arguments.output, arguments.jobs
        run_tasks(
            [name for name in TASKS if name in arguments.tasks], data, output, arguments.cuts, jobs, arguments.without
        )
        if "wrong-pairs" in arguments.tasks:
            run_wrong_pairs(data, output / "wrong-pairs", jobs)
        for name in ABLATIONS:
            if name in arguments.tasks:
                run_ablation(name, data, output / name, jobs)
    write_document(arguments.output)


if __name__ == "__main__":
    main()

"""What each criterion of ``selection.py`` costs: mAP lost by choosing with it rather than with test labels.

Tables in Markdown and two plots, from the csv alone. A *choice* is a set of candidates out of which one is taken:
settings of one method, steps of one run, dimensions of one setting, or everything that was measured on a task.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import spearmanr

from benchmarks.pages import ROOT, fill
from hscmae.evaluation.selection import SCALES, scales

Row = dict[str, Any]
Table = dict[str, dict[str, list[float]]]  # criterion -> scope -> one figure a choice

OURS = "knn, mean of n/20 to n/5"
FORMER = "knn, k = max(50, n/10)"
BOTH = f"{OURS} x raw_n/10"
TUNING = f"{OURS} x root of raw_n/10"
DOCS = ROOT / "docs"
DIM, SMALL, TARGET = 64, 186, 3
TEXT = ("task", "kind", "method", "settings", "family", "held_out")
SCOPES = ("settings", "steps", "dimension", "all of 64 dimensions", "all")


def scaled(row: Row) -> float:
    """The agreement that training chooses by: the mean over several numbers of neighbours."""
    return float(np.mean([row[f"knn_n/{parts}"] for parts in SCALES]))


# Combinations of what the csv holds; those of two factors are products of figures that are at least 0.
DERIVED: dict[str, Callable[[Row], float]] = {
    OURS: lambda r: scaled(r),
    FORMER: lambda r: r["knn_n/10"] if r["n"] > 500 else r["knn_50"],
    "gap x log rank": lambda r: r["gap"] * np.log(r["rank"]),
    "cka x log rank": lambda r: r["cka"] * np.log(r["rank"]),
    "knn_n/10 x log rank": lambda r: r["knn_n/10"] * np.log(r["rank"]),
    "knn_n/10 x gap": lambda r: r["knn_n/10"] * r["gap"],
    "knn_n/10 x mean rank": lambda r: r["knn_n/10"] * (0.5 + r["mean_rank"]),
    "knn_50 x mean rank": lambda r: r["knn_50"] * (0.5 + r["mean_rank"]),
    "gap x mean rank": lambda r: r["gap"] * (0.5 + r["mean_rank"]),
    "cka x mean rank": lambda r: r["cka"] * (0.5 + r["mean_rank"]),
    "knn_n/10 x raw_n/10": lambda r: r["knn_n/10"] * r["raw_n/10"],
    BOTH: lambda r: scaled(r) * r["raw_n/10"],
    TUNING: lambda r: scaled(r) * r["raw_n/10"] ** 0.5,
    "cross_n/10 x raw_n/10": lambda r: r["cross_n/10"] * r["raw_n/10"],
    "correlation, summed": lambda r: r["correlation"] * r["dim"],
    "knn, mean of 5 to 100": lambda r: np.mean([r[f"knn_{k}"] for k in (5, 10, 20, 50, 100)]),
}
NAMES = {
    "gap": "alignment gap",
    "cka": "linear CKA",
    "mean_rank": "mean rank of the pair",
    "mrr": "MRR of the pair",
    "correlation": "held-out correlation, mean",
    "rsa": "similarity of similarities (RSA)",
    "rank": "effective rank",
    "ami_joint": "clusters agree (AMI, k-means on both)",
    BOTH: "mutual k-NN, mean of n/20 to n/5, x feature k-NN",
    TUNING: "mutual k-NN, mean of n/20 to n/5, x root of feature k-NN",
    "ami_apart": "clusters agree (AMI, k-means on each)",
}

SHOWN = (
    *("gap", "cka", "mean_rank", "mrr", "correlation", "rsa", "ami_apart", "knn_10", "knn_20", "knn_50", "knn_n/10"),
    *(
        "knn_n/5",
        "cross_n/10",
        "raw_n/10",
        "knn_n/10 x mean rank",
        "gap x log rank",
        "knn, mean of 5 to 100",
        FORMER,
        OURS,
        TUNING,
        BOTH,
    ),
)
TOLD = [
    *(
        OURS,
        TUNING,
        BOTH,
        FORMER,
        "knn, mean of 5 to 100",
        "knn_n/10",
        "knn_n/5",
        "knn_20",
        "knn_10",
        "cross_n/10",
        "raw_n/10",
    ),
    *("gap x log rank", "gap", "ami_apart", "mean_rank", "cka", "mrr", "correlation"),
]
BY_DIMENSION = (
    *("knn_20", "knn_50", "knn_n/10", "knn_n/5", "knn, mean of 5 to 100", "hub_n/10", "knn_n/10 x mean rank"),
    *(
        "knn_50 x mean rank",
        "knn_n/10 x raw_n/10",
        BOTH,
        "cross_n/10 x raw_n/10",
        "cross_n/10",
        "gap",
        "gap x log rank",
        "cka",
        "mean_rank",
    ),
)
SCATTERED = ("gap", OURS, BOTH)
COLOURS = ("#0072B2", "#56B4E9", "#999999", "#009E73", "#F0E442", "#CC79A7", "#000000", "#D55E00", "#E69F00")


def name_of(criterion: str) -> str:
    """What tables call a criterion."""
    if criterion in NAMES:
        return NAMES[criterion]
    if " x " in criterion:
        return " x ".join(map(name_of, criterion.split(" x ")))
    for prefix, words in {"knn_": "mutual k-NN", "hub_": "mutual k-NN less hubs", "cross_": "cross-modal k-NN"}.items():
        if criterion.startswith(prefix):
            return f"{words}, k = {criterion.removeprefix(prefix)}"
    if criterion.startswith("raw_"):
        return f"feature k-NN, k = {criterion.removeprefix('raw_')}"
    return NAMES.get(criterion, criterion.replace("knn,", "mutual k-NN,"))


def load(path: Path) -> tuple[list[Row], list[str]]:
    """Rows of the csv as numbers, and the names of the criteria."""
    with path.open(encoding="utf-8", newline="") as file:
        raw = list(csv.DictReader(file))
    columns = list(raw[0])
    rows = [{k: v if k in TEXT else float(v) for k, v in row.items()} for row in raw]
    for row in rows:
        row |= {name: float(value(row)) for name, value in DERIVED.items()}
    return rows, [*columns[columns.index("n") + 1 :], *DERIVED]


def groups(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[list[Row]]:
    """Rows that share a key, where they are two or more."""
    found = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return [group for group in found.values() if len(group) > 1]


def without(settings: str, *names: str) -> str:
    return json.dumps({k: v for k, v in json.loads(settings).items() if k not in names}, sort_keys=True)


def choices(rows: list[Row], scope: str) -> list[list[Row]]:
    """The choices of one scope; each within one task."""
    fixed = [r for r in rows if r["dim"] == DIM]
    if scope == "settings":
        return groups(fixed, lambda r: (r["task"], r["family"]))
    if scope == "steps":
        deep = [r for r in rows if r["kind"] == "deep"]
        return groups(deep, lambda r: (r["task"], r["family"], r["settings"]))
    if scope == "dimension":
        flat = [r for r in rows if r["kind"] != "deep"]
        found = groups(flat, lambda r: (r["task"], r["family"], without(r["settings"], "dim")))
        return [group for group in found if len({r["dim"] for r in group}) == len(group)]
    return groups(fixed if scope == "all of 64 dimensions" else rows, lambda r: r["task"])


def lost(group: list[Row], criterion: str) -> float:
    """Share of the best mAP, in %, that the choice by the criterion lacks; of equals the worst is taken."""
    best = max(r["mAP"] for r in group)
    top = max(r[criterion] for r in group)
    chosen = min(r["mAP"] for r in group if r[criterion] == top)
    return 100 * (best - chosen) / best


def losses(rows: list[Row], criteria: Iterable[str], scopes: Iterable[str] = SCOPES) -> Table:
    """Loss of every choice, by criterion and scope."""
    by_scope = {scope: choices(rows, scope) for scope in scopes}
    return {c: {scope: [lost(g, c) for g in found] for scope, found in by_scope.items()} for c in criteria}


def correlations(rows: list[Row], criterion: str, scope: str) -> list[float]:
    """Spearman with test mAP of each choice."""
    return [spearmanr([r[criterion] for r in g], [r["mAP"] for r in g]).statistic for g in choices(rows, scope)]


def patient(group: list[Row], criterion: str) -> float:
    """Loss of the last step within a standard error of the best; mutual k-NN alone has one."""
    k = neighbours(criterion, group[0]["n"])
    first = max(group, key=lambda r: r[criterion])
    error = np.sqrt(first[criterion] * (1 - first[criterion]) / (first["n"] * k))
    last = max((r for r in group if r[criterion] >= first[criterion] - error), key=lambda r: r["step"])
    best = max(r["mAP"] for r in group)
    return 100 * (best - last["mAP"]) / best


def neighbours(criterion: str, n: float) -> float:
    """k of a mutual k-NN criterion on n pairs."""
    if criterion == OURS:
        return float(np.mean(scales(int(n))))
    if criterion == FORMER:
        return max(50, int(n) // 10)
    k = criterion.removeprefix("knn_")
    return int(n) // int(k.removeprefix("n/")) if k.startswith("n/") else int(k)


def cell(values: list[float]) -> str:
    return f"{np.mean(values):.1f} / {max(values):.1f}" if values else ""


def overall(by_scope: dict[str, list[float]]) -> float:
    """Mean over the scopes of the mean loss."""
    return float(np.mean([np.mean(values) for values in by_scope.values() if values]))


def loss_table(rows: list[Row], criteria: list[str]) -> Iterator[str]:
    """Mean and worst loss in % by scope, mean and least Spearman; ordered by the mean over the scopes."""
    table = losses(rows, criteria)
    scopes = [scope for scope in SCOPES if table[criteria[0]][scope]]
    yield "| criterion | " + " | ".join(scopes) + " | Spearman, 64 dimensions | Spearman, all |"
    yield "|---" * (len(scopes) + 3) + "|"
    for c in sorted(criteria, key=lambda c: overall(table[c])):
        cells = [cell(table[c][scope]) for scope in scopes]
        for scope in SCOPES[3:]:
            r = correlations(rows, c, scope)
            cells.append(f"{np.mean(r):.2f} / {min(r):.2f}")
        yield f"| {name_of(c)} | " + " | ".join(cells) + " |"


def left_out(rows: list[Row], criteria: list[str]) -> Iterator[str]:
    """What a criterion chosen on the other tasks loses on each task: a check on choosing among so many."""
    yield "| task | chosen on the others | mean loss, % | worst loss, % |"
    yield "|---|---|---|---|"
    for task in sorted({r["task"] for r in rows}):
        others = losses([r for r in rows if r["task"] != task], criteria)
        chosen = min(criteria, key=lambda c: overall(others[c]))
        found = losses([r for r in rows if r["task"] == task], [chosen])[chosen]
        worst = max(max(values) for values in found.values() if values)
        yield f"| {task} | {name_of(chosen)} | {overall(found):.1f} | {worst:.1f} |"


def by_neighbours(rows: list[Row], folded: list[Row]) -> Iterator[str]:
    """Mean and worst loss of mutual k-NN by k: a seventh held out, in all and with few rows; three folds."""
    few = [r for r in rows if r["n"] <= SMALL]
    runs = groups(
        [r for r in rows if r["kind"] == "deep" and r["held_out"] == "all"],
        lambda r: r["settings"] + r["task"] + r["family"],
    )
    yield "| k | settings | settings, 186 pairs | settings, three folds | steps | steps, the last within an error |"
    yield "|---|---|---|---|---|---|"
    for c in (*(f"knn_{k}" for k in ("5", "10", "20", "50", "100", "n/20", "n/10", "n/5")), FORMER, OURS):
        parts = ([r for r in rows if r["held_out"] == "all"], few, folded)
        cells = [cell([lost(g, c) for g in choices(part, "settings")]) for part in parts]
        cells += [cell([how(g, c) for g in runs]) for how in (lost, patient)]
        yield f"| {name_of(c).removeprefix('mutual k-NN, ').removeprefix('k = ')} | " + " | ".join(cells) + " |"


def by_dimension(rows: list[Row], folded: list[Row], criteria: Iterable[str]) -> Iterator[str]:
    """Mean and worst loss of choosing the dimension, from among 1 to 128 or fewer; with a seventh and three folds."""
    least = (1, 8, 16)
    heads = [f"{what}, {low} to 128" for what in ("a seventh", "three folds") for low in least]
    yield "| criterion | " + " | ".join(heads) + " |"
    yield "|---" * (len(heads) + 1) + "|"
    for c in criteria:
        found = [[r for r in part if r["dim"] >= low] for part in (rows, folded) for low in least]
        cells = [cell([lost(g, c) for g in choices(part, "dimension")]) for part in found]
        yield f"| {name_of(c)} | " + " | ".join(cells) + " |"


def counts(rows: list[Row]) -> Iterator[str]:
    """How much was measured on each task."""
    yield "| task | held-out pairs | fits | of networks | candidates | steps of networks | in three folds (fits) |"
    yield "|---" * 7 + "|"
    for task in dict.fromkeys(r["task"] for r in rows):
        mine = [r for r in rows if r["task"] == task and r["held_out"] == "all"]
        by_kind = {kind: [r for r in mine if r["kind"] == kind] for kind in ("closed", "deep", "folds")}
        fits = {kind: len({(r["method"], r["settings"]) for r in part}) for kind, part in by_kind.items()}
        single = by_kind["closed"] + by_kind["deep"]
        cells = (
            f"{single[0]['n']:.0f}",
            fits["closed"] + fits["deep"],
            fits["deep"],
            len(single),
            len(by_kind["deep"]),
        )
        yield f"| {task} | " + " | ".join(map(str, cells)) + f" | {len(by_kind['folds'])} ({4 * fits['folds']}) |"


def loss_plot(rows: list[Row]) -> Figure:
    """Mean loss (dot) and worst (end of the line) by scope, of the criteria that people use and the best ones."""
    table = losses(rows, SHOWN)
    order = sorted(SHOWN, key=lambda c: -overall(table[c]))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, scope in zip(figure.subplots(1, len(SCOPES), sharey=True), SCOPES, strict=True):
        mean, worst = ([f(table[c][scope]) for c in order] for f in (np.mean, np.max))
        axes.axvline(TARGET, color="#999999", lw=1, ls=":")
        axes.hlines(range(len(order)), mean, worst, color="#56B4E9", lw=3)
        axes.plot(mean, range(len(order)), "o", color="#0072B2")
        axes.set(title=scope, xscale="symlog", xlim=(0, 100), xticks=(0, 1, 3, 10, 100), yticks=range(len(order)))
        axes.set_xticklabels(("0", "1", "3", "10", "100"))
        axes.set_yticklabels([name_of(c) for c in order])
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(
        "mAP lost, % of the best candidate's: dot, mean over choices; end of the line, worst; dotted, target", size=9
    )
    return figure


def scatter_plot(rows: list[Row], criteria: Sequence[str]) -> Figure:
    """Test mAP against criteria, one row of panels a criterion, one column a task."""
    tasks = [
        t for t in dict.fromkeys(r["task"] for r in rows) if any(r["task"] == t and r["kind"] == "deep" for r in rows)
    ]
    families = list(dict.fromkeys(r["family"] for r in rows))
    figure = Figure(figsize=(11, 2.8 * len(criteria)), layout="constrained")
    grid = figure.subplots(len(criteria), len(tasks), squeeze=False)
    for (i, criterion), (j, task) in product(enumerate(criteria), enumerate(tasks)):
        axes = grid[i, j]
        mine = [r for r in rows if r["task"] == task]
        for family, colour in zip(families, COLOURS, strict=False):
            of = [r for r in mine if r["family"] == family]
            size = [6 + 8 * np.log2(r["dim"]) for r in of]
            axes.scatter(
                [r[criterion] for r in of], [r["mAP"] for r in of], size, color=colour, alpha=0.45, lw=0, label=family
            )
        r = spearmanr([r[criterion] for r in mine], [r["mAP"] for r in mine]).statistic
        axes.set(title=f"{task}, Spearman {r:.2f}", xlabel=name_of(criterion), ylabel="" if j else "test mAP")
        axes.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], marker="o", ls="", color=c, label=f) for f, c in zip(families, COLOURS, strict=False)]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=5, fontsize=8, title="a dot's size: its dimension, 1 to 128"
    )
    return figure


def report(path: Path) -> None:
    """Write every table beside the csv and the two plots of ``docs/selection.md``."""
    rows, criteria = load(path)
    folded = [r for r in rows if r["kind"] == "folds"]
    single = [r for r in rows if r["kind"] != "folds"]
    main = [r for r in single if r["held_out"] == "all"]
    sections = {
        "Counts": counts(rows),
        "A seventh of the training pairs held out: mAP lost in %, mean / worst over choices": loss_table(
            main, criteria
        ),
        "The same with 186 held-out pairs": loss_table([r for r in single if r["n"] <= SMALL], criteria),
        "Cross-fitted over three folds": loss_table(folded, criteria),
        "Mutual k-NN by the number of neighbours": by_neighbours(single, folded),
        "Choosing the dimension": by_dimension(main, folded, (OURS, *BY_DIMENSION)),
        "The best criterion chosen on the other tasks": left_out(main, criteria),
    }
    text = "\n".join(f"## {title}\n\n" + "\n".join(lines) + "\n" for title, lines in sections.items())
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    told = {
        "criteria": loss_table(main, TOLD),
        "neighbours": by_neighbours(single, folded),
        "dimension": by_dimension(main, folded, (OURS, TUNING, BOTH, "knn_20", "gap", "cka", "mean_rank")),
        "counts": counts(rows),
    }
    parts = {name: "\n".join(lines) for name, lines in told.items()}
    fill(DOCS / "selection.md", "benchmarks/studies/selection_report.py", parts)
    for name, figure in {"loss": loss_plot(main), "scatter": scatter_plot(main, SCATTERED)}.items():
        figure.savefig(DOCS / f"selection-{name}.png", dpi=130)

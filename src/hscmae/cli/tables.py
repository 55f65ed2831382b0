"""What verbs print for people rather than programs: metrics as a table, an inspected file as tables, bars and lines.

Text from files is untrusted: it is printed without markup and without control characters.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hscmae.data.inspect import Inspection
from hscmae.data.table import Problem
from hscmae.errors import printable

CLASSES_SHOWN = 30
BAR = 30


def console() -> Console:
    """Where results go: the terminal, or 120 columns where the output is a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)


def print_metrics(metrics: dict[str, Any]) -> None:
    """Retrieval metrics of every direction as a table, with their intervals."""
    directions = [key.removesuffix("/R@1") for key in metrics if key.endswith("/R@1")]
    names = [key.removeprefix("avg/") for key in metrics if key.startswith("avg/") and not key.endswith("_ci")]
    table = Table(title=f"split {metrics['split']}, {metrics['n_queries']} queries", title_justify="left")
    table.add_column("")
    for direction in directions:
        table.add_column(direction, justify="right")
    for name in names:
        table.add_row(name, *(_figure(metrics, f"{direction}/{name}") for direction in directions))
    if metrics.get("chance/mAP") is not None:
        table.add_row("mAP by chance", *("" for _ in directions[:-1]), f"{metrics['chance/mAP']:.3f}")
    console().print(table)
    if metrics.get("n_trained_on"):
        _line(
            console(),
            f"{metrics['n_trained_on']} of these {metrics['n_queries']} clips were trained on: "
            "what they find says little about clips never seen",
        )


def _figure(metrics: dict[str, Any], key: str) -> str:
    value = metrics.get(key)
    if value is None:
        return "-"
    text = f"{value:.3f}" if isinstance(value, float) and value < 1 else f"{value:g}"
    interval = metrics.get(f"{key}_ci")
    return f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval and value < 1 else text


def print_inspection(found: Inspection) -> None:
    """The modalities, splits and classes of a file, then every problem, faults first."""
    out = console()
    splits = ", ".join(f"{name} {rows}" for name, rows in found.splits.items()) or "no split"
    _line(out, f"{found.path}: {found.format}, {found.rows} rows ({splits})")
    if found.modalities:
        out.print(_modalities(found.modalities))
    if len(found.modalities) == 1:
        _line(out, "one modality: enough to embed, not to train on")
    if found.labels is None:
        _line(out, "no labels (training needs none)")
    else:
        _print_classes(out, found.labels)
    if found.against is not None:
        _print_against(out, found.against)
    faults = found.faults
    remarks = [problem for problem in found.problems if problem not in faults]
    _print_problems(out, "Faults: these stop training", "red", faults)
    _print_problems(out, "To know: these do not stop training", "yellow", remarks)
    if not found.problems:
        _line(out, "\nNothing wrong found.")


def _modalities(modalities: dict[str, dict[str, Any]]) -> Table:
    table = Table(title_justify="left")
    table.add_column("")
    for m in modalities:
        table.add_column(printable(m), justify="right")

    def row(name: str, text: Any) -> None:
        table.add_row(name, *(text(s) for s in modalities.values()))

    row("dimensions", lambda s: str(s["dim"]))
    if any("steps" in s for s in modalities.values()):
        row("steps", lambda s: f"{s['steps']['min']} to {s['steps']['max']}" if "steps" in s else "-")
    row("type", lambda s: s["dtype"])
    row("values", lambda s: "-" if s["range"] is None else f"{s['range'][0]:.4g} to {s['range'][1]:.4g}")
    row("norm", lambda s: f"{s['norm']['mean']:.4g} ({s['norm']['min']:.4g} to {s['norm']['max']:.4g})")
    row("zeros", lambda s: f"{s['sparsity']:.1%}")
    row("effective rank", lambda s: f"{s['effective_rank']:.1f}")
    row("constant columns", lambda s: str(s["constant_columns"]))
    row("rows without it", lambda s: str(s["missing_rows"]))
    row("silent rows", lambda s: str(s["silent_rows"]))
    row("rows like another", lambda s: str(s["duplicate_rows"]))
    row("of these, across splits", lambda s: str(s["duplicates_across_splits"]))
    return table


def _print_classes(out: Console, labels: dict[str, Any]) -> None:
    counts = sorted(labels["counts"].items(), key=lambda item: -item[1])
    kind = "several a clip" if labels["multi_label"] else "one a clip"
    unlabelled = f", {labels['unlabelled_rows']} rows without" if labels["unlabelled_rows"] else ""
    _line(out, f"{labels['n_classes']} classes, {kind}{unlabelled}")
    largest = max((count for _, count in counts), default=0) or 1
    table = Table.grid(padding=(0, 2))
    for name, count in counts[:CLASSES_SHOWN]:
        table.add_row(
            Text("  " + printable(name)),
            Text(str(count), justify="right"),
            "█" * max(count > 0, round(BAR * count / largest)),
        )
    out.print(table)
    rest = counts[CLASSES_SHOWN:]
    if rest:
        _line(out, f"  and {len(rest)} more, of {rest[0][1]} clips or fewer")


def _print_against(out: Console, against: dict[str, Any]) -> None:
    _line(
        out,
        f"\nAgainst the other file: {against['matched_rows']} rows matched by {against['matched_by']}, "
        f"{against['only_here']} only in this one, {against['only_there']} only in the other",
    )
    for m, measures in against["modalities"].items():
        _line(out, f"  {m}: {measures['verdict']}")
        if measures["reason"] != "identical" and "column_correlation" in measures:
            row, column = measures["row_offset"], measures["column_offset"]
            _line(
                out,
                f"    columns correlate {measures['column_correlation']:.3f} (median), "
                f"{len(measures['columns_differing'])} of {measures['dims'][0]} differ; "
                f"scale {measures['scale']:.4g}, offset {measures['offset']:.4g}; "
                f"best row shift {row['offset']:+d} ({row['correlation']:.2f}), "
                f"column shift {column['offset']:+d} ({column['correlation']:.2f})",
            )


def _print_problems(out: Console, title: str, colour: str, problems: list[Problem]) -> None:
    if problems:
        out.print(Text(f"\n{title}", style=f"bold {colour}"))
        for problem in problems:
            _line(out, f"  {problem.line('')} [{problem.code}]")


def _line(out: Console, text: str) -> None:
    """One line whatever the width."""
    out.print(Text("\n".join(printable(part) for part in text.split("\n"))), soft_wrap=True)

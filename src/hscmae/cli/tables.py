"""What verbs print for people rather than programs: metrics as a table, an inspected file as tables, bars and lines.

Text from files is untrusted: it is printed without markup and without control characters.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hscmae.cli.output import say
from hscmae.errors import printable

if TYPE_CHECKING:
    from hscmae.audit import Audit
    from hscmae.data.inspect import Inspection
    from hscmae.data.table import Problem
    from hscmae.export.cost import Cost

CLASSES_SHOWN = 30
BAR = 30


def console() -> Console:
    """Where results go: the terminal, or 120 columns where the output is a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)


def _text(value: object) -> Text:
    """Text from anywhere, as it is; what does not fit is folded, so that nothing is lost."""
    return Text(printable(str(value)), overflow="fold")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], words: int = 0) -> Table:
    """A table that fits 80 columns where it can; all but the column number ``words`` are figures, to the right."""
    table = Table(
        title=_text(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
        pad_edge=False, show_edge=False,
    )  # fmt: skip
    for i, name in enumerate(columns):
        table.add_column(_text(name), justify="left" if i == words else "right")
    for row in rows:
        table.add_row(*map(_text, row))
    return table


def print_metrics(metrics: dict[str, Any]) -> None:
    """Retrieval metrics of every direction as a table, with their intervals."""
    directions = [key.removesuffix("/R@1") for key in metrics if key.endswith("/R@1")]
    names = [key.removeprefix("avg/") for key in metrics if key.startswith("avg/") and not key.endswith("_ci")]
    rows = [[name, *(_figure(metrics, f"{direction}/{name}") for direction in directions)] for name in names]
    if metrics.get("chance/mAP") is not None:
        rows.append(["mAP by chance", *("" for _ in directions[:-1]), f"{metrics['chance/mAP']:.3f}"])
    title = f"split {metrics['split']}, {metrics['n_queries']} queries"
    console().print(_table(title, ["", *directions], rows))
    if metrics.get("n_trained_on"):
        say(
            f"{metrics['n_trained_on']} of these {metrics['n_queries']} clips were trained on: "
            "what they find says little about clips never seen"
        )


def print_audit(found: Audit, top: int) -> None:
    """The most suspicious pairs as a table; why rows have no score."""
    low, high = found.wrong_share_ci
    scored = len(found.ids) - len(found.unscored)
    rows = [
        (
            found.rank[row],
            found.ids[row].decode("utf-8", "replace"),
            f"{found.score[row]:.2f}",
            f"{found.random_better[row]:.0%}",
        )
        for row in found.most_suspicious(top)
    ]
    title = f"{scored} pairs, estimated share of wrong ones {found.wrong_share:.1%} [{low:.1%}, {high:.1%}]"
    columns = ("rank", "id", "suspicion", "random pairs that agree better")
    console().print(_table(title, columns, rows, words=1))
    say(f"{found.n_trained_on} of the {scored} pairs were trained on")
    for reason in sorted(set(found.unscored.values())):
        say(f"{sum(r == reason for r in found.unscored.values())} rows without score: {reason}")


def print_demo(results: Sequence[Any]) -> None:
    """The demo's methods, each with its mAP in both directions."""
    rows = []
    for r in results:
        low, high = r.metrics["avg/mAP_ci"]
        average, a2v, v2a = (f"{r.metrics[f'{d}/mAP']:.3f}" for d in ("avg", "a2v", "v2a"))
        rows.append((r.title, average, f"{low:.3f} to {high:.3f}", a2v, v2a))
    title = "Find the picture to a sound and the sound to a picture, on clips never seen in training"
    columns = ("method", "mAP", "95% interval", "sound → picture", "picture → sound")
    console().print(_table(title, columns, rows))


def print_document(text: str) -> None:
    """A Markdown document that the library wrote: in a terminal its tables as tables, else as it is."""
    if not sys.stdout.isatty():
        say(text.rstrip("\n"))
        return
    out = console()
    lines = text.splitlines()
    while lines:
        if not lines[0].startswith("|"):
            _line(out, lines.pop(0), wrap=True)
            continue
        end = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[:end])
        kept = [i for i, name in enumerate(head) if any(row[i] for row in rows)]
        out.print(_table("", [head[i] for i in kept], [[row[i] for i in kept] for row in rows]))
        del lines[:end]


def _figure(metrics: dict[str, Any], key: str) -> str:
    value = metrics.get(key)
    if value is None:
        return "-"
    text = f"{value:.3f}" if isinstance(value, float) and value < 1 else f"{value:g}"
    interval = metrics.get(f"{key}_ci")
    return f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval and value < 1 else text


def print_costs(costs: Sequence[Cost], split: str) -> None:
    """What each precision of an exported model costs, a row each."""
    rows = [
        [
            cost.precision,
            f"{cost.size / 1e6:.2f}",
            *(["", ""] if cost.map is None or cost.lost is None else [f"{cost.map:.4f}", f"{cost.lost:+.4f}"]),
            f"{cost.agreement:.1%}",
        ]
        for cost in costs
    ]
    columns = ["matrices", "MB", "mAP", "below the model", "its 10 nearest kept"]
    console().print(_table(f"split {split}", columns, rows))


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
    rows: list[list[str]] = []

    def row(name: str, text: Any) -> None:
        rows.append([name, *(text(s) for s in modalities.values())])

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
    return _table("", ["", *modalities], rows)


def _print_classes(out: Console, labels: dict[str, Any]) -> None:
    counts = sorted(labels["counts"].items(), key=lambda item: -item[1])
    kind = "several a clip" if labels["multi_label"] else "one a clip"
    unlabelled = f", {labels['unlabelled_rows']} rows without" if labels["unlabelled_rows"] else ""
    _line(out, f"{labels['n_classes']} classes, {kind}{unlabelled}")
    largest = max((count for _, count in counts), default=0) or 1
    table = Table.grid(padding=(0, 2))
    for name, count in counts[:CLASSES_SHOWN]:
        table.add_row(
            _text("  " + name),
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


def _line(out: Console, text: str, *, wrap: bool = False) -> None:
    """One line whatever the width, or wrapped at words."""
    out.print(Text("\n".join(printable(part) for part in text.split("\n"))), soft_wrap=not wrap)

"""Figures of a benchmark with matplotlib, an extra: as PNG to look at and SVG to print.

Colours are those of Okabe and Ito, which people who see colours differently tell apart; HSC-MAE is always the same
one, drawn thicker and last.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hscmae.benchmark.table import Record, Row
from hscmae.errors import InputError, printable
from hscmae.extras import require
from hscmae.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

OURS, PLAIN, LABELLED = "#D55E00", "#56B4E9", "#BBBBBB"
COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
CLASSES, IN_CLASSES = 20, 4


def draw(folder: Path, name: str, figure: Callable[..., Figure], *arguments: Any) -> None:
    """Write ``figure(*arguments)`` as ``name.png`` and ``name.svg``; without matplotlib, say so in a warning."""
    try:
        matplotlib = require("matplotlib", "plots")
    except InputError as error:
        log.warning("no plot %s: %s", name, error)
        return
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "text.parse_math": False}
    ):
        drawn = figure(*arguments)
        for kind in ("png", "svg"):
            out = io.BytesIO()
            drawn.savefig(
                out, format=kind, dpi=150, bbox_inches="tight", metadata={"Date": None} if kind == "svg" else {}
            )
            write_atomic(folder / f"{name}.{kind}", out.getvalue())


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def bars(rows: Sequence[Row], metric: str, chance: float | None) -> Figure:
    """A bar a method, best on top, with the 95% interval of its mean."""
    shown = [row for row in rows if row.mean is not None]
    figure, axes = _figure(7, 0.8 + 0.36 * len(shown))
    top = max((row.interval or (0.0, row.mean or 0.0))[1] for row in shown)
    for y, row in enumerate(reversed(shown)):
        mean = row.mean or 0.0
        colour = OURS if row.ours else LABELLED if row.reads_labels else PLAIN
        axes.barh(y, mean, color=colour, height=0.7, hatch="//" if row.reads_labels else None, edgecolor="white")
        end = mean
        if row.interval is not None:
            low, high = row.interval
            axes.errorbar(mean, y, xerr=[[mean - low], [high - mean]], color="black", capsize=3, linewidth=1)
            end = high
        axes.text(end + 0.012 * top, y, f"{mean:.3f}", va="center")
    axes.set_yticks(range(len(shown)), [_label(row) for row in reversed(shown)])
    for tick, row in zip(axes.get_yticklabels(), reversed(shown), strict=True):
        tick.set_fontweight("bold" if row.ours else "normal")
    axes.set_xlim(0, top * 1.14)
    axes.set_xlabel(f"{metric.removeprefix('avg/')}, both directions averaged, 95% interval")
    if chance is not None:
        axes.axvline(chance, color="black", linestyle=":", linewidth=1)
        axes.text(chance, len(shown) - 0.45, " chance", va="bottom", ha="left", fontsize=9)
    return figure


def _label(row: Row) -> str:
    return row.name + (" (reads labels)" if row.reads_labels else "")


def lines(
    curves: Mapping[str, tuple[Sequence[float], Any]],
    ours: Sequence[str],
    x_title: str,
    y_title: str,
    bands: Mapping[str, tuple[Any, Any]] | None = None,
) -> Figure:
    """A line a method, with a band where given; the legend stands beside, in the order of the lines' last points."""
    figure, axes = _figure(8.2, 4.6)
    styles = cycle([(c, d) for d in DASHES for c in COLOURS])
    style = {
        name: (OURS, "-") if name == "hscmae" else (OURS, "--") if name in ours else next(styles) for name in curves
    }
    for name in sorted(curves, key=lambda name: name in ours):
        x, y = curves[name]
        colour, dash = style[name]
        axes.plot(
            x,
            y,
            dash,
            color=colour,
            linewidth=2.8 if name == "hscmae" else 1.9 if name in ours else 1.4,
            label=name,
            marker="o",
            markersize=3,
        )
        if bands is not None and name in bands:
            axes.fill_between(x, *bands[name], color=colour, alpha=0.25 if name in ours else 0.12, linewidth=0)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: -float(curves[labels[i]][1][-1]))
    axes.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        frameon=False,
    )
    axes.set_xlabel(x_title)
    axes.set_ylabel(y_title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    return figure


def precision_recall(records: Sequence[Record], ours: Sequence[str]) -> Figure:
    """Interpolated precision over recall, both directions and all fits averaged."""
    found: dict[str, list[Any]] = {}
    for record in records:
        for curve in record.get("precision_recall", {}).values():
            found.setdefault(record["method"], []).append(curve)
    curves = {name: tuple(np.mean(values, axis=0)) for name, values in found.items()}
    figure = lines(curves, ours, "recall", "interpolated precision")
    figure.axes[0].set_ylim(0, 1)
    return figure


def per_class(records: Sequence[Record], rows: Sequence[Row]) -> Figure:
    """mAP of each class, both directions and all fits averaged: HSC-MAE and the best of the others."""
    ours = [row.name for row in rows if row.ours and row.mean is not None][:1]
    others = [row.name for row in rows if not row.ours and not row.reads_labels and row.mean is not None][:IN_CLASSES]
    found: dict[str, dict[str, list[float]]] = {}
    for record in records:
        for classes in record.get("classes", {}).values():
            for name, value in classes.items():
                found.setdefault(name, {}).setdefault(record["method"], []).append(value)
    best = (ours or others)[0]
    seen = {c: len(v[best]) for c, v in found.items() if best in v}
    kept = sorted(seen, key=lambda c: -seen[c])[:CLASSES]
    kept.sort(key=lambda c: float(np.mean(found[c][best])))
    figure, axes = _figure(7.5, 1.2 + 0.3 * len(kept))
    for i, name in enumerate([*others, *ours]):
        points = [(float(np.mean(found[c][name])), y) for y, c in enumerate(kept) if name in found[c]]
        axes.scatter(
            [x for x, _ in points],
            [y for _, y in points],
            color=OURS if name in ours else COLOURS[i % len(COLOURS)],
            marker="o" if name in ours else MARKERS[1 + i % (len(MARKERS) - 1)],
            s=60 if name in ours else 26,
            label=name,
            zorder=3,
        )
    axes.set_yticks(range(len(kept)), [printable(c if len(c) < 32 else c[:30] + "…") for c in kept])
    axes.set_xlabel("mAP of the class's clips, both directions averaged")
    axes.set_xlim(left=0)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return figure


def trials(records: Sequence[Record], name: str) -> Figure:
    """The criterion of each trial, and the best so far."""
    figure, axes = _figure(7, 3.6)
    good = [r for r in records if r["status"] == "ok"]
    x, y = [r["trial"] for r in good], [r["score"] for r in good]
    axes.step(x, np.maximum.accumulate(y), where="post", color=OURS, linewidth=2, label="best so far")
    axes.scatter(x[1:], y[1:], color=COLOURS[0], s=28, zorder=3, label="trial")
    axes.scatter(x[:1], y[:1], color="black", marker="D", s=44, zorder=4, label="settings as they were")
    failed = [r["trial"] for r in records if r["status"] != "ok"]
    if failed:
        axes.scatter(failed, [min(y)] * len(failed), color="black", marker="x", label="failed")
    axes.set_xlabel(f"trial of {name}")
    axes.set_ylabel("grounded k-NN agreement\non held-out pairs")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return figure


def differences(rows: Sequence[Row], metric: str, base: str) -> Figure:
    """What each change of an ablation does: the paired difference to the whole, with its 95% interval."""
    shown = [row for row in rows if row.difference is not None]
    shown.sort(key=lambda row: row.difference or 0.0, reverse=True)
    figure, axes = _figure(7.5, 1.0 + 0.34 * len(shown))
    for y, row in enumerate(shown):
        difference = row.difference or 0.0
        axes.plot(difference, y, "o", color=OURS if difference < 0 else COLOURS[0], markersize=7)
        if row.difference_ci is not None:
            axes.plot(row.difference_ci, (y, y), color="black", linewidth=1.2, zorder=1)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(shown)), [row.name for row in shown])
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlabel(f"difference in {metric.removeprefix('avg/')} to {base}, paired, 95% interval")
    axes.grid(axis="x", alpha=0.25)
    return figure


def sweeps(curves: Mapping[str, tuple[Sequence[float], Any, Any, Any, float]], y_title: str) -> Figure:
    """A panel a setting: mean over fits, the band from the lowest to the highest seed, the default marked.

    Args:
        curves: setting -> values, mean, lowest, highest, and the default's value.
        y_title: of every panel.
    """
    from matplotlib.figure import Figure as NewFigure

    columns = min(3, len(curves))
    height = -(-len(curves) // columns)
    figure = NewFigure(figsize=(3.6 * columns + 0.4, 2.7 * height), layout="constrained")
    panels = figure.subplots(height, columns, squeeze=False, sharey=True)
    for panel in panels.flat[len(curves) :]:
        panel.set_visible(False)
    for panel, (name, (x, mean, low, high, default)) in zip(panels.flat, curves.items(), strict=False):
        panel.fill_between(x, low, high, color=OURS, alpha=0.2, linewidth=0)
        panel.plot(x, mean, "o-", color=OURS, markersize=4)
        steps = np.diff(x)
        if len(steps) and steps.max() > 3 * steps.min():
            panel.set_xscale("log")
            chosen = [v for i, v in enumerate(x) if i % 2 == 0] if len(x) > 5 else list(x)
            panel.set_xticks(chosen, [f"{v:g}" for v in chosen])
            panel.minorticks_off()
        if default in list(x):
            panel.plot(default, mean[list(x).index(default)], "D", color="black", markersize=7, label="default")
        panel.set_xlabel(name)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    for row in panels:
        row[0].set_ylabel(y_title)
    marked = next((panel for panel in panels.flat if panel.get_legend_handles_labels()[1]), None)
    if marked is not None:
        figure.legend(*marked.get_legend_handles_labels(), loc="outside upper right", frameon=False)
    return figure

"""The plots of growth.py: measured points, and lines where the cost model has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hscmae.benchmark.plots import COLOURS, MARKERS

ROWS = {
    "embed": "embed a store",
    "ridge CCA": "ridge CCA, streamed",
    "epoch": "one epoch, batch 512",
    "ranking": "exact ranking, rows x rows",
}
TICKS = (5, 10, 20, 50, 100, 200, 500, 1000)  # milliseconds
AXES = {"dim": "embedding dimension", "batch": "batch size", "k": "neighbours k"}


def plot(points: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write growth-rows.svg and growth-step.svg."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "growth", "font.size": 10}):
        for name, draw in (("growth-rows", _rows), ("growth-step", _step)):
            figure = Figure(figsize=(10, 4.2 if name == "growth-rows" else 5.6), layout="constrained")
            draw(figure, points)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def _rows(figure: Any, points: Sequence[dict[str, Any]]) -> None:
    time, memory = figure.subplots(1, 2)
    for (activity, label), colour, marker in zip(ROWS.items(), COLOURS, MARKERS, strict=False):
        curve = [p for p in points if p["activity"] == activity]
        rows = [p["rows"] for p in curve]
        time.plot(rows, [p["predicted"] for p in curve], color=colour, linewidth=1)
        time.plot(rows, [p["seconds"] for p in curve], marker, color=colour, label=label)
        memory.plot(rows, [p["peak_gb"] for p in curve], marker + "-", color=colour, linewidth=1, label=label)
    for axes, title in ((time, "seconds (points measured, lines cost model)"), (memory, "peak anonymous memory, GB")):
        axes.set(xscale="log", xlabel="rows", title=title)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_formatter("{x:,.0f}")
    time.set_yscale("log")
    time.yaxis.set_major_formatter("{x:g}")
    memory.set_ylim(bottom=0)
    time.legend(frameon=False)


def _step(figure: Any, points: Sequence[dict[str, Any]]) -> None:
    grid = figure.subplots(2, 3, sharex="col", sharey="row")
    for (axis, label), (time, memory) in zip(AXES.items(), grid.T, strict=True):
        curve = [p for p in points if p["activity"] == "step" and p["axis"] == axis]
        at = [p[axis] for p in curve]
        time.plot(at, [1e3 * p["predicted"] for p in curve], color=COLOURS[0], linewidth=1, label="cost model")
        time.plot(at, [1e3 * p["seconds"] for p in curve], MARKERS[0], color=COLOURS[0], label="measured")
        memory.plot(at, [p["peak_gb"] for p in curve], MARKERS[0] + "-", color=COLOURS[1], linewidth=1)
        time.set(xscale="log", yscale="log")
        memory.set_xlabel(label)
        memory.set_xticks(at, [str(value) for value in at])
        memory.minorticks_off()
        for axes in (time, memory):
            axes.grid(alpha=0.3)
    grid[0, 0].set_yticks(TICKS, [str(tick) for tick in TICKS])
    grid[0, 0].minorticks_off()
    grid[1, 0].set_ylim(0, 1.1 * max(p["peak_gb"] for p in points if p["activity"] == "step"))
    grid[0, 0].set_ylabel("milliseconds a training step")
    grid[1, 0].set_ylabel("peak anonymous memory, GB")
    grid[0, 0].legend(frameon=False)

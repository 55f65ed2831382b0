"""Charts as inline SVG and HTML: drawn on the server, coloured by the page's style sheet, escaped on the way in.

Small enough to need no charting library in the page, sharp in print, and the same in both themes, since a mark carries
a class (``s1``, ``s2``, ...) and no colour. What is said on hovering is in a mark's ``data-tip``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 48
CELL = 30  # side of a cell of the confusion matrix
LETTER = 6.6  # about the width of a letter of 12 px
LONGEST = 22  # letters of a class name in a matrix


@dataclass(frozen=True)
class Line:
    """One curve: its name, points, and series number (its colour); ``marks`` draws the points too."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    series: int
    dashed: bool = False
    marks: bool = True


@dataclass(frozen=True)
class Bar:
    """One bar: its value, an interval if there is one, series number, and what is said on hovering."""

    value: float
    series: int
    tip: str
    interval: tuple[float, float] | None = None


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within [low, high], about so many.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    least = (high - low) / (about + 1)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= least * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A figure for an axis or a tip, to three significant digits.

    >>> number(0.12345), number(1234.0), number(0.5)
    ('0.123', '1234', '0.5')
    """
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def line_chart(
    lines: Sequence[Line],
    *,
    x_title: str,
    y_title: str,
    y_range: tuple[float, float] | None = None,
    mark_x: tuple[float, str] | None = None,
) -> Markup:
    """Curves over labelled axes, with a legend.

    Args:
        lines: at least one point among them.
        x_title: what the horizontal axis shows, with its unit.
        y_title: the same of the vertical axis.
        y_range: limits of the vertical axis; what the data spans, with some air, by default.
        mark_x: a place on the horizontal axis to mark, and what it is.
    """
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y]
    x0, x1 = min(xs), max(xs)
    y0, y1 = y_range or (min(ys), max(ys))
    if y_range is None:
        air = 0.06 * (y1 - y0) or 0.05 * abs(y1) or 0.5
        y0, y1 = (0.0 if 0 <= y0 < air else y0 - air), y1 + air
    if x1 == x0:
        x0, x1 = x0 - 0.5, x1 + 0.5

    def px(x: float) -> float:
        return LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def py(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    parts = [_frame(x_title, y_title)]
    for x in ticks(x0, x1, 6):
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                px(x), HEIGHT - BOTTOM + 17, number(x)
            )
        )
    for y in ticks(y0, y1):
        parts.append(
            Markup(
                '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
                '<text class="tick" x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
            ).format(LEFT, WIDTH - RIGHT, py(y), LEFT - 7, py(y) + 4, number(y))
        )
    if mark_x is not None:
        at, words = mark_x
        right = px(at) > WIDTH * 0.6
        parts.append(
            Markup(
                '<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
                '<text class="note" x="{3:.1f}" y="{4}" text-anchor="{5}">{6}</text>'
            ).format(
                px(at),
                TOP,
                HEIGHT - BOTTOM,
                px(at) + (-6 if right else 6),
                HEIGHT - BOTTOM - 8,
                "end" if right else "start",
                words,
            )
        )
    for line in lines:
        path = " ".join(
            f"{'L' if i else 'M'}{px(x):.1f} {py(y):.1f}" for i, (x, y) in enumerate(zip(line.x, line.y, strict=True))
        )
        parts.append(
            Markup('<path class="line s{}{}" d="{}"/>').format(line.series, " dashed" if line.dashed else "", path)
        )
        if line.marks:
            parts += [
                Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="3" data-tip="{}"/>').format(
                    line.series, px(x), py(y), f"{line.name}, {x_title} {number(x)}: {number(y)}"
                )
                for x, y in zip(line.x, line.y, strict=True)
            ]
    return _svg(WIDTH, HEIGHT, parts, f"{y_title} over {x_title}") + (
        legend([(line.name, line.series) for line in lines]) if len(lines) > 1 else Markup("")
    )


def legend(entries: Sequence[tuple[str, int]]) -> Markup:
    """Names of series beside their colours."""
    items = Markup("").join(
        Markup('<span class="key"><i class="s{}"></i>{}</span>').format(series, name) for name, series in entries
    )
    return Markup('<div class="legend">{}</div>').format(items)


def bar_chart(
    rows: Sequence[tuple[str, Sequence[Bar]]], *, title: str, highest: float | None = None, figure: str = "{:.3f}"
) -> Markup:
    """Horizontal bars from 0, a few for each row, intervals as whiskers, over a labelled axis.

    Args:
        rows: name and bars of each row.
        title: what the bars measure, with its unit.
        highest: end of the axis; just beyond the data by default.
        figure: how a value is written.
    """
    top = highest or max((max(bar.value, (bar.interval or (0, 0))[1]) for _, bars in rows for bar in bars), default=1)
    marks = ticks(0, top * 1.02)
    end = top * 1.02 or 1.0
    parts = []
    for name, bars in rows:
        drawn = Markup("").join(
            Markup(
                '<div class="bar" data-tip="{}" tabindex="0"><i class="s{}" style="width:{:.2f}%"></i>{}<b>{}</b></div>'
            ).format(
                bar.tip,
                bar.series,
                100 * max(0.0, bar.value) / end,
                Markup("")
                if bar.interval is None
                else Markup('<u style="left:{:.2f}%;width:{:.2f}%"></u>').format(
                    100 * bar.interval[0] / end, 100 * (bar.interval[1] - bar.interval[0]) / end
                ),
                figure.format(bar.value),
            )
            for bar in bars
        )
        parts.append(Markup('<div class="barname">{}</div><div class="barset">{}</div>').format(name, drawn))
    axis = Markup("").join(
        Markup('<span style="left:{:.2f}%">{}</span>').format(100 * mark / end, number(mark)) for mark in marks
    )
    parts.append(
        Markup('<div></div><div class="baraxis"><div>{}</div><p class="axis">{}</p></div>').format(axis, title)
    )
    return Markup('<div class="bars">{}</div>').format(Markup("").join(parts))


def matrix(
    names: Sequence[str],
    shares: npt.NDArray[np.float64],
    *,
    row_title: str,
    column_title: str,
    tip: Callable[[str, str, str], str],
) -> Markup:
    """A square matrix of shares in [0, 1] as a heat map with its figures in per cent.

    Args:
        names: of rows and columns, shape (n,).
        shares: shape (n, n); NaN is left blank.
        row_title: what a row is.
        column_title: what a column is.
        tip: what is said on hovering, from the names of row and column, and the share in per cent.
    """
    n = len(names)
    short = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    longest = LETTER * max((len(name) for name in short), default=1)
    left, top = 34 + longest, 34 + 0.75 * longest
    width, height = left + n * CELL + 0.75 * longest, top + n * CELL + 6
    parts = [
        Markup('<text class="axis" transform="translate(16 {:.0f}) rotate(-90)" text-anchor="middle">{}</text>').format(
            top + n * CELL / 2, row_title
        ),
        Markup('<text class="axis" x="{:.0f}" y="16" text-anchor="middle">{}</text>').format(
            left + n * CELL / 2, column_title
        ),
    ]
    for i, name in enumerate(short):
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>').format(
                left - 8, top + (i + 0.5) * CELL + 4, name
            )
        )
        parts.append(
            Markup('<text class="tick" transform="translate({:.1f} {:.1f}) rotate(-45)">{}</text>').format(
                left + (i + 0.5) * CELL + 2, top - 6, name
            )
        )
        for j in range(n):
            share = float(shares[i, j])
            if math.isnan(share):
                continue
            x, y, said = left + j * CELL, top + i * CELL, f"{share:.0%}"
            parts.append(
                Markup(
                    '<g data-tip="{}"><rect class="cell" x="{:.1f}" y="{:.1f}" width="{}" height="{}"/>'
                    '<rect class="heat s1" x="{:.1f}" y="{:.1f}" width="{}" height="{}" fill-opacity="{:.3f}"/>'
                    '<text class="share{}" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text></g>'
                ).format(
                    tip(names[i], names[j], said),
                    *(x, y, CELL - 2, CELL - 2),
                    *(x, y, CELL - 2, CELL - 2, min(1.0, share) ** 0.8),
                    " over" if share > 0.55 else "",
                    x + CELL / 2 - 1,
                    y + CELL / 2 + 3,
                    f"{100 * share:.0f}",
                )
            )
    return Markup('<div class="scroll">{}</div>').format(
        _svg(round(width), round(height), parts, f"{row_title} against {column_title}", fixed=True)
    )


def waveform(peaks: Sequence[float]) -> str:
    """Path of a sound's envelope in a box of ``len(peaks)`` by 2, one stroke a peak in [0, 1]."""
    return "".join(f"M{i + 0.5:g} {1 - max(0.04, p):.2f}v{2 * max(0.04, p):.2f}" for i, p in enumerate(peaks))


def _frame(x_title: str, y_title: str) -> Markup:
    return Markup(
        '<line class="base" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
        '<text class="axis" x="{3}" y="{4}" text-anchor="middle">{5}</text>'
        '<text class="axis" transform="translate(15 {6}) rotate(-90)" text-anchor="middle">{7}</text>'
    ).format(
        LEFT,
        WIDTH - RIGHT,
        HEIGHT - BOTTOM,
        (LEFT + WIDTH - RIGHT) / 2,
        HEIGHT - 8,
        x_title,
        (TOP + HEIGHT - BOTTOM) / 2,
        y_title,
    )


def _svg(width: int, height: int, parts: Sequence[Markup], words: str, *, fixed: bool = False) -> Markup:
    size = Markup(' style="width:{}px"').format(width) if fixed else Markup("")
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"{}>{}</svg>').format(
        width, height, words, size, Markup("").join(parts)
    )

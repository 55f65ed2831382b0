"""Charts: where marks are drawn, axes with round numbers, and nothing unescaped."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hscmae.report import plots
from hscmae.report.plots import Bar, Line

HOSTILE = "<script>alert(1)</script>\"'&<b onmouseover=x>"


def parsed(chart: str) -> ET.Element:
    return ET.fromstring(f"<div>{chart}</div>")


def of_class(chart: str, name: str) -> list[ET.Element]:
    return [e for e in parsed(chart).iter() if name in e.get("class", "").split()]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(3, 8))
@settings(derandomize=True, deadline=None)
def test_ticks_are_round_evenly_spaced_and_inside(low: float, span: float, about: int) -> None:
    high = low + span
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        return
    found = plots.ticks(low, high, about)
    air = 1e-6 * span + 1e-9
    assert 1 <= len(found) <= about + 2
    assert all(low - air <= t <= high + air for t in found)
    steps = np.diff(found)
    if len(steps):
        assert np.allclose(steps, steps[0], rtol=1e-3, atol=1e-9)
        mantissa = steps[0] / 10 ** np.floor(np.log10(steps[0] * 1.0000001))
        assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 0.01


def test_ticks_of_a_range_without_extent() -> None:
    assert plots.ticks(3.0, 3.0) == [3.0]


def test_a_line_spans_the_frame_and_rises_with_its_values() -> None:
    chart = plots.line_chart([Line("loss", [0, 10], [0.0, 1.0], 1)], x_title="step", y_title="loss", y_range=(0, 1))
    start, end = of_class(chart, "dot")
    assert float(start.get("cx")) == plots.LEFT
    assert float(end.get("cx")) == plots.WIDTH - plots.RIGHT
    assert float(start.get("cy")) == plots.HEIGHT - plots.BOTTOM
    assert float(end.get("cy")) == plots.TOP
    assert end.get("data-tip") == "loss, step 10: 1"
    assert {e.text for e in of_class(chart, "axis")} == {"step", "loss"}


@pytest.mark.parametrize("values", [[0.5], [2.0, 2.0], [0.0, 0.0], [-3.0, 5.0]])
def test_a_line_of_any_values_stays_in_the_frame(values: list[float]) -> None:
    chart = plots.line_chart([Line("x", list(range(len(values))), values, 1)], x_title="x", y_title="y")
    for dot in of_class(chart, "dot"):
        assert plots.LEFT <= float(dot.get("cx")) <= plots.WIDTH - plots.RIGHT
        assert plots.TOP <= float(dot.get("cy")) <= plots.HEIGHT - plots.BOTTOM


def test_only_several_lines_need_a_legend() -> None:
    one = Line("first", [0, 1], [0, 1], 1)
    two = Line("second", [0, 1], [1, 0], 2)
    assert "legend" not in plots.line_chart([one], x_title="x", y_title="y")
    assert re.findall(r"</i>(\w+)<", plots.line_chart([one, two], x_title="x", y_title="y")) == ["first", "second"]


def test_bars_are_as_long_as_their_values_and_intervals_lie_on_the_same_axis() -> None:
    rows = [("half", [Bar(0.5, 1, "tip", (0.4, 0.6))]), ("none", [Bar(0.0, 2, "tip")])]
    chart = plots.bar_chart(rows, title="mAP", highest=1.0)
    widths = [float(re.search(r"width:([\d.]+)%", e.get("style")).group(1)) for e in parsed(chart).iter("i")]
    assert widths == pytest.approx([100 * 0.5 / 1.02, 0], abs=0.01)
    (whisker,) = parsed(chart).iter("u")
    left, width = map(float, re.findall(r"([\d.]+)%", whisker.get("style")))
    assert (left, left + width) == pytest.approx((100 * 0.4 / 1.02, 100 * 0.6 / 1.02), abs=0.02)


def test_a_matrix_writes_each_share_and_leaves_out_what_is_unknown() -> None:
    shares = np.array([[0.25, np.nan], [1.0, 0.0]])
    chart = plots.matrix(
        ["a", "b"], shares, row_title="r", column_title="c", tip=lambda row, column, share: f"{row} {column} {share}"
    )
    assert [e.text for e in of_class(chart, "share")] == ["25", "100", "0"]
    assert [e.get("data-tip") for e in parsed(chart).iter("g")] == ["a a 25%", "b a 100%", "b b 0%"]


def test_hostile_names_are_text_in_every_chart() -> None:
    charts = [
        plots.line_chart(
            [Line(HOSTILE, [0, 1], [0, 1], 1), Line(HOSTILE, [0, 1], [0, 1], 2)],
            x_title=HOSTILE,
            y_title=HOSTILE,
            mark_x=(0.5, HOSTILE),
        ),
        plots.bar_chart([(HOSTILE, [Bar(1, 1, HOSTILE)])], title=HOSTILE),
        plots.matrix(
            [HOSTILE], np.ones((1, 1)), row_title=HOSTILE, column_title=HOSTILE, tip=lambda row, column, share: row
        ),
    ]
    for chart in charts:
        tags = {e.tag for e in parsed(chart).iter()}
        assert tags <= {"div", "svg", "line", "text", "path", "circle", "span", "i", "u", "b", "p", "g", "rect"}
        assert not any(name.startswith("on") for e in parsed(chart).iter() for name in e.attrib)
        assert HOSTILE[:8] not in chart


def test_a_waveform_has_one_stroke_a_peak_and_silence_a_thin_line() -> None:
    assert plots.waveform([0.0, 1.0]) == "M0.5 0.96v0.08M1.5 0.00v2.00"

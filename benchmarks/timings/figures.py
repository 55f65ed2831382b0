"""One figure of a benchmark, in the form that benchmarks/results/latest.json promises.

Whether a target is met follows from the target itself ("<= 1.25 x", ">= 1.7 x", "<= 1.5 GB"), so that the printed
target and the verdict cannot differ. A figure without a target, or that could not be measured, says why.
"""

from __future__ import annotations

import operator
from typing import Any

COLUMNS = ("name", "value", "unit", "reference", "ratio", "target", "met")
COMPARE = {"<=": operator.le, ">=": operator.ge}


def figure(
    name: str,
    value: float | None,
    unit: str,
    target: str = "",
    *,
    reference: str = "",
    ratio: float | None = None,
    reason: str = "",
) -> dict[str, Any]:
    """A row of the table.

    Args:
        name: what is measured.
        value: the figure; ``None`` where it could not be measured.
        unit: of the value.
        target: a comparison, a number and a unit; with the unit ``x`` it is the ratio that is compared, else the value.
        reference: the limit or rival measured in the same run, in words and figures.
        ratio: the value against the reference.
        reason: why there is no verdict.
    """
    compared = ratio if target.endswith(" x") else value
    met = None
    if target and compared is not None and not reason:
        sign, number, _ = target.split(" ", 2)
        met = COMPARE[sign](compared, float(number))
    row = {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "ratio": ratio,
        "target": target,
        "met": met,
    }
    return row if met is not None else {**row, "reason": reason or "no target"}

"""Figures say what they show, and text from files is text in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hscmae.benchmark import plots
from hscmae.benchmark.table import Row

pytest.importorskip("matplotlib")


def row(name: str, **values: object) -> Row:
    empty = dict.fromkeys(Row.__dataclass_fields__)
    return Row(**empty | {"name": name, "reads_labels": False, "ours": False} | values)


def test_trials_name_the_criterion() -> None:
    records = [{"status": "ok", "trial": i, "score": 0.1 * i} for i in range(3)]
    (axes,) = plots.trials(records, "pls").axes
    assert "grounded k-NN" in axes.get_ylabel() and "mutual" not in axes.get_ylabel()


@pytest.mark.parametrize("name", ["$\\frac$", "a $1 and $2", "<b>&amp;", "\x1b[31mred", "_hidden"])
def test_names_of_classes_are_text(name: str, tmp_path: Path) -> None:
    records = [{"method": "pls", "classes": {"a2v": {name: 0.5}, "v2a": {name: 0.25}}}]
    plots.draw(tmp_path, "per_class", plots.per_class, records, [row("pls", mean=0.4)])
    text = (tmp_path / "per_class.svg").read_text(encoding="utf-8")
    assert "\x1b" not in text
    shown = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\x1b", "\\x1b")
    assert shown in text

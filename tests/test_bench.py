"""The contract of benchmarks/results/latest.json, with tiny stand-ins for the benchmarks; no timing."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
KEYS = {"name", "value", "unit", "reference", "ratio", "target", "met"}
STAND_INS = {
    "works": """
from figures import figure
def rows(speed=1):
    return [figure("step", speed, "s", "<= 0.5 s"), figure("rival", 2, "s", ">= 10 x", reference="3 s", ratio=30.0)]
""",
    "lacks": "import no_such_module\ndef rows(): return []",
    "stops": "def rows(): raise SystemExit('little disk')",
    "dies": "import os\ndef rows(): os._exit(3)",
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name, code in STAND_INS.items():
        (tmp_path / f"{name}.py").write_text(code)
    return importlib.import_module("run")


def test_every_benchmark_gives_rows_whatever_happens_to_it(run: Any, tmp_path: Path) -> None:
    rows = run.collect([(name, {}, 1.0) for name in STAND_INS], minutes=5)
    run.write(rows, tmp_path / "results" / "latest.json")
    written = json.loads((tmp_path / "results" / "latest.json").read_text())
    assert set(written) == {"machine", "rows"}
    assert {"processor", "cores", "torch"} <= set(written["machine"])
    assert all(set(row) >= KEYS for row in written["rows"])
    assert [row["met"] for row in written["rows"]] == [False, True, None, None, None]
    reasons = [row.get("reason", "") for row in written["rows"]]
    assert reasons[:2] == ["", ""]
    assert "no_such_module" in reasons[2] and "little disk" in reasons[3] and "BrokenProcessPool" in reasons[4]
    run.show(rows)


def test_what_would_take_too_long_is_left_out(run: Any) -> None:
    rows = run.collect([("works", {"speed": 0.1}, 9.0), ("works", {"speed": 0.1}, 1.0)], minutes=5)
    assert [row["met"] for row in rows] == [None, True, True]
    assert "left out" in rows[0]["reason"] and rows[0]["name"] == "works (speed=0.1)"


@pytest.mark.parametrize(
    ("target", "value", "ratio", "met"),
    [
        ("<= 1.25 x", 9.0, 1.25, True),
        ("<= 1.25 x", 0.1, 1.26, False),
        (">= 1.7 x", 9.0, 1.6, False),
        ("<= 1.5 GB", 1.5, 9.0, True),
        ("<= 1.5 GB", 1.6, 0.1, False),
        (">= 0.8 x", 9.0, None, None),
        ("", 9.0, 1.0, None),
    ],
)
def test_the_verdict_follows_from_the_target(
    run: Any, target: str, value: float, ratio: float | None, met: bool | None
) -> None:
    row = importlib.import_module("figures").figure("f", value, "s", target, ratio=ratio)
    assert row["met"] is met
    assert ("reason" in row) == (met is None)


def test_every_benchmark_of_the_table_exists(run: Any) -> None:
    for module, _, minutes in run.BENCHMARKS:
        assert "def rows(" in (BENCHMARKS / f"{module}.py").read_text() and minutes > 0
    assert sum(minutes for _, _, minutes in run.BENCHMARKS) < 15

"""The contract of benchmarks/results/latest.json, with tiny stand-ins for the benchmarks; no timing."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from benchmarks.timings import extrapolation, growth, performance, run
from benchmarks.timings.figures import figure

TIMINGS = Path(run.__file__).parent
KEYS = {"name", "value", "unit", "reference", "ratio", "target", "met"}
STAND_INS = {
    "works": """
from benchmarks.timings.figures import figure
def rows(speed=1):
    return [figure("step", speed, "s", "<= 0.5 s"), figure("rival", 2, "s", ">= 10 x", reference="3 s", ratio=30.0)]
""",
    "lacks": "import no_such_module\ndef rows(): return []",
    "stops": "def rows(): raise SystemExit('little disk')",
    "dies": "import os\ndef rows(): os._exit(3)",
}


@pytest.fixture(autouse=True)
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name, code in STAND_INS.items():
        (tmp_path / f"{name}.py").write_text(code)


def test_every_benchmark_gives_rows_whatever_happens_to_it(tmp_path: Path) -> None:
    rows = run.collect([(name, {}, 1.0) for name in STAND_INS], minutes=5)
    run.write(rows, tmp_path / "results" / "latest.json")
    written = json.loads((tmp_path / "results" / "latest.json").read_text())
    assert set(written) == {"machine", "rows"}
    assert {"processor", "cores", "torch"} <= set(written["machine"])
    assert all(set(row) >= KEYS for row in written["rows"])
    assert [row["met"] for row in written["rows"]] == [False, True, None, None, None]
    assert [row.get("process_gb", 0) > 0 and row["process_s"] >= 0 for row in rows] == [True, True, False, False, False]
    reasons = [row.get("reason", "") for row in written["rows"]]
    assert reasons[:2] == ["", ""]
    assert "no_such_module" in reasons[2] and "little disk" in reasons[3] and "BrokenProcessPool" in reasons[4]
    run.show(rows)


def test_what_is_measured_again_takes_the_place_of_what_was() -> None:
    before = [figure(name, value, "s") for name, value in (("a", 1.0), ("b", 2.0), ("a", 3.0), ("c", 4.0))]
    before.append(figure("d", None, "", reason="left out: no time"))
    again = [figure(name, value, "s") for name, value in (("e", 5.0), ("a", 6.0), ("a", 7.0))]
    rows = run.merged(before, again)
    assert [(row["name"], row["value"]) for row in rows] == [("a", 6.0), ("a", 7.0), ("b", 2.0), ("c", 4.0), ("e", 5.0)]


def test_what_would_take_too_long_is_left_out() -> None:
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
def test_the_verdict_follows_from_the_target(target: str, value: float, ratio: float | None, met: bool | None) -> None:
    row = figure("f", value, "s", target, ratio=ratio)
    assert row["met"] is met
    assert ("reason" in row) == (met is None)


def test_every_benchmark_of_the_table_exists() -> None:
    for module, _, minutes in run.BENCHMARKS:
        assert "def rows(" in (TIMINGS / f"{module}.py").read_text() and minutes > 0
    assert sum(minutes for _, _, minutes in run.BENCHMARKS) < 15


def test_the_cost_model_finds_known_costs() -> None:
    costs = {"once": 0.5, "FLOPs": 2e-9, "bytes": 0.0}
    work = [{"once": 1, "FLOPs": n * 1e8, "bytes": n**2 * 1e6} for n in (1, 3, 10, 30, 100)]
    measured = [{"work": w, "seconds": sum(costs[name] * amount for name, amount in w.items())} for w in work]
    model = growth.fit(measured)
    assert model["coefficients"] == pytest.approx(costs, abs=1e-12)
    assert model["largest_error"] < 1e-9
    measured[2]["seconds"] *= 2
    assert growth.fit(measured)["largest_error"] > 0.3


def test_the_page_holds_what_the_results_say(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(performance.PAGE.read_text())
    run.write(
        [figure("a step", 2.0, "s", "<= 1 s"), figure("a job", None, "s", reason="no disk")], tmp_path / "latest.json"
    )
    performance.update(page, tmp_path)
    once = page.read_text()
    assert "0 of 1 targets are met" in once
    assert "| a step | 2 s |  |  | <= 1 s | **no** |" in once and "| a job |  |  |  |  | no disk |" in once
    assert performance.NOT_MEASURED in once
    performance.update(page, tmp_path)
    assert page.read_text() == once
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="figures"):
        performance.update(page, tmp_path)


def test_the_extrapolation_rests_on_counted_work() -> None:
    found = extrapolation.extrapolate(growth.step_work, lambda name, rows: rows * 1e-6)
    assert found["here"]["embed"] == pytest.approx(100)
    for name, step in found["step_seconds"].items():
        arithmetic = 1e6 * found["mflop_per_clip"] * found["batch_per_gpu"] / found["peak_flops"]
        assert step > found["fixed_seconds"][name] + arithmetic / found["utilisation"][name]
        assert found["epoch_seconds"][name] >= found["read_seconds"]
    assert found["store_gb"] == pytest.approx(100e6 * 1152 * 2 / 1e9)


@pytest.mark.parametrize("module", sorted(TIMINGS.parent.glob("*/*.py")), ids=lambda path: path.stem)
def test_every_benchmark_can_be_started(module):
    importlib.import_module(f"benchmarks.{module.parent.name}.{module.stem}")

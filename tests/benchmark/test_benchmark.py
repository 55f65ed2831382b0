"""`benchmark` end to end on made-up pairs: the contract of its files, resuming, failures, mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import make_pairs
from hscmae.benchmark.curves import curve_points, curve_table
from hscmae.benchmark.jobs import Contender, contenders
from hscmae.benchmark.protocol import benchmark
from hscmae.cli import main
from hscmae.data.store import write_store
from hscmae.errors import InputError

TINY = {"dim": 6, "network": {"width": 16}, "training": {"steps": 4, "batch_size": 64, "evaluations": 2}}
RIDGE = {"dim": 6, "ridge": 3.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs"
    write_store(make_pairs(), path)
    return path


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


def test_files_resume_and_refusal(store: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "bench"
    command = ["benchmark", str(store), "--methods", "random,cca", "--seeds", "2", "--splits", "2", "--threads", "1"]
    command += ["--output", str(out), "--curve", "partial", "--json"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert len(captured.out.strip().splitlines()) == 1
    results = json.loads((out / "results.json").read_text())
    assert json.loads(captured.out)["results"] == results
    keys = {"method", "seed", "split", "a2v/mAP", "v2a/mAP", "avg/mAP", "fit_seconds", "peak_rss_mb", "settings"}
    for result in results:
        assert keys <= result.keys()
        assert result["avg/mAP"] == pytest.approx((result["a2v/mAP"] + result["v2a/mAP"]) / 2)
        assert result["avg/mAP_ci"][0] < result["avg/mAP"] < result["avg/mAP_ci"][1]
        assert 50 < result["peak_rss_mb"] < 4000
        assert result["settings"]["seed"] == result["seed"]
        assert "structure/modality_gap" in result
    # CCA has no seed: one fit a split. Test rows differ between splits, and seeds matter to the random projection.
    found = {(r["method"], r["split"], r["seed"]) for r in results}
    splits = ("resplit-100", "resplit-101")
    assert found == {("cca", s, 0) for s in splits} | {("random", s, i) for s in splits for i in (0, 1)}
    assert len({r["avg/mAP"] for r in results}) == 6
    text = (out / "benchmark.md").read_text()
    assert "| cca |" in text
    assert "t over 2 splits" in text
    assert (out / "table.csv").read_text().count("\n") == 3

    partial = [p for p in json.loads((out / "curves.json").read_text()) if p["curve"] == "partial"]
    assert {p["x"] for p in partial} == {0.0, 0.1, 0.3, 0.5, 0.7, 0.9}
    for p in partial:
        whole = next(r for r in results if all(r[k] == p[k] for k in ("method", "seed", "split")))
        if p["x"] == 0:  # nothing missing: what was measured anyway
            assert p["a2v/mAP"] == pytest.approx(whole["a2v/mAP"])
            assert p["v2a/mAP"] == pytest.approx(whole["v2a/mAP"])

    one = next(out.glob("fits/cca*100*.json"))
    one.unlink()
    kept = {f: f.stat().st_mtime_ns for f in out.glob("fits/*")}
    assert main([*command, "--resume"]) == 0
    again = json.loads(capsys.readouterr().out)["results"]
    assert [r["avg/mAP"] for r in again] == [r["avg/mAP"] for r in results]
    assert one.exists()
    assert all(f.stat().st_mtime_ns == when for f, when in kept.items())

    assert main(command) == 2
    assert "--resume" in error_line(capsys)
    assert main([*command[:4], "--splits", "2", "--resume", "--output", str(out)]) == 2
    assert "seeds" in error_line(capsys)
    write_store(make_pairs(seed=9), tmp_path / "other")
    assert main([command[0], str(tmp_path / "other"), *command[2:], "--resume"]) == 2
    assert "other data" in error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--methods", "nosuch"], "unknown method 'nosuch'"),
        (["--methods", "hscmae:nosuch"], "preset"),
        (["--methods", ","], "no methods"),
        (["--curve", "nosuch"], "unknown curve 'nosuch'"),
        (["--splits", "2", "--holdout", "id-hash:0.2"], "--splits"),
    ],
)
def test_wrong_usage_is_one_line(store: Path, tmp_path: Path, capsys: Any, arguments: list[str], expected: str) -> None:
    assert main(["benchmark", str(store), "--output", str(tmp_path / "out"), *arguments]) == 2
    assert expected in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_never_replaced(store: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all my work")
    for option in ("--overwrite", "--resume"):
        command = ["benchmark", str(store), "--methods", "cca", "--output", str(tmp_path / "mine"), option]
        assert main(command) == 2
        assert "remove it yourself" in error_line(capsys)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_method_that_fails_is_reported_and_others_go_on(tmp_path: Path) -> None:
    who = [
        Contender("good", "ridge-cca", settings=RIDGE),
        Contender("bad", "infonce", settings={**TINY, "training": {**TINY["training"], "lr": 1e30, "grad_clip": 1e30}}),
    ]
    results = benchmark(make_pairs(), tmp_path / "out", who, seeds=1, threads=1)
    assert [r["status"] for r in results] == ["ok", "failed"]
    assert "not finite" in results[1]["error"]
    assert "1 of 1 fits of bad failed" in (tmp_path / "out" / "benchmark.md").read_text()


def test_tiny_deep_one_split_and_other_names(tmp_path: Path) -> None:
    pairs = make_pairs()
    names = {"audio": "left", "visual": "right"}
    pairs = replace(
        pairs,
        features={names[m]: x for m, x in pairs.features.items()},
        present={names[m]: p for m, p in pairs.present.items()},
    )
    who = [Contender("hscmae", "hscmae", settings=TINY), Contender("ridge-cca", "ridge-cca", settings=RIDGE)]
    results = benchmark(pairs, tmp_path / "out", who, seeds=1, threads=1, jobs=2, curves=["wrong-pairs"])
    assert [r["method"] for r in results] == ["hscmae", "ridge-cca"]
    assert {"left2right/mAP", "right2left/mAP"} <= results[0].keys()
    assert results[0]["split"] == "file"
    points = json.loads((tmp_path / "out" / "curves.json").read_text())
    assert {(p["curve"], p["x"], p["method"]) for p in points} == {
        ("wrong-pairs", x, name) for x in (0.0, 0.2, 0.4, 0.6) for name in ("hscmae", "ridge-cca")
    }
    ridge = {p["x"]: p["avg/mAP"] for p in points if p["method"] == "ridge-cca"}
    assert ridge[0.0] == results[1]["avg/mAP"] > ridge[0.6]
    text = (tmp_path / "out" / "benchmark.md").read_text()
    assert "mAP by share of training pairs that are wrong" in text
    assert "bootstrap over its test clips" in text
    assert "**hscmae**" in text


def test_interrupted_it_stops_at_once_and_goes_on_where_it_was(tmp_path: Path) -> None:
    pairs = replace(make_pairs(), labels=None)
    who = [Contender(f"ridge {r:g}", "ridge-cca", settings={"dim": 6, "ridge": r}) for r in (1.0, 2.0, 3.0)]

    def interrupt(stage: str, done: int, total: int, note: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark(pairs, tmp_path / "out", who, seeds=1, threads=1, progress=interrupt)
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert not (tmp_path / "out" / ".data").exists()
    (tmp_path / "out" / ".data" / "pairs").mkdir(parents=True)  # as a kill leaves it
    assert [r["method"] for r in kept] == ["ridge 1", "ridge 2"]
    results = benchmark(pairs, tmp_path / "out", who, seeds=1, threads=1, resume=True)
    assert not (tmp_path / "out" / ".data").exists()
    assert results[:2] == kept
    assert results[2]["method"] == "ridge 3"
    # Without labels recall decides.
    assert not [key for key in results[0] if "mAP" in key]
    assert "| method | R@10 |" in (tmp_path / "out" / "benchmark.md").read_text()


def test_curves_by_number_of_labels_and_what_is_lost() -> None:
    base = {"status": "ok", "seed": 0, "split": "file", "damage": "", "share": 0.0, "a2v/mAP": 0.5, "v2a/mAP": 0.3}
    groups = {"a2v": {"1": [0.5, 9], "2": [0.4, 5], "3": [0.1, 1]}, "v2a": {"1": [0.3, 9], "2": [0.2, 5]}}
    points = curve_points([{**base, "method": "cca", "avg/mAP": 0.4, "by_labels": groups}])
    assert [(p["curve"], p["x"], p["avg/mAP"]) for p in points] == [
        ("labels", 1, pytest.approx(0.4)),
        ("labels", 2, pytest.approx(0.3)),
    ]
    assert "| cca | 0.4000 | 0.3000 | -25.0% |" in curve_table(points, "labels")


def test_all_names_every_method_and_the_paper() -> None:
    names = [c.name for c in contenders(["all"])]
    assert {"ridge-cca", "smoothed-cca", "infonce", "hscmae:paper", "hscmae"} <= set(names)
    assert len(set(names)) == len(names)
    with pytest.raises(InputError, match="unknown method"):
        contenders(["nosuch"])

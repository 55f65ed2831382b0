"""Tuning reads neither labels nor test rows, repeats itself when gone on with, and ends in a file that trains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import make_pairs
from hscmae.benchmark import tuning
from hscmae.benchmark.jobs import Contender, contenders
from hscmae.benchmark.spaces import space
from hscmae.cli import main
from hscmae.config import build, nest
from hscmae.data.pairs import Labels
from hscmae.data.store import write_store
from hscmae.methods import METHODS, get_method

pytest.importorskip("optuna")


def trials_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "fit_seconds"} for line in lines]


def test_no_labels_no_test_rows_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hscmae.benchmark.plots.draw", lambda *_: None)
    pairs, who = make_pairs(400), Contender("ridge-cca", "ridge-cca", settings={"dim": 6, "ridge": 50.0})
    found = tuning.tune(pairs, tmp_path / "a", who, 5, threads=1)
    trials = trials_of(tmp_path / "a")
    assert [t["trial"] for t in trials] == list(range(5))
    assert trials[0]["params"] == {}
    assert found["best"] == tuning.best_of(trials)["score"] >= found["default"]
    assert len({t["score"] for t in trials}) > 1

    rng = np.random.default_rng(0)
    rows = pairs.rows_of("test")
    features = {m: x.copy() for m, x in pairs.features.items()}
    for x in features.values():
        x[rows] = rng.normal(size=x[rows].shape)
    other = replace(pairs, features=features, labels=Labels.single(rng.permutation(pairs.labels.indices)))
    tuning.tune(other, tmp_path / "b", who, 5, threads=1)
    assert trials_of(tmp_path / "b") == trials

    file = tmp_path / "a" / "trials.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))
    tuning.tune(pairs, tmp_path / "a", who, 5, threads=1, resume=True)
    assert trials_of(tmp_path / "a") == trials


def test_a_trial_takes_the_default_s_place_only_by_more_than_a_standard_error() -> None:
    def trial(number: int, each: list[float]) -> dict[str, Any]:
        return {"trial": number, "status": "ok", "method": "m", "score": float(np.mean(each)), "each": each}

    rng = np.random.default_rng(0)
    base = rng.normal(0.3, 0.1, 200)
    noise = trial(1, (base + rng.normal(0.004, 0.1, 200)).tolist())
    clear = trial(2, (base + 0.003 + rng.normal(0, 0.001, 200)).tolist())
    start = trial(0, base.tolist())
    assert tuning.best_of([start, noise])["trial"] == 0
    assert tuning.best_of([start, noise, clear])["trial"] == 2
    assert tuning.best_of([trial(0, base.tolist()) | {"status": "failed", "error": ""}, noise, clear])["trial"] in (
        1,
        2,
    )


def test_the_verb_writes_a_config_that_trains(tmp_path: Path, capsys: Any) -> None:
    write_store(make_pairs(400), tmp_path / "pairs")
    command = ["tune", str(tmp_path / "pairs"), "--method", "smoothed-cca", "--trials", "3", "--set", "dim=6"]
    assert main([*command, "--output", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    best = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert best["dim"] == 6
    assert {k: best[k] for k in found["settings"]} == found["settings"]
    assert "| 0 |" in (tmp_path / "out" / "tune.md").read_text()
    train = ["train", str(tmp_path / "pairs"), "--method", "smoothed-cca", "--output", str(tmp_path / "run")]
    assert main([*train, "--config", str(tmp_path / "out" / "best.yaml")]) == 0


@pytest.mark.parametrize("name", METHODS)
def test_every_range_is_one_that_the_method_takes(name: str) -> None:
    (contender,) = contenders([name])
    for setting, bounds in space(contender).items():
        for value in (bounds.low, bounds.high):
            build(get_method(name).Config, nest(get_method(name).Config, {setting: value}))
    assert "dim" not in space(contender)


def test_a_part_that_is_off_stays_off() -> None:
    parts = {"loss": {"sample_weight": 0.0}, "warm_start": {"kind": "none"}, "head": {"final": "none"}}
    off = Contender("x", "hscmae", settings=parts)
    assert not {"loss.sample_weight", "warm_start.ridge", "head.ridge"} & space(off).keys()
    assert "ridge" not in space(Contender("cca", "cca"))
    assert "network.branch_scale" not in space(Contender("infonce", "infonce"))
    assert "network.branch_scale" in space(Contender("hscmae", "hscmae"))


def test_a_ridge_that_chooses_itself_is_not_tuned() -> None:
    assert not space(Contender("ridge-cca", "ridge-cca"))
    assert "ridge" in space(Contender("ridge-cca", "ridge-cca", settings={"ridge": 3.0}))
    assert "warm_start.ridge" not in space(Contender("hscmae", "hscmae"))
    assert "warm_start.ridge" in space(Contender("hscmae", "hscmae", settings={"warm_start": {"ridge": 3.0}}))


def test_classifiers_have_nothing_to_tune() -> None:
    assert not space(Contender("supervised", "supervised"))


def test_too_few_pairs_to_judge_by_and_nothing_to_tune(tmp_path: Path, capsys: Any) -> None:
    write_store(make_pairs(), tmp_path / "pairs")
    command = ["tune", str(tmp_path / "pairs"), "--output", str(tmp_path / "out"), "--trials", "1", "--method"]
    assert main([*command, "smoothed-cca"]) == 1
    assert "18 held-out pairs are too few" in capsys.readouterr().err
    assert main([*command, "ridge-cca"]) == 2
    assert "nothing to tune" in capsys.readouterr().err


def test_without_optuna_the_extra_is_named(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    write_store(make_pairs(), tmp_path / "pairs")
    for command in (["tune"], ["benchmark", "--methods", "ridge-cca", "--trials", "2"]):
        arguments = [command[0], str(tmp_path / "pairs"), *command[1:], "--output", str(tmp_path / "out")]
        assert main(arguments) == 2
        assert "pip install 'optuna>=" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

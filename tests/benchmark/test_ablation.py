"""Variants differ from the whole in their part alone; the verb's table, plots and sweeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import make_pairs
from hscmae.benchmark.ablation import ALONGSIDE, PARTS, sweep, variants
from hscmae.benchmark.jobs import Contender
from hscmae.benchmark.spaces import defaults
from hscmae.cli import main
from hscmae.config import dotted_names, flatten
from hscmae.data.store import write_store
from hscmae.errors import InputError
from hscmae.methods import get_method

BASE = Contender("hscmae", "hscmae")


def changed(variant: Contender) -> dict[str, Any]:
    method = get_method("hscmae")
    names = dotted_names(method.Config)
    a, b = (flatten(method.from_settings(c.settings, c.preset).config) for c in (BASE, variant))
    return {names[k]: b[k] for k in a if a[k] != b[k]}


def value_swept(swept: Contender) -> Any:
    """The value that a sweep gives its setting."""
    (value,) = defaults(swept, [swept.part]).values()
    return value


def test_each_variant_changes_its_part_alone_and_none_is_the_whole() -> None:
    whole, *others = variants(BASE, sensitivity=True)
    assert whole.part == "whole"
    change = {label: settings for _, label, settings in PARTS}
    for c in others:
        expected = change[c.name] if c.name in change else {c.part: value_swept(c), **ALONGSIDE.get(c.part, {})}
        assert changed(c) and changed(c).items() <= expected.items()
    assert len({c.name for c in others}) == len(others)
    parts = {c.part for c in others}
    assert {part for part, _, _ in PARTS} <= parts
    assert {"masking.ratio", "dim", "training.batch_size"} <= parts
    (local,) = variants(BASE, ["local"])[1:]
    assert changed(local) == {"loss.local_weight": 0.0}
    with pytest.raises(InputError, match="unknown part 'nosuch'"):
        variants(BASE, ["nosuch"])


@pytest.mark.parametrize("base", [{}, {"affinity": {"mask_pair": True}}, {"affinity": {"pair_share": 0.3}}])
def test_every_part_can_be_taken_from_any_base(base: dict[str, Any]) -> None:
    who = variants(BASE.changed(base), sensitivity=True)
    assert {part for part, _, _ in PARTS} <= {c.part for c in who}
    for c in who:
        get_method(c.method).from_settings(c.settings, c.preset)


@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_a_sweep_takes_the_base_as_one_of_its_points_where_it_is_one(spread: float) -> None:
    who = variants(BASE.changed({"masking": {"ratio": 0.4, "spread": spread}}), ["masking.ratio"])
    records = [
        {"method": c.name, "split": s, "seed": i, "avg/mAP": 0.1 * i + (0.01 if s == "b" else 0.0)}
        | ({"avg/mAP": 9.0} if spread and c.part == "whole" else {})
        for c in who
        for s in "ab"
        for i in (1, 2)
    ]
    x, mean, low, high, default = sweep(records, who, "masking.ratio", "avg/mAP")
    assert x == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert default == 0.4
    np.testing.assert_allclose(mean, 0.155)
    np.testing.assert_allclose([low[0], high[0]], [0.105, 0.205])


def test_the_verb(tmp_path: Path, capsys: Any) -> None:
    write_store(make_pairs(), tmp_path / "pairs")
    command = ["ablate", str(tmp_path / "pairs"), "--parts", "local,loss.tau", "--seeds", "1", "--threads", "1"]
    for setting in ("dim=6", "network.width=16", "training.steps=4", "training.evaluations=2", "warm_start.ridge=3"):
        command += ["--set", setting]
    out = tmp_path / "out"
    assert main([*command, "--output", str(out), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results == json.loads((out / "results.json").read_text())
    names = [r["method"] for r in results]
    assert names[:2] == ["hscmae", "without the local level"]
    assert "loss.tau=0.8" in names
    assert all(r["status"] == "ok" for r in results)
    text = (out / "ablation.md").read_text()
    assert "difference to hscmae" in text
    pytest.importorskip("matplotlib")
    assert (out / "sensitivity.svg").exists()
    assert (out / "ablation.png").read_bytes()[:4] == b"\x89PNG"

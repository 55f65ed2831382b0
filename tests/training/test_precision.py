"""The type of the matrix products: measured, recorded, kept; and what it changes in what is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_pairs
from hscmae.methods import HSCMAE
from hscmae.training import precision

CPU = torch.device("cpu")
QUICK: dict[str, Any] = {"dim": 8, "training_steps": 6, "training_evaluations": 2, "training_checkpoint_seconds": 0.0}


@pytest.mark.parametrize(
    ("setting", "width", "quicker", "expected"),
    [
        ("auto", 512, 4.0, "bfloat16"),
        ("auto", 512, 1.2, "float32"),
        ("auto", 512, 0.1, "float32"),
        ("auto", 64, 4.0, "float32"),
        ("float32", 512, 4.0, "float32"),
        ("bfloat16", 64, 0.1, "bfloat16"),
    ],
)
def test_what_the_machine_is_quick_in_is_taken_unless_told(
    monkeypatch: pytest.MonkeyPatch, setting: str, width: int, quicker: float, expected: str
) -> None:
    monkeypatch.setattr(precision, "speedup", lambda device: quicker)
    assert precision.precision_of(setting, width, CPU) == expected


def test_a_resumed_run_keeps_its_precision_on_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pairs = make_pairs(120)
    monkeypatch.setattr(precision, "speedup", lambda device: 4.0)
    whole = HSCMAE(**QUICK).fit(pairs)
    assert whole.summary_["precision"] == "bfloat16"

    class Killed(Exception):
        pass

    def kill(record: dict[str, Any]) -> None:
        if record["phase"] == "refit":
            raise Killed

    with pytest.raises(Killed):
        HSCMAE(**QUICK).fit(pairs, run=tmp_path / "run", progress=kill)
    monkeypatch.setattr(precision, "speedup", lambda device: 0.1)
    resumed = HSCMAE(**QUICK).fit(pairs, run=tmp_path / "run", resume=True)
    assert resumed.summary_["precision"] == "bfloat16"
    for m, z in whole.embed_pairs(pairs).items():
        np.testing.assert_array_equal(resumed.embed_pairs(pairs)[m], z)
    assert HSCMAE(**QUICK).fit(pairs).summary_["precision"] == "float32"


def test_bfloat16_learns_what_float32_does() -> None:
    """Apart by rounding, yet not the same: products are in bfloat16, and weights stay in float32."""
    pairs = make_pairs(200)
    how = QUICK | {"training_steps": 20, "training_validation_share": 0.0}
    start, one, other = (
        HSCMAE(**how | {"training_precision": p, "training_lr": lr}).fit(pairs)
        for p, lr in (("float32", 1e-9), ("float32", 3e-3), ("bfloat16", 3e-3))
    )
    for m, z in one.embed_pairs(pairs).items():
        apart = np.linalg.norm(z - other.embed_pairs(pairs)[m]) / np.linalg.norm(z - start.embed_pairs(pairs)[m])
        assert 0 < apart < 0.1
    assert {p.dtype for p in other.network_.parameters()} == {torch.float32}

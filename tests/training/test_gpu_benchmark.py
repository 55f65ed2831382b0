"""The GPU's benchmark runs through on the CPU, with tiny sizes and a stand-in for the recording; no timing."""

from __future__ import annotations

import json

import pytest
import torch
from test_capture import Rerun

from benchmarks.timings import gpu


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_every_figure_is_measured() -> None:
    sizes = {"width": 16, "pairs": 200, "batch": 40, "epochs": 4, "large_batch": 64}
    rows = gpu.rows("cpu", **sizes, matrix=64, gallery=300, checked=100, kind=Rerun)
    assert [row["met"] for row in rows[:3]] == [True] * 3
    assert [row["unit"] for row in rows[3:]] == ["clips/s", "s", "%", "s"]
    assert all(row["value"] > 0 and row["target"] for row in rows[3:])
    json.dumps(rows)


def test_a_step_that_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter((0, 1))
    monkeypatch.setattr(gpu, "DrawnOnCPU", lambda seed, _: gpu.Noise(seed, next(steps)))
    assert gpu.step_against_cpu("cpu", width=16, rows=40) > 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_the_same() -> None:
    assert gpu.step_against_cpu("cuda", width=64, rows=128) < 1e-7
    assert gpu.recorded_against_plain("cuda", width=64, rows=128, kind=gpu.Captured) < 1e-4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main()
    assert capsys.readouterr().out == "no NVIDIA GPU at hand: nothing to measure\n"

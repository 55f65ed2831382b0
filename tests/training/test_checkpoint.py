"""Runs that are killed, disks that fail: the old checkpoint or the new one loads, and a resumed run is the same run."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_pairs
from hscmae import files
from hscmae.errors import InputError
from hscmae.methods import HSCMAE
from hscmae.runs import train_run
from hscmae.training.checkpoint import NAME, load_checkpoint, restore, save_checkpoint

QUICK: dict[str, Any] = {
    "dim": 6,
    "network_width": 16,
    "training_steps": 20,
    "training_batch_size": 32,
    "training_evaluations": 10,
    "training_checkpoint_seconds": 0.0,
    "affinity_source": "queue",
    "affinity_queue_size": 70,
    "head_refresh": 4,
}


def outcome(run: Path) -> tuple[bytes, list[dict[str, Any]], dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        del record["seconds"]
    training = json.loads((run / "config.json").read_text())["training"]
    return (run / "model.safetensors").read_bytes(), records, {k: v for k, v in training.items() if k != "seconds"}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("refit", [True, False])
def test_a_run_stopped_anywhere_resumes_to_the_same_weights_metrics_and_choice(tmp_path: Path, refit: bool) -> None:
    pairs, settings = make_pairs(), {**QUICK, "training_refit": refit}
    train_run(HSCMAE(**settings), pairs, tmp_path / "whole")
    whole = outcome(tmp_path / "whole")
    for stop_at in range(1, len(whole[1]), 6):  # in every phase
        run, count = tmp_path / f"stopped{stop_at}", 0

        def stop(record: dict[str, Any], last: int = stop_at) -> None:
            nonlocal count
            count += 1
            if count == last:
                raise Killed

        with pytest.raises(Killed):
            train_run(HSCMAE(**settings), pairs, run, progress=stop)
        train_run(HSCMAE(**settings), pairs, run, resume=True)
        assert outcome(run) == whole


@pytest.mark.parametrize("stop_at", [5, 16])
def test_a_resumed_phase_does_not_solve_its_warm_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    records: list[dict[str, Any]] = []

    def stop(record: dict[str, Any]) -> None:
        records.append(record)
        if len(records) == stop_at:
            raise Killed

    with pytest.raises(Killed):
        HSCMAE(**QUICK).fit(make_pairs(), run=tmp_path, progress=stop)
    solved: list[float] = []
    solve = HSCMAE._closed_form
    monkeypatch.setattr(HSCMAE, "_closed_form", lambda *args: solved.append(args[2]) or solve(*args))
    HSCMAE(**QUICK).fit(make_pairs(), run=tmp_path, resume=True)
    phases = ["select", "select 2", "select 3", "select 4", "refit"]
    assert len(solved) == len(phases) - 1 - phases.index(records[-1]["phase"])  # those of the phases still to begin


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from conftest import make_pairs
from hscmae.methods import HSCMAE
from hscmae.runs import train_run
import json
train_run(HSCMAE(**json.loads(sys.argv[2])), make_pairs(400), Path(sys.argv[1]), resume=True)
"""


def kill_and_resume(tmp_path: Path, kills: int, settings: dict[str, Any], seed: int) -> None:
    command = [sys.executable, "-c", SCRIPT]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    argument = json.dumps(settings)
    began = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole"), argument], check=True, env=environment)
    took = time.monotonic() - began
    draw = random.Random(seed)
    killed, run = 0, tmp_path / "killed"
    while killed < kills:
        began = time.monotonic()
        process = subprocess.Popen([*command, str(run), argument], env=environment)
        try:
            process.wait(draw.uniform(0.3, 1.1) * took)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        else:
            assert process.returncode == 0
            took = time.monotonic() - began  # on a machine that has become faster no kill would ever come in time
            assert outcome(run) == outcome(tmp_path / "whole")
            for file in run.iterdir():
                file.unlink()
    subprocess.run([*command, str(run), argument], check=True, env=environment)
    assert outcome(run) == outcome(tmp_path / "whole")


def test_killed_at_random_moments(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, 3, {**QUICK, "training_steps": 300, "training_evaluations": 60}, seed=0)


@pytest.mark.long
def test_killed_twenty_times_at_random_moments(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, 20, {**QUICK, "training_steps": 400, "training_evaluations": 100}, seed=1)


def small_state() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    module = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(module.parameters(), fused=True)
    module(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return module, optimiser


def test_a_checkpoint_gives_back_weights_and_moments(tmp_path: Path) -> None:
    module, optimiser = small_state()
    save_checkpoint(tmp_path, module, optimiser, {"x": torch.ones(2)}, {"step": 7})
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    tensors, state = loaded
    assert state == {"step": 7}
    torch.testing.assert_close(tensors["kept/x"], torch.ones(2))
    other, fresh = small_state()
    restore(tensors, other, fresh)
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        for key, value in optimiser.state[a].items():
            torch.testing.assert_close(fresh.state[b][key], value, rtol=0, atol=0)


def failing(call: Any, at: int, counter: list[int]) -> Any:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        counter[0] += 1
        if counter[0] == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return call(*args, **kwargs)

    return wrapped


def test_whichever_write_flush_or_rename_fails_the_old_or_the_new_checkpoint_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, optimiser = small_state()
    save_checkpoint(tmp_path, module, optimiser, {}, {"step": 1})
    (tmp_path / f".{NAME}.stray.tmp").write_bytes(b"left behind by a killed run")
    for at in range(1, 50):
        counter = [0]
        with monkeypatch.context() as patch:

            def fdopen(
                *args: Any, at: int = at, counter: list[int] = counter, opened: Any = os.fdopen, **kwargs: Any
            ) -> Any:
                file = opened(*args, **kwargs)

                class Proxy:
                    write = staticmethod(failing(file.write, at, counter))
                    flush = staticmethod(failing(file.flush, at, counter))
                    fileno = file.fileno

                    def __enter__(self) -> Any:
                        return self

                    def __exit__(self, *_: Any) -> None:
                        file.close()

                return Proxy()

            patch.setattr(files.os, "fdopen", fdopen)
            patch.setattr(files.os, "fsync", failing(os.fsync, at, counter))
            patch.setattr(files.os, "replace", failing(os.replace, at, counter))
            try:
                save_checkpoint(tmp_path, module, optimiser, {}, {"step": 2})
                failed = False
            except OSError:
                failed = True
        loaded = load_checkpoint(tmp_path)
        assert loaded is not None
        assert loaded[1]["step"] in ((1, 2) if failed else (2,))
        assert sorted(p.name for p in tmp_path.iterdir()) == [f".{NAME}.stray.tmp", NAME]
        if not failed:
            assert at > 4  # write, flush, sync, rename, sync of the folder have each failed once
            return
    raise AssertionError("no clean run")


def test_a_disk_that_is_full_halfway_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    module, optimiser = small_state()
    save_checkpoint(tmp_path, module, optimiser, {}, {"step": 1})
    size = (tmp_path / NAME).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(tmp_path, module, optimiser, {}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded[1] == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"\x80\x04 not safetensors")
    with pytest.raises(InputError, match="not a checkpoint"):
        load_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path / "nowhere") is None


def test_resuming_with_other_settings_or_data_names_what_differs(tmp_path: Path) -> None:
    pairs, run = make_pairs(), tmp_path / "run"

    def stop(record: dict[str, Any]) -> None:
        if record["step"] >= 4:
            raise Killed

    with pytest.raises(Killed):
        train_run(HSCMAE(**QUICK), pairs, run, progress=stop)
    with pytest.raises(InputError, match=r"loss\.tau=0\.2, not 0\.3"):
        train_run(HSCMAE(**QUICK, loss_tau=0.3), pairs, run, resume=True)
    with pytest.raises(InputError, match="other data"):
        train_run(HSCMAE(**QUICK), make_pairs(seed=1), run, resume=True)
    for row in (pairs.rows_of("train")[1], pairs.rows_of("train")[-1]):
        other = {m: x.copy() for m, x in pairs.features.items()}
        other["visual"][row, 3] += 1e-3
        with pytest.raises(InputError, match="other data"):
            train_run(HSCMAE(**QUICK), replace(pairs, features=other), run, resume=True)
    with pytest.raises(InputError, match="other data"):  # ids decide which rows are held out
        train_run(HSCMAE(**QUICK), replace(pairs, ids=pairs.ids[::-1]), run, resume=True)
    with pytest.raises(InputError, match="exists already"):
        train_run(HSCMAE(**QUICK), pairs, run)
    train_run(HSCMAE(**QUICK), pairs, run, resume=True)
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    train_run(HSCMAE(**QUICK), pairs, run, resume=True)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    with pytest.raises(InputError, match=r"dim=6, not 5"):
        train_run(HSCMAE(**{**QUICK, "dim": 5}), pairs, run, resume=True)


def test_a_resumed_run_takes_the_threads_it_began_with(tmp_path: Path) -> None:
    run, pairs = tmp_path / "run", make_pairs()

    def stop(record: dict[str, Any]) -> None:
        if record["step"] >= 4:
            raise Killed

    with pytest.raises(Killed):
        train_run(HSCMAE(**QUICK), pairs, run, threads=2, progress=stop)
    torch.set_num_threads(1)
    assert train_run(HSCMAE(**QUICK), pairs, run, resume=True)["threads"] == 2


def test_overwriting_never_removes_what_is_not_a_run(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("...")
    with pytest.raises(InputError, match="is not a run"):
        train_run(HSCMAE(**QUICK), make_pairs(), precious, overwrite=True)
    assert (precious / "thesis.tex").exists()
    np.testing.assert_equal(len(list(precious.iterdir())), 1)

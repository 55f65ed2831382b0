"""The command line under torchrun: one voice, workers that die, runs that go on in another number of processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from conftest import make_pairs
from hscmae.cli import main
from hscmae.data.store import write_store
from hscmae.methods import load
from hscmae.training.checkpoint import load_checkpoint
from processes import in_processes

SETTINGS = {
    "dim": 6,
    "network.width": 16,
    "network.dropout": 0.2,
    "training.steps": 120,
    "training.batch_size": 63,
    "training.evaluations": 12,
    "training.checkpoint_seconds": 0,
    "affinity.source": "queue",
    "affinity.queue_size": 100,
    "warm_start.ridge": 3,
}
PAIRS = make_pairs(300)
TOLERANCE = 1e-4  # two processes sum in another order than one


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "store"
    write_store(PAIRS, folder)
    return folder


@pytest.fixture(scope="module")
def whole(file: Path) -> Path:
    """The run of a single process, never stopped."""
    torch.set_num_threads(1)
    run = file.parent / "whole"
    assert main(arguments(file, run)) == 0
    return run


def arguments(file: Path, run: Path, *more: str) -> list[str]:
    settings = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    return ["train", str(file), "--output", str(run), "--threads", "1", *settings, *more]


def start(file: Path, run: Path, *more: str) -> subprocess.Popen[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "-m", "hscmae", *arguments(file, run, *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def worker_of(torchrun: int, rank: int) -> int:
    children = Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()
    (found,) = [int(c) for c in children if f"\0RANK={rank}\0".encode() in Path(f"/proc/{c}/environ").read_bytes()]
    return found


def wait_for_checkpoint(run: Path, job: subprocess.Popen[str]) -> None:
    while not (run / "checkpoint.safetensors").exists():
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)


def end(job: subprocess.Popen[str]) -> list[str]:
    """Error lines of a job that must fail soon."""
    _, err = job.communicate(timeout=60)
    assert job.returncode not in (0, None)
    return [line for line in err.splitlines() if line.startswith("error: ")]


def embeddings(run: Path) -> np.ndarray[Any, Any]:
    return np.concatenate(list(load(run).embed_pairs(PAIRS).values()))


def assert_same(run: Path, whole: Path) -> None:
    np.testing.assert_allclose(embeddings(run), embeddings(whole), atol=TOLERANCE)
    steps, expected = ([json.loads(x)["step"] for x in (r / "metrics.jsonl").open()] for r in (run, whole))
    assert steps == expected


def test_a_killed_worker_ends_the_job_and_one_process_goes_on(file: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = start(file, run)
    wait_for_checkpoint(run, job)
    os.kill(worker_of(job.pid, 1), signal.SIGKILL)
    (line,) = end(job)
    assert "another" in line
    assert "--resume" in line
    assert load_checkpoint(run) is not None
    assert main(arguments(file, run, "--resume")) == 0
    assert_same(run, whole)


@pytest.mark.long
@pytest.mark.parametrize("how", [(signal.SIGKILL, 0), (signal.SIGTERM, 1), (signal.SIGINT, None)])
def test_however_a_job_ends_two_processes_go_on(
    how: tuple[signal.Signals, int | None], file: Path, whole: Path, tmp_path: Path
) -> None:
    run, (number, rank) = tmp_path / "run", how
    job = start(file, run)
    wait_for_checkpoint(run, job)
    os.kill(job.pid if rank is None else worker_of(job.pid, rank), number)
    (line,) = end(job)
    assert "--resume" in line if rank is not None else line == "error: interrupted"
    job = start(file, run, "--resume")
    out, err = job.communicate(timeout=120)
    assert job.returncode == 0, err
    assert len(out.splitlines()) == 1
    assert_same(run, whole)


def test_a_run_of_one_process_goes_on_in_two(
    file: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    steps = iter(range(100))

    def stop(_: Any) -> bool:
        if next(steps) == 99:
            raise KeyboardInterrupt
        return False

    with monkeypatch.context() as patch:
        patch.setattr("hscmae.training.loop.Loop._out_of_patience", stop)
        assert main(arguments(file, run)) == 130
        assert capsys.readouterr().err.splitlines()[-1] == "error: interrupted"
    assert as_workers(tmp_path, [arguments(file, run, "--resume")] * 2) == [0, 0]
    assert_same(run, whole)


def as_worker(rank: int, size: int, folder: str) -> None:
    """What torchrun starts, its output kept in files."""
    given = json.loads(Path(folder, "arguments.json").read_text())
    port = Path(folder, "port").read_text()
    names = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "localhost", "MASTER_PORT": port, "LOCAL_RANK": rank}
    os.environ |= {name: str(value) for name, value in names.items()} | {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}/{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    code = main(given[rank])
    sys.stdout.flush()
    sys.stderr.flush()
    Path(folder, f"{rank}.code").write_text(str(code))


def as_workers(folder: Path, given: list[list[str]]) -> list[int]:
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
    (folder / "port").write_text(str(store.port))
    (folder / "arguments.json").write_text(json.dumps(given))
    in_processes(as_worker, len(given), folder)
    return [int((folder / f"{rank}.code").read_text()) for rank in range(len(given))]


def said(folder: Path, name: str) -> list[str]:
    return [line for rank in (0, 1) for line in (folder / f"{rank}.{name}").read_text().splitlines()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["gone"], "no such file"),
        (["gone", None], "no such file"),
        ([None, "gone"], "no such file"),
        (["--no-such-option"], "No such option"),
        (["--set=dim=x"], "dim"),
        (["--method=infonce", "--set=training.batch_size=x"], "batch_size"),
    ],
    ids=str,
)
def test_an_error_is_said_once(change: list[str | None], message: str, file: Path, tmp_path: Path) -> None:
    given = []
    for extra in change if None in change else [change] * 2:
        line = arguments(file, tmp_path / "run")
        if extra == "gone" or extra == ["gone"]:
            line[1] = "gone.h5"
        elif extra is not None:
            line += [str(part) for part in extra]
        given.append(line)
    codes = as_workers(tmp_path, given)
    assert 2 in codes
    assert 0 not in codes
    assert sum(message in line for line in said(tmp_path, "err")) == 1
    assert not any("another" in line for line in said(tmp_path, "err"))
    assert said(tmp_path, "out") == []


def test_results_are_printed_once(file: Path, tmp_path: Path) -> None:
    line = arguments(file, tmp_path / "run", "--json", "--set=training.steps=4")
    assert as_workers(tmp_path, [line] * 2) == [0, 0]
    (result,) = said(tmp_path, "out")
    assert json.loads(result)["threads"] == 1
    assert said(tmp_path, "err") == []


def test_only_training_takes_several_processes(tmp_path: Path) -> None:
    assert as_workers(tmp_path, [["inspect", "x.h5"]] * 2) == [2, 2]
    assert said(tmp_path, "err") == [
        "error: only train works in several processes: start the other verbs without torchrun"
    ]

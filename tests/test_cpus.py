"""The CPUs that are counted are those that this process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hscmae import cpus
from hscmae.cpus import set_threads, usable_cpus


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """64 CPUs, and a control group two folders deep without a limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cpus, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cpus, "OWN_CGROUP", tmp_path / "own")
    (tmp_path / "own").write_text("1:cpu:/elsewhere\n0::/pod/container\n")
    own = tmp_path / "cgroup" / "pod" / "container"
    own.mkdir(parents=True)
    (own / "cpu.max").write_text("max 100000\n")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(cpus, "LOAD", tmp_path / "loadavg")
    (tmp_path / "loadavg").write_text("9.00 9.00 9.00 1/999 12345\n")
    return own


def test_without_limits_the_mask_counts(machine: Path) -> None:
    assert usable_cpus() == 64


@pytest.mark.parametrize(("granted", "expected"), [("400000 100000", 4), ("250000 100000", 3), ("10000 100000", 1)])
def test_a_containers_quota_counts(machine: Path, granted: str, expected: int) -> None:
    (machine / "cpu.max").write_text(granted + "\n")
    assert usable_cpus() == expected


def test_the_least_quota_of_all_groups_above_counts(machine: Path) -> None:
    (machine / "cpu.max").write_text("400000 100000\n")
    (machine.parent / "cpu.max").write_text("200000 100000\n")
    assert usable_cpus() == 2


@pytest.mark.parametrize(("allowed", "expected"), [("3", 3), ("3,2", 3), ("99", 64), ("0", 64), ("all", 64), ("", 64)])
def test_what_the_user_allows_counts(monkeypatch: pytest.MonkeyPatch, allowed: str, expected: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    assert usable_cpus() == expected


def test_openmp_hardly_spins_and_keeps_to_the_quota(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    set_threads()
    waiting = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
    assert os.environ == waiting
    (machine / "cpu.max").write_text("400000 100000\n")
    set_threads()
    assert os.environ == {**waiting, "OMP_NUM_THREADS": "4"}


@pytest.mark.parametrize("given", [{"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "9"}, {"GOMP_SPINCOUNT": "7"}])
def test_what_the_user_set_stays(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(given))
    set_threads()
    assert os.environ == given


@pytest.mark.parametrize(
    ("quota", "load", "spins"),
    [
        ("max", "0.5 0.5 0.5 1/300 77", "1000"),  # nobody but this process runs
        ("max", "0.5 0.5 0.5 2/300 77", "300"),  # 64 threads, 63 free cores
        ("400000", "9 9 9 61/300 77", "1000"),
        ("400000", "9 9 9 62/300 77", "300"),
        ("max", "", "1000"),
        ("max", "1 2 3 many", "1000"),
    ],
)
def test_it_spins_less_where_others_want_the_cores(
    quota: str, load: str, spins: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "cpu.max").write_text(f"{quota} 100000\n")
    cpus.LOAD.write_text(load)
    monkeypatch.setattr(os, "environ", {})
    set_threads()
    assert os.environ["GOMP_SPINCOUNT"] == spins


@pytest.mark.parametrize(
    ("load", "use"),
    [
        ("from hscmae.cli import main", 'main(["evaluate", "nowhere", "nothing"])'),
        ("import hscmae", "hscmae.HSCMAE"),
    ],
)
def test_it_is_set_before_torch_is_loaded(load: str, use: str) -> None:
    code = f"""
import builtins, os, sys
{load}
assert "torch" not in sys.modules
real = builtins.__import__
def watched(name, *rest, **more):
    if name == "torch":
        assert os.environ.get("OMP_WAIT_POLICY") == "PASSIVE" and "GOMP_SPINCOUNT" in os.environ
        os._exit(0)
    return real(name, *rest, **more)
builtins.__import__ = watched
{use}
os._exit(1)
"""
    environment = {name: value for name, value in os.environ.items() if "OMP_" not in name}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_other_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpus, "OWN_CGROUP", tmp_path / "none")
    monkeypatch.setattr(cpus, "LOAD", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "environ", {})
    set_threads()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    assert usable_cpus() == os.cpu_count()

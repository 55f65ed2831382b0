"""A fit's process does not outlive the benchmark that started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARK = """
import multiprocessing, os, threading, time
from pathlib import Path
from hscmae.benchmark.worker import end_with_parent

def fit(file):
    threading.Thread(target=end_with_parent, daemon=True).start()
    Path(file).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    import sys
    process = multiprocessing.get_context("forkserver").Process(target=fit, args=(sys.argv[1],))
    process.start()
    process.join()
"""


def running(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_a_killed_benchmark_leaves_nothing_that_computes(tmp_path: Path) -> None:
    script, file = tmp_path / "benchmark.py", tmp_path / "pid"
    script.write_text(BENCHMARK)
    parent = subprocess.Popen([sys.executable, str(script), str(file)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (file.exists() and file.read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    pid = int(file.read_text())
    assert running(pid)
    parent.kill()
    parent.wait()
    for _ in range(600):
        if not running(pid):
            return
        time.sleep(0.05)
    os.kill(pid, 9)
    raise AssertionError("the fit's process goes on")

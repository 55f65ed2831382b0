"""Functions run in several fresh processes at once, for the tests of training in several."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path


def in_processes(function: Callable[[int, int, str], None], size: int, folder: Path) -> None:
    """Call ``function(rank, size, folder)`` in each; all must end well within two minutes."""
    context = multiprocessing.get_context("forkserver")  # imports once, and forks before any thread is started
    context.set_forkserver_preload(["hscmae.methods", "hscmae.cli", "hscmae.runs", "hscmae.data.readers"])
    workers = [context.Process(target=function, args=(rank, size, str(folder))) for rank in range(size)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    codes = [worker.exitcode for worker in workers]
    for worker in workers:
        worker.kill()
    assert codes == [0] * size

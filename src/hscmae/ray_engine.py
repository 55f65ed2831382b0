"""``hscmae embed --engine ray``: parts of a file embedded by the workers of a Ray cluster, on one machine or many.

Each task opens the file itself, embeds a run of the plain path's own blocks on as many threads, and returns them; the
caller writes them in order, so the result is the plain path's to the byte. A task whose worker died, or that could not
read, is done again by Ray. The file must be readable under the same path on every machine; ``RAY_ADDRESS`` names the
cluster, without it one is started on this machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch

from hscmae.data.pairs import Pairs
from hscmae.data.table import Table
from hscmae.embedding import embed_rows, open_for
from hscmae.errors import InputError
from hscmae.extras import require
from hscmae.methods.base import Method

PART_BLOCKS = 8  # of a task; opening the file once for so many blocks costs next to nothing
RETRIES = 3


def embed_on_ray(
    method: Method, table: Table, *, split: str, drop_bad_rows: bool, holdout: str | None = None
) -> Generator[tuple[int, Pairs], None, None]:
    """What ``embedding.embed_rows`` gives for the whole of an opened file, computed on a Ray cluster.

    Args:
        method: fitted.
        table: the opened file; every machine opens it anew under its path.
        split: "train", "val", "test" or "all".
        drop_bad_rows: leave out rows with values that are not finite.
        holdout: split for a file without one.

    Raises:
        InputError: as ``embed_rows``, or Ray is not installed.
    """
    file, rows = Path(table.source), len(table)
    ray = require("ray", "ray")
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    threads = torch.get_num_threads()
    cores = int(ray.cluster_resources().get("CPU", 1))
    task = ray.remote(num_cpus=min(threads, cores), max_retries=RETRIES, retry_exceptions=[OSError])(_embed_part)
    model, step = ray.put(method), PART_BLOCKS * table.block_rows()
    parts = iter(range(0, rows, step))
    waiting: deque[Any] = deque()
    while True:
        # Twice as many as can run at a time: workers never wait, and finished parts never fill the memory.
        while len(waiting) < 2 * max(1, cores // threads) and (start := next(parts, None)) is not None:
            part = {"start": start, "stop": min(start + step, rows), "split": split, "drop_bad_rows": drop_bad_rows}
            waiting.append(task.remote(model, file.resolve(), holdout, part, threads))
        if not waiting:
            return
        try:
            found, error = ray.get(waiting.popleft())
        except ray.exceptions.RayTaskError as failed:
            raise failed.cause from None
        yield from found
        if error is not None:
            raise InputError(error.replace(str(file.resolve()), str(file)))


def _embed_part(
    method: Method, file: Path, holdout: str | None, part: dict[str, Any], threads: int
) -> tuple[list[tuple[int, Pairs]], str | None]:
    torch.set_num_threads(threads)
    try:
        with open_for(method, file, holdout, verify=False) as table:
            return list(embed_rows(method, table, **part)), None
    except InputError as error:
        return [], str(error)

"""``hscmae extract --engine ray``: recordings described by the workers of a Ray cluster, on one machine or many.

Each task takes some recordings, decodes and describes them as the plain engine does, and returns their features: the
same bytes. Files and weights must be readable under the same paths on every machine; ``RAY_ADDRESS`` names the
cluster, without it one is started on this machine. A task whose worker died is done again.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from hscmae.errors import InputError
from hscmae.extract.media import Limits, MediaClip
from hscmae.extract.pipeline import Append, Float, Job, describe_all
from hscmae.extract.recipe import job_for
from hscmae.extract.spool import Kept, Recording, Row
from hscmae.extras import require

TASK_FILES, TASK_BYTES = 16, 2**28  # of a task: little enough to be kept in memory and done again
RETRIES = 3


def describe_on_ray(
    clips: Sequence[MediaClip], recipe: Mapping[str, Any], weights: Sequence[Path], limits: Limits, append: Append
) -> Generator[Recording, None, None]:
    """What ``pipeline.describe_all`` gives, computed on a Ray cluster.

    Raises:
        InputError: Ray is not installed, or an extractor is not to be had on a machine.
    """
    ray = require("ray", "ray")
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_describe_part)
    places = [path.resolve() for path in weights]
    parts = _parts(clips)
    waiting: deque[Any] = deque()
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))  # workers never wait, results never fill the memory
    while True:
        while parts and len(waiting) < most:
            waiting.append(task.remote([_resolved(clip) for clip in parts.popleft()], dict(recipe), places, limits))
        if not waiting:
            return
        try:
            found, error = ray.get(waiting.popleft())
        except ray.exceptions.RayTaskError as failed:
            raise failed.cause from None
        if error is not None:
            raise InputError(error)
        for recording, arrays in found:
            rows = [
                Row(row.start, row.end, {m: append(m, arrays[m][at.first : at.first + at.steps])
                                         for m, at in row.features.items()})
                for row in recording.rows
            ]  # fmt: skip
            yield replace(recording, rows=tuple(rows))


def _describe_part(
    clips: list[MediaClip], recipe: dict[str, Any], weights: list[Path], limits: Limits
) -> tuple[list[tuple[Recording, dict[str, Float]]], str | None]:
    try:
        job = _job(json.dumps(recipe), tuple(weights), limits)
    except InputError as error:
        return [], str(error)
    found = []
    for clip in clips:
        kept = Kept(job.dims)
        (recording,) = describe_all([clip], job, kept.append, 1)
        found.append((recording, kept.arrays()))
    return found, None


@cache
def _job(recipe: str, weights: tuple[Path, ...], limits: Limits) -> Job:
    """The networks, loaded once a worker; the recipe as JSON."""
    return job_for(json.loads(recipe), weights, limits)


def _parts(clips: Sequence[MediaClip]) -> deque[list[MediaClip]]:
    """Runs of recordings for a task each."""
    parts: deque[list[MediaClip]] = deque()
    size = 0
    for clip in clips:
        own = sum(path.stat().st_size for path in set(clip.files().values()) if path.is_file())
        if not parts or len(parts[-1]) == TASK_FILES or size + own > TASK_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(clip)
        size += own
    return parts


def _resolved(clip: MediaClip) -> MediaClip:
    """The same clip by absolute paths: workers have a folder of their own."""
    audio, visual = (path and path.absolute() for path in (clip.audio, clip.visual))
    return replace(clip, audio=audio, visual=visual, root=clip.root.absolute())

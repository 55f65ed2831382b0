"""A training run as a folder: settings in, ``RUN/`` with metrics, checkpoints and the artefact out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml

from hscmae.artifact import ARTIFACT, CONFIG, FORMAT, is_artifact, read_config, write_artifact
from hscmae.config import merge
from hscmae.data.fingerprint import fingerprint, joined
from hscmae.data.pairs import Pairs
from hscmae.data.recipe import Recipe
from hscmae.errors import InputError
from hscmae.extras import require
from hscmae.files import FolderKind, named, output_folder, write_atomic
from hscmae.methods.base import Method, load_seen
from hscmae.training import distributed
from hscmae.training.checkpoint import NAME as CHECKPOINT
from hscmae.training.loop import Progress

METRICS = "metrics.jsonl"
MARKER = "run.json"  # says from the first moment on whose folder this is
RUN = FolderKind("a run", [CONFIG, MARKER], FORMAT, [*ARTIFACT.names, MARKER, METRICS, CHECKPOINT, "tensorboard/*"])


def settings_from(config: Path | None, changes: Sequence[str]) -> dict[str, Any]:
    """Nested settings of a YAML file, with ``key=value`` changes on top.

    Raises:
        InputError: no such file, not YAML, not a mapping, or a change without ``=``.
    """
    settings: dict[str, Any] = {}
    if config is not None:
        try:
            loaded = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{config}: cannot be read ({error})") from None
        except yaml.YAMLError as error:
            raise InputError(f"{config}: not YAML ({' '.join(str(error).split())})") from None
        if not isinstance(loaded or {}, dict):
            raise InputError(f"{config}: expected settings as key: value")
        settings = loaded or {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes KEY=VALUE, got {change!r}")
        try:
            value: Any = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if isinstance(value, str):
            # YAML reads 1e-3 as text.
            with suppress(ValueError):
                value = float(value)
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        settings = merge(settings, value)
    return settings


def train_run(
    method: Method,
    pairs: Pairs,
    run: Path,
    *,
    background: Pairs | None = None,
    resume: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    tensorboard: bool = False,
    data: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train ``method`` into the folder ``run``; of several processes the first alone writes to it.

    Args:
        method: not yet fitted.
        pairs: the data.
        run: holds the artefact, ``metrics.jsonl`` and the checkpoint.
        background: see ``Method.fit``.
        resume: go on from the checkpoint in ``run``; a finished run is left as it is.
        overwrite: replace a run that is there, once the new one has finished; until then that one stays.
        threads: CPU threads of each process; a run resumed by as many processes takes those it began with.
        tensorboard: write ``run/tensorboard`` too (extra ``tensorboard``).
        data: what to record about the data in ``config.json``.
        recipe: how the features were extracted, see ``data.recipe``; the artefact keeps it.
        progress: called with each logged record.

    Returns:
        What training found out: the artefact's ``training`` entry.

    Raises:
        InputError: ``run`` exists and neither ``resume`` nor ``overwrite`` is set, holds anything but a run, or was
            trained with other settings or on other rows.
    """
    with ExitStack() as stack:
        place, finished = run, None
        if writes := distributed.is_first():
            place = stack.enter_context(
                output_folder(run, RUN, resume=resume, overwrite=overwrite, resumable=_resumable)
            )
            finished = _finished(place, run, method, pairs) if resume else None
            if finished is None:
                write_atomic(place / MARKER, json.dumps({"format": FORMAT, "method": method.name}).encode() + b"\n")
        name, finished = distributed.first_of((str(place), finished))
        place = Path(name)
        if finished is not None:
            return finished
        if threads is not None:
            torch.set_num_threads(threads)
        show = progress
        if tensorboard and writes:
            show = stack.enter_context(_with_tensorboard(place, progress))
        with named(place):  # a full disk
            method.fit(pairs, background=background, run=place, resume=resume, progress=show)
        method.recipe_ = recipe
        if writes:
            write_artifact(place, *method.packed(data))
    return method.summary_


def recorded_holdout(run: Path, data: Iterable[Pairs]) -> str | None:
    """The holdout that a run was trained with, if these data, in blocks, are those that it was trained on.

    They are if every row that the run was trained on is among them; the holdout of one file says nothing of another.
    """
    config, seen = read_config(run), load_seen(run)
    holdout, modalities = config["data"].get("holdout"), list(config["modalities"])
    if holdout is None or seen is None:
        return None
    keys = [fingerprint(part, modalities) for part in data if all(m in part.features for m in modalities)]
    return str(holdout) if keys and joined(keys).holds(seen) else None


def _resumable(folder: Path) -> bool:
    return (folder / CHECKPOINT).is_file() or is_artifact(folder)


def _finished(place: Path, run: Path, method: Method, pairs: Pairs) -> dict[str, Any] | None:
    """What training found out where ``place`` holds a finished run of the same method, settings and rows."""
    if not is_artifact(place):
        return None
    saved = read_config(place)
    if saved["method"] != method.name:
        raise InputError(f"{run}: holds a run of method {saved['method']}, not {method.name}")
    before = type(method).from_settings(saved["settings"])
    method.require_same_settings(before.get_params(), run)
    seen = load_seen(place)
    rows = pairs.rows_of("train") if pairs.split is not None else None
    now = fingerprint(pairs, rows=rows)
    if seen is not None and not (seen.holds(now) and now.holds(seen)):
        raise InputError(f"{run}: was trained on other data; give the same file and split, or another output")
    return dict(saved["training"])


@contextmanager
def _with_tensorboard(run: Path, progress: Progress | None) -> Iterator[Progress]:
    require("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run / "tensorboard"))

    def show(record: dict[str, Any]) -> None:
        for name, value in record.items():
            if "/" in name or name in ("lr", "seconds"):
                writer.add_scalar(f"{record['phase']}/{name}", value, record["step"])
        if progress is not None:
            progress(record)

    with closing(writer):
        yield show

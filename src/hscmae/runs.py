"""A training run as a folder: settings in, ``RUN/`` with metrics, checkpoints and the artefact out."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from hscmae.artifact import CONFIG, is_artifact, read_config, save_artifact
from hscmae.config import merge
from hscmae.data.pairs import Pairs
from hscmae.errors import InputError
from hscmae.extras import require
from hscmae.methods.base import Method
from hscmae.training import distributed
from hscmae.training.checkpoint import NAME as CHECKPOINT
from hscmae.training.loop import Progress

METRICS = "metrics.jsonl"


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
            with contextlib.suppress(ValueError):
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
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train ``method`` into the folder ``run``; of several processes the first alone writes to it.

    Args:
        method: not yet fitted.
        pairs: the data.
        run: holds the artefact, ``metrics.jsonl`` and the checkpoint.
        background: see ``Method.fit``.
        resume: go on from the checkpoint in ``run``; a finished run is left as it is.
        overwrite: replace a run that is there.
        threads: CPU threads of each process; a run resumed by as many processes takes those it began with.
        tensorboard: write ``run/tensorboard`` too (extra ``tensorboard``).
        data: what to record about the data in ``config.json``.
        progress: called with each logged record.

    Returns:
        What training found out: the artefact's ``training`` entry.

    Raises:
        InputError: ``run`` exists and neither ``resume`` nor ``overwrite`` is set, or was trained with other settings.
    """
    writes = distributed.is_first()
    new, finished = distributed.first_of(_enter(run, method, resume, overwrite) if writes else (False, None))
    if finished is not None:
        return finished
    if threads is not None:
        torch.set_num_threads(threads)
    show = _with_tensorboard(run, progress) if tensorboard and writes else progress
    try:
        method.fit(pairs, background=background, run=run, resume=resume, progress=show)
    except BaseException:
        if writes and new and not (run / CHECKPOINT).exists() and not (run / METRICS).exists():
            shutil.rmtree(run, ignore_errors=True)
        raise
    if writes:
        save_artifact(method, run, data)
    return method.summary_


def _enter(run: Path, method: Method, resume: bool, overwrite: bool) -> tuple[bool, dict[str, Any] | None]:
    """Whether the run's folder is new, and what training found out where it has finished before."""
    if resume and is_artifact(run):
        _require_same_settings(run, method)
        return False, dict(read_config(run)["training"])
    if run.exists() and not resume:
        if not overwrite:
            raise InputError(f"{run}: exists already; --resume goes on with it, --overwrite replaces it")
        _remove_run(run)
    new = not run.exists()
    run.mkdir(parents=True, exist_ok=True)
    return new, None


def _require_same_settings(run: Path, method: Method) -> None:
    from hscmae.methods import get_method

    saved = read_config(run)
    if saved["method"] != method.name:
        raise InputError(f"{run}: holds a run of method {saved['method']}, not {method.name}")
    before = get_method(saved["method"]).from_settings(saved["settings"])
    method.require_same_settings(before.get_params(), run)


def _remove_run(run: Path) -> None:
    known = {CONFIG, METRICS, CHECKPOINT}
    if not run.is_dir() or (any(run.iterdir()) and not any((run / name).exists() for name in known)):
        raise InputError(f"{run}: exists and is not a run; remove it yourself if it is no longer needed")
    shutil.rmtree(run)


def _with_tensorboard(run: Path, progress: Progress | None) -> Progress:
    require("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run / "tensorboard"))

    def show(record: dict[str, Any]) -> None:
        for name, value in record.items():
            if "/" in name or name in ("lr", "seconds"):
                writer.add_scalar(f"{record['phase']}/{name}", value, record["step"])
        if progress is not None:
            progress(record)

    return show

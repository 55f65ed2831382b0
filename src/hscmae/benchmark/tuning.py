"""Label-free tuning: every method the same number of trials, judged by ``selection.grounded_knn`` on held-out pairs.

The held-out pairs are a seventh of the training rows; test rows and labels are taken away before a trial sees the data.
Trial 0 is the settings as they are: another takes their place only where it is better, pair by pair, by over a standard
error, because a search over few held-out pairs finds noise. Settings are sought by the
tree-structured Parzen estimator of optuna (Bergstra et al. 2011), an extra. ``trials.jsonl`` keeps each trial.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
import yaml

from hscmae.benchmark import plots
from hscmae.benchmark.jobs import Contender, Job
from hscmae.benchmark.runner import TRIALS, Record, Runner, Running, open_runner
from hscmae.benchmark.spaces import Range, defaults, space
from hscmae.config import nest
from hscmae.data.pairs import Pairs
from hscmae.errors import InputError, RunError, printable
from hscmae.extras import require
from hscmae.files import write_atomic
from hscmae.methods import get_method
from hscmae.training.choice import better

CHOICE = "beats trial 0 by a standard error"  # what a search that is gone on with must share
CRITERION = "mutual k-NN agreement times the root of feature k-NN, on held-out pairs"


def tune(
    pairs: Pairs,
    output: Path,
    contender: Contender,
    trials: int,
    *,
    split: str = "file",
    **running: Unpack[Running],
) -> dict[str, Any]:
    """Search the settings of one method into ``output``: ``best.yaml``, ``trials.jsonl``, ``tune.md`` and a plot.

    Args:
        pairs: the data; its test rows, if any, and its labels are not looked at.
        output: the folder.
        contender: the method, and the settings that are not sought.
        trials: their number, the first being the settings as they are.
        split: what to call the data's split.
        **running: see ``runner.Running``.

    Returns:
        ``method``, ``criterion``, ``default`` and ``best`` (the criterion of trial 0 and of the best), ``trial`` (the
        best one), ``settings`` (what it changes, by dotted name) and ``trials``.

    Raises:
        InputError: optuna is missing, the method has nothing to tune, or see ``open_runner``.
        RunError: every trial failed.
    """
    require("optuna", "tune")
    if not space(contender):
        raise InputError(f"{contender.name} has nothing to tune")
    if pairs.split is None:
        pairs = replace(pairs, split=np.full(len(pairs), b"train", dtype="S5"))
    options = {
        "method": contender.name,
        "settings": contender.settings,
        "trials": trials,
        "splits": [split],
        "choice": CHOICE,
    }
    with open_runner(output, pairs, options, **running) as runner:
        (best,), records = tune_all(runner, [contender], split, trials)
        chosen = best_of(records)
        write_atomic(runner.folder / "best.yaml", _as_yaml(best, chosen).encode())
        write_atomic(runner.folder / "tune.md", markdown(contender, records).encode())
        plots.draw(runner.folder, "tune", plots.trials, records, contender.name)
    return {
        "method": contender.name,
        "criterion": CRITERION,
        "default": records[0].get("score"),
        "best": chosen["score"],
        "trial": chosen["trial"],
        "settings": chosen["params"],
        "trials": len(records),
    }


def tune_all(runner: Runner, who: Sequence[Contender], split: str, trials: int) -> tuple[list[Contender], list[Record]]:
    """The contenders with their best settings, and all trials; a contender with nothing to tune stays as it is.

    Raises:
        InputError: optuna is missing.
        RunError: every trial of a contender failed.
    """
    require("optuna", "tune")
    file = runner.folder / TRIALS
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    lock = threading.Lock()
    spaces = {c.name: space(c) for c in who}
    total = trials * sum(1 for found in spaces.values() if found)

    def one(contender: Contender) -> Contender:
        mine = [r for r in records if r["method"] == contender.name]
        for number in range(len(mine), trials):
            record = _trial(runner, contender, split, number, mine, spaces[contender.name])
            mine.append(record)
            with lock:
                records.append(record)
                write_atomic(file, "".join(json.dumps(r) + "\n" for r in records).encode())
                if runner.progress is not None:
                    score = f"{record['score']:.4f}" if record["status"] == "ok" else "failed"
                    runner.progress("trials", len(records), total, f"{contender.name} trial {number}: {score}")
        return _with_settings(contender, best_of(mine)["params"])

    tuned = {c.name: c for c in who}
    for contender, best in runner.each(one, [c for c in who if spaces[c.name]]):
        tuned[contender.name] = best
    return [tuned[c.name] for c in who], records


def best_of(records: Sequence[Record]) -> Record:
    """The trial of the highest criterion among those that beat trial 0 by over a standard error; else trial 0.

    Raises:
        RunError: every trial failed.
    """
    good = [r for r in records if r["status"] == "ok"]
    if not good:
        raise RunError(f"every trial of {records[0]['method']} failed; the first: {records[0]['error']}")
    start = good[0]
    if start["trial"] != 0:
        return max(good, key=lambda r: r["score"])
    better_ones = [r for r in good[1:] if better(torch.tensor(r["each"]), torch.tensor(start["each"]))]
    return max(better_ones, key=lambda r: r["score"], default=start)


def _trial(
    runner: Runner, contender: Contender, split: str, number: int, before: Sequence[Record], ranges: Mapping[str, Range]
) -> Record:
    params = _suggest(contender, number, before, ranges) if number else {}
    job = Job(replace(_with_settings(contender, params), part=f"trial-{number}"), split, 0, trial=True)
    record = runner.run_one(job)
    kept = ("method", "status", "score", "each", "error", "fit_seconds")
    return {"trial": number, "params": params, **{k: record[k] for k in kept if k in record}}


def _suggest(
    contender: Contender, number: int, before: Sequence[Record], ranges: Mapping[str, Range]
) -> dict[str, Any]:
    """The next settings to try. A sampler of its own seed a trial: a search gone on with repeats the one never cut."""
    optuna = require("optuna", "tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = {True: optuna.distributions.IntDistribution, False: optuna.distributions.FloatDistribution}
    bounds = {name: kinds[r.whole](r.low, r.high, log=r.log) for name, r in ranges.items()}
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=number))
    start = defaults(contender, ranges)
    inside = all(r.low <= start[name] <= r.high for name, r in ranges.items())
    for record in before:
        params = record["params"] if record["trial"] else start
        if record["status"] == "ok" and (record["trial"] or inside):
            study.add_trial(optuna.trial.create_trial(params=params, distributions=bounds, value=record["score"]))
    return dict(study.ask(bounds).params)


def _with_settings(contender: Contender, params: Mapping[str, Any]) -> Contender:
    return contender.changed(nest(get_method(contender.method).Config, params))


def _as_yaml(best: Contender, chosen: Record) -> str:
    """All settings but the seed, for ``train --config``."""
    config = get_method(best.method).from_settings(best.settings, best.preset).config
    settings = config.model_dump(mode="json", exclude={"seed"})
    head = f"# {best.name}: trial {chosen['trial']}, {CRITERION} {chosen['score']:.4f}; no labels were read\n"
    method = "" if best.method == "hscmae" else f" --method {best.method}"
    return head + f"# hscmae train FILE --config best.yaml{method} --output RUN\n" + yaml.safe_dump(settings)


def markdown(contender: Contender, records: Sequence[Record]) -> str:
    """The trials as a table, best first."""
    names = list(space(contender))
    lines = [
        f"{contender.name}: {CRITERION} by trial, best first; trial 0 is the settings as they were. "
        "No labels and no test rows were read.",
        "",
        "| trial | criterion | seconds | " + " | ".join(names) + " |",
        "|---" * (3 + len(names)) + "|",
    ]
    start = defaults(contender, names)
    for r in sorted(records, key=lambda r: -r.get("score", -1.0)):
        params = r["params"] if r["trial"] else start
        score = f"{r['score']:.4f}" if r["status"] == "ok" else f"failed: {printable(r['error'])}"
        values = " | ".join(f"{params[name]:.4g}" for name in names)
        lines.append(f"| {r['trial']} | {score} | {r.get('fit_seconds', 0):.1f} | {values} |")
    return "\n".join(lines) + "\n"

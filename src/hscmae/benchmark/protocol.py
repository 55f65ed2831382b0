"""``benchmark``: every method, seed and split under one protocol, into one folder.

Each method may be tuned first, by a criterion that reads no labels and no test rows (``tuning``). Test rows are read
once a fit, at its end. Order: all methods on the first split, then the next, so that a part of a run compares too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from hscmae.benchmark import plots, table
from hscmae.benchmark.curves import TITLES, curve_lines, curve_names, curve_points, curve_table
from hscmae.benchmark.jobs import CURVES, DAMAGES, SHARES, Contender, Job
from hscmae.benchmark.runner import Record, Running, open_runner, split_names, summary
from hscmae.benchmark.tuning import CHOICE, tune_all
from hscmae.data.pairs import Pairs
from hscmae.errors import InputError, RunError
from hscmae.extras import require
from hscmae.files import write_atomic


def benchmark(
    pairs: Pairs,
    output: Path,
    who: Sequence[Contender],
    *,
    seeds: int = 5,
    splits: int = 0,
    trials: int = 0,
    own_split: str = "file",
    curves: Sequence[str] = (),
    **running: Unpack[Running],
) -> list[Record]:
    """Fit and measure every contender; see ``runner`` and ``table`` for what ``output`` then holds.

    Args:
        pairs: the data; its labels are read after a fit only.
        output: the folder.
        who: see ``jobs.contenders``.
        seeds: fits with seeds 0 to ``seeds - 1``; a method whose solution the seed cannot change is fitted once.
        splits: number of random resplits; 0: the split that the data has.
        trials: label-free trials of each method's settings on the first split's training rows, whose best are used in
            every split (extra ``tune``); 0: the settings as they are.
        own_split: what to call that split.
        curves: of ``jobs.CURVES``: what to measure beside, see ``curves``.
        **running: see ``runner.Running``.

    Returns:
        What ``results.json`` holds.

    Raises:
        InputError: see ``open_runner`` and ``split_names``; curves without labels.
        RunError: every fit failed.
    """
    names = split_names(pairs, splits, own_split)
    for curve in curves:
        if curve not in CURVES:
            raise InputError(f"unknown curve {curve!r}; there are {', '.join(CURVES)}")
    if curves and pairs.labels is None:
        raise InputError(f"{pairs.source}: curves need labels, the file has none")
    options = {
        "methods": [c.name for c in who],
        "settings": {c.name: c.settings for c in who},
        "seeds": seeds,
        "splits": names,
        "trials": trials,
        "curves": sorted(curves),
    }
    if trials:
        options["choice"] = CHOICE
    rows = max(len(pairs.rows_of("train")) if pairs.split is not None else 0, len(pairs))
    if trials:
        require("optuna", "tune")
    with open_runner(output, pairs, options, **running) as runner:
        if trials:
            who, _ = tune_all(runner, who, names[0], trials)
        records = runner.run(
            [
                Job(c, split, seed, damage, share, partial="partial" in curves and not damage)
                for split in names
                for seed in range(seeds)
                for damage, share in [("", 0.0), *((d, s) for d in DAMAGES if d in curves for s in SHARES)]
                for c in who
                if not (damage and c.reads_labels) and (seed == 0 or damage or c.uses_seed(rows))
            ]
        )
        clean = [record for record in records if not record["damage"]]
        if all(record["status"] == "failed" for record in clean):
            raise RunError(f"every fit failed; the first: {clean[0]['error']}")
        write_reports(runner.folder, records, who, names)
    return [summary(record) for record in clean]


def write_reports(output: Path, records: Sequence[Record], who: Sequence[Contender], splits: Sequence[str]) -> None:
    """``benchmark.md``, ``table.csv``, ``curves.json`` and the plots."""
    clean = [record for record in records if not record["damage"]]
    found, metric = table.rows(clean, who), table.metric_of(clean)
    ours = [c.name for c in who if table.is_ours(c)]
    points = curve_points(records)
    text = [table.markdown(found, metric, splits), *(curve_table(points, name) for name in curve_names(points))]
    write_atomic(output / "benchmark.md", "\n".join(text).encode())
    write_atomic(output / "table.csv", table.as_csv(found, metric).encode())
    chance = next((r["chance/mAP"] for r in clean if r.get("chance/mAP")), None)
    plots.draw(output, "bars", plots.bars, found, metric, chance if metric == table.METRICS[0] else None)
    if any(record.get("classes") for record in clean):
        plots.draw(output, "precision-recall", plots.precision_recall, clean, ours)
        plots.draw(output, "per-class", plots.per_class, clean, found)
    if points:
        write_atomic(output / "curves.json", (json.dumps(points, indent=1) + "\n").encode())
    for name in curve_names(points):
        lines, bands = curve_lines(points, name)
        plots.draw(output, f"curve-{name}", plots.lines, lines, ours, TITLES[name], "mAP, mean ± 1 SD of fits", bands)

"""``ablate``: HSC-MAE with each part changed one at a time, and its sensitivity to each setting.

Every change is a contender beside the whole, fitted and compared as in a benchmark; a change that the base has made
already is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from hscmae.benchmark import plots, table
from hscmae.benchmark.jobs import Contender, Job
from hscmae.benchmark.runner import Record, Running, open_runner, split_names, summary
from hscmae.benchmark.spaces import defaults
from hscmae.config import merge, nest
from hscmae.data.pairs import Pairs
from hscmae.errors import InputError, RunError
from hscmae.files import write_atomic
from hscmae.methods import get_method

# Part, what is changed, and to what.
PARTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("global", "without the global level", {"loss.global_weight": 0.0}),
    ("local", "without the local level", {"loss.local_weight": 0.0}),
    ("sample", "without the sample level", {"loss.sample_weight": 0.0}),
    ("cross", "with cross-modal reconstruction", {"loss.cross_weight": 1.0}),
    ("distillation", "with distillation", {"loss.distill_weight": 1.0}),
    ("distillation", "with distillation, of cosines", {"loss.distill_weight": 1.0, "loss.distillation": "cosine"}),
    ("distillation", "without distillation", {"loss.distill_weight": 0.0}),
    ("weights", "fixed weights", {"loss.learn_weights": False}),
    ("weights", "learned weights", {"loss.learn_weights": True}),
    ("correlation", "squared correlations", {"loss.correlation": "frobenius"}),
    ("ema", "teacher = student", {"teacher.decay": 0.0}),
    ("neighbours", "nearest neighbour alone", {"affinity.tau_teacher": 1e-3}),
    ("neighbours", "hard top-k, all alike", {"affinity.tau_teacher": 1e3}),
    ("memory", "neighbours from the batch", {"affinity.source": "batch"}),
    ("memory", "neighbours from a queue", {"affinity.source": "queue"}),
    ("memory", "neighbours from all rows", {"affinity.source": "train"}),
    ("keys", "compared with the student", {"affinity.keys": "student"}),
    ("keys", "compared with the teacher", {"affinity.keys": "teacher"}),
    ("own-pair", "own pair left out", {"affinity.mask_pair": True, "affinity.pair_share": 0.0}),
    ("own-pair", "own pair half of the positives", {"affinity.mask_pair": False, "affinity.pair_share": 0.5}),
    ("warm-up", "local level brought in", {"affinity.warmup": 50}),
    ("view", "without the kernel view", {"view.kind": "linear"}),
    ("view", "without the linear kernel", {"view.linear": 0.0}),
    ("mask", "one mask ratio for all", {"masking.spread": 0.0}),
    ("doubt", "every pair counts alike", {"weigh_pairs": False}),
    ("doubt", "pairs count by their chance", {"weigh_pairs": True}),
    ("anchors", "without anchors", {"anchors.share": 0.0}),
    ("anchors", "with anchors", {"anchors.share": 0.6}),
    ("warm-start", "random start", {"warm_start.kind": "none"}),
    ("warm-start", "start from ridge CCA", {"warm_start.kind": "ridge"}),
    ("head", "without a head", {"head.final": "none"}),
    ("head", "head of ridge CCA", {"head.final": "ridge"}),
    ("head", "head of smoothed CCA", {"head.final": "smoothed"}),
    ("head", "head fitted anew in training", {"head.refresh": 20}),
    ("depth", "encoders of two layers", {"network.depth": 2}),
    ("depth", "decoders of two layers", {"network.decoder_depth": 2}),
    ("refit", "without refit", {"training.refit": False}),
)
SWEEPS: dict[str, tuple[float, ...]] = {
    "masking.ratio": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "affinity.k": (5, 10, 20, 50, 100),
    "affinity.tau_teacher": (0.03, 0.05, 0.1, 0.2, 0.4),
    "loss.tau": (0.05, 0.1, 0.2, 0.4, 0.8),
    "warm_start.ridge": (0.3, 1.0, 3.0, 10.0, 30.0),
    "warm_start.k": (10, 20, 50, 100, 200),
    "warm_start.tau": (0.03, 0.05, 0.1, 0.2, 0.4),
    "loss.ridge": (1e-3, 1e-2, 1e-1, 1.0),
    "anchors.share": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "anchors.tau": (0.05, 0.1, 0.2, 0.4),
    "dim": (8, 16, 32, 64, 128),
    "training.batch_size": (64, 128, 256, 512, 1024),
}

# What a swept value needs beside it to mean what it says.
ALONGSIDE: dict[str, dict[str, Any]] = {"masking.ratio": {"masking.spread": 0.0}}


def variants(base: Contender, parts: Sequence[str] = (), *, sensitivity: bool = False) -> list[Contender]:
    """The base and its variants.

    Args:
        base: HSC-MAE with any preset and settings.
        parts: names in ``PARTS``, or settings of ``SWEEPS`` to sweep; all parts where empty.
        sensitivity: sweep every setting of ``SWEEPS`` too.

    Raises:
        InputError: no such part.
    """
    known = [*dict.fromkeys(part for part, _, _ in PARTS), *SWEEPS]
    for name in parts:
        if name not in known:
            raise InputError(f"unknown part {name!r}; there are {', '.join(known)}")
    changes = [(part, label, change) for part, label, change in PARTS if not parts or part in parts]
    for setting, values in SWEEPS.items():
        if sensitivity or setting in parts:
            changes += [
                (setting, f"{setting}={value:g}", {setting: value, **ALONGSIDE.get(setting, {})}) for value in values
            ]
    method = get_method(base.method)
    whole = method.from_settings(base.settings, base.preset).config
    found = [replace(base, part="whole")]
    for part, label, change in changes:
        settings = merge(base.settings, nest(method.Config, change))
        if method.from_settings(settings, base.preset).config != whole:
            found.append(Contender(label, base.method, base.preset, settings, part))
    return found


def ablate(
    pairs: Pairs,
    output: Path,
    who: Sequence[Contender],
    *,
    seeds: int = 5,
    splits: int = 0,
    own_split: str = "file",
    **running: Unpack[Running],
) -> list[Record]:
    """Fit and measure the variants; ``output`` then holds ``results.json``, ``ablation.md``, CSV and plots.

    Args:
        pairs: the data; its labels are read after a fit only.
        output: the folder.
        who: see ``variants``; the first is the whole.
        seeds: fits a variant and split.
        splits: number of random resplits; 0: the split that the data has.
        own_split: what to call that split.
        **running: see ``runner.Running``.

    Returns:
        What ``results.json`` holds.

    Raises:
        InputError: see ``open_runner`` and ``split_names``.
        RunError: every fit of the whole failed.
    """
    names = split_names(pairs, splits, own_split)
    options = {"variants": [c.name for c in who], "settings": who[0].settings, "seeds": seeds, "splits": names}
    plan = [Job(c, split, seed) for split in names for seed in range(seeds) for c in who]
    with open_runner(output, pairs, options, **running) as runner:
        records = runner.run(plan)
        whole = [record for record in records if record["method"] == who[0].name]
        if all(record["status"] == "failed" for record in whole):
            raise RunError(f"every fit of {who[0].name} failed; the first: {whole[0]['error']}")
        write_reports(runner.folder, records, who, names)
    return [summary(record) for record in records]


def write_reports(output: Path, records: Sequence[Record], who: Sequence[Contender], splits: Sequence[str]) -> None:
    """``ablation.md``, ``ablation.csv`` and the plots."""
    found, metric, base = table.rows(records, who, against=who[0].name), table.metric_of(records), who[0].name
    # All are HSC-MAE here: the whole is what stands out.
    found = [replace(row, ours=row.name == base) for row in found]
    parts = {c.name for c in who if c.part not in SWEEPS}
    text = table.markdown([r for r in found if r.name in parts], metric, splits, against=base)
    if len(parts) < len(found):
        order = {c.name: i for i, c in enumerate(who)}
        swept = sorted((r for r in found if r.name == base or r.name not in parts), key=lambda r: order[r.name])
        text += "\n### Sensitivity\n\n" + table.markdown(swept, metric, splits, against=base)
    write_atomic(output / "ablation.md", text.encode())
    write_atomic(output / "ablation.csv", table.as_csv(found, metric).encode())
    if len(parts) > 1:
        plots.draw(output, "ablation", plots.differences, [r for r in found if r.name in parts], metric, base)
    curves = {s: sweep(records, who, s, metric) for s in SWEEPS if any(c.part == s for c in who)}
    if curves:
        title = f"{metric.removeprefix('avg/')}, lowest to highest seed"
        plots.draw(output, "sensitivity", plots.sweeps, curves, title)


def sweep(records: Sequence[Record], who: Sequence[Contender], setting: str, metric: str) -> tuple[Any, ...]:
    """Values of a setting, and over them the mean metric, the lowest and the highest of a seed; and the base's value.

    A seed's figure is its mean over splits, so that the band shows training's chance and not the splits'.
    """
    points: dict[float, list[float]] = {}
    (default,) = defaults(who[0], [setting]).values()
    beside = ALONGSIDE.get(setting, {})
    for c in who:
        if c.part not in ("whole", setting) or defaults(c, beside) != beside:
            continue
        by_seed: dict[int, list[float]] = {}
        for r in records:
            if r["method"] == c.name and r.get(metric) is not None:
                by_seed.setdefault(r["seed"], []).append(r[metric])
        (value,) = defaults(c, [setting]).values()
        if by_seed and (value or setting != "warm_start.ridge"):  # a ridge of 0 stands for the one that is chosen
            points[value] = [float(np.mean(values)) for values in by_seed.values()]
    x = sorted(points)
    return x, *([of(points[v]) for v in x] for of in (np.mean, min, max)), default

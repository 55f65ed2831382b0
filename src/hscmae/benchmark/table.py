"""The table of a benchmark: means, spread, and how sure a difference is. Markdown and CSV.

Methods are compared paired, split by split: between random splits all methods rise and fall together, so that the
difference of two varies far less than either.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.benchmark.jobs import OURS, Contender
from hscmae.errors import printable

Record = dict[str, Any]
Interval = tuple[float, float]

METRICS = ("avg/mAP", "avg/R@10")  # the one that decides: with labels, and without
STRONG = "ridge-cca"
RESAMPLES = 2000
# 97.5% quantiles of Student's t for 1 to 30 degrees of freedom.
T975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Row:
    """One contender.

    Attributes:
        mean: of the metric over splits and seeds; ``None`` where every fit failed.
        interval: 95%, of the mean: t over splits, or over clips where there is one split.
        between_splits: standard deviation of the splits' means over seeds; ``None`` with one split.
        between_seeds: root mean variance between the seeds of a split; ``None`` with one seed.
        rival: the best other contender that reads no labels.
        difference: mean paired difference to ``rival``.
        difference_ci: its 95% interval: t over splits, or over clips where there is one split.
        corrected_ci: the same widened for training sets that overlap; ``None`` with one split.
        ratio: mean paired ratio to ridge CCA.
        failed: how many of the ``fits`` failed, and ``error``, the first one's.
    """

    name: str
    mean: float | None
    interval: Interval | None
    between_splits: float | None
    between_seeds: float | None
    rival: str
    difference: float | None
    difference_ci: Interval | None
    corrected_ci: Interval | None
    ratio: float | None
    fit_seconds: float | None
    peak_rss_mb: float | None
    fits: int
    failed: int
    error: str
    reads_labels: bool
    ours: bool


def metric_of(records: Sequence[Record]) -> str:
    """The metric that decides: mAP where there are labels, else recall@10."""
    return METRICS[0] if any(METRICS[0] in record for record in records) else METRICS[1]


def rows(records: Sequence[Record], who: Sequence[Contender], against: str = "") -> list[Row]:
    """A row a contender, best first.

    Args:
        records: results on undamaged data.
        who: the contenders.
        against: compare all with this contender, rather than with the best rival.
    """
    metric = metric_of(records)
    good = [r for r in records if r["status"] == "ok"]
    values = {c.name: by_split(good, c.name, metric) for c in who}
    means = {name: _mean([np.mean(seeds) for seeds in splits.values()]) for name, splits in values.items()}
    table = []
    for c in who:
        mine, runs = values[c.name], [r for r in records if r["method"] == c.name]
        fine = [r for r in runs if r["status"] == "ok"]
        rival = against if against != c.name else ""
        if not against:
            others = [
                o.name
                for o in who
                if o.name != c.name
                and means[o.name] is not None
                and not o.reads_labels
                and not (is_ours(c) and is_ours(o))
            ]
            rival = max(others, key=lambda name: means[name] or 0.0, default="")
        difference, interval, corrected = _compare(good, c.name, rival, values, metric)
        ratios = paired(mine, values.get(STRONG, {}), lambda a, b: a / b if b else math.nan)
        spreads = [np.var(seeds, ddof=1) for seeds in mine.values() if len(seeds) > 1]
        table.append(
            Row(
                name=c.name,
                mean=means[c.name],
                interval=_interval(good, c.name, mine, metric),
                between_splits=_deviation([float(np.mean(seeds)) for seeds in mine.values()]),
                between_seeds=float(np.sqrt(np.mean(spreads))) if spreads else None,
                rival=rival,
                difference=difference,
                difference_ci=interval,
                corrected_ci=corrected,
                ratio=_mean(ratios),
                fit_seconds=_mean([r["fit_seconds"] for r in fine]),
                peak_rss_mb=max((r["peak_rss_mb"] for r in fine), default=None),
                fits=len(runs),
                failed=len(runs) - len(fine),
                error=next((r["error"] for r in runs if r["status"] == "failed"), ""),
                reads_labels=c.reads_labels,
                ours=is_ours(c),
            )
        )
    return sorted(table, key=lambda row: -math.inf if row.mean is None else row.mean, reverse=True)


def is_ours(contender: Contender) -> bool:
    return contender.method == OURS


def by_split(records: Sequence[Record], name: str, metric: str) -> dict[str, list[float]]:
    """Split -> the metric of each seed, of the results of one contender."""
    found: dict[str, list[float]] = {}
    for record in records:
        if record["method"] == name and record.get(metric) is not None:
            found.setdefault(record["split"], []).append(float(record[metric]))
    return found


def paired(a: Mapping[str, Sequence[float]], b: Mapping[str, Sequence[float]], of: Any) -> list[float]:
    """``of`` the means over seeds of two contenders, for each split that both have."""
    return [of(float(np.mean(a[split])), float(np.mean(b[split]))) for split in a if split in b]


def t_interval(values: Sequence[float], overlap: float = 0.0) -> Interval | None:
    r"""95% t interval of the mean, ``mean ± t sqrt((1/n + overlap) s^2)``; ``None`` below two values.

    Args:
        values: one a split.
        overlap: test rows over training rows widens it for splits of one file, whose training sets overlap (Nadeau
            and Bengio, Inference for the Generalization Error, 2003); 0 holds the file fixed.
    """
    n = len(values)
    if n < 2:
        return None
    quantile = T975[n - 2] if n - 2 < len(T975) else 1.96 + 2.4 / (n - 1)
    mean, half = float(np.mean(values)), quantile * math.sqrt((1 / n + overlap) * float(np.var(values, ddof=1)))
    return mean - half, mean + half


def clip_interval(ap: npt.NDArray[np.float64], seed: int = 0) -> Interval | None:
    """95% percentile bootstrap interval over clips of the mean of the directions' means.

    Args:
        ap: values of each clip by direction, shape (clips, directions); NaN where a clip does not count.
        seed: of the resampling.
    """
    valid = ~np.isnan(ap)
    if not valid.any(axis=0).all():
        return None
    table = np.concatenate([np.where(valid, ap, 0.0), valid], axis=1)
    rng, n, width = np.random.default_rng(seed), len(ap), ap.shape[1]
    means = []
    for _ in range(RESAMPLES):
        drawn = np.bincount(rng.integers(n, size=n), minlength=n) @ table
        if (drawn[width:] > 0).all():
            means.append((drawn[:width] / drawn[width:]).mean())
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def clip_values(records: Sequence[Record], name: str) -> npt.NDArray[np.float64] | None:
    """AP of each clip by direction, the mean over a contender's seeds; ``None`` without labels."""
    tables = [
        np.array(list(r["ap"].values()), dtype=np.float64).T for r in records if r["method"] == name and r.get("ap")
    ]
    return np.mean(tables, axis=0) if tables else None


def _interval(
    records: Sequence[Record], name: str, mine: Mapping[str, Sequence[float]], metric: str
) -> Interval | None:
    if len(mine) != 1:
        return t_interval([float(np.mean(seeds)) for seeds in mine.values()])
    ap = clip_values(records, name) if metric == METRICS[0] else None
    if ap is not None:
        return clip_interval(ap)
    found = [r[f"{metric}_ci"] for r in records if r["method"] == name and r.get(f"{metric}_ci")]
    low, high = np.mean(found, axis=0) if found else (math.nan, math.nan)
    return (float(low), float(high)) if found else None


def _compare(
    records: Sequence[Record], name: str, rival: str, values: Mapping[str, Any], metric: str
) -> tuple[float | None, Interval | None, Interval | None]:
    differences = paired(values[name], values.get(rival, {}), lambda a, b: a - b)
    if not differences:
        return None, None, None
    mean = float(np.mean(differences))
    if len(differences) > 1:
        sizes = [r["n_queries"] / r["n_train"] for r in records if r["method"] == name]
        return mean, t_interval(differences), t_interval(differences, float(np.mean(sizes)))
    (split,) = values[name].keys() & values[rival].keys()
    a, b = (clip_values([r for r in records if r["split"] == split], who) for who in (name, rival))
    return mean, None if metric != METRICS[0] or a is None or b is None else clip_interval(a - b), None


def _mean(values: Sequence[Any]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def markdown(table: Sequence[Row], metric: str, splits: Sequence[str], against: str = "") -> str:
    """The table in Markdown with a line that says what its intervals are."""
    title = metric.removeprefix("avg/")
    versus = f"difference to {against}" if against else "difference to best rival"
    several = len(splits) > 1
    head = ["method", title, "95% interval", *(["between splits"] if several else []), "between seeds", versus]
    head += ["95% interval", *(["corrected"] if several else []), "ratio to ridge CCA", "fit, s", "peak, MiB"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in table:
        name = f"**{row.name}**" if row.ours else row.name
        name += " (reads labels)" if row.reads_labels else ""
        rival = "" if against or row.difference is None else f" ({row.rival})"
        cells = [name, _figure(row.mean), _span(row.interval)]
        cells += [_figure(row.between_splits)] if several else []
        cells += [_figure(row.between_seeds), _figure(row.difference, "+.4f") + rival, _span(row.difference_ci, "+.4f")]
        cells += [_span(row.corrected_ci, "+.4f")] if several else []
        cells += [_figure(row.ratio, ".3f"), _figure(row.fit_seconds, ".2f"), _figure(row.peak_rss_mb, ".0f")]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", intervals_note(splits)]
    for row in table:
        if row.failed:
            error = printable(row.error).replace("`", "'")  # as code: what a file holds is no markup
            lines.append(f"\n{row.failed} of {row.fits} fits of {row.name} failed: `{error}`")
    return "\n".join(lines) + "\n"


def intervals_note(splits: Sequence[str]) -> str:
    """What the intervals of a table are."""
    if len(splits) > 1:
        return (
            f"Intervals: 95% t over {len(splits)} splits, of means over seeds; differences are paired by split. "
            "*Corrected* also allows for the overlap of the splits' training rows (Nadeau and Bengio 2003). "
            "Peak memory is the fit's whole process, interpreter and libraries included."
        )
    return (
        f"One split ({splits[0]}). Intervals: 95% bootstrap over its test clips, of means over seeds; differences are "
        "paired by clip. Peak memory is the fit's whole process, interpreter and libraries included."
    )


def as_csv(table: Sequence[Row], metric: str) -> str:
    """The table as CSV, unrounded."""
    out = io.StringIO()
    lines = []
    for row in table:
        line: dict[str, Any] = {}
        for name, value in asdict(row).items():
            if name in ("interval", "difference_ci", "corrected_ci"):
                line |= dict(zip((f"{name}_low", f"{name}_high"), value or (None, None), strict=True))
            else:
                line[metric if name == "mean" else name] = value
        lines.append(line)
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _figure(value: float | None, form: str = ".4f") -> str:
    return "" if value is None else format(value, form)


def _span(interval: Interval | None, form: str = ".4f") -> str:
    return "" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"

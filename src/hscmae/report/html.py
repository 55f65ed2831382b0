"""The report as one HTML file from which no request leaves: gathers, draws, and fills the template.

Ids, class names and paths come from strangers: the template escapes by itself, charts escape as they are drawn, data
for the script is JSON with ``<`` and ``&`` escaped, and a content policy lets only this page's own script run.
"""

from __future__ import annotations

import base64
import hashlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from hscmae.artifact import read_config
from hscmae.config import Section
from hscmae.data.inspect import Inspection, inspect_file
from hscmae.data.pairs import Labels, Pairs
from hscmae.errors import InputError
from hscmae.evaluation.retrieval import Progress
from hscmae.extract.media import MediaClip
from hscmae.files import write_atomic
from hscmae.methods import load
from hscmae.methods.base import Method
from hscmae.report import media as media_files
from hscmae.report import plots
from hscmae.report.gather import (
    CLASSES,
    CONFUSED,
    MAP_CLIPS,
    TOP,
    Findings,
    Suspicious,
    findings,
    read_records,
    suspicious_pairs,
)
from hscmae.version import __version__

MARKER = b'<meta name="generator" content="hscmae report">'
COLOURS = 12  # of the map's classes; the style sheet has as many
BARS = 60  # classes shown one by one
WORDS = {"audio": "sound", "visual": "picture"}
PHASES = {"select": "while choosing the number of steps", "refit": "final training"}
LOSSES = {
    "total": ("weighted sum of all losses", "sum of weighted losses (no unit)"),
    "global": ("global level: deep CCA", "1 − mean correlation (no unit)"),
    "local": ("local level: affinity-weighted InfoNCE", "cross-entropy (nats)"),
    "sample": ("sample level: masked reconstruction", "squared error (variances)"),
    "cross": ("reconstruction across modalities", "squared error (variances)"),
    "distill": ("distillation of the teacher", "loss (no unit)"),
    "contrastive": ("InfoNCE", "cross-entropy (nats)"),
}
DECIDES = "mutual_knn"
CRITERIA = {"mutual_knn": "mutual k-NN agreement", "alignment_gap": "alignment gap"}
METRICS = {
    "mAP": "mean average precision; a result is relevant if it shares a class with the query",
    "nDCG@10": "discounted gain of the first 10 results; the gain is the number of shared classes",
    "R@1": "share of queries whose own pair comes first",
    "R@5": "share of queries whose own pair is among the first 5",
    "R@10": "share of queries whose own pair is among the first 10",
    "MedR": "median rank of the own pair; 1 is best",
    "MeanR": "mean rank of the own pair; 1 is best",
    "mAP_cutoffs": "mAP averaged over all cutoffs: reads higher; only to compare with figures published that way",
    "ties": "results whose score equals the one before; ties count against the method",
}


@dataclass(frozen=True)
class Contender:
    """A method in the comparison: its name in words, and what ``evaluate`` gave for it."""

    title: str
    metrics: Mapping[str, Any]


def write_report(
    run: Path,
    output: Path,
    *,
    file: Path | None = None,
    pairs: Pairs | None = None,
    split: str = "test",
    media: Path | None = None,
    contenders: Sequence[Contender] = (),
    known_wrong: frozenset[bytes] | None = None,
    title: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write one HTML page about a trained run.

    Args:
        run: folder of the artefact.
        output: the HTML file.
        file: the feature file, to look through for what is wrong with it.
        pairs: what it holds; without it the report is about training alone.
        split: the rows to evaluate on: "train", "val", "test" or "all".
        media: folder with the clips' media files, named by their ids.
        contenders: other methods' results on the same rows, to compare with.
        known_wrong: ids of pairs that are known to be wrong, where the truth is known.
        title: the page's; the run's folder by default.
        overwrite: replace ``output``.
        progress: called with a stage's name, what is done and what there is.

    Returns:
        What was written: ``output``, ``bytes``, ``clips_with_media`` and, where evaluated, ``metrics``.

    Raises:
        InputError: ``output`` exists (and is to be left, or is no report), the run or the file cannot be read, or
            nothing in ``media`` belongs to it.
    """
    _require_place(output, overwrite)
    if media is not None and pairs is None:
        raise InputError("media are shown for the clips of a feature file: name it too")
    files_of = {} if media is None or pairs is None else media_files.clips_of(media, pairs.ids.tolist())

    tell = progress or (lambda stage, done, total: None)
    config = read_config(run)
    method = load(run)
    inspection = None
    if file is not None:
        tell("look through the file", 0, 1)
        inspection = inspect_file(file)
        tell("look through the file", 1, 1)
    found, doubted, clips = None, None, {}
    if pairs is not None:
        seed = int(config["settings"]["seed"])
        found = findings(method, pairs, split=split, seed=seed, progress=tell)
        doubted = suspicious_pairs(method, pairs, known_wrong, progress=tell)
        clips = _shown(found, doubted)
    tell("write the page", 0, 1)
    _add_media(clips, files_of)
    page = {
        "title": title or run.resolve().name,
        "config": config,
        "facts": _facts(config, found),
        "summary": None if inspection is None else _data(inspection),
        "warnings": _warnings(inspection, found),
        "training": _training(config, read_records(run)),
        "metrics": None if found is None else _metrics(found.metrics),
        "comparison": _comparison(contenders),
        "found": found,
        "plots": {} if found is None else _retrieval_plots(found),
        "suspicious": doubted,
        "settings": _settings(method),
        "versions": _versions(config),
        "clips": clips,
        "data": {"clips": clips, "map": None if found is None else _map(found)},
        "map_clips": MAP_CLIPS,
        "confused": CONFUSED,
        "most_bars": BARS,
        "most_classes": CLASSES,
    }
    content = render(page)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, content)
    tell("write the page", 1, 1)
    return {
        "output": str(output),
        "bytes": len(content),
        "clips_with_media": sum("image" in clip or "sound" in clip for clip in clips.values()),
        **({} if found is None else {"metrics": found.metrics}),
    }


def _require_place(output: Path, overwrite: bool) -> None:
    if output.is_dir():
        raise InputError(f"{output}: is a folder")
    if not output.exists():
        return
    if not overwrite:
        raise InputError(f"{output}: exists already; --overwrite replaces it")
    with output.open("rb") as file:
        if MARKER not in file.read(4096):
            raise InputError(f"{output}: exists and is not a report; remove it yourself if it is no longer needed")


def render(page: Mapping[str, Any]) -> bytes:
    """Fill the template; everything is escaped but charts, which are escaped as they are drawn."""
    folder = files("hscmae.report") / "page"
    script, style = ((folder / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["word"] = lambda modality: WORDS.get(modality, modality)
    environment.filters["text"] = lambda name: name.decode("utf-8", errors="replace")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    html: str = template.render(page, script=Markup(script), style=Markup(style), script_hash=digest)
    return html.encode("utf-8", errors="replace")


def _shown(found: Findings, doubted: Suspicious | None) -> dict[str, dict[str, Any]]:
    """The clips that the page speaks of, the most important first: should the space for media run out, the map's lack.

    Keys: ``t3`` is row 3 of the evaluated split, ``s3`` is suspicious pair 3.
    """
    shown = [query for examples in found.examples for query in examples.queries]
    clips = {f"t{row}": _clip(found.clips, row) for q in shown for row in (q.row, *(r.row for r in q.results))}
    if doubted is not None:
        clips |= {f"s{row}": _clip(doubted.pairs, row) for row in range(len(doubted.pairs))}
    for row in found.map_rows.tolist():
        clips.setdefault(f"t{row}", _clip(found.clips, row))
    for key, clip in clips.items():
        if key.startswith("t"):
            clip["silent"] = [WORDS.get(m, m) for m, mask in found.silent.items() if mask[int(key[1:])]]
    return clips


def _add_media(clips: dict[str, dict[str, Any]], known: Mapping[bytes, MediaClip]) -> None:
    keys = list(clips)
    wanted = {i: known[name] for i, key in enumerate(keys) if (name := clips[key]["id"].encode()) in known}
    for i, entry in media_files.embed_media(wanted).items():
        peaks = entry.pop("peaks", None)
        clips[keys[i]] |= entry | ({} if peaks is None else {"wave": plots.waveform(peaks)})


def _clip(pairs: Pairs, row: int) -> dict[str, Any]:
    name = pairs.ids[row].decode("utf-8", errors="replace")
    return {"id": name, "classes": [] if pairs.labels is None else _names(pairs.labels, row), "silent": []}


def _names(labels: Labels, row: int) -> list[str]:
    return [labels.names[c] for c in labels.indices[labels.indptr[row] : labels.indptr[row + 1]].tolist()]


def _facts(config: Mapping[str, Any], found: Findings | None) -> list[tuple[str, str, str]]:
    """The figures at the top: name, value, remark."""
    training = config["training"]
    facts = [("trained on", f"{training['rows']:,}", f"clips, {training['complete_pairs']:,} with both modalities")]
    if training.get("chosen_step") is not None:
        remark = "chosen without labels" if training.get("selection") else "as planned"
        facts.append(("steps", f"{training['chosen_step']}", remark))
    if found is None:
        return facts
    m = found.metrics
    facts.append(("queries", f"{m['n_queries']:,}", f"clips of split “{m['split']}”"))
    if m.get("avg/mAP") is not None:
        low, high = m["avg/mAP_ci"]
        facts.insert(0, ("mAP", f"{m['avg/mAP']:.3f}", f"95% interval {low:.3f} to {high:.3f}"))
        facts.insert(1, ("by chance", f"{m['chance/mAP']:.3f}", "mAP of a random order"))
    elif m.get("avg/R@10") is not None:
        low, high = m["avg/R@10_ci"]
        facts.insert(0, ("R@10", f"{m['avg/R@10']:.3f}", f"95% interval {low:.3f} to {high:.3f}"))
    return facts


def _data(inspection: Inspection) -> dict[str, Any]:
    """The feature file in rows of a table."""
    labels = inspection.labels
    counts = sorted((labels or {"counts": {}})["counts"].items(), key=lambda item: -item[1])
    total = max(1, inspection.rows)
    chart = plots.bar_chart(
        [(name, [plots.Bar(count, 1, f"{name}: {count} clips, {count / total:.0%}")]) for name, count in counts[:BARS]],
        title="clips with the class (number)",
        figure="{:.0f}",
    )
    return {"inspection": inspection, "labels": labels, "chart": chart if counts else None, "classes": len(counts)}


def _warnings(inspection: Inspection | None, found: Findings | None) -> list[str]:
    said = []
    for problem in [] if inspection is None else inspection.problems:
        where = f"{problem.dataset}: " if problem.dataset else ""
        rows = f" ({len(problem.rows):,} row{'s' if len(problem.rows) > 1 else ''})" if problem.rows else ""
        said.append(f"{where}{problem.message}{rows}")
    if found is None:
        return said
    metrics = found.metrics
    if metrics.get("n_trained_on"):
        said.append(
            f"{metrics['n_trained_on']:,} of the {metrics['n_queries']:,} evaluated clips are among those that the "
            "model was trained on: the figures say little of others."
        )
    elif metrics["split"] != "test" and "n_trained_on" not in metrics:
        said.append(f"Evaluated on split “{metrics['split']}”, which may hold clips that the model was trained on.")
    if metrics["n_queries"] < 100:
        said.append(f"Only {metrics['n_queries']} queries: the figures are uncertain.")
    if found.clips.labels is None:
        said.append("The file has no labels: only the rank of the own pair can be measured.")
    lacking = metrics["n_queries"] - metrics["n_paired"]
    if lacking:
        said.append(f"{lacking} of {metrics['n_queries']} evaluated clips lack a modality.")
    return said


def _training(config: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is said of training, and charts of losses, weights and the criterion, each with its title."""
    phases = list(dict.fromkeys(r["phase"] for r in records))

    def lines(key: str, only: Iterable[str]) -> list[plots.Line]:
        found = []
        for series, phase in enumerate(only, start=1):
            points = [(r["step"], r[key]) for r in records if r["phase"] == phase and r.get(key) is not None]
            if points:
                x, y = zip(*points, strict=True)
                found.append(plots.Line(PHASES.get(phase, phase), x, y, series))
        return found

    names = dict.fromkeys(key for r in records for key in r)
    losses = []
    for key in names:
        if key.startswith("loss/") and (drawn := lines(key, phases)):
            title, unit = LOSSES.get(key.removeprefix("loss/"), (key.removeprefix("loss/"), "loss"))
            losses.append((title, plots.line_chart(drawn, x_title="training step", y_title=unit)))
    weights = [
        plots.Line(key.removeprefix("weight/"), line.x, line.y, series)
        for series, key in enumerate((k for k in names if k.startswith("weight/")), start=1)
        for line in lines(key, phases[-1:])
    ]
    summary = config["training"]
    chosen = summary.get("chosen_step") if summary.get("selection") else None
    criteria = []
    for key in names:
        if key.startswith("val/") and (drawn := lines(key, ["select"])):
            name = key.removeprefix("val/")
            name = CRITERIA.get(name, name)
            mark = None if chosen is None else (float(chosen), f"chosen: step {chosen}")
            chart = plots.line_chart(drawn, x_title="training step", y_title=f"{name} (no unit)", mark_x=mark)
            criteria.append((name, chart, key == f"val/{DECIDES}"))
    rate = lines("lr", phases)
    return {
        "chosen": chosen,
        "refitted": "refit" in phases,
        "losses": losses,
        "weights": plots.line_chart(weights, x_title="training step", y_title="weight of the loss (no unit)")
        if weights
        else None,
        "criteria": criteria,
        "rate": plots.line_chart(rate, x_title="training step", y_title="learning rate (no unit)") if rate else None,
    }


def _metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    directions = [key.removesuffix("/R@1") for key in metrics if key.endswith("/R@1")]
    rows = []
    for name, meaning in METRICS.items():
        if metrics.get(f"avg/{name}") is not None:
            rows.append((name, meaning, [_cell(metrics, f"{direction}/{name}") for direction in directions]))
    sizes = [metrics[f"{direction}/n_gallery"] for direction in directions if direction != "avg"]
    whole = all(size == metrics["n_queries"] for size in sizes)
    return {"gallery": None if whole else sizes, "rows": rows, "chance": metrics.get("chance/mAP")}


def _cell(metrics: Mapping[str, Any], key: str) -> tuple[str, str]:
    """A figure and its interval, as text."""
    value, interval = metrics.get(key), metrics.get(f"{key}_ci")
    if value is None:
        return "", ""
    form = "{:.3f}" if isinstance(value, float) and value <= 1 else "{:,.1f}" if value % 1 else "{:,.0f}"
    return form.format(value), "" if interval is None else " to ".join(form.format(v) for v in interval)


def _comparison(contenders: Sequence[Contender]) -> Markup | None:
    if not contenders:
        return None
    rows = []
    for number, c in enumerate(contenders):
        low, high = c.metrics["avg/mAP_ci"]
        parts = ", ".join(
            f"{key.removesuffix('/mAP')} {value:.3f}"
            for key, value in c.metrics.items()
            if key.endswith("/mAP") and key not in ("avg/mAP", "chance/mAP")
        )
        tip = f"{c.title}: {c.metrics['avg/mAP']:.3f}, 95% interval {low:.3f} to {high:.3f} ({parts})"
        series = 1 if number == len(contenders) - 1 else 6
        rows.append((c.title, [plots.Bar(c.metrics["avg/mAP"], series, tip, (low, high))]))
    return plots.bar_chart(rows, title="mAP, both directions averaged (0 to 1)")


def _retrieval_plots(found: Findings) -> dict[str, Any]:
    labels = found.clips.labels
    if labels is None or not found.curves:
        return {}
    titles = {d: f"{WORDS.get(d.source, d.source)} → {WORDS.get(d.target, d.target)}" for d in found.curves}
    curves = [
        plots.Line(titles[direction], levels.tolist(), precision.tolist(), series)
        for series, (direction, (levels, precision)) in enumerate(found.curves.items(), start=1)
        if np.isfinite(precision).all()
    ]
    if not curves:
        return {}
    chance = plots.Line("random order", [0, 1], [found.prevalence] * 2, 6, dashed=True, marks=False)
    drawn: dict[str, Any] = {
        "curve": plots.line_chart(
            [*curves, chance],
            x_title="recall (share of relevant items found)",
            y_title="precision (share that is relevant)",
            y_range=(0.0, 1.0),
        )
    }
    counts = np.bincount(labels.indices, minlength=len(labels.names))
    frequent = [labels.names[c] for c in np.argsort(-counts, kind="stable")]
    names = [name for name in frequent if any(name in of for of in found.per_class.values())]
    mean = {name: np.mean([of[name] for of in found.per_class.values() if name in of]) for name in names[:BARS]}
    rows = []
    for name in sorted(mean, key=lambda name: -mean[name]):
        bars = [
            plots.Bar(of[name], series, f"{name}, {titles[direction]}: {of[name]:.3f}")
            for series, (direction, of) in enumerate(found.per_class.items(), start=1)
            if name in of
        ]
        rows.append((name, bars))
    drawn["classes"] = len(names)
    drawn["per_class"] = plots.bar_chart(
        rows, title="mean average precision of the class's queries (0 to 1)", highest=1.0
    ) + plots.legend([(titles[direction], series) for series, direction in enumerate(found.per_class, start=1)])
    drawn["confusion"] = plots.matrix(
        [labels.names[c] for c in found.classes.tolist()],
        found.confusion,
        row_title="class of the query",
        column_title=f"class among the first {TOP} results",
        tip=lambda row, column, share: f"queries with {row}: {share} of the first results carry {column}",
    )
    return drawn


def _map(found: Findings) -> dict[str, Any]:
    """What the page's script needs to draw the map."""
    labels, rows = found.clips.labels, found.map_rows
    names: list[str] = []
    colour: list[int] = [0] * len(rows)
    if labels is not None:
        counts = np.bincount(labels.indices, minlength=len(labels.names))
        ranked = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
        kept = sorted(ranked if len(ranked) <= COLOURS else ranked[: COLOURS - 1])
        names = [labels.names[c] for c in kept] + (["other classes"] if len(ranked) > COLOURS else [])
        place = {c: i for i, c in enumerate(kept)}
        for i, row in enumerate(rows.tolist()):
            own = labels.indices[labels.indptr[row] : labels.indptr[row + 1]].tolist()
            colour[i] = min((place[c] for c in own if c in place), default=len(names) - 1 if own else -1)
    present = found.clips.present
    return {
        "rows": rows.tolist(),
        "names": names,
        "colour": colour,
        "modalities": [{"name": m, "word": WORDS.get(m, m)} for m in found.projections[0].points],
        "present": {m: present[m][rows].astype(int).tolist() for m in found.projections[0].points},
        "cosine": [None if np.isnan(c) else round(float(c), 3) for c in found.pair_cosine[rows]],
        "maps": [
            {"name": p.name, "axes": p.axes, "points": {m: np.round(xy, 4).tolist() for m, xy in p.points.items()}}
            for p in found.projections
        ],
    }


def _settings(method: Method) -> list[tuple[str, str, str, bool]]:
    """Dotted name, value, meaning, and whether it differs from the preset, of every setting."""
    standard = type(method)(preset=method.preset).config
    rows = []
    for name, info in type(method.config).model_fields.items():
        value, usual = getattr(method.config, name), getattr(standard, name)
        if isinstance(value, Section):
            for leaf, inner in type(value).model_fields.items():
                own = getattr(value, leaf)
                rows.append((f"{name}.{leaf}", _setting(own), inner.description or "", own != getattr(usual, leaf)))
        else:
            rows.append((name, _setting(value), info.description or "", value != usual))
    return rows


def _setting(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _versions(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    data = config.get("data", {})
    rows = [(f"{name}, in training", str(version)) for name, version in config["versions"].items()]
    rows += [
        ("hscmae, for this report", __version__),
        ("torch, for this report", torch.__version__),
        ("numpy, for this report", np.__version__),
        ("python, for this report", platform.python_version()),
        ("SHA-256 of the weights", str(config["sha256"])),
    ]
    return rows + [(f"data: {name}", str(value)) for name, value in data.items() if value is not None]

"""Real sounds and pictures, an increasing share of the training pairs wrong: the README's first figure, by one command.

    python -m benchmarks.studies.real_media [../shared/media] [--permutations 10] [--output docs]

Features of YAMNet and EfficientNet-Lite0; every method is trained on folds 1 to 4 without labels, as it comes, with a
share of the sounds permuted among the training clips, and tested on fold 5, whose recordings are others. Intervals are
of the mean over permutations. Writes OUTPUT/real-media.svg, .png and .md; fits are kept in
benchmarks/results/real-media.json as they are done and taken from there on a second run with --resume. Needs the
weights of YAMNet (HSCMAE_MODELS or ../shared/models).
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from benchmarks.pages import RESULTS
from hscmae.benchmark.damage import with_wrong_pairs
from hscmae.benchmark.plots import COLOURS, OURS, draw
from hscmae.config import HSCMAEConfig, View
from hscmae.data.pairs import Pairs
from hscmae.evaluation.protocol import evaluate
from hscmae.extract import extract
from hscmae.extract.media import read_audio, read_image
from hscmae.files import write_atomic
from hscmae.methods import get_method

GIVEN = " + anchors, weights of pairs"
METHODS = {
    "hscmae": "HSC-MAE",
    "smoothed-kernel-cca": "smoothed kernel CCA",
    f"smoothed-kernel-cca{GIVEN}": "the same with our parts*",
    "ridge-cca": "ridge CCA",
    "cav-mae": "CAV-MAE's objective",
    "infonce": "InfoNCE",
}
SHARES = (0.0, 0.4, 0.6)
QUERIES, SHOWN = 3, 5
SHOWN_SHARE = 0.6


def main() -> None:
    """Extract, train, test, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("media", type=Path, nargs="?", default=Path("../shared/media"))
    parser.add_argument("--models", type=Path, default=Path("../shared/models"))
    parser.add_argument("--permutations", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("docs"))
    parser.add_argument("--resume", action="store_true", help="take over the fits that were kept")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        pairs = features(options.media, options.models, Path(folder))
        kept = RESULTS / "real-media.json"
        records = fits(pairs, options.permutations, kept, resume=options.resume)
        examples = {name: results(pairs, name) for name in ("hscmae", "infonce")}
        write_atomic(options.output / "real-media.md", table(records).encode())
        draw(options.output, "real-media", figure, records, pairs, examples, options.media)


def features(media: Path, models: Path, folder: Path) -> Pairs:
    """Features with kinds as labels and fold 5 as the test split."""
    with (media / "labels.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "split"])
        for line in lines:
            writer.writerow([line["id"], line["label"], "test" if line["id"].startswith("fold5/") else "train"])
    names = {"audio": "yamnet", "visual": "efficientnet-lite0"}
    weights = [models] if models.exists() else []
    return extract(media, folder / "features", **names, weights=weights, labels=folder / "labels.csv")


def fits(pairs: Pairs, permutations: int, kept: Path, *, resume: bool) -> list[dict[str, Any]]:
    """mAP of every method, share and permutation; there is one way to permute nothing."""
    records: list[dict[str, Any]] = json.loads(kept.read_text()) if resume and kept.exists() else []
    done = {(r["method"], r["share"], r["permutation"]) for r in records}
    for share in SHARES:
        for permutation in range(permutations):
            damaged = with_wrong_pairs(pairs, share, permutation) if share else pairs
            for name in METHODS:
                if (name, share, permutation) in done:
                    continue
                ours = {"anchors_share": HSCMAEConfig().anchors.share, "weigh_pairs": True, "linear": View().linear}
                settings = ours if name.endswith(GIVEN) else {}
                method = get_method(name.removesuffix(GIVEN))(seed=permutation, **settings)
                method.fit(damaged.without_labels())
                score = evaluate(method, pairs, bootstrap=0)["avg/mAP"]
                records.append({"method": name, "share": share, "permutation": permutation, "mAP": score})
                print(f"{share:.0%} wrong, permutation {permutation}: {name} {score:.3f}", flush=True)
                write_atomic(kept, json.dumps(records, indent=0).encode())
    return records


def summary(records: list[dict[str, Any]], method: str, share: float) -> tuple[float, float]:
    """Mean mAP, and half the width of its 95% interval over permutations (Student's t)."""
    from scipy.stats import t

    found = np.array([r["mAP"] for r in records if (r["method"], r["share"]) == (method, share)])
    if len(found) < 2:
        return float(found.mean()), 0.0
    return float(found.mean()), float(t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))


def results(pairs: Pairs, name: str) -> dict[int, list[int]]:
    """Test rows that are queried by sound -> the pictures found, best first, with most training pairs wrong."""
    method = get_method(name)(seed=0).fit(with_wrong_pairs(pairs, SHOWN_SHARE, 0).without_labels())
    test = pairs.of_split("test")
    z = {m: method.embed(m, test.features[m], lengths=test.lengths.get(m)) for m in test.modalities}
    order = np.argsort(-(z["audio"] @ z["visual"].T), axis=1, kind="stable")
    kinds = test.labels.indices
    # The first clip of each kind, in the order of kinds: chosen before anything was ranked.
    queries = [int(np.flatnonzero(kinds == kind)[0]) for kind in np.unique(kinds)[:QUERIES]]
    return {row: order[row, :SHOWN].tolist() for row in queries}


def figure(
    records: list[dict[str, Any]], pairs: Pairs, examples: dict[str, dict[int, list[int]]], media: Path
) -> Figure:
    """Curves on the left; on the right sounds as queries and the pictures found."""
    drawn = Figure(figsize=(14, 8), layout="constrained")
    left, right = drawn.subfigures(1, 2, width_ratios=(1, 1.55))
    axes = left.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    for number, (name, title) in enumerate(METHODS.items()):
        means, widths = zip(*(summary(records, name, share) for share in SHARES), strict=True)
        ours = name == "hscmae"
        colour = OURS if ours else COLOURS[number - 1]
        x = [100 * share for share in SHARES]
        axes.errorbar(
            x, means, widths, label=title, color=colour, linewidth=2.6 if ours else 1.4, marker="o", capsize=3,
            zorder=3 if ours else 2,
        )  # fmt: skip
    axes.set_xlabel("training pairs that are wrong (%)")
    axes.set_ylabel("mAP on other recordings, sound and picture both ways")
    axes.set_xticks([100 * share for share in SHARES])
    axes.legend(frameon=False, loc="lower left", title="160 unlabelled training pairs, 40 test clips")
    _examples(right, pairs.of_split("test"), examples, media)
    return drawn


def _examples(part: Any, test: Pairs, examples: dict[str, dict[int, list[int]]], media: Path) -> None:
    queries = list(next(iter(examples.values())))
    names = test.labels.names
    kinds = test.labels.indices
    part.suptitle(f"A sound asks for pictures; {SHOWN_SHARE:.0%} of the training pairs were wrong", fontsize=11)
    grid = part.subplots(2 * len(queries), SHOWN + 1, width_ratios=(1.6, *(1,) * SHOWN))
    for block, row in enumerate(queries):
        for line, (method, found) in enumerate(examples.items()):
            cells = grid[2 * block + line]
            for axes in cells:
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
            if line == 0:
                sound = read_audio(media / f"{test.ids[row].decode()}.ogg")
                peaks = np.array([np.abs(piece).max() for piece in np.array_split(sound, 200)])
                cells[0].fill_between(np.arange(200), -peaks, peaks, color="#444444", linewidth=0)
                cells[0].set_ylim(-1.1 * peaks.max(), 1.1 * peaks.max())
                cells[0].set_title(f"sound: {names[kinds[row]]}", fontsize=9, pad=2)
            cells[0].set_ylabel(METHODS[method], rotation=0, ha="right", va="center", fontsize=8.5)
            for axes, other in zip(cells[1:], found[row], strict=True):
                picture = read_image(media / f"{test.ids[other].decode()}.jpg")
                _thumbnail(axes, picture, right=kinds[other] == kinds[row])


def _thumbnail(axes: Any, picture: np.ndarray, *, right: bool) -> None:
    step = max(1, max(picture.shape[:2]) // 110)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    small = OffsetImage(picture[::step, ::step], zoom=0.36)
    colour = "#009E73" if right else "#CC0000"
    frame = {"edgecolor": colour, "linewidth": 2, "linestyle": "-" if right else ":"}
    axes.add_artist(AnnotationBbox(small, (0.5, 0.5), pad=0.1, bboxprops=frame))


def table(records: list[dict[str, Any]]) -> str:
    """Mean mAP and its interval, a row a method."""
    count = max(r["permutation"] for r in records) + 1
    lines = [
        "# Real sounds and pictures, wrongly paired",
        "",
        f"mAP on 40 clips of other recordings (both ways averaged), mean of {count} permutations with 95% intervals of "
        "the mean; 160 unlabelled training pairs of five kinds. `python -m benchmarks.studies.real_media`.",
        "",
        "| method | " + " | ".join(f"{share:.0%} wrong" for share in SHARES) + " |",
        "|---|" + "---|" * len(SHARES),
    ]
    for name, title in METHODS.items():
        cells = (summary(records, name, share) for share in SHARES)
        lines.append(f"| {title} | " + " | ".join(f"{mean:.3f} ± {width:.3f}" for mean, width in cells) + " |")
    lines += [
        "",
        "\\* given HSC-MAE's anchors, weights of pairs and kernel, and not its training.",
        "",
        "![mAP by the share of wrong pairs; three sounds and the first pictures that two methods find](real-media.png)",
        "",
        "Examples are of the first permutation, whatever it shows. Sounds: ESC-10 (K. J. Piczak, 2015; Freesound,",
        "CC BY 3.0). Pictures: Caltech-101 (Li, Andreeto, Ranzato, Perona; CC BY 4.0), made smaller.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

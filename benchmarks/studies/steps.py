"""Whether training goes on from the start, by several rules and criteria: mAP against the start's own.

    python -m benchmarks.studies.steps ../shared/data [--whole] [--only NAME ...] [--scan FILE]

Development cuts of training rows alone (``benchmarks.studies.views``), as they are and with 40 and 60% of the training
pairs permuted; or, with ``--whole``, two development cuts of all training rows of ave15, mfeat, digits and the demo's
corpora, as they are. HSC-MAE is trained by its default; at each measured step of each fold the test rows of the cut are
retrieved as well. Three criteria, pair by pair: mutual k-NN times the root of feature k-NN (the one that training
uses), mutual k-NN alone, the rank of the pair. Rules: the last step within a standard error of the best that is not
worse than the start by a standard error; the same, but of steps whose mean is not below the start's; the best step; the
start unless the best step is better by some standard errors; the best step before some measurements without a better
one; always the last. Prints, for each cut, mAP of the start, of the last step and of the best one, then a table: mean
and worst change against the start, in %, and what share of the planned steps was measured. ``--scan`` keeps all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hscmae
from benchmarks.studies.ridges import rank_rows
from benchmarks.studies.tasks import TASKS, development
from benchmarks.studies.views import cuts
from hscmae.benchmark.damage import with_wrong_pairs
from hscmae.data.pairs import Pairs
from hscmae.evaluation.retrieval import Retrieval
from hscmae.evaluation.selection import mutual_rows
from hscmae.linear.smoothing import fuse
from hscmae.nn.anchors import attend
from hscmae.streams import generator
from hscmae.training.choice import better, standard_error

PATIENCE = (3, 5, 10)
Scores = dict[int, torch.Tensor]  # step: a number for each held-out pair


class Watched(hscmae.HSCMAE):
    """HSC-MAE that retrieves test rows whenever it measures."""

    test: Pairs
    seen: list[dict[str, Any]]

    def _measure(self, objective: Any, features: Any, held_out: Any, near: Any) -> Any:
        found: dict[str, Any] = {}

        def embed(x: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
            with torch.inference_mode():
                z = {m: objective.embed(m, rows) for m, rows in x.items()}
                if self.config.anchors.share and self.summary_.get("anchors", True):
                    z = self._attended(z, objective, features)
            return {m: rows.numpy() for m, rows in z.items()}

        criteria, rows = super()._measure(objective, features, held_out, near)
        first, second = embed(held_out.batch(torch.arange(len(held_out))).x).values()
        found["mutual k-NN"], found["rank of the pair"] = mutual_rows(first, second), rank_rows(first, second)
        found["both"] = np.asarray(rows)
        tested = {m: self.scalers_[m].apply(np.asarray(x)) for m, x in self.test.features.items()}
        z = embed({m: self.views_[m](torch.from_numpy(x)) for m, x in tested.items()})
        found["mAP"] = float(Retrieval(z, self.test.labels).metrics(bootstrap=0)["avg/mAP"])
        self.seen.append(found)
        return criteria, rows

    def _attended(self, z: dict[str, torch.Tensor], objective: Any, features: Any) -> dict[str, torch.Tensor]:
        anchors = self.config.anchors
        rows = features.sample(anchors.rows, generator(self.config.seed, "anchors"))
        known = fuse({m: objective.embed(m, x) for m, x in rows.x.items()}, rows.present)
        return {m: attend(x, known, tau=anchors.tau, share=anchors.share) for m, x in z.items()}


def whole_cuts(data: Path) -> Iterator[tuple[str, Pairs]]:
    """Development cuts of all training rows."""
    for file in ("yt8m_ave15.h5", "mfeat.h5", "digits.h5"):
        for split in range(2):
            yield f"{Path(file).stem}, cut {split}", development(hscmae.read(data / file), split)
    for number, pairs in zip(range(2), TASKS["demo"].cuts(data), strict=False):
        yield f"demo, corpus {number}", development(pairs, 0)


def within(scores: Scores, floor: float) -> list[int]:
    """Steps within a standard error of the best whose mean is at least ``floor``."""
    best = max(scores.values(), key=lambda own: float(own.mean()))
    enough = max(float(best.mean()) - standard_error(best), floor)
    return [step for step, own in scores.items() if float(own.mean()) >= enough]


def lead(first: torch.Tensor, second: torch.Tensor) -> float:
    """Of the first over the second, pair by pair, in standard errors; 0 where they are the same."""
    difference = first - second
    return float(difference.mean()) / max(standard_error(difference), 1e-12)


def patient(scores: Scores, patience: int) -> Scores:
    """What is measured until so many measurements in a row are not better than the best before them."""
    steps, best = sorted(scores), 0
    for number, step in enumerate(steps):
        if float(scores[step].mean()) >= float(scores[steps[best]].mean()):
            best = number
        elif number - best >= patience:
            return {step: scores[step] for step in steps[: number + 1]}
    return scores


def chosen(scores: Scores) -> dict[str, int]:
    """The step that each rule takes."""
    start = scores[0]
    best = max(scores, key=lambda step: float(scores[step].mean()))
    return {
        "last as good, not worse": max(
            (step for step in within(scores, -np.inf) if not better(start, scores[step])), default=0
        ),
        "last as good, not below": max(within(scores, float(start.mean())), default=0),
        "best": best,
        **{
            f"best, patience {patience}": max(seen, key=lambda step: float(seen[step].mean()))
            for patience in PATIENCE
            for seen in [patient(scores, patience)]
        },
        **{
            f"start unless {errors:g} errors better": best if lead(scores[best], start) > errors else 0
            for errors in (0.25, 0.5, 0.75, 1.0)
        },
        "last": max(scores),
    }


def watch(pairs: Pairs) -> tuple[dict[int, float], dict[str, Scores]]:
    """mAP of each measured step, the mean over folds, and what the criteria say of it."""
    model = Watched(training_patience=1000, training_checkpoint_seconds=1e9)
    pairs = pairs.usable(among=pairs.rows_of("train"))
    model.test, model.seen = pairs.take(pairs.rows_of("test")), []
    model.fit(pairs.without_labels())
    steps = [int(step) for step, _ in model.summary_["selection"]]
    folds = len(model.seen) // len(steps)
    at = [model.seen[i :: len(steps)] for i in range(len(steps))]
    assert all(len(own) == folds for own in at)
    quality = {step: float(np.mean([one["mAP"] for one in own])) for step, own in zip(steps, at, strict=True)}
    criteria = {
        name: {
            step: torch.from_numpy(np.concatenate([one[name] for one in own]))
            for step, own in zip(steps, at, strict=True)
        }
        for name in ("both", "mutual k-NN", "rank of the pair")
    }
    return quality, criteria


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", default=[""], help="beginnings of the cuts' names")
    parser.add_argument("--scan", type=Path, help="file for every cut's mAP by step and step by rule")
    parser.add_argument("--whole", action="store_true", help="cuts of all training rows, none of them permuted")
    arguments = parser.parse_args()
    shares = (0.0,) if arguments.whole else (0.0, 0.4, 0.6)
    changes: dict[str, dict[float, list[float]]] = {}
    measured: dict[int, list[float]] = {}
    kept: dict[str, object] = {}
    for name, pairs in (whole_cuts if arguments.whole else cuts)(arguments.data):
        if not name.startswith(tuple(arguments.only)):
            continue
        for share in shares:
            quality, criteria = watch(with_wrong_pairs(pairs, share, 0))
            tell = partial("{:.4f}".format)
            print(
                f"{name}, {share:.0%} wrong: start {tell(quality[0])}, last {tell(quality[max(quality)])}, "
                f"best {tell(max(quality.values()))}",
                flush=True,
            )
            for patience in PATIENCE:
                seen = patient(criteria["both"], patience)
                measured.setdefault(patience, []).append(max(seen) / max(criteria["both"]))
            picks = {f"{c}: {rule}": step for c, scores in criteria.items() for rule, step in chosen(scores).items()}
            for rule, step in picks.items():
                changes.setdefault(rule, {}).setdefault(share, []).append(quality[step] / quality[0] - 1)
            leads = {c: {step: lead(own, scores[0]) for step, own in scores.items()} for c, scores in criteria.items()}
            if arguments.whole:
                print(
                    "lead of the best in errors:",
                    {c: round(max(of.values()), 2) for c, of in leads.items()},
                    flush=True,
                )
            kept[f"{name}, {share:.0%} wrong"] = {"mAP": quality, "chosen": picks, "leads": leads}
            if arguments.scan:
                arguments.scan.write_text(json.dumps(kept, indent=1))
    print("\nmeasured:", ", ".join(f"{np.mean(v):.0%} with patience {k}" for k, v in measured.items()))
    print("\n| rule | " + " | ".join(f"{share:.0%} wrong" for share in shares) + " |\n|---|" + "---|" * len(shares))
    for rule, by_share in changes.items():
        cells = [f"{100 * np.mean(v):+.1f} / {100 * np.min(v):+.1f}" for v in by_share.values()]
        print(f"| {rule} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

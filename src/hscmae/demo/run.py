"""The embedded default job: make a corpus of media files, extract features, train, compare with baselines.

Offline and with no data at hand. What it leaves is an archive, to be searched and served. Everything that it does, a
user can do with the other verbs; the last lines say how.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hscmae.data.pairs import Pairs
from hscmae.data.recipe import recipe_of
from hscmae.data.store import StoreWriter, read_extra
from hscmae.demo.corpus import make_corpus, read_truth, with_truth
from hscmae.embedding import MEDIA, embed_file
from hscmae.evaluation.protocol import evaluate
from hscmae.extract import extract
from hscmae.files import FolderKind, output_folder, write_atomic
from hscmae.methods import get_method, load
from hscmae.report import Contender, write_report
from hscmae.runs import train_run
from hscmae.search.archive import ARCHIVE, EMBEDDINGS, FEATURES, FORMAT, REPORT, RUN

Progress = Callable[[str, int, int], None]
MARKER = "demo.json"
NAMES = [MARKER, ARCHIVE, REPORT, "media/*", *(f"{folder}/*" for folder in (FEATURES, RUN, EMBEDDINGS, "serve"))]
DEMO = FolderKind("a demo", [MARKER], "hscmae-demo", NAMES)
METHODS = {
    "random": "chance (random projection)",
    "cca": "plain CCA",
    "ridge-cca": "ridge CCA",
    "infonce": "InfoNCE (CLIP-style)",
    "hscmae": "HSC-MAE",
}


@dataclass(frozen=True)
class Result:
    """One method on the demo corpus: its name, in words, and its retrieval metrics."""

    method: str
    title: str
    metrics: dict[str, Any]


def make_data(folder: Path, *, clips: int, seed: int, progress: Progress) -> Pairs:
    """Make the corpus in ``folder/media`` and its features, labels and split in ``folder/features``."""
    truth = make_corpus(
        folder / "media", clips=clips, seed=seed, progress=lambda done, total: progress("make media", done, total)
    )
    extracted = extract(
        [folder / "media"],
        folder / "extracted",
        audio="light",
        visual="light",
        progress=lambda done, total: progress("extract features", done, total),
    )
    pairs = with_truth(extracted, truth)
    with StoreWriter(folder / FEATURES, recipe=recipe_of(folder / "extracted")) as writer:
        writer.append(pairs)
        if (media := read_extra(folder / "extracted", MEDIA)) is not None:
            writer.extra[MEDIA] = media
    shutil.rmtree(folder / "extracted")
    return pairs


def run_demo(
    output: Path, *, clips: int = 1000, seed: int = 0, overwrite: bool = False, progress: Progress
) -> list[Result]:
    """Run the whole demo into ``output``.

    It then holds ``media/``, ``features/`` (a store), ``run/`` (the trained model), ``embeddings/`` and
    ``report.html``: an archive.

    Raises:
        InputError: ``output`` exists and ``overwrite`` is not set, or is not a demo's.
    """
    with output_folder(output, DEMO, resume=False, overwrite=overwrite, resumable=lambda _: False) as place:
        write_atomic(place / MARKER, json.dumps({"format": DEMO.format, "clips": clips, "seed": seed}).encode())
        results = _fill(place, clips=clips, seed=seed, progress=progress)
        # The media's place is the one that they have in the end.
        about = {"format": FORMAT, "version": 1, "media": [str(output.resolve() / "media")], "weights": []}
        write_atomic(place / ARCHIVE, json.dumps(about | {"metrics": results[-1].metrics}).encode())
        return results


def _fill(output: Path, *, clips: int, seed: int, progress: Progress) -> list[Result]:
    pairs = make_data(output, clips=clips, seed=seed, progress=progress)
    results = []
    for done, (name, title) in enumerate(METHODS.items()):
        progress("train and evaluate", done, len(METHODS))
        method = get_method(name)(seed=seed)
        if name == "hscmae":
            recipe = recipe_of(output / FEATURES)
            train_run(method, pairs, output / RUN, data={"source": FEATURES}, recipe=recipe)
            embed_file(load(output / RUN), output / FEATURES, output / EMBEDDINGS, run=output / RUN)
        else:
            method.fit(pairs)
        results.append(Result(name, title, evaluate(method, pairs)))
    progress("train and evaluate", len(METHODS), len(METHODS))
    progress("write the report", 0, 1)
    write_report(
        output / "run",
        output / "report.html",
        file=output / "features",
        pairs=pairs,
        media=output / "media",
        contenders=[Contender(result.title, result.metrics) for result in results],
        known_wrong=frozenset(clip.id.encode() for clip in read_truth(output / "media") if clip.wrong),
        title="The demo: sounds and pictures made on the spot",
    )
    progress("write the report", 1, 1)
    return results

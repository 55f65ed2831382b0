"""The demo from nothing to its report, on a small corpus: what it leaves, what it says, what it never touches."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hscmae.cli import main
from hscmae.data.readers import read
from hscmae.demo import run as demo
from hscmae.demo.corpus import read_truth
from hscmae.errors import InputError
from hscmae.evaluation.protocol import evaluate
from hscmae.methods import load
from hscmae.search import Archive

pytest.importorskip("av", reason="needs the extra media")
CLIPS = 100


@dataclass
class Done:
    folder: Path
    results: list[demo.Result]
    stages: list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder, stages = tmp_path_factory.mktemp("work") / "demo", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "umap", None)  # which takes half a minute to start, where it is installed
        results = demo.run_demo(folder, clips=CLIPS, progress=lambda *stage: stages.append(stage))
    return Done(folder, results, stages)


def test_it_leaves_media_features_a_model_and_a_report(done: Done) -> None:
    left = {"demo.json", "archive.json", "media", "features", "run", "embeddings", "report.html"}
    assert {path.name for path in done.folder.iterdir()} == left
    pairs = read(done.folder / "features")
    assert len(pairs) == CLIPS == len(read_truth(done.folder / "media"))
    assert pairs.labels is not None and set(pairs.split.tolist()) == {b"train", b"test"}
    assert (done.folder / "run" / "metrics.jsonl").read_text().count("\n") > 10


def test_it_is_an_archive_that_is_searched_by_its_media(done: Done) -> None:
    with Archive.open(done.folder) as archive:
        clip = next(clip for clip in read_truth(done.folder / "media") if not clip.video and not clip.silent)
        by_id = archive.search(clip.id, 5, from_="audio")
        by_file = archive.search(done.folder / "media" / f"{clip.id}.wav", 5)
        assert [r.id for r in by_id] == [r.id for r in by_file]
        assert archive.file(by_id[0]) is not None


def test_every_method_is_evaluated_on_the_same_test_clips(done: Done) -> None:
    assert [r.method for r in done.results] == list(demo.METHODS)
    for result in done.results:
        low, high = result.metrics["avg/mAP_ci"]
        assert low <= result.metrics["avg/mAP"] <= high
        assert result.metrics["n_queries"] == CLIPS // 4
        assert result.metrics["split"] == "test"


def test_the_saved_model_is_the_one_in_the_table(done: Done) -> None:
    again = evaluate(load(done.folder / "run"), read(done.folder / "features"))
    assert again == done.results[-1].metrics


def test_the_report_compares_all_methods_with_media_and_truth(done: Done) -> None:
    text = (done.folder / "report.html").read_text(encoding="utf-8")
    for result in done.results:
        assert f"{result.title}: {result.metrics['avg/mAP']:.3f}" in text
    assert text.count("data:image/jpeg") >= CLIPS // 4
    assert text.count("data:audio/mpeg") >= CLIPS // 4
    assert "made wrong on purpose" in text
    assert len(text) < 15e6


def test_wrong_pairs_named_in_the_report_are_those_of_the_truth(done: Done) -> None:
    wrong = {clip.id for clip in read_truth(done.folder / "media") if clip.wrong}
    text = (done.folder / "report.html").read_text(encoding="utf-8")
    tiles = text.split('id="suspicious"')[1].split("</section>")[0].split('class="tile"')[1:]
    assert len(tiles) == 24
    for tile in tiles:
        name = tile.split('class="name" title="')[1].split('"')[0]
        assert ("made wrong" in tile) == (name in wrong)


def test_progress_goes_through_all_stages(done: Done) -> None:
    assert list(dict.fromkeys(stage for stage, _, _ in done.stages)) == [
        "make media",
        "extract features",
        "train and evaluate",
        "write the report",
    ]
    last: dict[str, tuple[int, int]] = {stage: (count, total) for stage, count, total in done.stages}
    assert all(count == total for count, total in last.values())


def test_labels_are_the_events_of_the_truth(done: Done) -> None:
    pairs = read(done.folder / "features")
    truth = {clip.id.encode(): {event.kind for event in clip.events} for clip in read_truth(done.folder / "media")}
    for row in np.random.default_rng(0).choice(len(pairs), 20, replace=False):
        own = pairs.labels.indices[pairs.labels.indptr[row] : pairs.labels.indptr[row + 1]]
        assert {pairs.labels.names[c] for c in own} == truth[pairs.ids[row]]


def test_what_is_not_a_demo_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="exists"):
            demo.run_demo(tmp_path, clips=CLIPS, overwrite=overwrite, progress=lambda *_: None)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_command_prints_a_table_and_what_to_try_next(
    done: Done, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def run_demo(output: Path, **options: Any) -> list[demo.Result]:
        asked.append((output, options["clips"], options["seed"]))
        return done.results

    monkeypatch.setattr(demo, "run_demo", run_demo)
    assert main(["demo", "--output", str(done.folder), "--clips", "300", "--seed", "2"]) == 0
    printed = capsys.readouterr().out
    for result in done.results:
        assert result.title in printed
        assert f"{result.metrics['avg/mAP']:.3f}" in printed
    assert f"{done.folder}/report.html" in printed
    commands = [line.split() for line in printed.splitlines() if line.startswith("  hscmae")]
    assert [c[1] for c in commands] == ["inspect", "evaluate", "report", "train", "serve"]
    assert main(["demo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert [r["method"] for r in found] == list(demo.METHODS)
    assert asked == [(done.folder, 300, 2), (Path("demo"), 1000, 0)]


def test_the_commands_that_it_suggests_work(
    done: Done, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done.folder.parent)
    monkeypatch.setattr(demo, "run_demo", lambda *_, **__: done.results)
    assert main(["demo"]) == 0
    commands = [line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("  hscmae")]
    for command in commands[:-2]:  # train is for the user's own file; serve does not end (tests/serve)
        assert main(command) == 0
    assert (done.folder.parent / "again.html").exists()

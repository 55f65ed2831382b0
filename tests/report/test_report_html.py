"""The page as a whole: complete, self-contained, the same whatever the clips are called, and never half-written."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_job import Job, make_job, renamed

from conftest import make_pairs
from hscmae.cli import main
from hscmae.data.pairs import Labels, Pairs
from hscmae.errors import InputError
from hscmae.evaluation.protocol import evaluate
from hscmae.methods import load
from hscmae.report import Contender, gather, html, write_report

SECTIONS = ["data", "training", "metrics", "precision-recall", "classes", "confusion", "map", "examples"]
SECTIONS += ["suspicious", "settings", "versions"]
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\" onmouseover='alert(1)' x=\"",
    "<!--",
    "]]>&amp;&#60;",
    "{{ 7*7 }}{% raw %}",
    "</style></title>",
    "http://example.org/x.js",
    "‮⁦ übel",
]


class Skeleton(HTMLParser):
    """Every tag with the names of its attributes, and every address that the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.addresses: list[str] = []
        self.sections: list[str] = []
        self.data = ""
        self._in_data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, *sorted(named)))
        self.addresses += [str(named[key]) for key in ("src", "href", "action", "srcset", "data") if key in named]
        if tag == "section":
            self.sections.append(str(named["id"]))
        self._in_data = named.get("id") == "page-data"

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(("/" + tag,))
        self._in_data = False

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data += data


def parse(path: Path) -> Skeleton:
    skeleton = Skeleton()
    skeleton.feed(path.read_text(encoding="utf-8"))
    return skeleton


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("report"), make_pairs())


def report(job: Job, output: Path, pairs: Pairs | None = None, **options: Any) -> Skeleton:
    write_report(job.run, output, file=job.file, pairs=job.pairs if pairs is None else pairs, **options)
    return parse(output)


@pytest.fixture(scope="module")
def benign(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Skeleton:
    return report(job, tmp_path_factory.mktemp("benign") / "r.html")


def test_every_section_is_there_and_nothing_outside_is_referred_to(job: Job, tmp_path: Path) -> None:
    page = report(job, tmp_path / "r.html")
    assert page.sections == SECTIONS
    assert {a for a in page.addresses if not a.startswith(("#", "data:"))} == set()
    assert {a[1:] for a in page.addresses if a.startswith("#")} == set(SECTIONS)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest", text)


def test_every_chart_says_how_to_read_it_and_has_axes(job: Job, tmp_path: Path) -> None:
    report(job, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    charts = re.findall(r'<figure class="chart.*?</figure>', text, re.DOTALL)
    assert len(charts) >= 10
    for chart in charts:
        assert len(re.search(r"<figcaption>(.*?)</figcaption>", chart, re.DOTALL).group(1)) > 40
        assert 'class="axis"' in chart or "map-chart" in chart


def test_names_of_clips_and_classes_cannot_change_the_page(job: Job, benign: Skeleton, tmp_path: Path) -> None:
    page = report(job, tmp_path / "b.html", renamed(job.pairs, HOSTILE, HOSTILE[:4]))
    assert page.tags == benign.tags
    assert page.addresses == benign.addresses
    clips = json.loads(page.data)["clips"]
    assert any(clip["id"].startswith(HOSTILE[1]) for clip in clips.values())
    assert HOSTILE[1] in {name for clip in clips.values() for name in clip["classes"]}


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
classes = st.lists(names, min_size=4, max_size=4, unique=True)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(ids=st.lists(names, min_size=1, max_size=5), classes=classes)
def test_no_name_changes_the_page(
    job: Job, benign: Skeleton, tmp_path_factory: pytest.TempPathFactory, ids: list[str], classes: list[str]
) -> None:
    output = tmp_path_factory.getbasetemp() / "names.html"
    assert report(job, output, renamed(job.pairs, ids, classes), overwrite=True).tags == benign.tags


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(ids=st.lists(names | st.sampled_from(HOSTILE), min_size=1, max_size=5), classes=classes)
def test_no_name_of_many_changes_the_page(
    job: Job, benign: Skeleton, tmp_path_factory: pytest.TempPathFactory, ids: list[str], classes: list[str]
) -> None:
    output = tmp_path_factory.getbasetemp() / "names.html"
    assert report(job, output, renamed(job.pairs, ids, classes), overwrite=True).tags == benign.tags


def test_hostile_names_of_the_run_and_the_file_are_text(job: Job, tmp_path: Path) -> None:
    run = tmp_path / "<img src=x onerror=alert(1)>"
    run.mkdir()
    for part in job.run.iterdir():
        (run / part.name).write_bytes(part.read_bytes())
    page = report(Job(run, job.file, job.pairs), tmp_path / "b.html")
    assert page.tags == report(job, tmp_path / "a.html").tags


def test_without_a_file_the_report_is_about_training(job: Job, tmp_path: Path) -> None:
    written = write_report(job.run, tmp_path / "r.html")
    assert parse(tmp_path / "r.html").sections == ["training", "settings", "versions"]
    assert "metrics" not in written
    assert written["bytes"] == (tmp_path / "r.html").stat().st_size


def test_a_closed_form_has_no_curves(tmp_path: Path) -> None:
    page = report(make_job(tmp_path / "job", make_pairs(), method="ridge-cca"), tmp_path / "r.html")
    assert page.sections == SECTIONS
    assert "solved in closed form" in (tmp_path / "r.html").read_text()


def test_without_labels_there_are_no_classes(job: Job, tmp_path: Path) -> None:
    page = report(job, tmp_path / "r.html", job.pairs.without_labels())
    assert page.sections == [s for s in SECTIONS if s not in ("precision-recall", "classes", "confusion")]
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "has no labels" in text
    assert "mAP" not in text


def test_other_modalities_keep_their_names(tmp_path: Path) -> None:
    pairs = make_pairs()
    features = dict(zip(("text", "image"), pairs.features.values(), strict=True))
    pairs = Pairs(features, pairs.ids, labels=pairs.labels, split=pairs.split, source="made-up")
    report(make_job(tmp_path / "job", pairs), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "text → image" in text
    assert "text2image" in text


def test_rows_that_lack_everything_but_a_modality(job: Job, tmp_path: Path) -> None:
    lacks = np.arange(len(job.pairs)) % 3 > 0
    page = report(job, tmp_path / "r.html", replace(job.pairs, present={"audio": lacks}))
    assert page.sections == SECTIONS
    assert "lack a modality" in (tmp_path / "r.html").read_text()
    cosines = json.loads(page.data)["map"]["cosine"]
    assert None in cosines and any(c is not None for c in cosines)


def test_clips_without_a_class(job: Job, tmp_path: Path) -> None:
    pairs = job.pairs
    bare = Labels(pairs.labels.indices[:0], np.zeros(len(pairs) + 1, dtype=np.int64), ("a", "b"))
    page = report(job, tmp_path / "r.html", replace(pairs, labels=bare))
    assert "map" in page.sections and "confusion" not in page.sections


def test_more_classes_than_colours(tmp_path: Path) -> None:
    page = report(make_job(tmp_path / "job", make_pairs(n=200, classes=25)), tmp_path / "r.html")
    shown = json.loads(page.data)["map"]
    assert len(shown["names"]) == 12 and shown["names"][-1] == "other classes"
    assert set(shown["colour"]) <= set(range(12)) and 11 in shown["colour"]


def test_methods_are_compared_where_they_are_given(job: Job, tmp_path: Path) -> None:
    metrics = write_report(job.run, tmp_path / "a.html", file=job.file, pairs=job.pairs)["metrics"]
    other = {**metrics, "avg/mAP": 0.123}
    contenders = [Contender("a <b>rival</b>", other), Contender("ours", metrics)]
    report(job, tmp_path / "b.html", contenders=contenders, overwrite=True)
    text = (tmp_path / "b.html").read_text(encoding="utf-8")
    assert "Methods compared" in text and "0.123" in text and "a &lt;b&gt;rival" in text


@pytest.mark.parametrize("split", ["train", "all"])
def test_rows_of_training_come_with_a_warning(job: Job, tmp_path: Path, split: str) -> None:
    report(job, tmp_path / "r.html", split=split)
    rows = {"train": 128, "all": 160}[split]
    assert f"128 of the {rows} evaluated clips are among those that the model was trained on" in words(
        tmp_path / "r.html"
    )


def test_rows_that_were_not_trained_on_come_without_one(job: Job, tmp_path: Path) -> None:
    report(job, tmp_path / "r.html", split="test")
    assert "trained on:" not in words(tmp_path / "r.html") and "may hold" not in words(tmp_path / "r.html")


def sequences_some_of_them_empty() -> Pairs:
    """Pairs whose audio is a sequence; some clips have no valid step, some have one step that they all share."""
    pairs, rng = make_pairs(), np.random.default_rng(0)
    audio = pairs.features["audio"][:, None] + rng.normal(size=(len(pairs), 3, 12)).astype(np.float32)
    lengths = rng.integers(1, 4, len(pairs))
    lengths[[0, 5, 50, 3]] = 0
    lengths[10:20] = 1
    audio[10:20, 0] = 7
    return replace(pairs, features={**pairs.features, "audio": audio}, lengths={"audio": lengths})


@pytest.mark.parametrize("split", ["test", "all"])
def test_figures_are_those_of_evaluate(tmp_path: Path, split: str) -> None:
    pairs = sequences_some_of_them_empty()
    job = make_job(tmp_path / "job", pairs, method="ridge-cca", seed=3)
    metrics = write_report(job.run, tmp_path / "r.html", pairs=pairs, split=split)["metrics"]
    expected = evaluate(load(job.run), pairs, split=split)
    assert expected["n_paired"] == expected["n_queries"] - (3 if split == "test" else 4)
    assert expected["silent/audio"] == (2 if split == "test" else 10)
    assert metrics == expected


def words(path: Path) -> str:
    """The page's text up to its settings, without tags."""
    text = path.read_text(encoding="utf-8").split('<section id="settings">')[0]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_how_the_step_was_chosen_is_said(job: Job, tmp_path: Path) -> None:
    report(job, tmp_path / "r.html")
    text = words(tmp_path / "r.html")
    assert "the step at which it is highest is the number of steps to train for" in text
    assert "chosen on held-out pairs, then the model was trained on all pairs" in text
    assert re.search(r"steps \d+ chosen without labels", text)


def test_where_nothing_was_chosen_nothing_is_said_to_be(tmp_path: Path) -> None:
    report(make_job(tmp_path / "job", make_pairs(), training_validation_share=0.0), tmp_path / "r.html")
    text = words(tmp_path / "r.html")
    assert "on held-out pairs" not in text and "chosen without labels" not in text
    assert "trained for 6 steps" in text


def test_without_a_refit_none_is_said_to_be(tmp_path: Path) -> None:
    report(make_job(tmp_path / "job", make_pairs(), training_refit=False), tmp_path / "r.html")
    text = words(tmp_path / "r.html")
    assert "chosen on held-out pairs" in text
    assert "trained on all pairs" not in text and "final training" not in text


def test_how_many_clips_are_ranked_is_said(job: Job, tmp_path: Path) -> None:
    report(job, tmp_path / "a.html")
    assert "Every query ranks 32 clips by cosine, its own pair among them." in words(tmp_path / "a.html")
    present = {"audio": np.arange(160) != 5, "visual": np.arange(160) % 15 != 0}
    report(job, tmp_path / "b.html", replace(job.pairs, present=present))
    assert (
        "Every query ranks all clips that have the other modality by cosine (sound → picture 21, picture → sound 31), "
        "its own pair among them where it has one."
    ) in words(tmp_path / "b.html")


def test_of_many_classes_the_most_frequent_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "BARS", 7)
    pairs = make_pairs(n=300, classes=25)
    job = make_job(tmp_path / "job", pairs, method="ridge-cca")
    report(job, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert words(tmp_path / "r.html").count("The 7 most frequent of 25 classes.") == 2
    test = pairs.of_split("test").labels
    counts = np.bincount(test.indices, minlength=25)
    shown = re.findall(r'class="barname">(\d+)<', text.split('id="classes"')[1].split("</section>")[0])
    assert len(shown) == 7 and counts[[int(c) for c in shown]].min() >= np.sort(counts)[-7]


def test_what_is_sampled_is_said(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report(job, tmp_path / "a.html", split="all")
    assert "drawn at random" not in words(tmp_path / "a.html")
    for module in (gather, html):
        monkeypatch.setattr(module, "CONFUSED", 100)
        monkeypatch.setattr(module, "MAP_CLIPS", 90)
    monkeypatch.setattr(gather, "AUDITED", 80)
    report(job, tmp_path / "b.html", split="all")
    text = (tmp_path / "b.html").read_text()
    for said in (
        "90 clips drawn at random",
        "100 queries drawn at random",
        "128 training pairs are estimated to be wrong",
        "Looked at were 80 of them, drawn at random",
    ):
        assert said in text


def test_progress_goes_through_all_stages(job: Job, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    report(job, tmp_path / "r.html", progress=lambda *at: seen.append(at))
    stages = ["look through the file", "embed", "rank a2v", "rank v2a", "solve maps", "score pairs", "write the page"]
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == stages
    last = {stage: (done, total) for stage, done, total in seen}
    assert all(done == total for done, total in last.values())


def test_nothing_is_overwritten_unasked(job: Job, tmp_path: Path) -> None:
    write_report(job.run, tmp_path / "r.html", title="mine")
    before = (tmp_path / "r.html").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        write_report(job.run, tmp_path / "r.html")
    assert (tmp_path / "r.html").read_bytes() == before
    write_report(job.run, tmp_path / "r.html", title="other", overwrite=True)
    assert "<h1>other</h1>" in (tmp_path / "r.html").read_text()
    with pytest.raises(InputError, match="is a folder"):
        write_report(job.run, tmp_path, overwrite=True)


@pytest.mark.parametrize("content", [b"", b"mine", b"<!doctype html><title>mine: report</title>", b"\xff\x00"])
def test_what_is_no_report_is_never_replaced(job: Job, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.html").write_bytes(content)
    with pytest.raises(InputError, match="is not a report"):
        write_report(job.run, tmp_path / "r.html", overwrite=True)
    assert (tmp_path / "r.html").read_bytes() == content
    inputs = [job.run / "config.json", job.file / "manifest.json"]
    for path in inputs:
        before = path.read_bytes()
        with pytest.raises(InputError, match="is not a report"):
            write_report(job.run, path, file=job.file, pairs=job.pairs, overwrite=True)
        assert path.read_bytes() == before


def test_a_failure_leaves_no_page(job: Job, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows in split 'val'"):
        report(job, tmp_path / "r.html", split="val")
    with pytest.raises(InputError, match="feature file"):
        write_report(job.run, tmp_path / "r.html", media=tmp_path)
    with pytest.raises(InputError, match="no media files"):
        report(job, tmp_path / "r.html", media=job.run)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "deep" / "r.html"
    assert main(["report", str(job.run), str(job.file), "--output", str(page), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["output"] == str(page)
    assert written["metrics"]["split"] == "test"
    assert main(["report", str(job.run), "--output", str(page)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["report", str(job.run), "--output", str(page), "--overwrite"]) == 0
    assert parse(page).sections == ["training", "settings", "versions"]
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "x.html")]) == 2
    assert "not a trained model" in capsys.readouterr().err

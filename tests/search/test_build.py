"""From media to an archive: built in one go, gone on with, updated; as one that is built afresh."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hscmae.cli import main
from hscmae.data.store import open_store
from hscmae.methods import RidgeCCA
from hscmae.search import Archive
from hscmae.search import build as building
from media_files import write_clip, write_picture

pytest.importorskip("av")
LIGHT = ["--audio", "light", "--visual", "light", "--jobs", "1"]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    (folder / "a").mkdir()
    for i in range(20):
        write_clip(folder / "a", f"clip {i}", i, 0.3)
    return folder


@pytest.fixture(scope="module")
def run(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick model of such media."""
    folder = tmp_path_factory.mktemp("run")
    assert main(["extract", str(media), "--output", str(folder / "features"), *LIGHT]) == 0
    RidgeCCA(dim=4).fit(open_store(folder / "features")).save(folder / "run")
    return folder / "run"


def answers(archive: Path, query: str | Path) -> list[tuple[str, float]]:
    with Archive.open(archive) as opened:
        return [(r.id, r.score) for r in opened.search(query, 30)]


def test_an_update_equals_a_build_afresh(
    media: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "media"
    shutil.copytree(media, here)
    archive = tmp_path / "archive"
    assert main(["build", str(here), "--output", str(archive), "--run", str(run), *LIGHT]) == 0
    printed = capsys.readouterr()
    assert "20 clips, 20 with sound and picture" in printed.out
    assert f"hscmae search {archive} 'a/clip 0'" in printed.out
    assert {p.name for p in archive.iterdir()} == {"archive.json", "features", "run", "embeddings", "report.html"}
    assert len(answers(archive, "a/clip 3")) == 19
    # A file's own clip is left out; a copy of another name is none of the archive's.
    assert len(answers(archive, here / "a" / "clip 3.wav")) == 19
    shutil.copy(here / "a" / "clip 3.wav", tmp_path / "other.wav")
    assert len(answers(archive, tmp_path / "other.wav")) == 20

    assert main(["build", str(here), "--output", str(archive)]) == 2
    assert "is built already; --update" in capsys.readouterr().err

    write_clip(here / "a", "new", 99, 0.3)
    write_picture(here / "a" / "clip 1.png", 77)
    for ending in (".wav", ".png"):
        (here / "a" / f"clip 2{ending}").unlink()
    assert main(["build", "--output", str(archive), "--update", "--jobs", "1"]) == 0
    assert "2 recordings new or changed, 18 kept, 1 dropped" in capsys.readouterr().out
    afresh = tmp_path / "afresh"
    assert main(["build", str(here), "--output", str(afresh), "--run", str(run), *LIGHT]) == 0
    for query in ("a/clip 1", "a/new", here / "a" / "clip 5.png"):
        assert answers(archive, query) == answers(afresh, query)


def test_a_build_that_was_cut_off_goes_on(
    media: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive"
    command = ["build", str(media), "--output", str(archive), "--run", str(run), *LIGHT]

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for stage in ("embed_file", "write_report"):
        with monkeypatch.context() as patch:
            patch.setattr(building, stage, interrupted)
            assert main(command) == 130
    with monkeypatch.context() as patch:
        patch.setattr(building, "embed_file", interrupted)  # was done before
        assert main(command) == 0
    assert (archive / "report.html").is_file()
    capsys.readouterr()


def test_few_clips_are_said_to_be_few(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for i in range(4):
        write_clip(few, f"{i}", i, 0.3)
    assert main(["build", str(few), "--output", str(tmp_path / "archive"), *LIGHT]) == 2
    error = capsys.readouterr().err
    assert "4 clips with sound and picture are too few to learn from: --background F" in error and "--run RUN" in error


def test_what_is_refused(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "letter.txt").write_text("x")
    for arguments, said in (
        ([str(media), "--output", str(theirs)], "exists and is not an archive"),
        (["--output", str(tmp_path / "new")], "name the media files or folders"),
        ([str(media), "--output", str(media / "archive")], "would replace its own input"),
        ([str(tmp_path / "none"), "--output", str(tmp_path / "new")], "no such file or folder"),
        ([str(media), "--output", str(tmp_path / "new"), "--exclude-ids", str(tmp_path / "no.txt")], "no.txt"),
    ):
        assert main(["build", *arguments]) == 2
        assert said in capsys.readouterr().err
    assert (theirs / "letter.txt").read_text() == "x"
    assert not (tmp_path / "new").exists()
    (theirs / "letter.txt").unlink()
    (theirs / "archive.json").write_text(json.dumps({"format": "hscmae-archive"})[:-3])
    assert main(["build", str(media), "--output", str(theirs)]) == 2

"""An archive answers as a sort of everything would, and refuses what does not belong to it."""

from __future__ import annotations

import json
import shlex
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hscmae.cli import main
from hscmae.data.pairs import Labels, Pairs
from hscmae.data.store import StoreWriter
from hscmae.embedding import embed_file
from hscmae.errors import InputError
from hscmae.methods import RidgeCCA, load
from hscmae.search import Archive
from hscmae.search.archive import Answer, Result
from hscmae.search.index import BACKENDS, make_index, open_index
from hscmae.search.pgvector import PgBackend
from search.writer import unit

N, DIM = 120, 4
KINDS = ("dog", "rooster", "sea")


def names() -> list[str]:
    """Clips of their own, and windows of two recordings."""
    own = [f"fold{i % 3}/clip {i}" for i in range(N - 8)]
    return (
        own
        + [f"talks/monday#t={10 * i},{10 * i + 10}" for i in range(4)]
        + [f"talks/tuesday#t={10 * i},{10 * i + 10}" for i in range(4)]
    )


def media_csv() -> bytes:
    lines = ["id,audio,visual,start,end,problem"]
    for name in names():
        recording, _, times = name.partition("#t=")
        start, _, end = times.partition(",")
        files = f"{recording}.mp4,{recording}.mp4" if times else f"{recording}.ogg,{recording}.jpg"
        lines.append(f'"{name}",{files},{start},{end},')
    return ("\n".join(lines) + "\n").encode()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``features``, ``run`` and ``emb`` in a folder."""
    folder = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(0)
    common = rng.standard_normal((N, DIM))
    features = {
        m: (common @ rng.standard_normal((DIM, d)) + 0.3 * rng.standard_normal((N, d))).astype(np.float32)
        for m, d in (("audio", 6), ("visual", 9))
    }
    present = {"audio": np.arange(N) != 5, "visual": np.arange(N) != 7}
    ids = np.array([name.encode() for name in names()])
    pairs = Pairs(features, ids, present, labels=Labels.single(np.arange(N) % 3, KINDS))
    with StoreWriter(folder / "features") as writer:
        writer.append(pairs)
        writer.extra["media.csv"] = media_csv()
    RidgeCCA(dim=DIM).fit(pairs).save(folder / "run")
    embed_file(load(folder / "run"), folder / "features", folder / "emb", run=folder / "run")
    return folder


@pytest.fixture(scope="module")
def archive(made: Path) -> Archive:
    return Archive.open(made / "emb")


def best(archive: Archive, source: str, row: int, to: str, k: int, rows: np.ndarray) -> list[str]:
    z = np.asarray(archive.embeddings(to)[:], float)
    scores = z @ np.asarray(archive.embeddings(source)[row : row + 1], float)[0]
    rows = rows[archive.present(to)[rows] & (rows != row)]
    return [archive.clips.id(r) for r in rows[np.argsort(-scores[rows], kind="stable")][:k]]


@pytest.mark.parametrize("source", ["audio", "visual", "both"])
@pytest.mark.parametrize("to", ["audio", "visual", "both"])
def test_every_direction(archive: Archive, source: str, to: str) -> None:
    for row in (0, 50, N - 1):
        results = archive.search(names()[row], 8, from_=source, to=to)
        assert [r.id for r in results] == best(archive, source, row, to, 8, np.arange(N))
        assert [r.rank for r in results] == list(range(1, 9))
        assert all(r.modality == to for r in results)


def test_what_is_chosen_where_nothing_is_said(archive: Archive) -> None:
    answer = archive.answer(names()[0])
    assert (answer.source, answer.target, len(answer.results)) == ("audio", "visual", 10)
    answer = archive.answer(names()[5])  # has no sound
    assert (answer.source, answer.target) == ("visual", "audio")
    with pytest.raises(InputError, match="has no audio; it has visual"):
        archive.search(names()[5], from_="audio")


def test_a_filter_gives_k_whenever_k_match(archive: Archive) -> None:
    rows = np.arange(N)
    seas = [i for i in range(N) if i % 3 == 2]
    for where, matching in (
        (["label=sea"], np.array(seas)),
        (["label=sea", "folder=talks"], np.array([i for i in seas if i >= N - 8])),
        (["recording=talks/monday"], rows[-8:-4]),
        (["audio=talks/monday.mp4"], rows[-8:-4]),
    ):
        found = [r.id for r in archive.search(names()[0], 40, where=where)]
        assert found == best(archive, "audio", 0, "visual", 40, matching)
    for where, said in (
        ("label", "takes COLUMN=VALUE"),
        ("colour=red", "--where knows folder, recording, label, audio"),
        ("label=dgo", "no clip has label=dgo; there are dog"),
    ):
        with pytest.raises(InputError, match=said):
            archive.search(names()[0], where=[where])


def test_windows_are_placed_and_folded(archive: Archive) -> None:
    results = archive.search(names()[0], N)
    window = next(r for r in results if r.id == "talks/monday#t=20,30")
    assert (window.path, window.start, window.end) == ("talks/monday.mp4", 20.0, 30.0)
    folded = archive.search(names()[0], N, group=True)
    recordings = [r.id.partition("#")[0] for r in folded]
    assert len(recordings) == len(set(recordings))
    first = next(r.id for r in results if r.id.startswith("talks/tuesday"))
    assert first in {r.id for r in folded}
    assert len(archive.search(names()[0], 100, group=True)) == 100
    own = archive.search("talks/monday#t=20,30", N, group=True)
    assert not any(r.id.startswith("talks/monday") for r in own)


def test_near_duplicates_are_folded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = unit(rng.standard_normal((30, 8)))
    x[10:20] = x[5]
    with StoreWriter(tmp_path / "emb") as writer:
        writer.append(Pairs({"audio": x}, np.array([f"c{i}".encode() for i in range(30)])))
    found = Archive.open(tmp_path / "emb").search("c0", 19, group=True)
    assert len(found) == 19 and {r.id for r in found} & {f"c{i}" for i in range(10, 20)} == set()


def test_a_feature_row(archive: Archive, made: Path, tmp_path: Path) -> None:
    from hscmae.data.store import open_store

    rows = np.asarray(open_store(made / "features").features["visual"][3:5])
    expected = best(archive, "visual", 3, "audio", 12, np.arange(N))
    found = [r.id for r in archive.search(rows[0], 12)]
    assert [name for name in found if name != names()[3]][:10] == expected[:10]
    np.save(tmp_path / "row.npy", rows[0])
    assert [r.id for r in archive.search(tmp_path / "row.npy", 12)] == found
    both = {r.id: r.score for r in archive.search(rows, N)}
    for row in rows:  # each result takes the best window
        for result in archive.search(row, N):
            assert both[result.id] >= result.score
    with pytest.raises(InputError, match="5 dimensions, the model's are audio 6, visual 9"):
        archive.search(np.zeros(5))


def test_what_is_not_there(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no clip of this id, and no such file; ids like it: fold0/clip 0"):
        archive.search("fold0/clip0")
    with pytest.raises(InputError, match="no 'smell' in"):
        archive.search(names()[0], to="smell")
    with pytest.raises(InputError, match="was not made of media"):
        (tmp_path / "dog.wav").write_bytes(b"x")
        archive.search(tmp_path / "dog.wav")
    with pytest.raises(InputError, match="neither an archive"):
        Archive.open(tmp_path)


def test_another_model_or_damage_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    other = RidgeCCA(dim=DIM).fit({"audio": rng.standard_normal((50, 6)), "visual": rng.standard_normal((50, 9))})
    other.save(tmp_path / "other")
    assert main(["search", str(made / "emb"), "x", "--run", str(tmp_path / "other")]) == 2
    assert "is not the model that made" in capsys.readouterr().err
    assert main(["search", str(made / "features"), names()[0]]) == 2
    assert "holds features, not embeddings" in capsys.readouterr().err
    for file in ("audio.npy", "media.csv", "manifest.json"):
        shutil.rmtree(tmp_path / "emb", ignore_errors=True)
        shutil.copytree(made / "emb", tmp_path / "emb")
        content = (tmp_path / "emb" / file).read_bytes()
        for damaged in (content[:-3], b""):
            (tmp_path / "emb" / file).write_bytes(damaged)
            assert main(["search", str(tmp_path / "emb"), names()[0]]) == 2
            assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("kind", ["faiss", "lancedb"])
def test_an_index_is_bound_and_brought_up_to_date(
    kind: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(kind)
    place, emb = str(tmp_path / "index"), tmp_path / "emb"
    shutil.copytree(made / "emb", emb)
    assert main(["index", str(emb), "--output", place, "--backend", kind]) == 0
    assert f"{N} added, 0 changed, 0 removed" in capsys.readouterr().out
    require_same_answers(emb, place)
    assert main(["index", str(emb), "--output", place, "--backend", kind]) == 2
    assert "--update brings" in capsys.readouterr().err

    # Others, of which some are the same: one gone, one new, one changed.
    old = Archive.open(emb)
    x = {m: np.array(old.embeddings(m)[1:]) for m in old.modalities}
    ids = old._pairs.ids[1:].copy()
    ids[0] = b"new"
    x["audio"][3] = -x["audio"][3]
    with StoreWriter(emb, overwrite=True, model=old.model) as writer:
        writer.append(Pairs(x, ids))
        writer.extra["media.csv"] = media_csv()
    with pytest.raises(InputError, match="an index of other embeddings"), open_index(place, Archive.open(emb)):
        pass
    done = make_index(Archive.open(emb), kind, place, update=True)
    assert (done.added, done.removed) == (1, 2)
    assert done.changed == N - 2  # labels went too
    require_same_answers(emb, place)
    again = make_index(Archive.open(emb), kind, place, update=True)
    assert (again.added, again.changed, again.removed, again.kept) == (0, 0, 0, N - 1)

    with StoreWriter(emb, overwrite=True, model={"path": "elsewhere", "sha256": "0" * 64}) as writer:
        writer.append(Pairs(x, ids))
    assert main(["search", str(emb), "new", "--index", place]) == 2
    assert "another model's embeddings" in capsys.readouterr().err


def test_no_message_holds_a_connection_string(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = SimpleNamespace(about={"model": "another"})
    monkeypatch.setattr(PgBackend, "at", classmethod(lambda *_: nullcontext(other)))
    archive, dsn = Archive.open(made / "emb"), "postgresql://me:secret@host/db"
    with pytest.raises(InputError, match=r"^clips: an index of another model's"):
        make_index(archive, "pgvector", dsn, table="clips", update=True)
    with (
        pytest.raises(InputError, match=r"^table clips: an index of another model's"),
        open_index(dsn, archive, table="clips"),
    ):
        pass


def test_an_unknown_backend_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", str(made / "emb"), "--output", str(tmp_path / "i"), "--backend", "annoy"]) == 2
    assert "unknown backend 'annoy'; there are" in capsys.readouterr().err
    assert main(["index", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{kind}:" in shown for kind in BACKENDS)


def test_the_next_command_can_be_pasted(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("faiss")
    emb, place = tmp_path / "a b's", tmp_path / "the index"
    shutil.copytree(made / "emb", emb)
    assert main(["index", str(emb), "--output", str(place), "--backend", "faiss"]) == 0
    words = shlex.split(capsys.readouterr().out.split("Next: ")[1])
    assert words == ["hscmae", "search", str(emb), "QUERY", "--index", str(place)]


def require_same_answers(emb: Path, place: str) -> None:
    opened = Archive.open(emb)
    with open_index(place, opened) as index:
        for row in range(0, len(opened), 9):
            for to in opened.spaces:
                for where in ([], ["folder=talks"]):
                    name = opened.clips.id(row)
                    options = {"to": to, "where": where}
                    assert opened.search(name, 5, index=index, **options) == opened.search(name, 5, **options)


def test_the_command_at_eighty_columns(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["search", str(made / "emb"), names()[0], "-k", "3", "--where", "folder=talks", "--to", "both"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{names()[0]}: audio → both"
    assert len(lines) == 5 and all(" at 0:" in line and len(line) <= 80 for line in lines[2:])
    assert main(["search", str(made / "emb"), names()[0], "-k", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["query", "from", "to", "results"] and len(found["results"]) == 2
    assert list(found["results"][0]) == ["rank", "id", "modality", "score", "path", "start", "end"]


def test_a_notebook_shows_what_it_can_of_an_answer(archive: Archive) -> None:
    """These clips have no files: ids and labels are shown; with files, see ``test_notebooks``."""
    found = archive.answer("fold0/clip 0", 3)
    html = found._repr_html_()
    assert html.index("query") < html.index("fold0/clip 0<br>dog")
    for result in found.results:
        assert f"{result.rank}. {result.score:.3f}" in html and result.id in html
    assert "<img" not in html and "<audio" not in html
    assert Answer("<b>", "audio", "visual", [Result(1, "<i>", "visual", 0.5)])._repr_html_().count("<b>") == 0
    assert "archive" not in found.as_json() and "archive" not in repr(found)


def test_files_of_a_result_are_those_of_its_seconds(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "talks").mkdir()
    (tmp_path / "talks" / "monday.mp4").touch()
    place = Archive.open(archive.folder)
    place.roots = [tmp_path]
    clip = place.media_clip(place.result(1, place.clips.row_of["talks/monday#t=10,20"], "audio", 1.0))
    assert clip is not None
    assert (clip.audio, clip.visual, clip.span) == (*[tmp_path / "talks" / "monday.mp4"] * 2, (10.0, 20.0))
    assert place.media_clip(place.result(1, place.clips.row_of["talks/tuesday#t=10,20"], "audio", 1.0)) is None


@pytest.mark.parametrize("name", ["../secret.png", "talks/../../secret.png", "/{root}/secret.png"])
def test_what_an_archive_names_outside_of_its_roots_is_left_alone(archive: Archive, tmp_path: Path, name: str) -> None:
    (tmp_path / "media" / "talks").mkdir(parents=True)
    (tmp_path / "secret.png").touch()
    place = Archive.open(archive.folder)
    place.roots = [tmp_path / "media"]
    found = replace(place.result(1, 0, "visual", 1.0), path=name.format(root=str(tmp_path).lstrip("/")))
    place.clips.media[found.id]["visual"] = str(found.path)
    assert place.file(found) is None and place.media_clip(found) is None

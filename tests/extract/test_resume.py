"""Long jobs: killed and gone on with, updated, never two at once; always the bytes of one undisturbed run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra media")

from hscmae.errors import InputError
from hscmae.extract import assemble, extract
from hscmae.extract.spool import Spool, folder_of
from media_files import clicks, write_clip, write_picture, write_video, write_wav

LIGHT = {"audio": "light", "visual": "light"}
EAGER = """import sys
from hscmae.cli import main
from hscmae.extract import spool
spool.COMMIT_SECONDS = 0.0  # each recording on its own, so that there is much to be torn
sys.exit(main(sys.argv[1:]))"""


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    for k in range(12):
        write_clip(folder, f"c{k:02d}", k)
    write_wav(folder / "long.wav", clicks(33, 3))
    write_video(folder / "video.mp4", 5, clicks(5, 1))
    (folder / "broken.wav").write_bytes(b"nothing")
    return folder


def content(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def test_neither_jobs_nor_neighbours_change_a_byte(media, tmp_path):
    extract(media, tmp_path / "one", **LIGHT, jobs=1)
    extract(media, tmp_path / "three", **LIGHT, jobs=3)
    assert content(tmp_path / "one") == content(tmp_path / "three")
    alone = extract(media / "long.wav", tmp_path / "alone", **LIGHT)
    together = extract(media, tmp_path / "again", **LIGHT)
    rows = np.flatnonzero([name.startswith(b"long") for name in together.ids.tolist()])
    assert together.ids[rows].tolist() == alone.ids.tolist() == [b"long#t=0,10", b"long#t=10,20", b"long#t=20,33"]
    np.testing.assert_array_equal(together.features["audio"][rows], alone.features["audio"])


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.long)])
def test_killed_and_resumed_gives_the_same_bytes(media, tmp_path, kills):
    for k in range(20 * kills):  # more than are done between kills
        write_clip(media, f"more{k:03d}", 100 + k)
    extract(media, tmp_path / "whole", **LIGHT)
    arguments = ["extract", str(media), "--output", str(tmp_path / "store"), "--audio", "light", "--visual", "light"]
    journal = folder_of(tmp_path / "store") / "journal.jsonl"
    rng = np.random.default_rng(3)
    killed = 0
    while True:
        done = journal.stat().st_size if journal.exists() else 0
        options = ["--jobs", "1", *(["--resume"] if killed else [])]
        process = subprocess.Popen(
            [sys.executable, "-c", EAGER, *arguments, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while killed < kills and process.poll() is None:
            if journal.exists() and journal.stat().st_size > done:  # at work: killed at any moment from now
                time.sleep(rng.uniform(0, 0.1))
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        if process.wait(timeout=300) == 0:
            break
        assert process.returncode == -signal.SIGKILL
        killed += 1
    assert killed == kills
    assert content(tmp_path / "store") == content(tmp_path / "whole")
    assert not folder_of(tmp_path / "store").exists()


def test_a_job_that_was_killed_at_its_very_end_is_finished(media, tmp_path, monkeypatch):
    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "remove", interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract(media, store, **LIGHT)
    assert store.exists() and folder_of(store).exists()
    written = content(store)
    for _ in range(2):
        assert len(extract(media, store, **LIGHT, resume=True)) == 16
        assert content(store) == written and not folder_of(store).exists()
    with pytest.raises(InputError, match="cannot be updated"):
        extract(media, store, **LIGHT, window=5, resume=True)


@pytest.mark.parametrize("change", ["another", "changed", "gone"])
def test_a_finished_store_is_not_changed_by_going_on(media, tmp_path, monkeypatch, change):
    store = tmp_path / "store"
    extract(media, store, **LIGHT)
    written = content(store)
    if change == "gone":
        (media / "long.wav").unlink()
    else:
        write_clip(media, "c03" if change == "changed" else "d", 77)
    with pytest.raises(InputError, match="exists already"):
        extract(media, store, **LIGHT, resume=True)
    assert content(store) == written and not folder_of(store).exists()
    if change == "gone":
        return
    with monkeypatch.context() as patch:  # an update that was interrupted is not lost by it either
        patch.setattr(assemble, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract(media, store, **LIGHT, update=True)
    left = content(folder_of(store))
    with pytest.raises(InputError, match="exists already"):
        extract(media, store, **LIGHT, resume=True)
    assert content(store) == written and content(folder_of(store)) == left


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_what_was_journalled_is_not_done_again(media, tmp_path, monkeypatch):
    from hscmae.extract import job as jobs

    seen = []

    def counted(clips, *rest):
        seen.append(len(clips))
        for number, found in enumerate(jobs_describe(clips, *rest)):
            if len(seen) == 1 and number == 5:
                raise KeyboardInterrupt
            yield found

    jobs_describe = jobs.describe_all
    monkeypatch.setattr(jobs, "describe_all", counted)
    with pytest.raises(KeyboardInterrupt):
        extract(media, tmp_path / "store", **LIGHT)
    with pytest.raises(InputError, match="--resume goes on"):
        extract(media, tmp_path / "store", **LIGHT)
    with pytest.raises(InputError, match="other settings"):
        extract(media, tmp_path / "store", **LIGHT, window=5, resume=True)
    write_clip(media, "c03", 77)  # changed meanwhile
    pairs = extract(media, tmp_path / "store", resume=True)  # the settings are those of before
    assert seen[0] == 15 and seen[1] in (10, 11)
    extract(media, tmp_path / "whole", **LIGHT)
    assert content(tmp_path / "store") == content(tmp_path / "whole") and len(pairs) == 16


def test_a_torn_journal_is_gone_on_with(media, tmp_path, monkeypatch):
    from hscmae.extract import job as jobs

    real = jobs.describe_all

    def stops(clips, *rest):
        for number, found in enumerate(real(clips, *rest)):
            if number == 8:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(jobs, "describe_all", stops)
    with pytest.raises(KeyboardInterrupt):
        extract(media, tmp_path / "store", **LIGHT)
    monkeypatch.undo()
    spool = folder_of(tmp_path / "store")
    with (spool / "journal.jsonl").open("r+b") as file:
        file.truncate((spool / "journal.jsonl").stat().st_size - 20)
    with (spool / "audio.f32").open("ab") as file:
        file.write(b"123")
    extract(media, tmp_path / "store", resume=True)
    extract(media, tmp_path / "whole", **LIGHT)
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_update_is_extracting_afresh(media, tmp_path):
    store = tmp_path / "store"
    extract(media, store, **LIGHT)
    write_clip(media, "new", 50)
    write_clip(media, "c05", 51)
    (media / "c01.wav").unlink()
    (media / "c02.wav").unlink()
    (media / "c02.png").unlink()
    write_wav(media / "broken.wav", clicks(2, 1))
    (media / "c07.png").write_bytes(b"broken now")
    write_video(media / "longer.mp4", 14, clicks(14, 2))
    extract(media, store, update=True)
    extract(media, tmp_path / "afresh", **LIGHT)
    assert content(store) == content(tmp_path / "afresh")
    before = (store / "manifest.json").stat().st_mtime_ns
    extract(media, store, update=True)  # nothing to do, and nothing is touched
    assert (store / "manifest.json").stat().st_mtime_ns == before


def test_update_takes_over_problems_and_sequences(tmp_path):
    """Sequences grow longer, and rows with a modality missing stay so."""
    folder = tmp_path / "media"
    folder.mkdir()
    write_video(folder / "a.mp4", 3, clicks(3, 1))
    write_video(folder / "silent.mp4", 3)
    from hscmae.extract import job as jobs
    from hscmae.extract import recipe as recipes

    extractor = _seconds()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "get_extractor", extractor)
        patch.setattr(recipes, "get_extractor", extractor)
        extract(folder, tmp_path / "store", audio="seconds", visual="light")
        write_video(folder / "b.mp4", 12, clicks(12, 1))
        updated = extract(folder, tmp_path / "store", update=True)
        extract(folder, tmp_path / "afresh", audio="seconds", visual="light")
    assert content(tmp_path / "store") == content(tmp_path / "afresh")
    assert updated.features["audio"].shape == (3, 12, 2) and updated.lengths["audio"].tolist() == [3, 12, 0]
    assert updated.present["audio"].tolist() == [True, True, False]


def _seconds():
    """An extractor that says how loud each second is."""
    from hscmae.extract.base import AudioExtractor
    from hscmae.extract.registry import get_extractor

    class Seconds(AudioExtractor):
        name, dim, rate, length, hop = "seconds", 2, 16_000, 16_000, 16_000

        def fingerprint(self):
            return {"version": 1}

        def describe(self, batch):
            return np.stack([np.abs(batch).mean(axis=1), np.abs(batch).max(axis=1)], axis=1).astype(np.float32)

    return lambda name, modality, weights=(): Seconds() if name == "seconds" else get_extractor(name, modality, weights)


def test_update_with_another_recipe_is_refused(media, tmp_path):
    extract(media, tmp_path / "store", **LIGHT)
    for options in ({"window": 5.0}, {"hop": 5.0}, {"pool": "mean"}, {"audio": "none"}):
        with pytest.raises(InputError, match="cannot be updated"):
            extract(media, tmp_path / "store", update=True, **options)


def test_labels_go_with_the_recordings(media, tmp_path):
    labels = tmp_path / "labels.csv"
    names = sorted({path.stem for path in media.iterdir()})
    labels.write_text("id,label,split\n" + "".join(f"{n},{'ab'[k % 2]},{'train' if k % 3 else 'test'}\n"
                                                   for k, n in enumerate(names)))  # fmt: skip
    pairs = extract(media, tmp_path / "store", **LIGHT, labels=labels)
    assert pairs.labels.names == ("a", "b") and pairs.labels.is_single
    long = [k for k, name in enumerate(pairs.ids.tolist()) if name.startswith(b"long")]
    assert len({int(pairs.labels.indices[k]) for k in long}) == 1 and len(set(pairs.split[long].tolist())) == 1
    with pytest.raises(InputError, match="--labels"):
        extract(media, tmp_path / "store", update=True)
    assert extract(media, tmp_path / "store", update=True, labels=labels).labels is not None
    labels.write_text("id,kind\nnobody,x\n")
    with pytest.raises(InputError, match="none of its ids"):
        extract(media, tmp_path / "other", **LIGHT, labels=labels)


def test_two_at_once_are_refused(media, tmp_path):
    from hscmae.extract.spool import Spool

    with Spool(tmp_path / "store", {}, {"audio": 3}, resume=False):
        with pytest.raises(InputError, match="another extraction is at work"):
            extract(media, tmp_path / "store", **LIGHT)
        with pytest.raises(InputError, match="another extraction is at work"):
            extract(media, tmp_path / "store", **LIGHT, overwrite=True)


def test_names_in_any_bytes(tmp_path):
    from hscmae.extract.assemble import read_media

    folder = tmp_path / "media"
    folder.mkdir()
    for name in (b"\xff\xfe.wav", b'a,b"c.wav', b"line\nbreak.wav", "grün.wav".encode(), b"x#t=1,2.wav", b" .wav"):
        shutil.copy(write_wav(tmp_path / "one.wav", clicks(1, 0.25)), os.fsdecode(os.fsencode(folder) + b"/" + name))
    pairs = extract(folder, tmp_path / "store", audio="light", visual="none")
    ids = {b"\xff\xfe", b'a,b"c', b"line\nbreak", "grün".encode(), b"x%23t=1,2", b" "}
    assert set(pairs.ids.tolist()) == ids
    lines = read_media(tmp_path / "store")
    assert {os.fsencode(line["id"]) for line in lines} == ids
    assert all((folder / line["audio"]).is_file() for line in lines)
    write_picture(folder / "new.png")
    assert len(extract(folder, tmp_path / "store", update=True)) == 6  # pictures were none of the job


def test_five_percent_broken_files_are_reported(tmp_path, caplog):
    folder = tmp_path / "media"
    folder.mkdir()
    for k in range(40):
        write_clip(folder, f"c{k:02d}", k, 0.2)
    for k in (3, 17):
        (folder / f"c{k:02d}.wav").write_bytes(os.urandom(500))
    pairs = extract(folder, tmp_path / "store", **LIGHT)
    assert len(pairs) == 40 and int((~pairs.present["audio"]).sum()) == 2
    assert len(caplog.records) == 2


def test_ray_gives_the_same_bytes(media, tmp_path):
    pytest.importorskip("ray", reason="needs the extra ray")
    extract(media, tmp_path / "plain", **LIGHT)
    try:
        extract(media, tmp_path / "ray", **LIGHT, engine="ray")
    finally:
        import ray

        ray.shutdown()
    assert content(tmp_path / "ray") == content(tmp_path / "plain")


def test_stopping_does_not_wait_for_a_file_that_hangs(media, tmp_path, monkeypatch):
    from hscmae.extract import jail
    from hscmae.extract import job as jobs

    def stops(clips, *rest):
        real(clips, *rest).close()  # before anything is begun
        running = real(clips, *rest)
        threading.Thread(target=interrupt, daemon=True).start()
        try:
            yield from running
        finally:
            stopped.set()

    def interrupt():
        while not stopped.wait(1.0):  # again: one that arrives within a finaliser is lost
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    stopped = threading.Event()

    real = jobs.describe_all
    monkeypatch.setattr(jobs, "describe_all", stops)
    monkeypatch.setattr(jail, "CHILD", [sys.executable, "-c", "import time; time.sleep(100)"])
    begun = time.monotonic()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            extract(media, tmp_path / "store", **LIGHT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begun < 30
    assert not (tmp_path / "store").exists()


def test_features_that_are_not_finite_are_a_problem_of_the_window(media, tmp_path, monkeypatch):
    from hscmae.extract.light_audio import LightAudio

    real = LightAudio.describe

    def sometimes(self, batch):
        found = real(self, batch)
        found[0, 0] = np.nan if len(batch[0]) > 12 * 16000 else found[0, 0]
        return found

    monkeypatch.setattr(LightAudio, "describe", sometimes)
    pairs = extract(media, tmp_path / "store", **LIGHT)
    assert b"long#t=10,20" in pairs.ids.tolist() and b"long#t=20,33" not in pairs.ids.tolist()
    assert "not finite at 20 s" in (tmp_path / "store" / "media.csv").read_text()

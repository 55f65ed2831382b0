"""The demo corpus is what its truth says, the same for the same seed, and never half there."""

import json
import wave
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra media")
pytest.importorskip("PIL", reason="needs the extra media")

from hscmae.data.pairs import Pairs
from hscmae.demo import corpus
from hscmae.demo.corpus import KINDS, make_corpus, read_truth, with_truth
from hscmae.errors import InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "corpus"
    calls = []
    truth = make_corpus(folder, clips=40, seed=7, progress=lambda done, total: calls.append((done, total)))
    return folder, truth, calls


def samples(path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_files_are_those_that_the_truth_names(made):
    folder, truth, calls = made
    expected = {"truth.json"}
    for clip in truth:
        expected |= {f"{clip.id}.mp4"} if clip.video else {f"{clip.id}.wav", f"{clip.id}.png"}
    assert {path.name for path in folder.iterdir()} == expected
    assert sum(clip.video for clip in truth) == corpus.VIDEOS
    assert calls == [(i, 40) for i in range(1, 41)]
    assert read_truth(folder) == truth
    assert not [path for path in folder.parent.iterdir() if path != folder]


def test_recordings_last_two_to_three_seconds_and_are_silent_where_said(made):
    folder, truth, _ = made
    for clip in truth:
        if not clip.video:
            sound = samples(folder / f"{clip.id}.wav")
            assert 2 <= len(sound) / 16000 <= 3
            assert (not sound.any()) == clip.silent


def test_a_wrong_pair_has_the_recording_of_another_training_clip(made):
    folder, truth, _ = made
    wrong = [clip for clip in truth if clip.wrong]
    assert len(wrong) == round(corpus.WRONG_PAIRS * 30)
    by_id = {clip.id: clip for clip in truth}
    for clip in truth:
        assert by_id[clip.audio_of].split == clip.split or not clip.wrong
    assert {clip.split for clip in wrong} == {"train"}
    # A clip's recording depends on the clip that it is of, not on the file that it goes to.
    for clip in wrong:
        if not clip.video:
            row = int(clip.audio_of.removeprefix("clip"))
            own = corpus._record(by_id[clip.audio_of], np.random.default_rng([7, row, 1]))
            np.testing.assert_array_equal(samples(folder / f"{clip.id}.wav"), own)


def test_same_seed_same_bytes_other_seed_other_truth(made, tmp_path):
    folder, truth, _ = made
    assert make_corpus(tmp_path / "again", clips=40, seed=7) == truth
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    assert make_corpus(tmp_path / "other", clips=40, seed=8) != truth


def test_truth_has_everything_that_makes_real_corpora_hard():
    truth = corpus._draw_truth(1000, 0)
    events = [event for clip in truth for event in clip.events]
    assert all(event.heard or event.seen for event in events)
    assert set(Counter(len(clip.events) for clip in truth)) == {1, 2, 3}
    assert all(len({event.kind for event in clip.events}) == len(clip.events) for clip in truth)
    counts = Counter(event.kind for event in events)
    assert set(counts) == set(KINDS) and min(counts.values()) > 80
    assert sum(not event.seen for event in events) > 100  # off screen
    assert sum(not event.heard for event in events) > 100  # silent objects
    assert 0.75 < np.mean([clip.scene == clip.ambience for clip in truth]) < 0.9
    assert sum(clip.split == "test" for clip in truth) == 250
    assert sum(clip.wrong for clip in truth) == 150 and sum(clip.silent for clip in truth) == 20
    assert not any(clip.wrong and clip.silent for clip in truth)
    # The scene means nothing: it says no more about the kind than chance does.
    table = np.zeros((6, 12))
    scenes = sorted({clip.scene for clip in truth})
    for clip in truth:
        for event in clip.events:
            table[scenes.index(clip.scene), KINDS.index(event.kind)] += 1
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 93.2  # chi square, 55 degrees of freedom, p = 0.001


def test_with_truth_attaches_labels_and_split_by_id(made):
    _, truth, _ = made
    some = [truth[5], truth[2]]
    pairs = Pairs({"audio": np.zeros((2, 3), np.float32)}, ids=np.array([clip.id.encode() for clip in some]))
    labelled = with_truth(pairs, truth)
    for row, clip in enumerate(some):
        assert {KINDS[k] for k in np.flatnonzero(labelled.labels.one_hot()[row])} == {e.kind for e in clip.events}
        assert labelled.split[row].decode() == clip.split
    with pytest.raises(InputError, match=r"truth.json lacks 'clip0005'"):
        with_truth(pairs, truth[:3])


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        make_corpus(tmp_path, clips=20)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match="at least 20"):
        make_corpus(tmp_path / "few", clips=19)


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(path, recording):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(corpus, "_write_wav", fail)
    with pytest.raises(OSError, match="No space"):
        make_corpus(tmp_path / "corpus", clips=20)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", json.dumps({"clips": [{"id": "a"}]})])
def test_truth_that_cannot_be_read_is_one_clear_line(tmp_path, content):
    (tmp_path / "truth.json").write_text(content)
    with pytest.raises(InputError, match=r"truth\.json: cannot be read"):
        read_truth(tmp_path)
    with pytest.raises(InputError, match=r"truth\.json: cannot be read"):
        read_truth(tmp_path / "absent")

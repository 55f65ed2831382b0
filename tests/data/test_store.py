"""The store: what is written comes back, whole or not at all."""

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hscmae.data.pairs import Labels, Pairs
from hscmae.data.store import (
    StoreWriter,
    is_store,
    open_store,
    partial_folder,
    read_extra,
    read_manifest,
    write_store,
)
from hscmae.errors import InputError


def some_pairs(n: int = 20, seed: int = 0, dtype: type = np.float32) -> Pairs:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 3, n)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Pairs(
        {"audio": rng.normal(size=(n, 3)).astype(dtype), "visual": rng.normal(size=(n, 4, 2)).astype(dtype)},
        ids=np.array([f"clip-{i * 7}" for i in range(n)], dtype=np.bytes_),
        present={"audio": rng.random(n) < 0.7},
        labels=Labels(rng.integers(0, 5, indptr[-1]), indptr, ("a", "b", "ç", "d", "e")),
        split=rng.choice(np.array([b"train", b"val", b"test"]), n),
        lengths={"visual": rng.integers(0, 5, n)},
        source="made up",
    )


def assert_same(a: Pairs, b: Pairs) -> None:
    """Equal to the bit; the values of missing modalities do not count."""
    assert a.modalities == b.modalities
    for m in a.modalities:
        np.testing.assert_array_equal(a.present[m], b.present[m])
        assert a.features[m].dtype == b.features[m].dtype
        assert a.features[m][a.present[m]].tobytes() == b.features[m][b.present[m]].tobytes()
    assert a.ids.tolist() == b.ids.tolist()
    assert (a.labels is None) == (b.labels is None)
    if a.labels is not None and b.labels is not None:
        assert a.labels.names == b.labels.names
        np.testing.assert_array_equal(a.labels.indices, b.labels.indices)
        np.testing.assert_array_equal(a.labels.indptr, b.labels.indptr)
    assert (a.split is None) == (b.split is None)
    if a.split is not None and b.split is not None:
        assert a.split.tolist() == b.split.tolist()
    assert a.lengths.keys() == b.lengths.keys()
    for m in a.lengths:
        np.testing.assert_array_equal(a.lengths[m], b.lengths[m])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_everything_comes_back_and_features_are_mapped(tmp_path: Path, dtype: type) -> None:
    pairs = some_pairs(dtype=dtype)
    write_store(pairs, tmp_path / "s")
    assert is_store(tmp_path / "s")
    back = open_store(tmp_path / "s", verify=True)
    assert_same(pairs, back)
    assert all(isinstance(x, np.memmap) for x in back.features.values())
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["version"] == 1 and manifest["class_names"] == ["a", "b", "ç", "d", "e"]
    assert manifest["source"] == "made up"
    files = {path.name for path in (tmp_path / "s").iterdir()} - {"manifest.json"}
    assert set(manifest["files"]) == files
    for name in files:
        array = np.load(tmp_path / "s" / name, allow_pickle=False)  # any NumPy reads them
        assert list(array.shape) == manifest["files"][name]["shape"]


def test_single_labels_are_plain_numbers_and_float64_becomes_float32(tmp_path: Path) -> None:
    write_store(Pairs({"audio": np.eye(3)}, labels=Labels.single([0, 2, 1])), tmp_path / "s")
    np.testing.assert_array_equal(np.load(tmp_path / "s" / "labels.npy"), [0, 2, 1])
    assert open_store(tmp_path / "s").features["audio"].dtype == np.float32


@settings(deadline=None, derandomize=True, max_examples=15)
@given(cuts=st.lists(st.integers(0, 20), max_size=6), checkpoints=st.booleans())
def test_blocks_of_any_size_give_the_same_store(tmp_path_factory, cuts: list[int], checkpoints: bool) -> None:
    pairs = some_pairs()
    folder = tmp_path_factory.mktemp("blocks") / "s"
    edges = [0, *sorted(cuts), 20]
    with StoreWriter(folder) as writer:
        for start, stop in itertools.pairwise(edges):
            writer.append(pairs[start:stop])
            if checkpoints:
                writer.checkpoint({"stop": stop})
    assert_same(pairs, open_store(folder, verify=True))
    assert [path.name for path in folder.parent.iterdir()] == ["s"]


def test_an_existing_store_is_replaced_only_when_asked_and_only_by_a_whole_one(tmp_path: Path) -> None:
    write_store(some_pairs(), tmp_path / "s")
    with pytest.raises(InputError, match="exists already"):
        write_store(some_pairs(seed=1), tmp_path / "s")
    broken = Pairs({"audio": np.array([[1.0], [np.nan]])})
    with pytest.raises(InputError, match=r"audio: NaN or infinite values in row 1$"):
        write_store(broken, tmp_path / "s", overwrite=True)
    assert_same(some_pairs(), open_store(tmp_path / "s"))
    write_store(some_pairs(seed=1), tmp_path / "s", overwrite=True)
    assert_same(some_pairs(seed=1), open_store(tmp_path / "s"))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    write_store(some_pairs(), tmp_path / "s")
    (tmp_path / "s").rename(tmp_path / ".s.replaced")
    with pytest.raises(InputError, match="exists already"):
        write_store(some_pairs(seed=1), tmp_path / "s")
    assert_same(some_pairs(), open_store(tmp_path / "s"))


def test_only_stores_are_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("thesis", "file"):
        with pytest.raises(InputError, match="is not a store"):
            write_store(some_pairs(), tmp_path / name, overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").exists()
    write_store(some_pairs(), tmp_path / "empty", overwrite=True)
    assert is_store(tmp_path / "empty")


def test_blocks_of_another_type_need_one_named(tmp_path: Path) -> None:
    half, single = (
        Pairs({"audio": np.ones((1, 1), t)}, ids=np.array([t.__name__], "S")) for t in (np.float16, np.float32)
    )
    with (
        pytest.raises(InputError, match=r"float32 .* cannot follow rows of float16"),
        StoreWriter(tmp_path / "s") as writer,
    ):
        writer.append(half)
        writer.append(single)
    with StoreWriter(tmp_path / "s", dtype="float16") as writer:
        writer.append(half)
        writer.append(single)
    assert open_store(tmp_path / "s").features["audio"].dtype == np.float16


def test_values_of_missing_modalities_may_be_anything(tmp_path: Path) -> None:
    x = np.array([[1.0], [np.nan]], np.float32)
    write_store(Pairs({"audio": x}, present={"audio": np.array([True, False])}), tmp_path / "s")
    assert np.isfinite(open_store(tmp_path / "s").features["audio"]).all()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (Pairs({"audio": np.ones((2, 1))}, ids=np.array([b"x", b"x"])), "ids seen before .* in row 1$"),
        (Pairs({"ids": np.ones((2, 1))}), "cannot be the name of a modality"),
        (Pairs({"../up": np.ones((2, 1))}), "cannot be the name of a modality"),
        (Pairs({"audio": np.full((2, 1), 1e300)}), "too large for float32 in rows 0, 1$"),
        (Pairs({"audio": np.ones((0, 1))}), "no rows"),
    ],
)
def test_what_cannot_be_stored_leaves_nothing_behind(tmp_path: Path, pairs: Pairs, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_store(pairs, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "following",
    [
        Pairs({"visual": np.ones((2, 3), np.float32)}),
        Pairs({"audio": np.ones((2, 3), np.float32)}, labels=Labels.single([0, 0])),
        Pairs({"audio": np.ones((2, 3), np.float32)}, split=np.array([b"train"] * 2)),
        Pairs({"audio": np.ones((2, 4), np.float32)}),
    ],
)
def test_blocks_that_do_not_go_together_are_refused(tmp_path: Path, following: Pairs) -> None:
    with pytest.raises(InputError), StoreWriter(tmp_path / "s") as writer:
        writer.append(Pairs({"audio": np.ones((2, 3), np.float32)}))
        writer.append(following)
    assert list(tmp_path.iterdir()) == []


def _change_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: _change_byte(s / "audio.npy"), r"audio\.npy: SHA-256 differs"),
        (lambda s: (s / "audio.npy").unlink(), r"audio\.npy: missing"),
        (lambda s: os.truncate(s / "audio.npy", 140), r"audio\.npy: damaged or cut short"),
        (lambda s: np.save(s / "audio.npy", np.ones((20, 3))), r"audio\.npy: holds <f8"),
        (lambda s: (s / "manifest.json").write_text("{"), "not a valid manifest"),
        (lambda s: (s / "manifest.json").write_text("[]"), "not a valid manifest"),
        (lambda s: (s / "manifest.json").write_text('{"format": "other", "version": 1}'), "not a valid manifest"),
        (lambda s: _edit(s, version=2), "store version 2"),
        (lambda s: _edit(s, rows=7), "the manifest says 7"),
        (lambda s: _edit(s, class_names=["a"]), "labels out of range"),
        (lambda s: _edit(s, files={"../ids.npy": {"shape": [], "dtype": "", "sha256": ""}}), "not a file of the store"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, message: str) -> None:
    write_store(some_pairs(), tmp_path / "s")
    damage(tmp_path / "s")
    with pytest.raises(InputError, match=message) as caught:
        open_store(tmp_path / "s", verify=True)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_not_a_store(tmp_path: Path) -> None:
    assert not is_store(tmp_path)
    with pytest.raises(InputError, match="not a store"):
        open_store(tmp_path)


def test_a_killed_writer_is_resumed_from_its_last_checkpoint(tmp_path: Path) -> None:
    pairs = some_pairs()
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path / "s") as writer:
        writer.append(pairs[:6])
        writer.checkpoint({"next": 6})
        writer.append(pairs[6:9])
        writer.checkpoint({"next": 9})
        writer.append(pairs[9:15])  # lost: no checkpoint follows
        raise KeyboardInterrupt
    assert not (tmp_path / "s").exists()
    with StoreWriter(tmp_path / "s", resume=True) as writer:
        assert (writer.rows, writer.state) == (9, {"next": 9})
        writer.append(pairs[9:])
    assert_same(pairs, open_store(tmp_path / "s", verify=True))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_checkpoint_that_lost_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path / "s") as writer:
        writer.append(some_pairs())
        writer.checkpoint({})
        raise KeyboardInterrupt
    os.truncate(partial_folder(tmp_path / "s") / "audio.npy", 150)
    with pytest.raises(InputError, match="shorter than its checkpoint says"):
        StoreWriter(tmp_path / "s", resume=True)


def test_without_resume_an_earlier_attempt_is_forgotten(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path / "s") as writer:
        writer.append(some_pairs(seed=1))
        writer.checkpoint({})
        raise KeyboardInterrupt
    write_store(some_pairs(), tmp_path / "s")
    assert_same(some_pairs(), open_store(tmp_path / "s"))


def test_kill_9_while_appending(tmp_path: Path) -> None:
    script = """
        import sys, numpy as np
        from hscmae.data.pairs import Pairs
        from hscmae.data.store import StoreWriter
        writer = StoreWriter(sys.argv[1])
        for start in range(0, 10**6, 10):
            ids = np.array([str(i) for i in range(start, start + 10)], "S")
            writer.append(Pairs({"audio": np.arange(start, start + 10, dtype=np.float32)[:, None]}, ids))
            writer.checkpoint({"next": start + 10})
            print(start, flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "s")], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        for _ in range(5):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    assert not (tmp_path / "s").exists() and partial_folder(tmp_path / "s").exists()
    with StoreWriter(tmp_path / "s", resume=True) as writer:
        n = writer.state["next"]
        assert n == writer.rows >= 50
        writer.append(Pairs({"audio": np.full((1, 1), n, np.float32)}, np.array([str(n)], "S")))
    back = open_store(tmp_path / "s", verify=True)
    np.testing.assert_array_equal(back.features["audio"][:, 0], np.arange(n + 1))
    assert back.ids.tolist() == [str(i).encode() for i in range(n + 1)]


@pytest.mark.parametrize("call", ["fsync", "replace", "rename"])
def test_a_failing_disk_leaves_the_old_store(tmp_path: Path, monkeypatch, call: str) -> None:
    """Every flush and rename fails in turn, until one attempt is clean."""
    write_store(some_pairs(), tmp_path / "s")
    owner = Path if call == "rename" else os
    real = getattr(owner, call)
    for failing in range(1, 50):
        calls = 0

        def fail(*args: object, failing: int = failing, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, call, fail)
        try:
            write_store(some_pairs(seed=1), tmp_path / "s", overwrite=True)
        except OSError:
            monkeypatch.setattr(owner, call, real)
            back = open_store(tmp_path / "s", verify=True)
            old = back.ids.tolist() == some_pairs().ids.tolist() and back.split.tolist() == some_pairs().split.tolist()
            assert_same(back, some_pairs(seed=0 if old else 1))
        else:
            break
    else:
        pytest.fail("no clean attempt")
    monkeypatch.setattr(owner, call, real)
    assert failing > 1
    write_store(some_pairs(seed=1), tmp_path / "s", overwrite=True)
    assert_same(some_pairs(seed=1), open_store(tmp_path / "s", verify=True))


def test_files_beside_the_arrays_and_the_recipe_are_kept_and_checked(tmp_path: Path) -> None:
    store = tmp_path / "s"
    with StoreWriter(store, recipe={"audio": {"extractor": "light"}}) as writer:
        writer.append(some_pairs(10))
        writer.extra["media.csv"] = b"id\n\xff\n"
    assert read_extra(store, "media.csv") == b"id\n\xff\n" and read_extra(store, "other.csv") is None
    assert read_manifest(store)["recipe"] == {"audio": {"extractor": "light"}}
    open_store(store, verify=True)
    (store / "media.csv").write_bytes(b"id\nother\n")
    for read in (lambda: read_extra(store, "media.csv"), lambda: open_store(store, verify=True)):
        with pytest.raises(InputError, match=r"media\.csv.*SHA-256 differs"):
            read()
    (store / "media.csv").unlink()
    for read in (lambda: read_extra(store, "media.csv"), lambda: open_store(store)):
        with pytest.raises(InputError, match=r"media\.csv.*missing"):
            read()
    manifest = json.loads((store / "manifest.json").read_bytes())
    manifest["extra"] = {"../media.csv": {"sha256": ""}}
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="not a valid manifest"):
        open_store(store)

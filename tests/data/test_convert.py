"""Conversions: round trips to the bit, and a killed one goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hscmae.data.convert import convert, export
from hscmae.data.pairs import SPLITS, Labels, Pairs
from hscmae.data.readers import read
from hscmae.data.store import is_store, open_store, partial_folder, write_store
from hscmae.errors import InputError

REAL = Path(__file__).parents[2] / "../shared/data"


def assert_same(a: Pairs, b: Pairs) -> None:
    """Equal to the bit, whatever the order of the modalities; the values of missing ones do not count."""
    assert set(a.modalities) == set(b.modalities)
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
    assert (None if a.split is None else a.split.tolist()) == (None if b.split is None else b.split.tolist())
    assert a.lengths.keys() == b.lengths.keys()
    for m in a.lengths:
        np.testing.assert_array_equal(a.lengths[m], b.lengths[m])


NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=4)


@st.composite
def any_pairs(draw: st.DrawFn) -> Pairs:
    n = draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    features, lengths = {}, {}
    for m in draw(
        st.lists(st.sampled_from(["audio", "visual", "text", "depth map"]), min_size=1, max_size=3, unique=True)
    ):
        shape = draw(st.sampled_from([(n, 1), (n, 3), (n, 2, 3)]))
        features[m] = rng.normal(size=shape).astype(draw(st.sampled_from([np.float16, np.float32])))
        if len(shape) == 3:
            lengths[m] = rng.integers(0, 3, n)
    labels = None
    if draw(st.booleans()):
        names = tuple(draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)))
        counts = np.ones(n, int) if draw(st.booleans()) else rng.integers(0, 3, n)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        labels = Labels(rng.integers(0, len(names), indptr[-1]), indptr, names)
    return Pairs(
        features,
        ids=np.array(draw(st.lists(NAMES.map(str.encode), min_size=n, max_size=n, unique=True)), dtype=np.bytes_),
        present={m: rng.random(n) < 0.7 for m in features if draw(st.booleans())},
        labels=labels,
        split=np.sort(rng.choice(np.array([s.encode() for s in SPLITS]), n))[::-1] if draw(st.booleans()) else None,
        lengths=lengths,
    )


def by_split(pairs: Pairs) -> Pairs:
    """Rows as the published layout orders them."""
    if pairs.split is None:
        return pairs
    order = [row for s in SPLITS for row in np.flatnonzero(pairs.split == s.encode())]
    return pairs.take(np.array(order))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(pairs=any_pairs())
def test_round_trips_through_every_format(tmp_path_factory: pytest.TempPathFactory, pairs: Pairs) -> None:
    folder = tmp_path_factory.mktemp("trip")
    write_store(pairs, folder / "store")
    assert_same(pairs, read(folder / "store"))
    for name in ("x.npz", "npy", "x.h5"):
        export(open_store(folder / "store"), folder / name)
        expected = by_split(pairs) if name == "x.h5" else pairs
        assert_same(expected, read(folder / name))
        convert([folder / name], folder / f"{name}.store")
        assert_same(expected, open_store(folder / f"{name}.store", verify=True))
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["store", "x.npz", "npy", "x.h5", "x.npz.store", "npy.store", "x.h5.store"]
    )


@pytest.mark.long
@settings(deadline=None, max_examples=1000)
@given(pairs=any_pairs())
def test_round_trips_of_thousands(tmp_path_factory: pytest.TempPathFactory, pairs: Pairs) -> None:
    test_round_trips_through_every_format.hypothesis.inner_test(tmp_path_factory, pairs)


def test_exported_hdf5_is_the_published_layout(tmp_path: Path) -> None:
    pairs = Pairs(
        {"audio": np.eye(3, dtype=np.float32), "visual": np.ones((3, 2), np.float32)},
        ids=["x", "y", "z"],
        labels=Labels.single([1, 0, 1], ["dog", "cat"]),
        split=np.array([b"test", b"train", b"test"]),
    )
    export(pairs, tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert set(file) == {f"{c}_{s}" for c in ("audio", "visual", "lab", "ids") for s in ("train", "test")}
        np.testing.assert_array_equal(file["audio_test"], np.eye(3)[[0, 2]])
        np.testing.assert_array_equal(file["lab_test"], [1, 1])
        assert list(file.attrs["class_names"]) == ["dog", "cat"]


def test_thousands_of_class_names(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(5000)]
    export(Pairs({"audio": np.ones((1, 1))}, labels=Labels.single([4999], names)), tmp_path / "x.h5")
    assert read(tmp_path / "x.h5").labels.names == tuple(names)


@pytest.mark.parametrize("name", ["x.npz", "x.h5", "x"])
def test_outputs_are_replaced_only_when_asked(tmp_path: Path, name: str) -> None:
    pairs = Pairs({"audio": np.ones((2, 1), np.float32)})
    export(pairs, tmp_path / name)
    with pytest.raises(InputError, match="exists already"):
        export(pairs, tmp_path / name)
    export(Pairs({"audio": np.zeros((2, 1), np.float32)}), tmp_path / name, overwrite=True)
    assert not read(tmp_path / name).features["audio"].any()
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_folder_of_other_things_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"holds more than .npy files"):
        export(Pairs({"audio": np.ones((2, 1))}), tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").exists()


def shard(path: Path, start: int, n: int, **more: np.ndarray) -> Path:
    ids = np.array([f"c{i}" for i in range(start, start + n)])
    np.savez(path, audio=np.arange(start, start + n, dtype=np.float32)[:, None], ids=ids, **more)
    return path


def test_shards_follow_one_another(tmp_path: Path) -> None:
    labels = [np.array([0, 1, 2]), np.array([0, 5])]
    inputs = [shard(tmp_path / "a.npz", 0, 3, labels=labels[0]), shard(tmp_path / "b.npz", 3, 2, labels=labels[1])]
    seen = []
    assert convert(inputs, tmp_path / "s", progress=lambda *args: seen.append(args)) == 5
    pairs = open_store(tmp_path / "s", verify=True)
    np.testing.assert_array_equal(pairs.features["audio"][:, 0], np.arange(5))
    assert pairs.labels.names == ("0", "1", "2", "3", "4", "5")
    assert seen == [(inputs[0], 3, 3), (inputs[1], 2, 2)]


def test_shards_without_ids_get_their_file_s_name(tmp_path: Path) -> None:
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", audio=np.ones((2, 1)))
    convert([tmp_path / "a.npz", tmp_path / "b.npz"], tmp_path / "s")
    assert open_store(tmp_path / "s").ids.tolist() == [b"a-0", b"a-1", b"b-0", b"b-1"]


def test_modalities_in_files_of_their_own_are_joined(tmp_path: Path) -> None:
    audio, visual = np.ones((4, 2), np.float32), np.zeros((4, 3), np.float32)
    np.save(tmp_path / "audio.npy", audio)
    np.savez(tmp_path / "visual.npz", visual=visual, ids=np.array(list("wxyz")))
    convert([tmp_path / "audio.npy", tmp_path / "visual.npz"], tmp_path / "s")
    pairs = open_store(tmp_path / "s")
    assert pairs.dims == {"audio": 2, "visual": 3} and pairs.ids.tolist() == [b"w", b"x", b"y", b"z"]
    np.savez(tmp_path / "other.npz", audio=audio, ids=np.array(list("wyxz")))
    np.savez(tmp_path / "short.npz", audio=audio[:3])
    for name, message in (("other", "ids differ .* first in row 1"), ("short", "3 rows, but .* has 4")):
        with pytest.raises(InputError, match=message):
            convert([tmp_path / "visual.npz", tmp_path / f"{name}.npz"], tmp_path / "t")
        assert not (tmp_path / "t").exists()
    for number, kind in enumerate(("train", "val")):
        np.savez(tmp_path / f"{number}.npz", **{f"m{number}_{kind}": audio})
    np.savez(tmp_path / "2.npz", m1=audio)
    with pytest.raises(InputError, match="has a modality that an earlier input has"):
        convert([tmp_path / f"{number}.npz" for number in range(3)], tmp_path / "t")


def test_faults_leave_nothing_behind(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", audio=np.array([[1.0], [np.nan]]))
    with pytest.raises(InputError, match="audio: NaN or infinite values in row 1"):
        convert([tmp_path / "x.npz"], tmp_path / "s")
    with pytest.raises(InputError, match="nothing to convert"):
        convert([], tmp_path / "s")
    with pytest.raises(InputError, match="float16 or float32"):
        convert([tmp_path / "x.npz"], tmp_path / "s", dtype="int8")
    with pytest.raises(InputError, match="no such file"):
        convert([tmp_path / "absent"], tmp_path / "s")
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]
    assert convert([tmp_path / "x.npz"], tmp_path / "s", drop_bad_rows=True, dtype="float16") == 1
    assert open_store(tmp_path / "s").features["audio"].dtype == np.float16


def test_kills_are_survived(tmp_path: Path) -> None:
    """Killed at moments of its own, resumed each time: the same files as of one run."""
    n = 3000
    x = np.random.default_rng(0).normal(size=(n, 64)).astype(np.float32)
    x[[7, 2100]] = np.nan
    np.savez(tmp_path / "x.npz", audio=x, labels=np.arange(n) % 7, ids=np.arange(n))
    convert([tmp_path / "x.npz"], tmp_path / "once", drop_bad_rows=True)
    script = (
        "import sys, time, hscmae.data.convert as c, hscmae.data.table as t;"
        "c.CHECKPOINT_SECONDS = 0; t.BLOCK_BYTES = 64 * 4 * 100;"
        "slow = lambda *a: (print(a[1], flush=True), time.sleep(0.01));"
        "c.convert([sys.argv[1]], sys.argv[2], resume=True, drop_bad_rows=True, progress=slow)"
    )
    first_rows = []
    for blocks in (3, 5, 8, 10**6):
        command = [sys.executable, "-c", script, str(tmp_path / "x.npz"), str(tmp_path / "s")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(blocks if blocks < 100 else 0)]
            if lines:
                child.send_signal(signal.SIGKILL)
            else:
                lines = child.stdout.readlines()
        first_rows.append(int(lines[0]))
        assert is_store(tmp_path / "s") == (blocks == 10**6)
    assert first_rows[0] == 100 and sorted(first_rows) == first_rows and first_rows[-1] > 1000
    for file in (tmp_path / "once").iterdir():
        assert (tmp_path / "s" / file.name).read_bytes() == file.read_bytes(), file.name
    assert not partial_folder(tmp_path / "s").exists()


def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An input whose conversion was interrupted after its first block."""
    source = shard(tmp_path / "x.npz", 0, 50)
    monkeypatch.setattr("hscmae.data.convert.CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr("hscmae.data.table.BLOCK_BYTES", 40)
    calls = 0

    def interrupt(*args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert([source], tmp_path / "s", progress=interrupt)
    assert partial_folder(tmp_path / "s").exists()
    return source


def test_resuming_with_changed_inputs_or_settings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = interrupted(tmp_path, monkeypatch)
    os.utime(source, ns=(0, time.time_ns()))
    with pytest.raises(InputError, match="changed since"):
        convert([source], tmp_path / "s", resume=True)
    assert partial_folder(tmp_path / "s").exists()
    assert convert([source], tmp_path / "s") == 50


def test_a_finished_conversion_of_something_else_is_not_resumed(tmp_path: Path) -> None:
    a, b = shard(tmp_path / "a.npz", 0, 50), shard(tmp_path / "b.npz", 50, 20)
    convert([a], tmp_path / "s")
    write_store(read(a), tmp_path / "written")
    for inputs, folder, how in (
        ([b], "s", {}),
        ([a, b], "s", {}),
        ([a], "s", {"dtype": np.float16}),
        ([a], "written", {}),
    ):
        with pytest.raises(InputError, match=f"{folder}: is finished, of other inputs or with other settings"):
            convert(inputs, tmp_path / folder, resume=True, **how)
    np.savez(a, audio=np.zeros((50, 2), np.float32))
    with pytest.raises(InputError, match="is finished, of other inputs"):
        convert([a], tmp_path / "s", resume=True)
    assert str(tmp_path) not in (tmp_path / "s" / "manifest.json").read_text().replace(str(a), "")


def test_resume_of_a_finished_conversion_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = interrupted(tmp_path, monkeypatch)
    assert convert([source], tmp_path / "s", resume=True) == 50
    manifest = tmp_path / "s/manifest.json"
    before = manifest.stat().st_mtime_ns, manifest.stat().st_ino
    assert convert([source], tmp_path / "s", resume=True) == 50
    assert (manifest.stat().st_mtime_ns, manifest.stat().st_ino) == before
    with pytest.raises(InputError, match="exists already"):
        convert([source], tmp_path / "s")


def test_a_finished_store_of_other_inputs_is_no_resumption(tmp_path: Path) -> None:
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    for path, rows in ((first, 8), (second, 9)):
        np.savez(path, audio=np.eye(rows, 3, dtype=np.float32), visual=np.eye(rows, 4, dtype=np.float32))
    assert convert([first], tmp_path / "s") == 8
    assert convert([first], tmp_path / "s", resume=True) == 8
    for inputs, more in (([second], {}), ([first, second], {}), ([first], {"dtype": np.float16})):
        with pytest.raises(InputError, match="of other inputs or with other settings"):
            convert(inputs, tmp_path / "s", resume=True, **more)  # type: ignore[arg-type]
    write_store(read(first), tmp_path / "t")
    with pytest.raises(InputError, match="made from other inputs or with other settings"):
        convert([first], tmp_path / "t", resume=True)


@pytest.mark.real
@pytest.mark.skipif(not REAL.exists(), reason="the real features are not here")
@pytest.mark.parametrize("name", ["yt8m_ave15.h5", "yt8m_sample.tfrecord"])
def test_real_files_round_trip(tmp_path: Path, name: str) -> None:
    pairs = read(REAL / name)
    convert([REAL / name], tmp_path / "s")
    assert_same(pairs, open_store(tmp_path / "s", verify=True))
    export(open_store(tmp_path / "s"), tmp_path / "x.h5")
    assert_same(pairs, read(tmp_path / "x.h5"))

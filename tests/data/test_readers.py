"""Readers: each published layout, every fault named in one line."""

import io
import json
import logging
import os
import resource
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hscmae.data.inspect import inspect_file
from hscmae.data.pairs import Pairs
from hscmae.data.readers import ave, hdf5, open_table, read, vetting
from hscmae.data.splits import read_ids
from hscmae.data.store import sha256, write_store
from hscmae.errors import InputError

REAL = Path(__file__).parents[2] / "../shared/data"
RNG = np.random.default_rng(0)
A, V = RNG.normal(size=(7, 3)).astype(np.float32), RNG.normal(size=(7, 5)).astype(np.float32)
CLASSES = np.array([0, 2, 1, 2, 0, 1, 2])


def hdf5_file(path: Path, arrays: dict[str, Any], **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file.attrs.update(attributes)
    return path


def published(**changes: Any) -> dict[str, Any]:
    """The AVE/VEGAS layout: 5 training rows, 2 test rows; ``None`` leaves a dataset out."""
    arrays = {
        "audio_train": A[:5], "visual_train": V[:5], "lab_train": CLASSES[:5],
        "audio_test": A[5:], "visual_test": V[5:], "lab_test": CLASSES[5:],
    }  # fmt: skip
    return {name: array for name, array in (arrays | changes).items() if array is not None}


# ------------------------------------------------------------------------------------------------ published HDF5, npz


def one_hot(classes: np.ndarray) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[classes]


@pytest.mark.parametrize(
    "coded", [lambda c: c, lambda c: c[:, None], one_hot, lambda c: c.astype(np.float64), lambda c: c.astype("uint8")]
)
@pytest.mark.parametrize("container", ["h5", "npz"])
def test_published_layout(tmp_path: Path, coded: Callable, container: str) -> None:
    arrays = published(lab_train=coded(CLASSES[:5]), lab_test=coded(CLASSES[5:]))
    path = tmp_path / f"AVE.{container}"
    hdf5_file(path, arrays) if container == "h5" else np.savez_compressed(path, **arrays)
    pairs = read(path)
    np.testing.assert_array_equal(pairs.features["audio"], A)
    np.testing.assert_array_equal(pairs.features["visual"], V)
    np.testing.assert_array_equal(pairs.labels.indices, CLASSES)
    assert pairs.labels.is_single and pairs.labels.names == ("0", "1", "2")
    assert pairs.split.tolist() == [b"train"] * 5 + [b"test"] * 2
    assert pairs.ids.tolist() == [str(i).encode() for i in range(7)]
    assert pairs.source == str(path)


def test_names_ids_and_a_validation_part(tmp_path: Path) -> None:
    ids = [f"vidéo{i}" for i in range(7)]
    arrays = {f"{m}_{s}": x[rows] for m, x in (("sound", A), ("image", V)) for s, rows in PARTS.items()}
    arrays |= {f"lab_{s}": CLASSES[rows] for s, rows in PARTS.items()} | {
        f"ids_{s}": ids[rows] for s, rows in PARTS.items()
    }
    pairs = read(hdf5_file(tmp_path / "x", arrays, class_names=["dog", "cat", "train"]))
    assert set(pairs.modalities) == {"sound", "image"}
    assert [i.decode() for i in pairs.ids] == ids
    assert pairs.labels.names == ("dog", "cat", "train")
    assert pairs.split.tolist() == [b"train"] * 4 + [b"val"] + [b"test"] * 2


PARTS = {"train": slice(0, 4), "val": slice(4, 5), "test": slice(5, 7)}


def test_training_part_alone_labels_missing(tmp_path: Path) -> None:
    pairs = read(hdf5_file(tmp_path / "x.h5", {"audio_train": A, "visual_train": V.astype(">f8")}))
    assert pairs.features["visual"].dtype == np.float64 and pairs.features["visual"].dtype.isnative
    assert pairs.labels is None and set(pairs.split) == {b"train"}
    np.testing.assert_array_equal(pairs.features["visual"], V)


def test_plain_layout_of_the_pool(tmp_path: Path) -> None:
    arrays = {
        "audio": A.astype(np.float16), "visual": V.astype(np.float16), "ids": np.array([b"i%d" % i for i in range(7)]),
        "label_indices": np.array([1, 0, 2, 2], np.int32), "label_indptr": np.array([0, 1, 1, 3, 3, 3, 4, 4]),
        "label_names": ["a", "b", "c"],
    }  # fmt: skip
    pairs = read(hdf5_file(tmp_path / "pool.h5", arrays))
    assert pairs.split is None and pairs.labels.names == ("a", "b", "c") and not pairs.labels.is_single
    assert pairs.features["audio"].dtype == np.float16
    np.testing.assert_array_equal(pairs.labels.one_hot().sum(axis=1), [1, 0, 2, 0, 0, 1, 0])


def test_multi_hot_labels(tmp_path: Path) -> None:
    hot = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    np.savez(tmp_path / "x.npz", audio=A[:3], labels=hot)
    pairs = read(tmp_path / "x.npz")
    np.testing.assert_array_equal(pairs.labels.one_hot(), hot.astype(bool))


@pytest.mark.parametrize("key", ["Train_test", "Split"])
@pytest.mark.parametrize(
    "values",
    [
        ["train"] * 5 + ["test"] * 2,
        [0] * 5 + [1] * 2,
        [True] * 5 + [False] * 2,
        ["Training"] * 5 + ["TEST"] * 2,
        [1.0] * 5 + [2.0] * 2,
    ],
)
def test_feat_layout(tmp_path: Path, key: str, values: list) -> None:
    arrays = {"audio_feat": A, "visual_feat": V, "Label_ID": CLASSES, key: values, "extra": np.arange(3)}
    pairs = read(hdf5_file(tmp_path / "x.h5", arrays))
    np.testing.assert_array_equal(pairs.features["visual"], V)
    np.testing.assert_array_equal(pairs.labels.indices, CLASSES)
    assert pairs.split.tolist() == [b"train"] * 5 + [b"test"] * 2


def test_three_codes_ascend(tmp_path: Path) -> None:
    path = hdf5_file(tmp_path / "x.h5", {"audio_feat": A, "Split": [1, 1, 1, 1, 2, 3, 3]})
    assert read(path).split.tolist() == [b"train"] * 4 + [b"val"] + [b"test"] * 2


@pytest.mark.parametrize("codes", [[1] * 3 + [2] * 3 + [0], [0] * 7, [0, 1, 2, 3, 4, 5, 6]])
def test_split_codes_are_not_guessed(tmp_path: Path, codes: list) -> None:
    arrays = {"audio_feat": A, "visual_feat": V, "Train_test": codes}
    with pytest.raises(InputError, match="Train_test: cannot tell train from test"):
        read(hdf5_file(tmp_path / "x.h5", arrays))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_streams_in_any_order_of_blocks(tmp_path: Path, save: Callable) -> None:
    x = RNG.normal(size=(50, 4, 2))
    save(
        tmp_path / "x.npz", audio=x, visual=np.asfortranarray(RNG.normal(size=(50, 3))), audio_lengths=np.arange(50) % 5
    )
    with open_table(tmp_path / "x.npz") as table:
        blocks = [block for _, block in table.blocks(7)]
    assert [len(b) for b in blocks] == [7] * 7 + [1]
    whole = read(tmp_path / "x.npz")
    for m in whole.modalities:
        np.testing.assert_array_equal(np.concatenate([b.features[m] for b in blocks]), whole.features[m])
    np.testing.assert_array_equal(whole.features["audio"], x)
    np.testing.assert_array_equal(whole.lengths["audio"], np.arange(50) % 5)
    assert np.concatenate([b.ids for b in blocks]).tolist() == whole.ids.tolist()


def test_missing_rows_and_one_modality_alone(tmp_path: Path) -> None:
    holes = A.copy()
    holes[2] = np.nan
    np.savez(tmp_path / "x.npz", audio=holes, audio_present=np.arange(7) != 2)
    pairs = read(tmp_path / "x.npz")
    assert pairs.modalities == ("audio",)
    np.testing.assert_array_equal(pairs.present["audio"], np.arange(7) != 2)


# ------------------------------------------------------------------------------------------------------------ .npy


def test_npy_folder_and_single_file(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    folder.mkdir()
    for name, array in {
        "audio": A,
        "visual": V,
        "ids": np.array([f"x{i}" for i in range(7)]),
        "labels": CLASSES,
    }.items():
        np.save(folder / f"{name}.npy", array)
    pairs = read(folder)
    np.testing.assert_array_equal(pairs.features["visual"], V)
    assert pairs.ids[3] == b"x3"
    np.testing.assert_array_equal(read(folder / "audio.npy").features["audio"], A)


def test_one_npy_a_clip(tmp_path: Path) -> None:
    steps = {"dogs/rex": 3, "cat": 1, "silent": 0}
    for clip, count in steps.items():
        path = tmp_path / "audio" / f"{clip}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full((count, 2), count + 1.0, np.float32))
    (tmp_path / "visual").mkdir()
    np.save(tmp_path / "visual" / "cat.npy", np.ones(4, np.float32))
    np.save(tmp_path / "visual" / "unheard.npy", np.ones(4, np.float32))
    pairs = read(tmp_path)
    assert pairs.ids.tolist() == [b"cat", b"dogs/rex", b"silent", b"unheard"]
    assert pairs.present["visual"].tolist() == [True, False, False, True]
    assert pairs.present["audio"].tolist() == [True, True, True, False]
    assert pairs.lengths["audio"].tolist() == [1, 3, 0, 0]
    np.testing.assert_array_equal(pairs.features["audio"][1], np.full((3, 2), 4.0))
    np.testing.assert_array_equal(pairs.features["audio"][0], [[2, 2], [0, 0], [0, 0]])


def test_a_folder_of_stores_is_not_read_as_clips(tmp_path: Path) -> None:
    write_store(Pairs({"audio": A}), tmp_path / "one")
    with pytest.raises(InputError, match="not a feature file of a known format"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (np.ones((2, 3), np.float32), r"audio: b.npy holds float32 \(2, 3\), a.npy float32 \(2, 2\) in row 1"),
        (np.ones((2, 2), np.float16), "audio: b.npy holds float16"),
        (np.ones(2, np.float32), "audio: b.npy holds"),
    ],
)
def test_clips_of_other_shapes_are_named(tmp_path: Path, odd: np.ndarray, message: str) -> None:
    (tmp_path / "audio").mkdir()
    np.save(tmp_path / "audio" / "a.npy", np.ones((2, 2), np.float32))
    np.save(tmp_path / "audio" / "b.npy", odd)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\x93NUMPY nonsense", "damaged"), (b"", "damaged")],
)
def test_damaged_clips_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "audio").mkdir()
    path = _garbage(tmp_path / "audio" / "a.npy", content)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path)
    assert str(path) in str(caught.value)
    np.save(path, np.ones((2, 2), int))
    with pytest.raises(InputError, match=r"audio: a.npy holds int64 \(2, 2\), expected floating point"):
        read(tmp_path)


# ----------------------------------------------------------------------------------------------------- AVE's release


def ave_release(folder: Path, n: int = 6, **changes: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = np.zeros((n, 10, 4))
    for clip in range(n):  # event clip % 3 for some seconds, background for the others
        events = 3 + clip
        labels[clip, :events, clip % 3] = 1
        labels[clip, events:, 3] = 1
    labels[n - 1] = [0, 0, 0, 1]  # all background
    arrays = {
        "audio_feature.h5": rng.normal(size=(n, 10, 128)).astype(np.float32),
        "visual_feature.h5": rng.normal(size=(n, 10, 7, 7, 8)).astype(np.float32),
        "labels.h5": labels,
        "train_order.h5": np.array([4, 0, 2]),
        "val_order.h5": np.array([1]),
        "test_order.h5": np.array([5, 3]),
    } | changes
    folder.mkdir()
    for name, array in arrays.items():
        if array is not None:
            hdf5_file(folder / name, {"order" if "order" in name else "avadataset": array})
    return arrays


def test_ave_release(tmp_path: Path) -> None:
    arrays = ave_release(tmp_path / "ave")
    pairs = read(tmp_path / "ave")
    assert pairs.features["visual"].shape == (6, 10, 8)
    by_hand = np.zeros((6, 10, 8))
    for i in range(7):
        for j in range(7):
            by_hand += arrays["visual_feature.h5"][:, :, i, j].astype(np.float64) / 49
    np.testing.assert_allclose(pairs.features["visual"], by_hand, atol=1e-6)
    np.testing.assert_array_equal(pairs.features["audio"], arrays["audio_feature.h5"])
    assert pairs.labels.indptr.tolist() == [0, 1, 2, 3, 4, 5, 5]
    assert pairs.labels.indices.tolist() == [0, 1, 2, 0, 1] and len(pairs.labels.names) == 3
    assert pairs.split.tolist() == [b"train", b"val", b"train", b"test", b"train", b"test"]
    assert pairs.lengths["audio"].tolist() == [10] * 6


def test_ave_without_labels_orders_and_maps(tmp_path: Path) -> None:
    orders = {f"{s}_order.h5": None for s in ("train", "val", "test")}
    ave_release(tmp_path / "ave", **orders, **{"labels.h5": None, "visual_feature.h5": np.ones((6, 10, 5))})
    pairs = read(tmp_path / "ave")
    assert pairs.labels is None and pairs.split is None and pairs.dims == {"audio": 128, "visual": 5}


def test_ave_dataset_of_another_name(tmp_path: Path) -> None:
    ave_release(tmp_path / "ave")
    hdf5_file(tmp_path / "ave" / "labels.h5", {"labels": np.ones((6, 10, 4))})
    with pytest.raises(InputError, match=r"labels.h5: no dataset 'avadataset' \(found labels\)"):
        read(tmp_path / "ave")


def test_ave_annotations_name_clips_and_classes(tmp_path: Path) -> None:
    ave_release(tmp_path / "ave")
    lines = [f"{c}&vid{i % 5}&good&0&10" for i, c in enumerate(["Bell", "Dog", "Flute", "Bell", "Dog", "Flute"])]
    (tmp_path / "ave/Annotations.txt").write_text("\n".join(["Category&VideoID&Quality&StartTime&EndTime", *lines]))
    pairs = read(tmp_path / "ave")
    assert pairs.ids.tolist() == [b"vid0", b"vid1", b"vid2", b"vid3", b"vid4", b"vid0#2"]
    assert pairs.labels.names == ("Bell", "Dog", "Flute")


def test_ave_visual_file_is_read_in_bounded_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ave_release(tmp_path / "ave", n=6)
    monkeypatch.setattr("hscmae.data.table.BLOCK_BYTES", 2 * 10 * 7 * 7 * 8 * 4)
    read_sizes = []
    real = ave.SpatialMean.__getitem__
    monkeypatch.setattr(
        ave.SpatialMean,
        "__getitem__",
        lambda self, rows: (read_sizes.append(rows.stop - rows.start), real(self, rows))[1],
    )
    read(tmp_path / "ave")
    assert read_sizes == [2, 2, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visual_feature.h5": None}, "visual_feature.h5: no such file"),
        ({"visual_feature.h5": np.ones((6, 10))}, r"visual_feature.h5: expected \(clips, seconds"),
        ({"visual_feature.h5": np.ones((5, 10, 7, 7, 2))}, "row counts differ: .*visual_feature.h5 5"),
        ({"labels.h5": np.ones((6, 10))}, r"labels.h5: expected \(clips, seconds, classes"),
        ({"train_order.h5": np.array([0, 99])}, "train_order.h5: row numbers outside 0..5 in row 1"),
        ({"train_order.h5": np.array([4, 0, 2, 1])}, "val_order.h5: rows named twice"),
        ({"train_order.h5": np.array([4])}, "no order file names these rows in rows 0, 2"),
        ({"audio_feature.h5": np.ones((6, 10, 3), int)}, "audio_feature.h5: expected floating point"),
        ({"train_order.h5": np.array([0.5])}, "train_order.h5: expected row numbers"),
        (
            {"audio_feature.h5": np.ones((4, 10, 3)), "visual_feature.h5": np.ones((4, 10, 3))},
            "row counts .* labels.h5 6",
        ),
    ],
)
def test_ave_faults(tmp_path: Path, changes: dict, message: str) -> None:
    ave_release(tmp_path / "ave", **changes)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "ave")


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visual_test": None}, "visual_test: missing, but visual_train is there"),
        ({"lab_test": None}, "lab_test: missing, but lab_train is there"),
        ({"audio_train": A[0]}, r"audio_train: expected shape \(rows, dims\).*got \(3,\)"),
        ({"audio_train": np.ones((5, 3, 2, 2))}, "audio_train: expected shape"),
        ({"audio_train": np.ones((5, 3), int)}, "audio_train: expected floating point features, got int64"),
        ({"audio_train": np.array([b"text"] * 5)}, "audio_train: expected shape"),
        ({"audio_train": h5py.Empty("f4")}, "audio_train: is empty: it has no shape"),
        ({"audio_train": A[:4]}, "row counts differ: .*audio_train 4, .*visual_train 5"),
        ({"lab_test": CLASSES[:1]}, "row counts differ: .*lab_test 1"),
        ({"audio_test": A[5:, :2]}, r"dimensions differ between splits: audio_train \(5, 3\), audio_test \(2, 2\)"),
        (
            {"lab_train": np.array([0, 1, -2, 0, 1])},
            r"lab_train: labels must be .* \(-1: none\) in row 2",
        ),
        ({"lab_train": np.array([0, 1, 0.5, 0, np.nan])}, "lab_train: labels must be .* in rows 2, 4"),
        ({"lab_train": one_hot(CLASSES[:5]) * 2}, "lab_train: one-hot rows may hold 0 and 1 only in rows 0, 1"),
        ({"lab_train": np.array([b"dog"] * 5)}, "lab_test: expected class names, as in the other parts, got int"),
        ({"ids_train": np.ones((5, 2)), "ids_test": np.ones(2)}, "ids_train: expected one id a row"),
        ({"ids_train": np.ones(5), "ids_test": np.ones(2)}, "ids_train: expected text or whole numbers"),
        ({"ids_train": [b"a", b"", b"c", b"d", b"e"], "ids_test": [b"f", b"g"]}, "ids_train: empty ids in row 1"),
        (
            {
                "audio_train": np.ones((5, 4, 3)),
                "audio_test": np.ones((2, 4, 3)),
                "audio_lengths_train": np.arange(5) * 2,
                "audio_lengths_test": np.ones(2, int),
            },
            "audio_lengths: lengths outside 0..4 in rows 3, 4",
        ),
        ({"ids_train": np.arange(5), "ids_test": np.array([0, 9])}, "ids: ids seen before .* in row 5$"),
        (
            {"audio_train": np.where(np.arange(15).reshape(5, 3) == 7, np.nan, A[:5])},
            "audio: NaN or infinite .* in row 2$",
        ),
        ({"visual_test": np.full((2, 5), np.inf)}, "visual: NaN or infinite values in rows 5, 6$"),
    ],
)
def test_faults_of_the_published_layout_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    path = hdf5_file(tmp_path / "x.h5", published(**changes))
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [hdf5_file, lambda path, arrays: np.savez(path, **arrays) or path])
def test_a_clip_may_have_no_label(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path / "x.npz", published(lab_train=np.array([0, 2, -1, 0, -1])))
    labels = read(path).labels
    assert np.diff(labels.indptr).tolist() == [1, 1, 0, 1, 0, 1, 1]
    assert labels.indices.tolist() == [0, 2, 0, *CLASSES[5:]]


@pytest.mark.parametrize("dtype", ["S", "O"])
def test_labels_may_be_names(tmp_path: Path, dtype: str) -> None:
    train, test = (
        np.array(names, dtype="S").astype(dtype) for names in (["dog", "cat", "", "cat", "dog"], ["owl", "cat"])
    )
    labels = read(hdf5_file(tmp_path / "x.h5", published(lab_train=train, lab_test=test))).labels
    assert labels.names == ("cat", "dog", "owl")
    assert labels.indices.tolist() == [1, 0, 0, 1, 2, 0]
    assert np.diff(labels.indptr).tolist() == [1, 1, 0, 1, 1, 1, 1]


def test_labels_beyond_the_class_names(tmp_path: Path) -> None:
    path = hdf5_file(tmp_path / "x.h5", published(), class_names=["a", "b"])
    with pytest.raises(InputError, match=r"lab_train: labels out of range 0..1 in rows 1, 3$"):
        read(path)


@pytest.mark.parametrize(
    ("indptr", "message"),
    [([0, 2, 1, 3], "must rise from 0"), ([1, 2, 3, 3], "must rise from 0"), ([0.0, 1, 2, 3], "must be whole numbers")],
)
def test_broken_multi_labels(tmp_path: Path, indptr: list, message: str) -> None:
    np.savez(tmp_path / "x.npz", audio=A[:3], label_indices=np.array([0, 1, 2]), label_indptr=np.array(indptr))
    with pytest.raises(
        InputError, match=f"label_indptr: {message}|label_indptr: label_indices and label_indptr {message}"
    ):
        read(tmp_path / "x.npz")


def test_bad_rows_are_dropped_and_counted_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    audio, visual = A.copy(), V.copy()
    audio[1, 0], visual[4, 2] = np.nan, -np.inf
    ids = np.array([b"a", b"b", b"c", b"a", b"d", b"e", b"f"])
    np.savez(tmp_path / "x.npz", audio=audio, visual=visual, ids=ids, labels=CLASSES)
    with caplog.at_level(logging.WARNING):
        pairs = read(tmp_path / "x.npz", drop_bad_rows=True)
    assert pairs.ids.tolist() == [b"a", b"c", b"e", b"f"]
    np.testing.assert_array_equal(pairs.features["audio"], A[[0, 2, 5, 6]])
    np.testing.assert_array_equal(pairs.labels.indices, CLASSES[[0, 2, 5, 6]])
    assert "left out rows 1, 3, 4" in caplog.text
    np.savez(tmp_path / "all.npz", audio=np.full((3, 2), np.nan))
    with pytest.raises(InputError, match="no rows left"):
        read(tmp_path / "all.npz", drop_bad_rows=True)


def _garbage(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d / "absent.h5", "no such file"),
        (lambda d: _garbage(d / "x.h5", b""), "the file is empty"),
        (lambda d: _garbage(d / "x.h5", b"not at all"), "not HDF5, whatever its name says"),
        (lambda d: _garbage(d / "x.npz", b"\x89HDF\r\n\x1a\n"), "damaged"),
        (lambda d: _garbage(d / "x.tfrecord", b"0" * 100), "not TFRecord, whatever its name says"),
        (lambda d: _garbage(d / "x.txt", b"hello"), "not a feature file of a known format"),
        (lambda d: d, "not a feature file of a known format"),
        (lambda d: hdf5_file(d / "x.h5", {}), "no features"),
        (lambda d: hdf5_file(d / "x.h5", {"labels": CLASSES}), "no features"),
        (lambda d: _garbage(d / "x.npz", b"PK\x03\x04 and no more"), "damaged"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path: Path, make: Callable, message: str) -> None:
    path = make(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95, 0.999])
@pytest.mark.parametrize("ending", ["h5", "npz", "npy"])
def test_truncated_files(tmp_path: Path, share: float, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    x = RNG.normal(size=(200, 30))
    if ending == "h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("audio", data=x, chunks=(10, 30), compression="gzip")
            file["visual"] = x
    elif ending == "npz":
        np.savez(path, audio=x)
    else:
        np.save(path, x)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(InputError, match=r"damaged or cut short|not HDF5|not npz"):
        read(path)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (os.system, (f"touch {tmp_path}/exploded",))

    bomb = np.array([[Bomb()]], dtype=object)
    np.savez(tmp_path / "x.npz", audio=bomb)
    np.save(tmp_path / "x.npy", bomb)
    for name in ("x.npz", "x.npy"):
        with pytest.raises(InputError, match="pickled objects, which are never loaded"):
            read(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_npz_member_that_lies_about_its_size(tmp_path: Path) -> None:
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    header += f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**12}, 128), }}".ljust(117).encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("audio.npy", header + b"\0" * 64)
    (tmp_path / "x.npy").write_bytes(header + b"\0" * 64)
    for name in ("x.npz", "x.npy"):
        with pytest.raises(InputError, match="bytes"):
            read(tmp_path / name)


# ---------------------------------------------------------------------------------------------------- untrusted HDF5


def test_links_out_of_the_file_are_not_followed(tmp_path: Path) -> None:
    hdf5_file(tmp_path / "secret.h5", {"audio": A})
    raw = _garbage(tmp_path / "raw", A.tobytes())
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["audio"] = h5py.ExternalLink("secret.h5", "/audio")
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        file["audio"] = A
        file["group/deeper/visual"] = h5py.ExternalLink("secret.h5", "/audio")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("audio", (7, 3), "f4", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((7, 3), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "audio", (7, 3))
        file.create_virtual_dataset("audio", layout)
    for name, dataset in (("link", "audio"), ("deep", "group/deeper/visual"), ("raw", "audio"), ("virtual", "audio")):
        ((code, found, _),) = vetting._look_through(str(tmp_path / f"{name}.h5"))
        assert (code, found) == ("external-link", dataset)
        with pytest.raises(InputError, match=f"{name}.h5: {dataset}: .*nothing outside the file is opened"):
            read(tmp_path / f"{name}.h5")


def test_soft_and_hard_links_within_the_file_are_fine(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["group/a"] = A
        file["audio"] = h5py.SoftLink("/group/a")
        file["visual"] = file["group/a"]
        file["group/loop"] = file["group"]
        file["label"] = h5py.SoftLink("/nowhere")
    assert vetting._look_through(str(tmp_path / "x.h5")) == []
    np.testing.assert_array_equal(read(tmp_path / "x.h5").features["audio"], A)


def test_absurd_declared_sizes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file.create_dataset("audio", (10**12, 128), "f4", chunks=(1000, 128))
    with h5py.File(tmp_path / "many.h5", "w") as file:
        for i in range(200):
            file.create_dataset(f"audio{i}", (10**5, 128), "f4", chunks=(1000, 128))
    with h5py.File(tmp_path / "chunk.h5", "w") as file:
        file.create_dataset("audio", (1, 1), "f4", chunks=(2**15, 2**14), maxshape=(None, None))
    for name in ("rows", "many", "chunk"):
        assert {code for code, _, _ in vetting._look_through(str(tmp_path / f"{name}.h5"))} == {"oversized"}
        with pytest.raises(InputError, match="declares"):
            read(tmp_path / f"{name}.h5")


def test_a_file_that_kills_or_stalls_the_child_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hdf5_file(tmp_path / "x.h5", {"audio": A})
    assert vetting.vet(path) == []
    child = tmp_path / "child.py"
    for script, reason in (
        ("input(); import os; os.abort()", "crashes"),
        ("import time; time.sleep(60)", "takes longer"),
    ):
        vetting.stop_child()
        child.write_text(script)
        monkeypatch.setattr(vetting, "__file__", str(child))
        monkeypatch.setattr(vetting, "SECONDS", 1.0)
        with pytest.raises(InputError, match=reason):
            read(path)
    monkeypatch.undo()
    assert len(read(path)) == 7  # a new child


def test_the_child_is_kept_for_the_next_file(tmp_path: Path) -> None:
    path = hdf5_file(tmp_path / "x.h5", {"audio": A})
    read(path)
    first = vetting._child
    read(path)
    assert vetting._child is first is not None


def test_unknown_filters_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hdf5_file(tmp_path / "x.h5", {})
    with h5py.File(path, "w") as file:
        file.create_dataset("audio", data=A, compression="gzip")
    monkeypatch.setattr(vetting, "FILTERS", set())
    assert vetting._look_through(str(path)) == [
        ("wrong-type", "audio", "is compressed by filter 1, which is not built in")
    ]


def test_too_many_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hdf5_file(tmp_path / "x.h5", {f"a{i}": i for i in range(5)})
    monkeypatch.setattr(vetting, "MAX_OBJECTS", 4)
    assert [code for code, _, _ in vetting._look_through(str(path))] == ["oversized"]


def test_hdf5_is_told_by_its_content(tmp_path: Path) -> None:
    assert hdf5.matches(hdf5_file(tmp_path / "features.dat", {"audio": A}))
    assert len(read(tmp_path / "features.dat")) == 7


# ---------------------------------------------------------------------------------------------------------- real data


@pytest.mark.real
@pytest.mark.skipif(not REAL.exists(), reason="the real features are not here")
def test_real_files() -> None:
    pairs = read(REAL / "yt8m_ave15.h5")
    assert (len(pairs), pairs.dims) == (1629, {"audio": 128, "visual": 1024})
    assert (pairs.split == b"test").sum() == 326 and pairs.labels.names[0] == "Dog" and pairs.labels.is_single
    pool = read(REAL / "yt8m_pool.h5")
    assert len(pool) == 28792 and len(pool.labels.names) == 3862 and pool.split is None
    assert pool.silent()["audio"].sum() == 435
    assert np.isin(pairs.ids, pool.ids).all()


def test_bad_rows_of_a_store_are_left_out_when_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_store(Pairs({"audio": A, "visual": V}, ids=[f"c{i}" for i in range(7)]), tmp_path / "s")
    stored = np.load(tmp_path / "s" / "visual.npy", mmap_mode="r+")
    stored[[2, 5], 1] = np.nan  # as no writer of ours leaves it
    stored.flush()
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    manifest["files"]["visual.npy"]["sha256"] = sha256(tmp_path / "s" / "visual.npy")
    (tmp_path / "s" / "manifest.json").write_text(json.dumps(manifest))
    assert len(read(tmp_path / "s")) == 7
    left = read(tmp_path / "s", drop_bad_rows=True)
    assert left.ids.tolist() == [b"c0", b"c1", b"c3", b"c4", b"c6"]
    assert "left out rows 2, 5" in caplog.text


def test_a_store_without_bad_rows_stays_mapped(tmp_path: Path) -> None:
    write_store(Pairs({"audio": A, "visual": V}), tmp_path / "s")
    assert isinstance(read(tmp_path / "s", drop_bad_rows=True).features["audio"], np.memmap)


def test_members_of_an_archive_are_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hscmae.data.table.BLOCK_BYTES", 200)
    x = np.random.default_rng(0).normal(size=(40, 6))
    np.savez(tmp_path / "x.npz", audio=x, visual=np.asfortranarray(x))
    opened: list[Any] = []
    original = zipfile.ZipFile.open

    def spy(archive: zipfile.ZipFile, name: str, *arguments: Any) -> Any:
        opened.append((name, original(archive, name, *arguments)))
        return opened[-1][1]

    monkeypatch.setattr(zipfile.ZipFile, "open", spy)
    pairs = read(tmp_path / "x.npz")
    np.testing.assert_array_equal(pairs.features["visual"], x)
    names = [name for name, _ in opened]
    assert sorted(names) == ["audio.npy", "audio.npy", "visual.npy", "visual.npy"]  # for the header, for the rows
    assert all(file.closed for _, file in opened)


def test_a_system_that_sets_no_limit_still_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hdf5_file(tmp_path / "x.h5", {"audio": A, "visual": V})
    limits = []

    def as_on_macos(what: int, limit: tuple[int, int]) -> None:
        if what == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")
        limits.append(what)

    monkeypatch.setattr(resource, "setrlimit", as_on_macos)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(str(path)) + "\n"))
    monkeypatch.setattr("sys.stdout", out := io.StringIO())
    vetting._serve()
    assert json.loads(out.getvalue()) == []
    assert limits == [resource.RLIMIT_CORE, resource.RLIMIT_FSIZE]


def test_a_group_in_place_of_a_dataset(tmp_path: Path) -> None:
    path = hdf5_file(tmp_path / "x.h5", {"audio_train": A, "visual_train/values": V})
    with pytest.raises(InputError, match=r"x\.h5: visual_train: is a group, not a dataset"):
        read(path)
    found = inspect_file(path)
    assert not found.ok and [p.code for p in found.faults] == ["wrong-type"]
    other = hdf5_file(tmp_path / "y.h5", {"audio": A, "visual": V, "notes/who": A})
    assert read(other).modalities == ("audio", "visual")
    assert [(p.code, p.dataset) for p in inspect_file(other).problems if not p.is_fault] == [("group", "notes")]
    assert inspect_file(other).ok


def test_what_cannot_be_read_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "dangling.h5").symlink_to(tmp_path / "gone.h5")
    os.mkfifo(tmp_path / "pipe.h5")
    for look in (read, inspect_file, read_ids):
        with pytest.raises(InputError, match=r"dangling\.h5: is a link to .*gone\.h5, which is not there"):
            look(tmp_path / "dangling.h5")
        with pytest.raises(InputError, match=r"pipe\.h5: is neither a file nor a folder"):
            look(tmp_path / "pipe.h5")


def test_modalities_are_chosen_before_anything_is_read(tmp_path: Path) -> None:
    bad = np.full((7, 2), np.nan, np.float32)
    path = hdf5_file(tmp_path / "x.h5", {"audio": A, "text": bad, "visual": V})
    pairs = read(path, modalities=("visual", "audio"))
    assert pairs.modalities == ("visual", "audio")
    np.testing.assert_array_equal(pairs.features["audio"], A)
    for wanted, words in ((("audio", "depth"), "has no depth; it has audio, text, visual"), (("audio",) * 2, "twice")):
        with pytest.raises(InputError, match=words):
            read(path, modalities=wanted)
    write_store(replace(pairs, lengths={}), tmp_path / "store")
    assert read(tmp_path / "store", modalities=["audio"]).modalities == ("audio",)

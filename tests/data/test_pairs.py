"""``Pairs``: rows stay together, and what does not fit is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hscmae.data.pairs import Labels, Pairs, bit_sums
from hscmae.errors import InputError


def some_pairs(n: int = 6) -> Pairs:
    return Pairs(
        {"audio": np.arange(n * 2.0).reshape(n, 2), "visual": np.arange(n * 6.0).reshape(n, 3, 2)},
        ids=np.array([f"c{i}" for i in range(n)], dtype=np.bytes_),
        present={"audio": np.arange(n) != 1},
        labels=Labels.single(np.arange(n) % 3),
        split=np.array([b"train", b"val", b"test"] * (n // 3)),
    )


def test_defaults() -> None:
    pairs = Pairs({"audio": np.ones((11, 2)), "visual": np.ones((11, 4, 3))})
    assert pairs.ids.tolist() == [str(i).encode() for i in range(11)]
    assert (
        pairs.present["audio"].all() and pairs.lengths["visual"].tolist() == [4] * 11 and "audio" not in pairs.lengths
    )
    assert (len(pairs), pairs.shape, pairs.dims) == (11, (11,), {"audio": 2, "visual": 3})
    assert pairs.modalities == ("audio", "visual")


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=12))
def test_rows_stay_together(rows: list[int]) -> None:
    pairs, chosen = some_pairs(), np.array(rows, dtype=int)
    taken = pairs.take(chosen)
    for m in pairs.modalities:
        np.testing.assert_array_equal(taken.features[m], pairs.features[m][chosen])
        np.testing.assert_array_equal(taken.present[m], pairs.present[m][chosen])
    assert taken.ids.tolist() == [f"c{i}".encode() for i in rows]
    assert taken.labels.indices.tolist() == [i % 3 for i in rows]
    assert taken.split.tolist() == [pairs.split[i] for i in rows]
    assert taken.lengths["visual"].tolist() == [3] * len(rows)


@pytest.mark.parametrize("key", [slice(1, 4), np.array([True, False] * 3), np.array([4, 0]), (slice(0, 2), ...)])
def test_indexing_as_scikit_learn_does(key) -> None:
    expected = np.arange(6)[key[0] if isinstance(key, tuple) else key]
    assert some_pairs()[key].ids.tolist() == [f"c{i}".encode() for i in expected]


def test_is_not_iterated_over() -> None:
    with pytest.raises(TypeError):
        iter(some_pairs())


def test_splits() -> None:
    pairs = some_pairs()
    assert pairs.rows_of("val").tolist() == [1, 4] and pairs.rows_of("all").tolist() == list(range(6))
    assert pairs.of_split("all") is pairs and pairs.of_split("test").ids.tolist() == [b"c2", b"c5"]
    for split, data, message in (
        ("other", pairs, "split must be one of"),
        ("train", Pairs({"a": np.ones((2, 1))}), "has no split"),
        ("val", pairs.take(np.array([0])), "no rows in split 'val'"),
    ):
        with pytest.raises(InputError, match=message):
            data.rows_of(split)


def test_views() -> None:
    pairs = some_pairs()
    assert pairs.without_labels().labels is None and pairs.labels is not None
    assert pairs.complete().tolist() == [True, False, True, True, True, True]
    assert pairs.without_features().features["visual"].shape == (6, 1)


def test_silent_vectors_count_as_missing_from_five_rows_on() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    x[[1, 4, 8, 9, 19]] = x[1]
    x[[2, 3, 5, 6]] = x[2]
    missing = np.zeros(20, dtype=bool)
    missing[[10, 11]] = True
    x[missing] = x[2]  # values of missing rows are never read: these are no fifth and sixth
    pairs = Pairs({"audio": x}, present={"audio": ~missing})
    assert np.flatnonzero(pairs.silent()["audio"]).tolist() == [1, 4, 8, 9, 19]
    assert np.flatnonzero(~pairs.usable().present["audio"]).tolist() == [1, 4, 8, 9, 10, 11, 19]


def test_silence_is_counted_among_the_rows_that_are_named() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    x[[0, 1, 2, 3, 4, 15]] = x[0]  # five of the first ten rows, and another
    x[[5, 6, 7, 8, 16, 17]] = x[5]  # four of the first ten, and others
    pairs = Pairs({"audio": x})
    assert np.flatnonzero(pairs.silent()["audio"]).tolist() == [*range(9), 15, 16, 17]
    among = np.arange(10)
    assert np.flatnonzero(pairs.silent(among=among)["audio"]).tolist() == [0, 1, 2, 3, 4, 15]
    np.testing.assert_array_equal(pairs.usable(among=among).present["audio"], ~pairs.silent(among=among)["audio"])


def test_silence_is_known_by_the_valid_steps_of_sequences() -> None:
    x = np.random.default_rng(0).normal(size=(12, 4, 3)).astype(np.float32)
    x[:6, :2] = x[0, 0]  # what follows the valid steps differs
    lengths = np.full(12, 2)
    lengths[5] = 0
    pairs = Pairs({"audio": x}, lengths={"audio": lengths})
    assert np.flatnonzero(pairs.silent()["audio"]).tolist() == [0, 1, 2, 3, 4]
    usable = pairs.usable("max")
    assert np.flatnonzero(~usable.present["audio"]).tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(usable.features["audio"][6:], x[6:, :2].max(axis=1))


def test_rows_of_equal_bit_sums_are_not_silent_unless_equal() -> None:
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    x[:12] = [x[0, np.roll(range(4), i)] for i in range(12)]  # four vectors of one sum, three times each
    x[20:26] = x[20]
    pairs = Pairs({"audio": x})
    assert len(set(bit_sums(x)[[0, 2]])) == 1
    assert np.flatnonzero(pairs.silent()["audio"]).tolist() == [20, 21, 22, 23, 24, 25]


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bit_sums_by_definition(width: int, dtype: type) -> None:
    x = np.random.default_rng(0).normal(size=(9, width)).astype(dtype)
    octets = x.tobytes()
    size = x.itemsize * width
    word = next(w for w in (8, 4, 2) if size % w == 0)
    for i, total in enumerate(bit_sums(x, block=4).tolist()):
        row = octets[i * size : (i + 1) * size]
        words = [int.from_bytes(row[j : j + word], "little") for j in range(0, size, word)]
        assert total == sum(words) % 2**64


def test_of() -> None:
    pairs = some_pairs()
    assert Pairs.of(pairs) is pairs
    assert Pairs.of({"audio": [[1.0, 2.0]]}).dims == {"audio": 2}
    with pytest.raises(InputError, match="expected Pairs or a mapping"):
        Pairs.of(np.ones((2, 2)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, bool, np.longdouble, object])
def test_numbers_of_any_type_are_features(dtype: type) -> None:
    x = np.array([[0, 1], [1, 0]])
    features = Pairs({"a": x.astype(dtype)}).features["a"]
    assert features.dtype in (np.float32, np.float64)
    np.testing.assert_array_equal(features, x)


def test_whole_numbers_stay_what_they_are() -> None:
    x = np.array([[2**24 + 1, -(2**31)]])
    np.testing.assert_array_equal(Pairs({"a": x.astype(np.int32)}).features["a"], x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_tensors_are_features(dtype: torch.dtype) -> None:
    x = torch.tensor([[1, 2], [3, 4]], dtype=dtype)
    with_gradients = x.clone().requires_grad_() if x.is_floating_point() else x
    np.testing.assert_array_equal(Pairs.of({"a": with_gradients}).features["a"], [[1, 2], [3, 4]])
    assert Pairs({"a": x}, ids=torch.arange(2), present={"a": torch.ones(2)}, labels=torch.zeros(2)).labels is not None


def test_arrays_that_fit_are_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2), np.float16))
    for x in (np.load(tmp_path / "x.npy", mmap_mode="r"), np.ones((3, 2))):
        assert Pairs({"a": x}).features["a"] is x


@pytest.mark.parametrize("ids", [np.array(["ä", "b"]), ["ä", "b"], ["ä".encode(), b"b"], np.array(["ä", b"b"], object)])
def test_ids_and_splits_as_people_write_them(ids: Any) -> None:
    pairs = Pairs({"a": np.ones((2, 1))}, ids=ids, split=["train", "test"])
    assert pairs.ids.tolist() == ["ä".encode(), b"b"]
    assert pairs.rows_of("test").tolist() == [1]
    assert Pairs({"a": np.ones((2, 1))}, ids=[7, 10]).ids.tolist() == [b"7", b"10"]


def test_whether_ids_are_the_datas_own_is_kept() -> None:
    features = {"a": np.ones((12, 1))}
    numbered, named = Pairs(features), Pairs(features, ids=np.arange(12))
    assert numbered.ids.tolist() == named.ids.tolist()
    for rows in (slice(None), slice(3, 9), np.array([2, 1])):
        assert not numbered[rows].has_ids and named[rows].has_ids
        assert numbered[rows].ids.tolist() == named[rows].ids.tolist()
    assert not numbered.without_labels().has_ids and not numbered.pooled().has_ids


def test_repr_is_a_line() -> None:
    pairs = some_pairs()
    assert repr(pairs) == "Pairs(6 rows: audio 2, visual 3 x 2; 3 classes; 2 train, 2 val, 2 test)"
    assert repr(pairs.labels) == "Labels(6 clips, 3 classes: 0, 1, 2)"
    assert repr(Pairs({"audio": np.ones((1, 4))})) == "Pairs(1 rows: audio 4)"


def test_labels_from_arrays() -> None:
    cases = {
        "numbers": [2, 0, -1, 2],
        "floats": np.array([2.0, 0.0, -1.0, 2.0]),
        "names": np.array(["dog", "cat", "", "dog"]),
        "bytes": np.array([b"dog", b"cat", b"", b"dog"]),
        "members": [[0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 1]],
    }
    for kind, labels in cases.items():
        found = Pairs({"a": np.ones((4, 1))}, labels=labels).labels
        names = ("cat", "dog") if kind in ("names", "bytes") else ("0", "1", "2")
        assert found.names == names and found.indptr.tolist() == [0, 1, 2, 2, 3]
        assert [names[c] for c in found.indices] == [names[-1], names[0], names[-1]]
    assert Labels.of(np.array([[1, 1], [0, 1]], bool)).one_hot().tolist() == [[True, True], [False, True]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": {}}, "no features"),
        ({"features": {"a": np.ones((2, 1)), "b": np.ones((3, 1))}}, "different numbers of rows: a 2, b 3"),
        ({"features": {"a": np.ones(2)}}, "expected rank 2"),
        ({"features": {"a": [["x"], ["y"]]}}, "a: expected floating point features, got <U1"),
        ({"features": {"a": np.ones((2, 1), complex)}}, "floating point features, got complex128"),
        ({"features": {"a": [[1.0], [2.0, 3.0]]}}, "a: not an array"),
        ({"features": {"a": 3.0}}, r"expected rank 2 .*, got shape \(\)"),
        ({"features": {3: np.ones((2, 1))}}, "expected names of modalities, got 3"),
        ({"ids": np.array([b"x"])}, "ids has 1 rows, the features have 2"),
        ({"ids": [0.5, 1.5]}, "ids: expected a string a row, got float64"),
        ({"ids": ["x", None]}, "ids: expected a string a row, got object"),
        ({"present": {"a": np.ones(3, bool)}}, "a_present has 3 rows"),
        ({"present": {"a": [0.5, 1.0]}}, "a_present: expected true or false a row"),
        ({"present": {"b": np.ones(2, bool)}}, "b_present: there is no modality of this name"),
        ({"labels": Labels.single([0])}, "labels has 1 rows"),
        ({"labels": [0.5, 1.0]}, "labels: expected class numbers from 0 on"),
        ({"labels": [0, -2]}, "labels: expected class numbers from 0 on"),
        ({"labels": [[0, 3], [1, 1]]}, r"rows of 0 and 1, got int64 of shape \(2, 2\)"),
        ({"labels": [None, object()]}, "labels: expected a string a row, got object"),
        ({"split": np.array([b"train"] * 3)}, "split has 3 rows"),
        ({"split": ["train", "valid"]}, "split: expected train, val or test, got 'valid' in row 1"),
        ({"lengths": {"a": np.array([1])}}, "a_lengths has 1 rows"),
        ({"lengths": {"a": [1.0, 1.0]}}, "a_lengths: expected a whole number a row"),
        ({"features": {"a": np.ones((2, 4, 1))}, "lengths": {"a": [4, 5]}}, "expected 0 to 4, got 5 in row 1"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=f"^here: .*{message}"):
        Pairs(**{"features": {"a": np.ones((2, 1))}, "source": "here"} | arguments)


def test_labels() -> None:
    labels = Labels(np.array([2, 0, 1]), np.array([0, 2, 2, 3]), ("a", "b", "c"))
    assert len(labels) == 3 and not labels.is_single
    np.testing.assert_array_equal(labels.one_hot(), [[True, False, True], [False] * 3, [False, True, False]])
    swapped = labels.take(np.array([2, 0, 0]))
    assert swapped.indices.tolist() == [1, 2, 0, 2, 0] and swapped.indptr.tolist() == [0, 1, 3, 5]
    assert Labels.single([1, 0]).names == ("0", "1") and Labels.single([1, 0]).is_single


@pytest.mark.parametrize(
    ("indices", "indptr", "message"),
    [
        ([[0]], [0, 1], "one-dimensional"),
        ([0], [0, 2], "rise from 0"),
        ([0, 1, 7, -1], [0, 1, 3, 4], "labels out of range 0..1 in rows 1, 2"),
    ],
)
def test_labels_that_make_no_sense(indices: list, indptr: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Labels(np.array(indices), np.array(indptr), ("a", "b"))


def test_an_error_without_words_is_one_line_too() -> None:
    class Odd:
        def __array__(self, *arguments: object, **options: object) -> None:
            raise NotImplementedError

    with pytest.raises(InputError, match="not an array"):
        Pairs({"audio": Odd(), "visual": np.ones((3, 2))}, ["a", "b", "c"])

"""Parquet in and out: what others write is read, what is wrong is named, what is written comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import make_pairs
from data.test_convert import assert_same
from hscmae.cli import main
from hscmae.data.convert import convert, export
from hscmae.data.pairs import Labels, Pairs
from hscmae.data.readers import parquet as reader
from hscmae.data.readers import read
from hscmae.data.store import write_store
from hscmae.errors import InputError

arrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")


def write(to: Path, **columns: Any) -> Path:
    pq.write_table(arrow.table(columns), to)
    return to


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_comes_back_to_the_bit(tmp_path: Path, dtype: type) -> None:
    pairs = make_pairs(50)
    present = {"audio": np.arange(50) % 3 != 1, "visual": np.ones(50, dtype=bool)}
    labels = Labels(np.array([0, 2, *[1] * 48]), np.array([0, 0, 2, *range(3, 51)]), ("cat", "dog", "é", "never"))
    pairs = replace(pairs, features={m: x.astype(dtype) for m, x in pairs.features.items()}, present=present)
    for one in (pairs, replace(pairs, labels=labels), replace(pairs, labels=None, split=None)):
        export(one, tmp_path / "x.parquet", overwrite=True)
        assert_same(read(tmp_path / "x.parquet"), one)


def test_converts_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = make_pairs(300)
    export(pairs, tmp_path / "x.parquet")
    monkeypatch.setattr(reader, "BATCH_ROWS", 7)
    convert([tmp_path / "x.parquet"], tmp_path / "store")
    assert_same(read(tmp_path / "store"), pairs)
    with reader.open_table(tmp_path / "x.parquet", lambda *_: None) as table:
        for start, stop in ((40, 90), (0, 5), (5, 5), (250, 400), (3, 300)):
            np.testing.assert_array_equal(table.features["audio"][start:stop], pairs.features["audio"][start:stop])


def test_what_others_write_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.parquet",
        id=["a", "b", "c"],
        label=[["dog"], ["cat", "dog"], []],
        path=["x.wav", "y.wav", "z.wav"],
        sizes=[[1, 2], [3], []],
        audio=[[1.0, 2.0], None, [3.0, 4.0]],
        visual=arrow.array([[1.0], [2.0], [3.0]], arrow.list_(arrow.float32(), 1)),
    )
    pairs = read(path)
    assert pairs.ids.tolist() == [b"a", b"b", b"c"] and pairs.dims == {"audio": 2, "visual": 1}
    assert pairs.present["audio"].tolist() == [True, False, True] and pairs.features["audio"][2].tolist() == [3.0, 4.0]
    assert pairs.labels is not None and pairs.labels.names == ("cat", "dog")
    assert pairs.labels.indices.tolist() == [1, 0, 1] and pairs.labels.indptr.tolist() == [0, 1, 3, 3]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([2, 0, None], ("0", "1", "2")),
        (["b", "a", None], ("a", "b")),
        ([[1], [], [0]], ("0", "1")),
        ([["b", None], [None], ["a"]], ("a", "b")),
        ([[1], [None], [None, 0]], ("0", "1")),
    ],
)
def test_labels_of_any_kind(tmp_path: Path, labels: list[Any], names: tuple[str, ...]) -> None:
    pairs = read(write(tmp_path / "x.parquet", audio=[[1.0], [2.0], [3.0]], labels=labels))
    assert pairs.labels is not None and pairs.labels.names == names and len(pairs.labels.indices) == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"audio": [[1.0, 2.0], [1.0, 2.0], [3.0]]}, "audio: most rows hold 2 values, not 1 in row 2"),
        ({"audio": [[1.0, 2.0], [1.0, None]]}, "audio: values that are null in row 1"),
        ({"audio": [[1.0], [float("nan")]]}, "audio: NaN or infinite values in row 1"),
        ({"audio": arrow.array([None, None], arrow.list_(arrow.float32()))}, "audio: no row holds a vector"),
        ({"audio": [[1.0], [2.0]], "ids": ["a", ""]}, "ids: empty ids in row 1"),
        ({"audio": [[1.0], [2.0]], "ids": ["a", "a"]}, "ids: ids seen before"),
        ({"audio": [[1.0], [2.0]], "split": ["train", "tset"]}, "split: expected train, val or test in row 1"),
        ({"ids": ["a", "b"]}, "no features"),
    ],
)
def test_faults_name_file_column_and_row(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "x.parquet", **columns)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {message}") and "\n" not in str(caught.value)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    export(make_pairs(50), tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    middle = whole[:500] + bytes(20) + whole[520:]
    for damaged in (whole[:100], whole[:-1], middle, b"PAR1", b"PAR1" * 20):
        (tmp_path / "x.parquet").write_bytes(damaged)
        with pytest.raises(InputError, match=r"x\.parquet"):
            read(tmp_path / "x.parquet")


def test_what_parquet_cannot_hold_is_refused(tmp_path: Path) -> None:
    steps = Pairs({"audio": np.ones((3, 2, 4), np.float32)}, lengths={"audio": np.array([1, 2, 2])})
    with pytest.raises(InputError, match=r"not sequences of audio"):
        export(steps, tmp_path / "x.parquet")
    with pytest.raises(InputError, match="not UTF-8"):
        export(Pairs({"audio": np.ones((1, 2), np.float32)}, np.array([b"\xff"])), tmp_path / "x.parquet")
    assert not list(tmp_path.iterdir())


def test_the_verbs(tmp_path: Path, pairs: Pairs, capsys: pytest.CaptureFixture[str]) -> None:
    from hscmae import PCA

    write_store(pairs, tmp_path / "data")
    model = PCA(dim=4).fit(pairs)
    model.save(tmp_path / "run")
    assert main(["convert", str(tmp_path / "data"), "--output", str(tmp_path / "x.parquet")]) == 0
    assert main(["inspect", str(tmp_path / "x.parquet")]) == 0
    files = [str(tmp_path / name) for name in ("run", "x.parquet", "z.parquet")]
    assert main(["embed", *files[:2], "--output", files[2]]) == 0
    np.testing.assert_array_equal(
        np.stack(pq.read_table(tmp_path / "z.parquet")["audio"].to_numpy()), model.embed_pairs(pairs)["audio"]
    )
    assert main(["convert", str(tmp_path / "data"), "--output", str(tmp_path / "x.parquet")]) == 2

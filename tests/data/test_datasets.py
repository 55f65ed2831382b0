"""Saved Hugging Face datasets, written here as that library writes them (checked against its 5.2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hscmae.cli import main
from hscmae.data.convert import convert
from hscmae.data.readers import read
from hscmae.errors import InputError

arrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")


def described(features: dict[str, Any]) -> dict[bytes, bytes]:
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def save(to: Path, shards: int = 1, about: dict[str, Any] | None = None, **columns: Any) -> Path:
    """One split: ``shards`` Arrow streams and a list of them."""
    table = arrow.table(columns).replace_schema_metadata(described(about or {}))
    to.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    edges = np.linspace(0, len(table), shards + 1).astype(int)
    for name, start, stop in zip(names, edges[:-1], edges[1:], strict=True):
        with arrow.ipc.new_stream(to / name, table.schema) as writer:
            writer.write_table(table.slice(start, stop - start), max_chunksize=4)
    (to / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (to / "dataset_info.json").write_text("{}")
    return to


def columns(n: int, first: int = 0) -> dict[str, Any]:
    x = np.random.default_rng(first).normal(size=(n, 3)).astype(np.float32)
    vectors = [None if i == 1 else row.tolist() for i, row in enumerate(x)]
    return {
        "id": [f"clip{first + i}" for i in range(n)],
        "audio": arrow.array(vectors, arrow.list_(arrow.float32())),
        "visual": arrow.array(x[:, :2].tolist(), arrow.list_(arrow.float32(), 2)),
        "label": [i % 2 for i in range(n)],
        "path": ["x.wav"] * n,
    }


ABOUT = {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}


@pytest.mark.parametrize("shards", [1, 3])
def test_shards_are_one_table(tmp_path: Path, shards: int) -> None:
    pairs = read(save(tmp_path / "x", shards, ABOUT, **columns(11)))
    assert pairs.ids.tolist() == [b"clip%d" % i for i in range(11)] and pairs.dims == {"audio": 3, "visual": 2}
    assert pairs.present["audio"].tolist() == [i != 1 for i in range(11)]
    assert pairs.labels is not None and pairs.labels.names == ("dog", "cat")
    assert pairs.labels.indices.tolist() == [i % 2 for i in range(11)] and pairs.split is None
    assert pairs.features["visual"][3].tolist() == columns(11)["visual"][3].as_py()


def test_splits_of_a_dataset_are_the_split(tmp_path: Path) -> None:
    for first, (split, n) in enumerate({"train": 5, "validation": 3, "test": 2}.items()):
        save(tmp_path / "x" / split, 1, ABOUT, **columns(n, 100 * first))
    (tmp_path / "x" / "dataset_dict.json").write_text('{"splits": ["train", "validation", "test"]}')
    assert main(["convert", str(tmp_path / "x"), "--output", str(tmp_path / "store")]) == 0
    pairs = read(tmp_path / "store")
    assert pairs.split is not None and pairs.split.tolist() == [b"train"] * 5 + [b"val"] * 3 + [b"test"] * 2
    assert pairs.ids[5] == b"clip100"


def test_names_of_several_labels_a_clip(tmp_path: Path) -> None:
    about = {"labels": {"feature": {"names": ["a", "b", "c"], "_type": "ClassLabel"}, "_type": "List"}}
    pairs = read(save(tmp_path / "x", 1, about, audio=[[1.0], [2.0]], labels=[[0, 2], []]))
    assert pairs.labels is not None and pairs.labels.names == ("a", "b", "c")
    assert pairs.labels.indptr.tolist() == [0, 2, 2]


@pytest.mark.parametrize(
    "about", [{}, {"label": None}, {"label": {"names": "dog"}}, {"label": {"feature": 3}}, {"other": {"names": ["a"]}}]
)
def test_descriptions_that_say_nothing_leave_numbers(tmp_path: Path, about: dict[str, Any]) -> None:
    pairs = read(save(tmp_path / "x", 1, about, **columns(4)))
    assert pairs.labels is not None and pairs.labels.names == ("0", "1")


def test_it_need_not_fit_into_memory(tmp_path: Path) -> None:
    save(tmp_path / "x", 4, ABOUT, **columns(50))
    convert([tmp_path / "x"], tmp_path / "store")
    np.testing.assert_array_equal(read(tmp_path / "store").features["visual"], read(tmp_path / "x").features["visual"])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ('{"_data_files": []}', "damaged: no list '_data_files'"),
        ("{", "damaged: no list '_data_files'"),
        ('{"_data_files": [{"filename": "../secret"}]}', "names '../secret', which is no file beside it"),
        ('{"_data_files": [{"name": "x"}]}', "names None, which is no file beside it"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "no such file, which state.json beside it names"),
    ],
)
def test_a_list_that_is_wrong_is_one_line(tmp_path: Path, state: str, message: str) -> None:
    save(tmp_path / "x", 1, ABOUT, **columns(4))
    (tmp_path / "x" / "state.json").write_text(state)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "x")


def test_a_state_of_something_else_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    for m in ("audio", "visual"):
        np.save(tmp_path / f"{m}.npy", np.ones((5, 2), np.float32))
    assert len(read(tmp_path)) == 5


def test_splits_that_differ_are_named(tmp_path: Path) -> None:
    save(tmp_path / "x" / "train", 1, ABOUT, **columns(4))
    save(tmp_path / "x" / "test", 1, ABOUT, audio=[[1.0]])
    (tmp_path / "x" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(InputError, match="its columns are not those of"):
        read(tmp_path / "x")

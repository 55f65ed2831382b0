"""WebDataset shards: what lies in them is read where it lies, what is wrong is named."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.test_convert import assert_same
from hscmae.cli import main
from hscmae.data.convert import convert
from hscmae.data.readers import read
from hscmae.errors import InputError


def npy(x: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(x), allow_pickle=True)
    return buffer.getvalue()


def shard(to: Path, files: dict[str, bytes]) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(to, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return to


def samples(first: int, n: int) -> dict[str, bytes]:
    """Clips with a vector and a sequence; the second of them has no sound, and each its class."""
    files: dict[str, bytes] = {}
    for i in range(first, first + n):
        if i != first + 1:
            files[f"clip{i}.audio.npy"] = npy(np.full(3, i, np.float32))
        files[f"clip{i}.visual.npy"] = npy(np.full((1 + i % 3, 2), i, np.float16))
        files[f"clip{i}.cls"] = b"%d" % (i % 2)
        files[f"clip{i}.jpg"] = b"not looked at"
    return files


def test_a_folder_of_shards_is_one_table(tmp_path: Path) -> None:
    for number, split in enumerate(("train-000000", "train-000001", "val-000000", "test_0")):
        shard(tmp_path / "x" / f"{split}.tar", samples(10 * number, 4))
    pairs = read(tmp_path / "x")
    order = [30, 0, 10, 20]  # by the names of the shards
    assert pairs.ids.tolist() == [b"clip%d" % (first + i) for first in order for i in range(4)]
    assert pairs.split is not None and pairs.split.tolist() == [b"test"] * 4 + [b"train"] * 8 + [b"val"] * 4
    assert pairs.present["audio"].tolist() == [i != 1 for _ in order for i in range(4)]
    assert pairs.features["audio"][2].tolist() == [32.0] * 3
    assert pairs.lengths["visual"].tolist() == [1 + (first + i) % 3 for first in order for i in range(4)]
    assert pairs.features["visual"].dtype == np.float16 and pairs.features["visual"].shape == (16, 3, 2)
    assert pairs.labels is not None and pairs.labels.names == ("0", "1")
    assert pairs.labels.indices.tolist() == [i % 2 for _ in order for i in range(4)]
    convert([tmp_path / "x"], tmp_path / "store")
    assert_same(read(tmp_path / "store"), pairs)


def test_one_shard_with_notes_in_json(tmp_path: Path) -> None:
    files = {f"a/{i}.{m}.npy": npy([float(i), 1.0]) for i in range(3) for m in ("audio", "visual")}
    for i, note in enumerate([{"labels": ["dog", "cat"], "split": "train"}, {"label": "cat", "split": "validation"}]):
        files[f"a/{i}.json"] = json.dumps(note).encode()
    files["a/2.json"] = b'{"split": "test", "caption": "a cat"}'
    pairs = read(shard(tmp_path / "x.tar", files))
    assert pairs.ids.tolist() == [b"a/0", b"a/1", b"a/2"]
    assert pairs.split is not None and pairs.split.tolist() == [b"train", b"val", b"test"]
    assert pairs.labels is not None and pairs.labels.names == ("cat", "dog")
    assert (pairs.labels.indices.tolist(), pairs.labels.indptr.tolist()) == ([1, 0, 0], [0, 2, 3, 3])


def test_names_of_any_bytes(tmp_path: Path) -> None:
    files = {f"cl\udcffip{i}.{m}.npy": npy([float(i), 1.0]) for i in range(2) for m in ("audio", "visual")}
    assert read(shard(tmp_path / "x.tar", files)).ids.tolist() == [b"cl\xffip0", b"cl\xffip1"]


FAULTS: list[tuple[dict[str, bytes], str]] = [
    ({"a.jpg": b"x"}, "no features"),
    ({"a.audio.npy": npy(np.array([{}], dtype=object))}, "a.audio.npy: holds pickled objects"),
    ({"a.audio.npy": npy([1.0, 2.0])[:-9]}, "a.audio.npy: damaged or cut short"),
    ({"a.audio.npy": b"no array"}, "a.audio.npy: damaged or cut short"),
    ({"a.audio.npy": npy([1, 2])}, "audio: a.npy holds int64"),
    ({"a.audio.npy": npy([1.0]), "b.audio.npy": npy([1.0, 2.0])}, "audio: b.npy holds float64"),
    ({"a.audio.npy": npy([1.0]), "a.cls": b"dog"}, "'a.cls': expected a class number"),
    ({"a.audio.npy": npy([1.0]), "a.cls": b"99999999999"}, "'a.cls': labels are class numbers or names"),
    ({"a.audio.npy": npy([1.0]), "a.json": b"{"}, "'a.json': expected JSON"),
    ({"a.audio.npy": npy([1.0]), "a.json": b'{"labels": [true]}'}, "'a.json': labels are class numbers or names"),
    ({"a.audio.npy": npy([1.0]), "a.json": b'{"split": "tset"}'}, "split: expected train, val or test in row 0"),
]


@pytest.mark.parametrize(("files", "message"), FAULTS)
def test_faults_name_shard_and_file(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    path = shard(tmp_path / "x.tar", files)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_met_twice_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        shard(tmp_path / "x" / f"{name}.tar", {"clip.audio.npy": npy([1.0])})
    with pytest.raises(InputError, match=r"b\.tar: 'clip\.audio\.npy' was met before"):
        read(tmp_path / "x")


def test_a_shard_cut_short_is_one_line(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", {f"a{i}.audio.npy": npy(np.ones(900)) for i in range(3)})
    whole = path.read_bytes()
    for kept in (600, 9000, 16384, 16500):
        path.write_bytes(whole[:kept])
        with pytest.raises(InputError, match=r"x\.tar: "):
            read(path)


def test_links_in_a_shard_lead_nowhere(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", {"a.audio.npy": npy([1.0])})
    np.save(tmp_path / "secret.npy", np.ones(1))
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("a.visual.npy")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.npy")
        tar.addfile(link)
    assert read(path).modalities == ("audio",)


def test_a_tar_beside_arrays_is_not_looked_at(tmp_path: Path) -> None:
    shard(tmp_path / "x" / "backup.tar", samples(0, 3))
    for m in ("audio", "visual"):
        np.save(tmp_path / "x" / f"{m}.npy", np.ones((5, 2), np.float32))
    assert len(read(tmp_path / "x")) == 5


def test_the_verbs(tmp_path: Path) -> None:
    shard(tmp_path / "x.tar", samples(0, 9))
    assert main(["inspect", str(tmp_path / "x.tar")]) == 0
    assert main(["convert", str(tmp_path / "x.tar"), "--output", str(tmp_path / "x.npz")]) == 0
    assert_same(read(tmp_path / "x.npz"), read(tmp_path / "x.tar"))

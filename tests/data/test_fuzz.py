"""Damaged files of every format: data or one clear line, never a traceback, a hang or a crash."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from data import test_datasets, test_webdataset
from hscmae.data.convert import export
from hscmae.data.inspect import inspect_file
from hscmae.data.pairs import Labels, Pairs
from hscmae.data.readers import read
from hscmae.data.readers.tfrecord import masked_crc32c
from hscmae.data.store import write_store
from hscmae.errors import InputError

SECONDS = 20.0  # far beyond what any of these small files takes


def some_pairs() -> Pairs:
    rng = np.random.default_rng(0)
    n = 12
    indptr = np.concatenate([[0], np.cumsum(rng.integers(0, 3, n))]).astype(np.int64)
    return Pairs(
        {"audio": rng.normal(size=(n, 3)).astype(np.float32), "visual": rng.normal(size=(n, 2, 4)).astype(np.float16)},
        ids=np.array([f"clip{i}" for i in range(n)], dtype=np.bytes_),
        present={"audio": rng.random(n) < 0.8},
        labels=Labels(rng.integers(0, 3, indptr[-1]), indptr, ("a", "b", "c")),
        split=np.array([b"train"] * 8 + [b"test"] * 4),
    )


def published(path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, n in (("train", 9), ("test", 4)):
            packed = {"chunks": (3, 5), "compression": "gzip", "shuffle": True, "fletcher32": True}
            file.create_dataset(f"audio_{split}", data=rng.normal(size=(n, 5)), **packed)
            file[f"visual_{split}"] = rng.normal(size=(n, 7)).astype(np.float32)
            file[f"lab_{split}"] = np.eye(3)[np.arange(n) % 3]
            file[f"ids_{split}"] = [f"{split}-clip-{i}" for i in range(n)]
        file.attrs["class_names"] = ["dog", "cat", "bird"]


def ave(path: Path) -> None:
    path.mkdir()
    rng = np.random.default_rng(0)
    arrays = {
        "audio_feature": rng.normal(size=(4, 3, 5)), "visual_feature": rng.normal(size=(4, 3, 2, 2, 5)),
        "labels": np.eye(4)[rng.integers(0, 4, (4, 3))], "train_order": [0, 3], "val_order": [1], "test_order": [2],
    }  # fmt: skip
    for name, array in arrays.items():
        with h5py.File(path / f"{name}.h5", "w") as file:
            file["order" if "order" in name else "avadataset"] = array
    (path / "Annotations.txt").write_text("".join(f"Class{i % 2}&video{i}&good&0&10\n" for i in range(4)))


def clips(path: Path) -> None:
    for m, d in (("audio", 3), ("visual", 4)):
        (path / m).mkdir(parents=True)
        for i in range(4):
            np.save(path / m / f"clip{i}.npy", np.ones((i + 1, d), np.float32) * i)


def dataset(path: Path) -> None:
    test_datasets.save(path, 2, test_datasets.ABOUT, **test_datasets.columns(12))


def field(number: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content


def entry(key: bytes, value: bytes) -> bytes:
    return field(1, field(1, key), field(2, value))


def video(i: int) -> bytes:
    """A YouTube-8M ``Example``: id, labels, two float vectors."""
    vectors = [
        entry(key, field(2, field(1, np.full(n, i, "<f4").tobytes())))
        for key, n in ((b"mean_rgb", 6), (b"mean_audio", 3))
    ]
    return field(
        1, entry(b"id", field(1, field(1, b"clip%d" % i))), entry(b"labels", field(3, field(1, bytes([i])))), *vectors
    )


def frames(i: int) -> bytes:
    """A YouTube-8M ``SequenceExample``: id, and bytes a frame."""
    lists = [
        entry(key, b"".join(field(1, field(1, field(1, bytes(n)))) for _ in range(i + 1)))
        for key, n in ((b"rgb", 6), (b"audio", 3))
    ]
    return field(1, entry(b"video_id", field(1, field(1, b"clip%d" % i)))) + field(2, *lists)


def record(data: bytes) -> bytes:
    length = len(data).to_bytes(8, "little")
    return length + masked_crc32c(length).to_bytes(4, "little") + data + masked_crc32c(data).to_bytes(4, "little")


def mend(data: bytes) -> bytes:
    """Records' checksums made right again, so that the damage reaches the parser."""
    at, mended = 0, b""
    while at + 12 < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        mended += record(data[at + 12 : at + 12 + length])
        at += 16 + length
    return mended


MAKERS: dict[str, Callable[[Path], object]] = {
    "published.h5": published,
    "plain.h5": lambda path: export(Pairs(some_pairs().features, labels=some_pairs().labels), path),
    "exported.h5": lambda path: export(some_pairs(), path),
    "plain.npz": lambda path: export(some_pairs(), path),
    "packed.npz": lambda path: np.savez_compressed(path, audio=np.ones((9, 3)), labels=np.arange(9)),
    "folder": lambda path: export(some_pairs(), path),
    "clips": clips,
    "store": lambda path: write_store(some_pairs(), path),
    "dataset": dataset,
    "shard.tar": lambda path: test_webdataset.shard(path, test_webdataset.samples(0, 9)),
    "plain.parquet": lambda path: export(some_pairs().pooled(), path),
    "ave": ave,
    "video.tfrecord": lambda path: path.write_bytes(b"".join(record(video(i)) for i in range(5))),
    "frames.tfrecord": lambda path: path.write_bytes(b"".join(record(frames(i)) for i in range(5))),
    "checked.tfrecord": lambda path: path.write_bytes(b"".join(record(video(i)) for i in range(5))),
}


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to four changes of the kinds that disks, networks and people make."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4])):
        at = chance.randrange(len(changed) + 1)
        span = chance.choice([1, 2, 4, 8, 64, 512])
        match chance.randrange(8):
            case 0:
                del changed[at:]
            case 1:
                del changed[at : at + span]
            case 2:
                changed[at:at] = chance.randbytes(span)
            case 3:
                changed[at : at + span] = bytes(len(changed[at : at + span]))
            case 4:
                changed[at : at + span] = b"\xff" * len(changed[at : at + span])
            case 5:
                changed[at : at + span] = chance.randbytes(len(changed[at : at + span]))
            case _:
                for _ in range(span):
                    if changed:
                        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def attempt(path: Path) -> None:
    """Read and inspect a damaged file: anything but an ``InputError`` of one line fails the test."""
    started = time.monotonic()
    try:
        pairs = read(path)
        for m in pairs.modalities:
            pairs.features[m].tobytes()
        pairs.take(np.arange(len(pairs)))
    except InputError as error:
        assert str(error) and "\n" not in str(error)
        assert str(path) in str(error)
    inspected = inspect_file(path)
    assert inspected.ok or all(p.message and "\n" not in p.message for p in inspected.problems)
    assert time.monotonic() - started < SECONDS


def fuzz(folder: Path, cases: int, seed: int) -> None:
    chance = random.Random(seed)
    originals = {name: folder / "whole" / name for name in MAKERS}
    (folder / "whole").mkdir()
    for name, make in MAKERS.items():
        make(originals[name])
        read(originals[name])
    for case in range(cases):
        name = chance.choice(list(MAKERS))
        path = folder / f"{case}-{name}"
        if originals[name].is_dir():
            shutil.copytree(originals[name], path)
            files = sorted(file for file in path.rglob("*") if file.is_file())
            victim = chance.choice(files)
        else:
            victim = path
            shutil.copy(originals[name], path)
        damaged = mutate(victim.read_bytes(), chance)
        victim.write_bytes(mend(damaged) if name == "checked.tfrecord" else damaged)
        try:
            attempt(path)
        except BaseException:
            print(f"case {case} of seed {seed}: {victim}")  # kept by pytest for a look
            raise
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_three_hundred_damaged_files(tmp_path: Path) -> None:
    fuzz(tmp_path, 300, seed=0)


@pytest.mark.long
def test_ten_thousand_damaged_files(tmp_path: Path) -> None:
    fuzz(tmp_path, 10_000, seed=1)

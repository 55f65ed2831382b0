"""WebDataset shards: tar files in which the files of one sample follow each other and share a key.

``clip1.audio.npy``, ``clip1.visual.npy`` are the modalities ``audio`` and ``visual`` of the clip ``clip1``;
``clip1.cls`` is its class number, and ``clip1.json`` may hold ``label`` or ``labels`` and ``split``. Other files are
left alone. A folder of shards is read in the order of their names; shards whose names begin with train, val or test
are that split. Arrays are read out of the shards where they lie, which must not be compressed.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hscmae.data.npyfile import NpyArray
from hscmae.data.pairs import SPLITS, Labels
from hscmae.data.readers import clips
from hscmae.data.readers.layouts import MAX_CLASSES
from hscmae.data.table import Problem, Report, Table
from hscmae.errors import InputError, first_line

MAGIC, MAGIC_AT = b"ustar", 257
MAX_NOTE_BYTES = 1 << 20  # of a .cls or .json file
LONG_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}


def matches(path: Path) -> bool:
    """Whether it is a tar file, or a folder of them."""
    return bool(_shards(path))


def open_table(path: Path, report: Report) -> Table:
    """Open the shards: all their headers are read, no values.

    Raises:
        InputError: damaged, or without arrays; else as ``report`` decides.
    """
    found: dict[str, dict[str, NpyArray]] = {}
    notes: dict[str, dict[str, Any]] = {}  # clip -> label, split
    for shard in _shards(path):
        try:
            _read_shard(shard, found, notes)
        except tarfile.TarError as error:
            raise InputError(f"{shard}: damaged or cut short ({first_line(error)[:160]})") from error
    if not found:
        raise InputError(f"{path}: no features (expected files like clip1.audio.npy in the shards)")
    names = [clip for clip in notes if any(clip in of_modality for of_modality in found.values())]
    result = clips.table(str(path), "WebDataset", names, dict(sorted(found.items())), report)
    result.labels = _labels([notes[clip].get("labels") for clip in names])
    splits = [notes[clip].get("split") for clip in names]
    if any(split is not None for split in splits):
        bad = tuple(row for row, split in enumerate(splits) if split not in SPLITS)
        if bad:
            report(str(path), Problem("split-values", "split", "expected train, val or test", bad))
        else:
            result.split = np.array([str(split).encode() for split in splits])
    return result


def _shards(path: Path) -> list[Path]:
    files = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    return [file for file in files if _is_tar(file)]


def _is_tar(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC


def _read_shard(shard: Path, found: dict[str, dict[str, NpyArray]], notes: dict[str, dict[str, Any]]) -> None:
    """Add a shard's arrays and notes by clip."""
    whole, own = shard.stat().st_size, _split(shard.name.split("-")[0].split("_")[0].split(".")[0])
    with tarfile.open(shard, "r:") as tar:
        end = 0
        for member in tar:
            end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            folder, _, base = member.name.rpartition("/")
            stem, _, ending = base.partition(".")
            if not member.isfile() or not stem or not ending:
                continue
            if member.offset_data + member.size > whole:
                raise InputError(f"{shard}: cut short in {member.name!r}")
            clip = f"{folder}/{stem}" if folder else stem
            note = notes.setdefault(clip, {"split": own if own in SPLITS else None})
            if ending.endswith(".npy"):
                array = NpyArray(shard, member.offset_data, member.size, member.name)
                if found.setdefault(ending.removesuffix(".npy"), {}).setdefault(clip, array) is not array:
                    raise InputError(f"{shard}: {member.name!r} was met before")
            elif ending in ("cls", "json") and member.size <= MAX_NOTE_BYTES:
                opened = tar.extractfile(member)
                assert opened is not None
                note.update(_note(ending, opened.read(), f"{shard}: {member.name!r}"))
    with shard.open("rb") as file:  # tarfile takes a header that is cut for the end
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise InputError(f"{shard}: damaged or cut short: no end of the archive")


def _note(ending: str, text: bytes, name: str) -> dict[str, Any]:
    """Labels, a list, and split that a file beside the arrays gives, those that it gives."""
    try:
        said = json.loads(text)  # a class number is JSON too
    except ValueError:
        raise InputError(f"{name}: expected {'a class number' if ending == 'cls' else 'JSON'}") from None
    if ending == "cls":
        said = {"label": said}
    if not isinstance(said, dict):
        return {}
    note: dict[str, Any] = {}
    labels = said.get("labels", said.get("label"))
    if labels is not None:
        note["labels"] = labels if isinstance(labels, list) else [labels]
        if not all((type(one) is str and one) or (type(one) is int and one < MAX_CLASSES) for one in note["labels"]):
            raise InputError(f"{name}: labels are class numbers or names, got {json.dumps(labels)[:80]}")
    if "split" in said:
        note["split"] = _split(str(said["split"]))
    return note


def _split(word: str) -> str:
    word = word.strip().lower()
    return LONG_NAMES.get(word, word)


def _labels(rows: Sequence[list[str | int] | None]) -> Labels | None:
    """Labels of all clips; class numbers are named for themselves."""
    if all(row is None for row in rows):
        return None
    flat = [one for row in rows for one in row or []]
    if all(isinstance(one, int) and one >= 0 for one in flat):
        names = [str(number) for number in range(max(map(int, flat), default=-1) + 1)]
    else:
        names = sorted(set(map(str, flat)))
    number = {name: place for place, name in enumerate(names)}
    indices = np.array([number[str(one)] for one in flat], dtype=np.int64)
    return Labels(indices, np.cumsum([0, *(len(row or []) for row in rows)]), tuple(names))

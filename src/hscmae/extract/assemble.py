"""From finished recordings to a store: rows in the order of ids and times, ``media.csv`` and ``sources.csv`` beside.

``media.csv`` has a line for each row (``id,audio,visual,start,end,problem``; paths relative to the folder that was
named, times in seconds) and one for each recording that gave none. ``sources.csv`` has what tells whether a file
changed (``id,modality,path,size,changed``). Both are UTF-8 where names are; bytes of names that are not stay as they
are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import Labels, Pairs
from hscmae.data.store import StoreWriter, open_store, read_extra
from hscmae.errors import InputError
from hscmae.extract.spool import Recording, Row, Rows
from hscmae.extract.windows import recording_of, seconds, window_id

MEDIA, SOURCES = "media.csv", "sources.csv"
MEDIA_COLUMNS = ("id", "audio", "visual", "start", "end", "problem")
SOURCE_COLUMNS = ("id", "modality", "path", "size", "changed")
BLOCK_ROWS = 256

Float = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """Recordings and where their features are: rows of ``arrays`` (rows, dim) by modality."""

    recordings: Mapping[str, Recording]
    arrays: Mapping[str, Float]


def write(
    output: Path,
    sources: Sequence[Source],
    recipe: Mapping[str, Any],
    modalities: Sequence[str],
    labels: ClipLabels | None,
    *,
    overwrite: bool,
) -> Pairs:
    """Write a store of all recordings of ``sources``.

    Raises:
        InputError: no rows at all, or ``output`` is there and ``overwrite`` is not set.
    """
    with StoreWriter(output, overwrite=overwrite, source="media files", recipe=recipe) as writer:
        for block in blocks(sources, modalities, labels):
            writer.append(block)
        everything = [recording for source in sources for recording in source.recordings.values()]
        if not writer.rows:
            raise InputError(f"none of the {len(everything)} clips can be read")
        everything.sort(key=lambda recording: recording.key)
        writer.extra[MEDIA] = media_csv(everything)
        writer.extra[SOURCES] = sources_csv(everything)
    return open_store(output)


def blocks(sources: Sequence[Source], modalities: Sequence[str], labels: ClipLabels | None) -> Iterator[Pairs]:
    """All rows in the order of ids and times, ``BLOCK_ROWS`` at a time.

    A modality of sequences has shape (n, t, d) with t the steps of the longest window, or (n, d) where that is one.
    """
    rows = sorted(
        (
            (recording.key, row.start, row, source, len(recording.rows) == 1)
            for source in sources
            for recording in source.recordings.values()
            for row in recording.rows
        ),
        key=lambda entry: entry[:2],
    )
    most: dict[str, int] = {}
    for _, _, row, _, _ in rows:
        for m, at in row.features.items():
            most[m] = max(most.get(m, 0), at.steps)
    kept = [m for m in modalities if m in most]
    for first in range(0, len(rows), BLOCK_ROWS):
        block = rows[first : first + BLOCK_ROWS]
        features, present, lengths = {}, {}, {}
        for m in kept:
            dim = sources[0].arrays[m].shape[1]
            x = np.zeros((len(block), most[m], dim), np.float32)  # (rows, steps, dim)
            length = np.zeros(len(block), np.int64)
            for place, (_, _, row, source, _) in enumerate(block):
                if m in row.features:
                    first_step, steps = row.features[m].first, row.features[m].steps
                    x[place, :steps] = source.arrays[m][first_step : first_step + steps]
                    length[place] = steps
            present[m] = length > 0
            if most[m] > 1:
                features[m], lengths[m] = x, length
            else:
                features[m] = x[:, 0]
        ids = [window_id(key, row.start, row.end, whole=whole) for key, _, row, _, whole in block]
        pairs = Pairs(features, np.array(ids, np.bytes_), present, lengths=lengths, source="media files")
        yield pairs if labels is None else labels.applied(pairs)


def media_csv(recordings: Iterable[Recording]) -> bytes:
    """The file ``media.csv``, its recordings in the order given."""
    lines = []
    for recording in recordings:
        paths = [recording.files[m][0] if m in recording.files else "" for m in ("audio", "visual")]
        problem = "; ".join(f"{m}: {text}" for m, text in recording.problems)
        for number, row in enumerate(recording.rows):
            name = window_id(recording.key, row.start, row.end, whole=len(recording.rows) == 1)
            times = [seconds(row.start), seconds(row.end)] if row.end > row.start else ["", ""]  # a picture has none
            lines.append([_text(name), *paths, *times, "" if number else problem])
        if not recording.rows:
            lines.append([recording.id, *paths, "", "", problem])
    return _csv(MEDIA_COLUMNS, lines)


def sources_csv(recordings: Iterable[Recording]) -> bytes:
    """The file ``sources.csv``, its recordings in the order given."""
    return _csv(SOURCE_COLUMNS, [[r.id, m, *file] for r in recordings for m, file in r.files.items()])


def read_media(store: Path) -> list[dict[str, str]]:
    """The lines of a store's ``media.csv``; empty where it has none.

    Raises:
        InputError: the file was changed or damaged.
    """
    return _lines(store, MEDIA, MEDIA_COLUMNS)


def old_recordings(store: Path) -> Source:
    """The recordings of a store that ``extract`` wrote, their features memory-mapped.

    Raises:
        InputError: not such a store.
    """
    media, files = read_media(store), _lines(store, SOURCES, SOURCE_COLUMNS)
    if not media:
        raise InputError(f"{store}: has no {MEDIA}: it was not written by extract, so it cannot be updated")
    pairs = open_store(store)
    place = {name: row for row, name in enumerate(pairs.ids.tolist())}
    arrays = {m: np.asanyarray(x).reshape(-1, x.shape[-1]) for m, x in pairs.features.items()}
    steps = {m: x.shape[1] if x.ndim == 3 else 1 for m, x in pairs.features.items()}
    rows: dict[str, list[Row]] = {}
    problems: dict[str, tuple[tuple[str, str], ...]] = {}
    for line in media:
        number = place.get(_bytes(line["id"]))
        name = line["id"] if number is None else _text(recording_of(_bytes(line["id"])))
        rows.setdefault(name, [])
        if line["problem"]:
            parts = (part.partition(": ") for part in re.split("; (?=audio: |visual: )", line["problem"]))
            problems[name] = tuple((m, text) for m, _, text in parts)
        if number is None:
            continue
        found = {
            m: Rows(number * steps[m], int(pairs.lengths[m][number]) if m in pairs.lengths else 1)
            for m in arrays
            if pairs.present[m][number]
        }
        rows[name].append(Row(float(line["start"] or 0), float(line["end"] or 0), found))
    states: dict[str, dict[str, tuple[str, int, int]]] = {}
    for line in files:
        states.setdefault(line["id"], {})[line["modality"]] = (line["path"], int(line["size"]), int(line["changed"]))
    return Source(
        {
            name: Recording(name, states.get(name, {}), tuple(found), problems.get(name, ()))
            for name, found in rows.items()
        },
        arrays,
    )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _csv(columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    return file.getvalue().encode("utf-8", "surrogateescape")


def _lines(store: Path, name: str, columns: Sequence[str]) -> list[dict[str, str]]:
    content = read_extra(store, name)
    if content is None:
        return []
    reader = csv.DictReader(io.StringIO(content.decode("utf-8", "surrogateescape"), newline=""))
    if tuple(reader.fieldnames or ()) != tuple(columns):
        raise InputError(f"{store / name}: expected the columns {','.join(columns)}")
    return list(reader)


# ------------------------------------------------------------------------------------------------------------- labels


class ClipLabels:
    """Labels, and a split, of recordings from a CSV file; a window has those of its recording.

    Args:
        path: columns ``id``, ``label`` (or ``kind``) and, where wanted, ``split``; an id may have several lines.

    Raises:
        InputError: cannot be read, other columns, or a split that is none.
    """

    def __init__(self, path: Path) -> None:
        try:
            text = path.read_bytes().decode("utf-8", "surrogateescape")
            reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
            lines, columns = list(reader), reader.fieldnames or []
        except (OSError, csv.Error) as error:
            raise InputError(f"{path}: cannot be read ({error})") from error
        kind = next((name for name in ("label", "kind") if name in columns), None)
        if "id" not in columns or (kind is None and "split" not in columns):
            raise InputError(f"{path}: expected the columns id, label and perhaps split, got {', '.join(columns)}")
        self.path = path
        self.names: tuple[str, ...] = tuple(sorted({line[kind] for line in lines if line[kind]})) if kind else ()
        number = {name: k for k, name in enumerate(self.names)}
        self._classes: dict[bytes, set[int]] = {}
        self._split: dict[bytes, bytes] | None = {} if "split" in columns else None
        for line in lines:
            key = _bytes(line["id"])
            classes = self._classes.setdefault(key, set())
            if kind and line[kind]:
                classes.add(number[line[kind]])
            if self._split is not None:
                if line["split"] not in ("train", "val", "test"):
                    raise InputError(f"{path}: {line['id']}: split must be train, val or test, got {line['split']!r}")
                self._split[key] = line["split"].encode()

    def require_some(self, recordings: Iterable[bytes]) -> None:
        """Refuse labels of other clips than these.

        Raises:
            InputError: none of the recordings has a line.
        """
        ids = list(recordings)
        if ids and not any(name in self._classes for name in ids):
            raise InputError(f"{self.path}: none of its ids is among the media, as {_text(ids[0])!r} is")
        missing = [name for name in ids if self._split is not None and name not in self._split]
        if missing:
            raise InputError(f"{self.path}: no split for {_text(missing[0])!r} and {len(missing) - 1} more")

    def applied(self, pairs: Pairs) -> Pairs:
        """The same rows with labels, and a split where the file has one."""
        recordings = [recording_of(name) for name in pairs.ids.tolist()]
        found = [sorted(self._classes.get(name, ())) for name in recordings]
        indptr = np.cumsum([0, *map(len, found)], dtype=np.int64)
        indices = np.array([k for row in found for k in row], np.int64)
        labels = Labels(indices, indptr, self.names) if self.names else None
        split = None if self._split is None else np.array([self._split[name] for name in recordings], np.bytes_)
        return replace(pairs, labels=labels, split=split)

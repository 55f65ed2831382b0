"""YouTube-8M TFRecord, without TensorFlow: one vector a video (``mean_audio``, ``mean_rgb``) or one a frame.

A TFRecord file is a run of records: length (8 bytes), masked CRC32C of the length, data, masked CRC32C of the data.
The data is a protobuf ``Example`` or ``SequenceExample``, of which this module reads the few fields there are. Frames
are bytes quantised to [-2, 2]. Opening reads the file once (checksums, ids, labels); features are read as asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import Labels
from hscmae.data.table import Problem, Report, Table
from hscmae.files import first_bytes

NAMES = {"mean_rgb": "visual", "mean_audio": "audio", "rgb": "visual", "audio": "audio"}
ID_KEYS = ("id", "video_id")
MAX_RECORD_BYTES = 2**30
QUANTISED_MIN, QUANTISED_MAX = -2.0, 2.0


def matches(path: Path) -> bool:
    """Whether the file starts with a record header whose checksum is right."""
    header = first_bytes(path, 12)
    return len(header) == 12 and masked_crc32c(header[:8]) == int.from_bytes(header[8:], "little")


def open_table(path: Path, report: Report) -> Table:
    """Open the file, checking every record.

    Raises:
        InputError: no record can be read; else as ``report`` decides.
    """
    source = str(path)
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        spans, ids, labels = [], [], []
        shapes: dict[str, list[tuple[int, ...] | None]] = {}
        for row, (start, data) in enumerate(_records(file, path.stat().st_size, source, report)):
            try:
                context, features = parse(data)
            except (ValueError, IndexError, struct.error) as error:
                report(source, Problem("damaged", "", f"not a protobuf example ({error})", (row,)))
                continue
            spans.append((start, len(data)))
            ids.append(next((context[key][0] for key in ID_KEYS if context.get(key)), b""))
            labels.append(np.unique(np.asarray(context.get("labels", []), dtype=np.int64)))
            for m, x in features.items():
                shapes.setdefault(m, [None] * (len(spans) - 1)).append(x.shape)
            for m in shapes.keys() - features.keys():
                shapes[m].append(None)
        result = Table(source, "YouTube-8M TFRecord", {})
        for m, of_rows in sorted(shapes.items()):
            found = {(len(shape), shape[-1]) for shape in of_rows if shape is not None}
            if len(found) > 1:
                usual = next(shape for shape in of_rows if shape is not None)
                odd = tuple(i for i, s in enumerate(of_rows) if s and (len(s), s[-1]) != (len(usual), usual[-1]))
                report(source, Problem("dimensions", m, f"not of shape {usual} as the others", odd))
                continue
            ((rank, dims),) = found
            if not dims:
                report(source, Problem("wrong-rank", m, "holds no values"))
                continue
            result.present[m] = np.array([shape is not None for shape in of_rows])
            tail: tuple[int, ...] = (dims,)
            if rank == 2:
                result.lengths[m] = np.array([shape[0] if shape else 0 for shape in of_rows], dtype=np.int64)
                tail = (int(result.lengths[m].max()), dims)
            result.features[m] = RecordFeature(file, m, spans, tail)
        if not result.features:
            report(
                source,
                Problem("missing-dataset", "", "no features (expected mean_audio and mean_rgb, or audio and rgb)"),
            )
            return result
        if all(ids):
            result.ids = np.array(ids, dtype=np.bytes_)
        if any(len(classes) for classes in labels):
            negative = tuple(row for row, classes in enumerate(labels) if (classes < 0).any())
            if negative:
                report(source, Problem("label-range", "labels", "negative classes", negative))
            else:
                indptr = np.concatenate([[0], np.cumsum([len(classes) for classes in labels])]).astype(np.int64)
                indices = np.concatenate(labels)
                result.labels = Labels(indices, indptr, tuple(str(i) for i in range(int(indices.max()) + 1)))
        result.resources = stack.pop_all()
        return result


class RecordFeature:
    """One feature of every record as a row array, parsed when asked for; shorter sequences end in zeros."""

    def __init__(self, file: BinaryIO, modality: str, spans: list[tuple[int, int]], tail: tuple[int, ...]) -> None:
        self.file, self.modality, self.spans = file, modality, spans
        self.shape = (len(spans), *tail)
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        spans = self.spans[rows]
        block = np.zeros((len(spans), *self.shape[1:]), dtype=np.float32)
        for row, (start, size) in enumerate(spans):
            self.file.seek(start)
            values = parse(self.file.read(size))[1].get(self.modality)
            if values is not None:
                block[row, : len(values)] = values
        return block


def _records(file: BinaryIO, size: int, source: str, report: Report) -> Iterator[tuple[int, bytes]]:
    """Where each record's data starts, and the data; what is damaged is reported and left out."""
    row = 0
    while (start := file.tell()) < size:
        header = file.read(12)
        length = int.from_bytes(header[:8], "little")
        if len(header) < 12 or (masked_crc32c(header[:8]) == int.from_bytes(header[8:], "little")) is False:
            code, what = (
                ("truncated", "is cut short") if len(header) < 12 else ("checksum", "has a wrong CRC32C of its length")
            )
            report(source, Problem(code, "", f"record {what}", (row,)))
            return  # where the next record starts is unknown
        if start + 12 + length + 4 > size or length > MAX_RECORD_BYTES:
            report(source, Problem("truncated", "", f"record of {length} bytes is cut short", (row,)))
            return
        data, crc = file.read(length), file.read(4)
        if masked_crc32c(data) != int.from_bytes(crc, "little"):
            report(source, Problem("checksum", "", "record has a wrong CRC32C", (row,)))
        else:
            here = file.tell()
            yield start + 12, data
            file.seek(here)
        row += 1


# -------------------------------------------------------------------------------------------------------- protobuf


def parse(record: bytes) -> tuple[dict[str, list[Any]], dict[str, npt.NDArray[np.float32]]]:
    """A record's id and labels by key, and its features by modality: (d,), or (frames, d) dequantised.

    ``Example`` holds its features in field 1, ``SequenceExample`` the context in field 1 and the frames in field 2.
    """
    context: dict[str, list[Any]] = {}
    features: dict[str, npt.NDArray[np.float32]] = {}
    view = memoryview(record)
    for field, part in _fields(view):
        if field == 1:
            for key, value in _entries(part):
                kind, values = _feature(value)
                if kind == 2 and key not in ID_KEYS:
                    features[NAMES.get(key, key)] = np.asarray(values, dtype=np.float32)
                else:
                    context[key] = list(values)
        elif field == 2:
            for key, value in _entries(part):
                frames = [_feature(frame) for number, frame in _fields(value) if number == 1]
                if frames:
                    features[NAMES.get(key, key)] = np.stack([_frame(kind, values) for kind, values in frames])
    return context, features


def dequantise(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Bytes to values, as YouTube-8M's own code does: ``q * 4 / 255 + 4 / 512 - 2``."""
    span = QUANTISED_MAX - QUANTISED_MIN
    values: npt.NDArray[np.float32] = (frame * (span / 255.0) + (span / 512.0 + QUANTISED_MIN)).astype(np.float32)
    return values


def _frame(kind: int, values: Any) -> npt.NDArray[np.float32]:
    if kind == 1 and len(values) == 1:
        return dequantise(np.frombuffer(values[0], dtype=np.uint8))
    if kind != 2:
        raise ValueError("a frame is neither bytes nor floats")
    return np.asarray(values, dtype=np.float32)


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _fields(view: memoryview) -> Iterator[tuple[int, Any]]:
    """Fields of a message as (number, value): an int, or the bytes of a longer one."""
    at = 0
    while at < len(view):
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(view, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = _varint(view, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(view):
            raise ValueError("a field longer than its record")
        yield tag >> 3, view[at : at + size]
        at += size


def _entries(features: Any) -> Iterator[tuple[str, Any]]:
    """Key and value of each map entry in a ``Features`` or ``FeatureLists`` message."""
    for number, entry in _fields(_message(features)):
        if number == 1:
            found = dict(_fields(_message(entry)))
            yield (
                bytes(_message(found.get(1, memoryview(b"")))).decode("utf-8", "replace"),
                _message(found.get(2, memoryview(b""))),
            )


def _message(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise ValueError("a number where a message is expected")
    return value


def _feature(feature: Any) -> tuple[int, Any]:
    """A ``Feature`` as (kind, values): 1 bytes, 2 floats, 3 integers; kind 0 and no values where it is empty."""
    for kind, content in _fields(_message(feature)):
        parts = [value for number, value in _fields(_message(content)) if number == 1]
        if kind == 1:
            return 1, [bytes(_message(part)) for part in parts]
        if kind == 2:
            return 2, np.frombuffer(b"".join(_message(part) for part in parts), dtype="<f4")
        if kind == 3:
            return 3, [_signed(number) for part in parts for number in _integers(part)]
    return 0, []


def _integers(part: Any) -> Iterator[int]:
    if isinstance(part, int):
        yield part
        return
    at = 0
    while at < len(part):
        value, at = _varint(part, at)
        yield value


def _signed(value: int) -> int:
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def masked_crc32c(data: bytes) -> int:
    """TFRecord's masked CRC32C.

    >>> hex(masked_crc32c(b"123456789"))
    '0xc78ab0e5'
    """
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

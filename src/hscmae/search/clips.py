"""What is known of an archive's clips beside their embeddings: ids, labels, and the lines of ``media.csv``.

A *tag* is a text ``COLUMN=VALUE`` that is true of a clip; ``--where`` names tags, and every backend filters by them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import IntArray, Pairs
from hscmae.errors import InputError
from hscmae.extract.assemble import read_media
from hscmae.extract.windows import recording_of

SHOWN = 8


class Clips:
    """The clips of a store, by row.

    Args:
        pairs: the store, opened.
        folder: where it is; its ``media.csv`` is read when it is needed.
    """

    def __init__(self, pairs: Pairs, folder: Path) -> None:
        self._pairs, self._folder = pairs, folder
        self.keys: list[bytes] = pairs.ids.tolist()

    def __len__(self) -> int:
        return len(self.keys)

    def id(self, row: int) -> str:
        """A clip's id as text that any database holds; bytes that are not UTF-8 are escaped."""
        return self.keys[row].decode("utf-8", "backslashreplace")

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row by id."""
        return {self.id(row): row for row in range(len(self))}

    @cached_property
    def media(self) -> dict[str, dict[str, str]]:
        """The lines of ``media.csv`` by id; empty where there is none."""
        return {
            line["id"].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"): line
            for line in read_media(self._folder)
        }

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """What ``--where`` may name."""
        found = ["folder", "recording"]
        found += ["label"] if self._pairs.labels is not None else []
        found += ["split"] if self._pairs.split is not None else []
        media = next(iter(self.media.values()), {})
        return (*found, *(name for name in media if name not in (*found, "id")))

    def recording(self, row: int) -> bytes:
        """The id of the recording that a clip is a window of, or its own."""
        return recording_of(self.keys[row])

    @cached_property
    def windows_of(self) -> dict[bytes, list[int]]:
        """Rows by recording."""
        found: dict[bytes, list[int]] = {}
        for row in range(len(self)):
            found.setdefault(self.recording(row), []).append(row)
        return found

    def labels(self, row: int) -> list[str]:
        """Names of a clip's classes."""
        labels = self._pairs.labels
        if labels is None:
            return []
        return [labels.names[c] for c in labels.indices[labels.indptr[row] : labels.indptr[row + 1]]]

    def values(self, row: int, column: str) -> list[str]:
        """What a clip has in a column; nothing where it is empty."""
        if column == "label":
            return self.labels(row)
        if column == "split" and self._pairs.split is not None:
            return [bytes(self._pairs.split[row]).decode()]
        if column in ("recording", "folder"):
            name = self.recording(row).decode("utf-8", "backslashreplace")
            return [name if column == "recording" else str(PurePosixPath(name).parent)]
        value = self.media.get(self.id(row), {}).get(column)
        return [value] if value else []

    def tags(self, row: int) -> list[str]:
        """All that ``--where`` may ask of a clip."""
        return [f"{column}={value}" for column in self.columns for value in self.values(row, column)]

    def where(self, conditions: Iterable[str]) -> IntArray | None:
        """Rows of which every condition is true, ascending; ``None`` for no conditions.

        Raises:
            InputError: not ``COLUMN=VALUE``, no such column, or a value that no clip has.
        """
        rows: IntArray | None = None
        for condition in conditions:
            column, equals, value = condition.partition("=")
            if not equals:
                raise InputError(f"--where takes COLUMN=VALUE, got {condition!r}")
            if column not in self.columns:
                raise InputError(f"no column {column!r}: --where knows {', '.join(self.columns)}")
            found = self._rows_with(column, value)
            if not len(found):
                raise InputError(f"no clip has {column}={value}{self._suggestion(column, value)}")
            rows = found if rows is None else np.intersect1d(rows, found)
        return rows

    def _rows_with(self, column: str, value: str) -> IntArray:
        labels, split = self._pairs.labels, self._pairs.split
        if column == "label" and labels is not None:
            if value not in labels.names:
                return np.zeros(0, np.int64)
            places = np.flatnonzero(labels.indices == labels.names.index(value))
            return np.unique(np.searchsorted(labels.indptr, places, side="right") - 1)
        if column == "split" and split is not None:
            return np.flatnonzero(split == value.encode())
        return np.array([row for row in range(len(self)) if value in self.values(row, column)], np.int64)

    def _suggestion(self, column: str, value: str) -> str:
        known = sorted({v for row in range(len(self)) for v in self.values(row, column)})
        shown = difflib.get_close_matches(value, known, SHOWN) or known[:SHOWN]
        more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
        return f"; there are {', '.join(shown)}{more}" if shown else ""

    def unknown(self, query: str) -> InputError:
        """That ``query`` is neither a clip nor a file, with ids that are like it."""
        near = difflib.get_close_matches(query, list(self.row_of)[:100_000], 3, 0.5)
        hint = f"; ids like it: {', '.join(near)}" if near else f"; ids are like {self.id(0)!r}" if len(self) else ""
        return InputError(f"{query}: no clip of this id, and no such file{hint}")

    def rows_of_file(self, path: Path, modality: str) -> list[int]:
        """Rows whose file of a modality may be ``path``: its end is the file's path in the archive."""
        there = path.resolve().as_posix()
        return [
            self.row_of[name]
            for name, line in self.media.items()
            if name in self.row_of and (file := line.get(modality)) and there.endswith("/" + file.removeprefix("/"))
        ]


def present_rows(pairs: Pairs, modalities: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Rows that have any of the modalities."""
    flags: npt.NDArray[np.bool_] = np.any([pairs.present[m] for m in modalities], axis=0)
    return flags


def path_of(line: Mapping[str, str], modality: str) -> str | None:
    """A clip's file of a modality, the other's where it has none; ``None`` where ``media.csv`` names none."""
    return line.get(modality) or line.get("visual") or line.get("audio") or None

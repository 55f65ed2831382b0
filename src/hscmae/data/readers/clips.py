"""One ``.npy`` array a clip and modality, of shape (d,) or (steps, d), wherever they lie: as a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.npyfile import NpyArray
from hscmae.data.table import Problem, Report, RowArray, Table


class ClipArrays:
    """One array a row, or ``None`` where the row has none; shorter sequences end in zeros."""

    def __init__(self, arrays: Sequence[NpyArray | None], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.arrays, self.shape, self.dtype = arrays, (len(arrays), *shape), dtype

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        arrays = self.arrays[rows]
        block = np.zeros((len(arrays), *self.shape[1:]), self.dtype)
        for row, array in enumerate(arrays):
            if array is not None:
                values = array.load()
                block[row, : len(values)] = values
        return block


def table(
    source: str, container: str, clips: Sequence[str], found: Mapping[str, Mapping[str, NpyArray]], report: Report
) -> Table:
    """A ``Table`` with a row a clip, which may lack modalities.

    Args:
        source: for messages.
        container: for ``Table.format``.
        clips: their ids, in the order of the rows.
        found: modality -> clip -> its array, at least one.
        report: told of everything wrong.

    Raises:
        InputError: an array that is damaged or holds pickled objects; else as ``report`` decides.
    """
    result = Table(source, container, {}, np.array([os.fsencode(clip) for clip in clips], dtype=np.bytes_))
    place = {clip: row for row, clip in enumerate(clips)}
    for m, of_modality in found.items():
        headers = {clip: array.header() for clip, array in of_modality.items()}
        shapes = {clip: shape for clip, (shape, _, _, _) in headers.items()}
        types = {clip: kind for clip, (_, _, kind, _) in headers.items()}
        first = next(iter(shapes))
        rank, dims = len(shapes[first]), shapes[first][-1:]
        odd = [c for c in shapes if len(shapes[c]) != rank or shapes[c][-1:] != dims or types[c] != types[first]]
        if rank not in (1, 2) or types[first].kind != "f" or types[first].itemsize > 8:
            message = f"{first}.npy holds {types[first]} {shapes[first]}, expected floating point (d,) or (steps, d)"
            report(source, Problem("wrong-type", m, message))
            continue
        if odd:
            message = f"{odd[0]}.npy holds {types[odd[0]]} {shapes[odd[0]]}, {first}.npy {types[first]} {shapes[first]}"
            report(source, Problem("dimensions", m, message, tuple(sorted(place[clip] for clip in odd))))
            continue
        result.present[m] = np.array([clip in of_modality for clip in clips])
        shape: tuple[int, ...] = dims
        if rank == 2:
            result.lengths[m] = np.array([shapes[c][0] if c in shapes else 0 for c in clips], dtype=np.int64)
            shape = (int(result.lengths[m].max()), *dims)
        array: RowArray = ClipArrays([of_modality.get(clip) for clip in clips], shape, types[first])
        result.features[m] = array
    return result

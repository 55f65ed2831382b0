"""Any supported format to a store, and a store back to the formats that others read.

``convert`` streams: memory stays bounded, a killed run goes on where its last checkpoint was, and the store appears
under its name only when whole. ``export`` writes the published HDF5 layout, ``.npz``, Parquet or a folder of ``.npy``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from hscmae.data import readers, store
from hscmae.data.pairs import SPLITS, Pairs
from hscmae.data.parquet import write_parquet
from hscmae.data.splits import apply_holdout
from hscmae.data.table import BLOCK_ROWS, Table, refuse
from hscmae.errors import InputError
from hscmae.files import named, partial_folder, sync_folder

CHECKPOINT_SECONDS = 2.0
HDF5_OVERHEAD = 2**16  # bytes of its headers
MAX_NAMES_IN_ATTRIBUTE = 1000  # HDF5 attributes hold 64 KiB

EXPORTED = (".h5", ".hdf5", ".npz", ".parquet")
# A folder of such a name would be taken for a file.
FOREIGN = (".npy", ".csv", ".tsv", ".txt", ".json", ".arrow", ".mat", ".pt", ".pth", ".pkl", ".pickle",
           ".zip", ".safetensors", ".tfrecord")  # fmt: skip

Progress = Callable[[Path, int, int], None]


def convert(
    inputs: Sequence[str | PathLike[str]],
    output: str | PathLike[str],
    *,
    overwrite: bool = False,
    resume: bool = False,
    drop_bad_rows: bool = False,
    dtype: npt.DTypeLike | None = None,
    split: str = "all",
    holdout: str | None = None,
    progress: Progress | None = None,
) -> int:
    """Write feature files of any supported format as one store, or one file in the format that ``output`` ends in.

    Files of the same modalities follow one another; files that share no modality (audio in one, visual in the other)
    are put side by side, if their ids agree row by row.

    Args:
        inputs: the files or folders.
        output: the store's folder; a name ending in .h5, .hdf5, .npz or .parquet is written by ``export``, from one
            input that fits in memory.
        overwrite: replace what is there.
        resume: go on with the same conversion that was killed; one that had finished is left as it is.
        drop_bad_rows: leave out rows with NaN or infinite values or an id seen before, instead of refusing.
        dtype: float16 or float32; where not given, float16 stays and all else becomes float32.
        split: write the rows of "train", "val" or "test" alone.
        holdout: a split for files without one, see ``splits.holdout``.
        progress: called with the input, its rows done and its rows in all.

    Returns:
        The number of rows written.

    Raises:
        InputError: bad input, an output that is there already, or one to be resumed of other inputs or settings, or
            of inputs that have changed since.
    """
    output, paths = Path(output), [Path(path) for path in inputs]
    if not paths:
        raise InputError("nothing to convert")
    if is_file(output):
        if len(paths) > 1 or resume:
            raise InputError(f"{output}: a file is written in one go and from one input; convert to a store first")
        with readers.open_table(paths[0]) as table:
            if holdout is not None:
                apply_holdout(table, holdout)
            pairs, origin = table.read(drop_bad_rows=drop_bad_rows).of_split(split), table.origin
        if dtype is not None:
            pairs = replace(pairs, features={m: x.astype(dtype) for m, x in pairs.features.items()})
        export(pairs, output, overwrite=overwrite, origin=origin)
        return len(pairs)
    request = {
        "inputs": [_fingerprint(path) for path in paths],
        "drop_bad_rows": drop_bad_rows,
        "dtype": None if dtype is None else np.dtype(dtype).name,
        "split": split,
        "holdout": holdout,
    }
    made_by = hashlib.sha256(json.dumps(request).encode()).hexdigest()  # the manifest goes where the paths need not
    if resume and store.is_store(output):
        if store.made_by(output) != made_by:
            raise InputError(f"{output}: is finished, of other inputs or with other settings; --overwrite replaces it")
        return len(store.open_store(output))
    source = ", ".join(str(path) for path in paths)
    state = store.interrupted_state(output) if resume else {}
    if state and state["request"] != request:
        raise InputError(
            f"{output}: the inputs or settings changed since this conversion began; run it without --resume"
        )
    first_table, first_row = state.get("next", (0, 0))
    with (
        store.StoreWriter(
            output, overwrite=overwrite, resume=resume, dtype=dtype, source=source, made_by=made_by
        ) as writer,
        ExitStack() as stack,
    ):
        writer.origin = state.get("origin", {})
        for number, (path, opened) in enumerate(_side_by_side(paths, stack)):
            if number < first_table:
                continue
            with opened() as table:
                if table.ids is None and len(paths) > 1:
                    ids = [f"{path.stem}-{row}".encode() for row in range(len(table))]
                    table.ids, table.made_up_ids = np.array(ids, dtype=np.bytes_), True
                if holdout is not None:
                    apply_holdout(table, holdout)
                _add_origin(writer.origin, table.origin)
                saved = time.monotonic()
                start = first_row if number == first_table else 0
                for next_row, block in table.blocks(start=start, drop_bad_rows=drop_bad_rows, split=split):
                    writer.append(block)
                    if progress is not None:
                        progress(path, next_row, len(table))
                    if time.monotonic() - saved >= CHECKPOINT_SECONDS:
                        writer.checkpoint({"request": request, "next": (number, next_row), "origin": writer.origin})
                        saved = time.monotonic()
        if not writer.rows:
            raise InputError(f"{source}: no rows" + (" left after leaving out the bad ones" if drop_bad_rows else ""))
    return writer.rows


def is_file(output: Path) -> bool:
    """Whether ``output`` is to be one file, by the ending of its name; else it is a folder.

    Raises:
        InputError: an ending of a format that is not written.
    """
    if output.suffix.lower() in FOREIGN:
        raise InputError(f"{output}: {output.suffix} is not written: give a folder, .h5, .npz or .parquet")
    return output.suffix.lower() in EXPORTED


@contextmanager
def as_store(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """Where to write the store that ``output`` is to be; one beside it where it is to be a file, written at the end.

    Raises:
        InputError: see ``is_file``, or the output is there already and ``overwrite`` is not set.
    """
    if not is_file(output):
        yield output
        return
    _refuse_existing(output, overwrite)
    folder = output.parent / f".{output.name}.store"
    _remove(folder)
    try:
        yield folder
        with store.open_table(folder, refuse, verify=False) as table:
            export(store.mapped(table), output, overwrite=overwrite, origin=table.origin)
    except OSError as error:
        if str(error.filename) == str(folder):
            error.filename = str(output)
        raise
    finally:
        _remove(folder)


def _add_origin(origin: dict[str, str], more: Mapping[str, str]) -> None:
    """Add what another input says of where it comes from."""
    for key, text in more.items():
        known = origin.get(key, "")
        if text not in known:
            origin[key] = f"{known}; {text}" if known else text


def _side_by_side(paths: list[Path], stack: ExitStack) -> Iterator[tuple[Path, Callable[[], Table]]]:
    """The tables to write one after the other, unopened; complementary files are joined into one."""
    if len(paths) > 1:
        tables = []
        for path in paths[:2]:
            with readers.open_table(path) as table:
                tables.append(set(table.features))
        if not tables[0] & tables[1]:
            yield paths[0], lambda: _join([stack.enter_context(readers.open_table(path)) for path in paths])
            return
    for path in paths:
        yield path, lambda path=path: readers.open_table(path)  # type: ignore[misc]


def _join(tables: list[Table]) -> Table:
    """Tables of different modalities of the same clips as one.

    Raises:
        InputError: a modality twice, or rows that do not belong together.
    """
    first = tables[0]
    joined = Table(first.source, "joined", dict(first.features), first.ids, first.made_up_ids)
    for table in tables:
        if table is not first:
            if table.features.keys() & joined.features.keys():
                raise InputError(
                    f"{table.source}: has a modality that an earlier input has too, while {first.source} lacks it"
                )
            if len(table) != len(first):
                raise InputError(f"{table.source}: {len(table)} rows, but {first.source} has {len(first)}")
            if table.ids is not None and joined.ids is not None and table.has_ids and joined.has_ids:
                differing = np.flatnonzero(table.ids != joined.ids)
                if len(differing):
                    row = int(differing[0])
                    raise InputError(f"{table.source}: ids differ from those of {first.source}, first in row {row}")
        joined.features |= table.features
        joined.present |= table.present
        joined.lengths |= table.lengths
        if not joined.has_ids and table.ids is not None:
            joined.ids, joined.made_up_ids = table.ids, table.made_up_ids
        joined.labels = joined.labels or table.labels
        joined.split = joined.split if joined.split is not None else table.split
        joined.raw_row_bytes += table.raw_row_bytes
        _add_origin(joined.origin, table.origin)
    return joined


def _fingerprint(path: Path) -> list[Any]:
    """What tells whether an input is still the same: path, bytes and time of the last change."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    stats = [file.stat() for file in files]
    return [str(path.resolve()), sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)]


def export(
    pairs: Pairs, output: str | PathLike[str], *, overwrite: bool = False, origin: Mapping[str, str] | None = None
) -> None:
    """Write ``pairs`` in a format that others read, told by the ending of ``output``.

    ``.h5`` and ``.hdf5``: the published layout (``{m}_train``, ``lab_train``, ...; rows ordered by split) where the
    data has a split, else ``{m}``, ``ids``, ``label_indices``, ... ; ``.npz``, or any other name for a folder of
    ``.npy``: the latter with ``split``; ``.parquet``: see ``data.parquet``. ``origin`` (source, licence, citation)
    becomes attributes of HDF5 and metadata of Parquet, which have a place for it.

    Raises:
        InputError: the output is there already and ``overwrite`` is not set.
    """
    output = Path(output)
    if output.suffix.lower() in EXPORTED[:2]:
        with _atomically(output, overwrite) as temporary:
            _ask_for_room(temporary, pairs)
            with h5py.File(temporary, "w") as file:
                _write_hdf5(pairs, file)
                file.attrs.update(origin or {})
    elif output.suffix.lower() == ".npz":
        with _atomically(output, overwrite) as temporary, temporary.open("wb") as out:
            np.savez(out, **_arrays(pairs))  # type: ignore[arg-type]
    elif output.suffix.lower() == ".parquet":
        with _atomically(output, overwrite) as temporary:
            write_parquet(pairs, temporary, origin)
    else:
        with _atomically(output, overwrite) as temporary:
            temporary.mkdir(parents=True)
            for name, array in _arrays(pairs).items():
                np.save(temporary / f"{name}.npy", array, allow_pickle=False)


def _arrays(pairs: Pairs) -> dict[str, npt.NDArray[Any]]:
    """The plain layout's arrays by name; row numbers are not written as ids, or they would be the file's own."""
    arrays = {**pairs.features, **store.column_files(pairs)}
    if not pairs.has_ids:
        del arrays["ids"]
    if pairs.labels is not None:
        arrays["class_names"] = np.array([name.encode() for name in pairs.labels.names] or [b""], dtype=np.bytes_)
    return arrays


def _write_hdf5(pairs: Pairs, file: Any) -> None:
    if pairs.labels is not None:
        names = list(pairs.labels.names)
        holder = file.attrs if len(names) <= MAX_NAMES_IN_ATTRIBUTE else file
        holder["class_names"] = np.array(names, dtype=h5py.string_dtype())
    if pairs.split is None:
        parts = {"": np.arange(len(pairs))}
    else:
        parts = {f"_{s}": pairs.rows_of(s) for s in SPLITS if s.encode() in pairs.split}
    single = pairs.labels is not None and pairs.labels.is_single
    for suffix, rows in parts.items():
        for m, x in pairs.features.items():  # which may be larger than memory
            written = file.create_dataset(f"{m}{suffix}", (len(rows), *x.shape[1:]), x.dtype)
            for start in range(0, len(rows), BLOCK_ROWS):
                written[start : start + BLOCK_ROWS] = x[rows[start : start + BLOCK_ROWS]]
        part = pairs.without_features().take(rows)
        arrays = store.column_files(part, single_label=single)
        for m, present in pairs.present.items():
            if not present.all():  # in every split, or in none
                arrays[f"{m}_present"] = part.present[m]
        arrays.pop("split", None)
        if not pairs.has_ids:
            del arrays["ids"]
        for name, array in arrays.items():
            file[f"{'lab' if name == 'labels' and suffix else name}{suffix}"] = array


def _ask_for_room(path: Path, pairs: Pairs) -> None:
    """Fail at once where the disk has no room for a file of ``pairs``: the HDF5 library crashes when it fills up.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        size = sum(array.nbytes for array in _arrays(pairs).values())
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size + HDF5_OVERHEAD)
        path.unlink()


@contextmanager
def _atomically(output: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary path beside ``output`` that gets its name at the end, or is removed."""
    _refuse_existing(output, overwrite)
    if output.is_dir() and any(file.suffix != ".npy" for file in output.iterdir()):
        raise InputError(f"{output}: holds more than .npy files, so --overwrite does not replace it")
    temporary = partial_folder(output)
    _remove(temporary)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        with named(output):
            yield temporary
        for file in temporary.iterdir() if temporary.is_dir() else [temporary]:
            with file.open("rb") as written:
                store.sync(written)
        if output.is_dir():
            _remove(output)
        temporary.replace(output)
        sync_folder(output.parent)
    finally:
        _remove(temporary)


def _refuse_existing(output: Path, overwrite: bool) -> None:
    if output.exists() and not overwrite:
        raise InputError(f"{output}: exists already (--overwrite replaces it)")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

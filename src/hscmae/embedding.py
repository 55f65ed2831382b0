"""Embedding a feature file of any size into a store, block by block, in the file's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hscmae.data.pooling import pool
from hscmae.data.readers import open_table
from hscmae.data.splits import apply_holdout
from hscmae.data.store import StoreWriter
from hscmae.errors import InputError
from hscmae.methods.base import Method


def embed_file(
    method: Method,
    file: Path,
    output: Path,
    *,
    split: str = "all",
    holdout: str | None = None,
    overwrite: bool = False,
    drop_bad_rows: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> int:
    """Embed the modalities that ``file`` has and ``method`` knows; memory stays bounded.

    Args:
        method: fitted.
        file: a feature file; it may hold one modality alone.
        output: the store to write: unit-norm float32 embeddings, with the file's ids, labels and split.
        split: "train", "val", "test" or "all".
        holdout: split for a file without one.
        overwrite: replace ``output``.
        drop_bad_rows: leave out rows with values that are not finite.
        progress: called with rows done and rows in all.

    Returns:
        Number of rows written.

    Raises:
        InputError: no modality in common, no such split, or a fault of the file.
    """
    with open_table(file) as table:
        known = [m for m in table.features if m in method.dims_]
        if not known:
            raise InputError(f"{file}: has {', '.join(table.features)}; the model embeds {', '.join(method.dims_)}")
        table.features = {m: table.features[m] for m in known}
        for m in known:
            if table.features[m].shape[-1] != method.dims_[m]:
                raise InputError(
                    f"{file}: {m} has {table.features[m].shape[-1]} dimensions, the model {method.dims_[m]}"
                )
        if holdout is not None:
            apply_holdout(table, holdout)
        with StoreWriter(output, overwrite=overwrite, source=str(file)) as writer:
            for done, block in table.blocks(drop_bad_rows=drop_bad_rows, split=split):
                if len(block):
                    # Pooling marks rows without a valid step as lacking the modality, as embedding does.
                    writer.append(replace(pool(block), features=method.embed_pairs(block)))
                if progress is not None:
                    progress(done, len(table))
            if not writer.rows:
                raise InputError(f"{file}: no rows in split {split!r}")
            return writer.rows

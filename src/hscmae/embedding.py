"""Embedding a feature file of any size into a store, block by block, in the file's order."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from hscmae.artifact import read_config
from hscmae.data import store
from hscmae.data.pairs import Pairs
from hscmae.data.readers import open_table
from hscmae.data.recipe import recipe_of, require_same_recipe
from hscmae.data.splits import apply_holdout
from hscmae.data.store import StoreWriter
from hscmae.data.table import Table, refuse
from hscmae.errors import InputError
from hscmae.files import require_apart
from hscmae.methods.base import Method
from hscmae.prefetch import in_parallel, prefetch

MEDIA = "media.csv"  # of a store that was extracted from media: goes along, so that results can be looked at
MAX_THREADS = 16  # each holds a block; more would wait for the one that reads


class Blocks(Protocol):
    """A source of embedded blocks, each with the row after it: ``embed_rows``, or one that spreads the work."""

    def __call__(
        self, method: Method, table: Table, *, split: str, drop_bad_rows: bool
    ) -> Generator[tuple[int, Pairs], None, None]: ...


def embed_file(
    method: Method,
    file: Path,
    output: Path,
    *,
    split: str = "all",
    holdout: str | None = None,
    overwrite: bool = False,
    drop_bad_rows: bool = False,
    blocks: Blocks | None = None,
    run: Path | None = None,
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
        run: the folder that ``method`` was loaded from; the store then names the model, and search refuses another.
        blocks: where the embedded blocks come from; ``embed_rows`` by default.
        progress: called with rows done and rows in all.

    Returns:
        Number of rows written.

    Raises:
        InputError: no modality in common, no such split, or a fault of the file; ``output`` is the file itself; its
            features were extracted otherwise than those of training.
    """
    require_apart(output, file)
    recipe = recipe_of(file)
    require_same_recipe(recipe, method.recipe_, str(file))
    model = None if run is None else {"path": str(run.resolve()), "sha256": read_config(run)["sha256"]}
    media = store.read_extra(file, MEDIA) if store.is_store(file) else None
    with (
        open_for(method, file, holdout) as table,
        StoreWriter(output, overwrite=overwrite, source=str(file), recipe=recipe, model=model) as writer,
        ExitStack() as stack,
    ):
        embedded = (blocks or embed_rows)(method, table, split=split, drop_bad_rows=drop_bad_rows)
        for done, block in stack.enter_context(closing(embedded)):
            writer.append(block)
            if progress is not None:
                progress(done, len(table))
        if not writer.rows:
            raise InputError(f"{file}: no rows in split {split!r}")
        if media is not None:
            writer.extra[MEDIA] = media
        return writer.rows


def embed_rows(
    method: Method, table: Table, *, split: str, drop_bad_rows: bool, start: int = 0, stop: int | None = None
) -> Generator[tuple[int, Pairs], None, None]:
    """Rows ``start`` to ``stop`` of a file with embeddings as features, block by block, each with the row after it.

    Blocks are embedded side by side, each on one of torch's threads: what is not matrix products then runs on all of
    them as well, and no result depends on their number.
    """

    def embed(numbered: tuple[int, Pairs]) -> tuple[int, Pairs]:
        done, block = numbered
        # Pooling marks rows without a valid step as lacking the modality, as embedding does.
        columns = block.pooled().without_features() if block.lengths else block
        return done, replace(columns, features=method.embed_checked(block))

    threads, alone = torch.get_num_threads(), partial(torch.set_num_threads, 1)
    blocks = prefetch(table.blocks(start=start, stop=stop, drop_bad_rows=drop_bad_rows, split=split))
    try:
        with closing(blocks), closing(in_parallel(embed, blocks, min(threads, MAX_THREADS), alone)) as embedded:
            yield from embedded
    finally:
        torch.set_num_threads(threads)  # threads that begin later take over what was set last anywhere


def open_for(method: Method, file: Path, holdout: str | None, *, verify: bool = True) -> Table:
    """The opened file with the modalities that the method knows; a store's checksums are left out if told so.

    Raises:
        InputError: none of them, or another dimension.
    """
    table = open_table(file) if verify or not store.is_store(file) else store.open_table(file, refuse, verify=False)
    with ExitStack() as stack:
        stack.enter_context(table)
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
        stack.pop_all()
    return table

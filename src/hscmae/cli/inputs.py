"""What a verb is given, read: pairs, their split, and the ids that are left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hscmae.cli.output import say
from hscmae.errors import InputError

if TYPE_CHECKING:
    from hscmae.data.pairs import Pairs


def names(text: str | None) -> list[str] | None:
    """The names of a list with commas; ``None`` where there are none."""
    return [name.strip() for name in (text or "").split(",") if name.strip()] or None


def read_pairs(
    file: Path,
    *,
    drop_bad_rows: bool = False,
    modalities: Sequence[str] | None = None,
    exclude_ids: Path | None = None,
    holdout: str | None = None,
    run: Path | None = None,
) -> Pairs:
    """The pairs of a file.

    Args:
        file: a feature file or store.
        drop_bad_rows: see ``readers.read``.
        modalities: the ones to keep; all where not given.
        exclude_ids: a file of ids to leave out.
        holdout: the split that the user gives a file without one.
        run: must have been trained on features extracted in the same way; if on this file, its split is the file's
            where that has none and ``holdout`` is not given.

    Raises:
        InputError: see ``readers.read``, ``leave_out`` and ``with_split``.
    """
    from hscmae.data.readers import read
    from hscmae.data.recipe import recipe_of, require_same_recipe

    if run is not None:
        require_same_recipe(recipe_of(file), recipe_of(run), str(file))
    pairs = read(file, drop_bad_rows=drop_bad_rows, modalities=modalities)
    (pairs,) = leave_out(exclude_ids, [pairs])
    if holdout is None and run is not None and pairs.split is None:
        from hscmae.runs import recorded_holdout

        holdout = recorded_holdout(run, [pairs])
    return with_split(pairs, holdout)


def with_split(pairs: Pairs, holdout: str | None) -> Pairs:
    """The pairs with the split of ``holdout``, where one is given.

    Raises:
        InputError: they have a split of their own, or see ``splits.holdout``.
    """
    from dataclasses import replace

    from hscmae.data.splits import holdout as split_by
    from hscmae.data.splits import refuse_holdout

    if holdout is None:
        return pairs
    refuse_holdout(pairs.split, pairs.source)
    return replace(pairs, split=split_by(pairs.ids, holdout, pairs.source))


def leave_out(exclude_ids: Path | None, parts: Sequence[Pairs]) -> list[Pairs]:
    """The parts without the ids that a file lists; says how many of these are in none of the parts.

    Raises:
        InputError: none of them is in any part, or see ``splits.read_ids`` and ``splits.exclude_ids``.
    """
    import numpy as np

    from hscmae.data.splits import exclude_ids as exclude
    from hscmae.data.splits import read_ids

    if exclude_ids is None:
        return list(parts)
    ids = np.unique(read_ids(exclude_ids))
    found = int(np.isin(ids, np.concatenate([part.ids for part in parts])).sum())
    searched = " and ".join(part.source for part in parts)
    if not found:
        raise InputError(f"{exclude_ids}: 0 of {len(ids)} ids found in {searched}")
    if found < len(ids):
        say(f"note: {found} of {len(ids)} ids of {exclude_ids} found in {searched}", err=True)
    return [exclude(part, ids.tolist()) for part in parts]


def holdout_for(run: Path, file: Path, *, drop_bad_rows: bool) -> str | None:
    """The split that a run was trained with, for a file of any size that has none, if it is the one trained on."""
    from hscmae.artifact import read_config
    from hscmae.data import readers, store
    from hscmae.data.table import refuse
    from hscmae.runs import recorded_holdout

    if read_config(run)["data"].get("holdout") is None:
        return None
    whole = store.is_store(file)
    with store.open_table(file, refuse, verify=False) if whole else readers.open_table(file) as table:
        if table.split is not None:
            return None
        return recorded_holdout(run, (block for _, block in table.blocks(drop_bad_rows=drop_bad_rows)))

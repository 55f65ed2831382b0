"""What a verb is given, read; what a program is answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from hscmae.data.pairs import Pairs


def read_pairs(file: Path, drop_bad_rows: bool, holdout: str | None, exclude: Path | None) -> Pairs:
    from dataclasses import replace

    from hscmae.data.readers import read
    from hscmae.data.splits import exclude_ids, read_ids
    from hscmae.data.splits import holdout as split_by

    pairs = read(file, drop_bad_rows=drop_bad_rows)
    if exclude is not None:
        pairs = exclude_ids(pairs, read_ids(exclude).tolist())
    if holdout is not None and pairs.split is None:
        pairs = replace(pairs, split=split_by(pairs.ids, holdout, str(file)))
    elif holdout is not None:
        typer.echo("note: the file has its own split; --holdout is not used", err=True)
    return pairs


def recorded_holdout(run: Path) -> str | None:
    from hscmae.artifact import read_config

    recorded = read_config(run).get("data", {}).get("holdout")
    return None if recorded is None else str(recorded)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, allow_nan=False))

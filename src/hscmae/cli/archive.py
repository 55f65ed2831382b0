"""Verbs of a trained model on a collection: ``embed`` and ``audit``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from hscmae.cli.inputs import print_json, read_pairs, recorded_holdout
from hscmae.cli.options import DropBad, Holdout, Input, Json, Overwrite, Run, Split

verbs = typer.Typer()


@verbs.command(epilog="Example: hscmae embed runs/ave AVE.h5 --output ave-embeddings --split test")
def embed(
    run: Run,
    file: Input,
    output: Annotated[Path, typer.Option(metavar="EMB", help="Store to write.", show_default=False)],
    split: Split = "all",
    holdout: Holdout = None,
    engine: Annotated[
        Literal["plain", "ray"], typer.Option(help="ray: on a Ray cluster (RAY_ADDRESS), the same result.")
    ] = "plain",
    overwrite: Overwrite = False,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> None:
    """Embed a file of any size, block by block, into a store in the same order."""
    from hscmae.cli.progress import rows_progress
    from hscmae.embedding import embed_file, embed_rows
    from hscmae.methods import load
    from hscmae.ray_engine import embed_on_ray

    model = load(run)
    holdout = holdout or recorded_holdout(run)
    with rows_progress("embed", enabled=not as_json) as progress:
        rows = embed_file(
            model,
            file,
            output,
            split=split,
            holdout=holdout,
            overwrite=overwrite,
            drop_bad_rows=drop_bad_rows,
            run=run,
            blocks=partial(embed_on_ray, holdout=holdout) if engine == "ray" else embed_rows,
            progress=progress,
        )
    if as_json:
        print_json({"output": str(output), "rows": rows, "modalities": list(model.dims_), "dim": model.config.dim})
    else:
        typer.echo(f"{output}: {rows} rows")


@verbs.command(epilog="Example: hscmae audit runs/ave AVE.h5 --split train --top 20")
def audit(
    run: Run,
    file: Input,
    split: Split = "train",
    holdout: Holdout = None,
    top: Annotated[int, typer.Option(min=1, help="Pairs to show; --json gives all.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of partitions, random pairs and intervals.")] = 0,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> None:
    """Pairs whose modalities disagree, most suspicious first, with the estimated share of wrong pairs."""
    from hscmae.artifact import read_config
    from hscmae.audit import audit as audit_pairs
    from hscmae.methods import load

    model = load(run)
    pairs = read_pairs(file, drop_bad_rows, holdout or recorded_holdout(run), None)
    pairs = pairs if pairs.split is None and split == "train" else pairs.of_split(split)
    seen = split != "test" and read_config(run)["data"].get("source") == file.name
    found = audit_pairs(model, pairs, seen=seen, seed=seed)
    if as_json:
        print_json(found.as_json())
        return
    from rich.console import Console
    from rich.table import Table

    low, high = found.wrong_share_ci
    scored = len(found.ids) - len(found.unscored)
    table = Table(
        title=f"{scored} pairs, estimated share of wrong ones {found.wrong_share:.1%} [{low:.1%}, {high:.1%}]",
        title_justify="left",
    )
    table.add_column("rank", justify="right")
    table.add_column("id")
    table.add_column("suspicion", justify="right")
    table.add_column("random pairs that agree better", justify="right")
    for row in found.most_suspicious(top):
        name = found.ids[row].decode("utf-8", "replace")
        table.add_row(str(found.rank[row]), name, f"{found.score[row]:.2f}", f"{found.random_better[row]:.0%}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for reason in sorted(set(found.unscored.values())):
        typer.echo(f"{sum(r == reason for r in found.unscored.values())} rows without score: {reason}")

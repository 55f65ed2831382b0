"""Verbs of a trained model on a collection: ``embed`` and ``audit``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from hscmae.cli.inputs import holdout_for, read_pairs
from hscmae.cli.options import DropBad, Holdout, Input, Json, Overwrite, Run, Split
from hscmae.cli.output import print_json, say

verbs = typer.Typer()


@verbs.command(epilog="Example: hscmae embed runs/ave AVE.h5 --output ave-embeddings --split test")
def embed(
    run: Run,
    file: Input,
    output: Annotated[
        Path,
        typer.Option(metavar="EMB", help="Store to write, or a .h5, .npz or .parquet file.", show_default=False),
    ],
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
    from hscmae.data.convert import as_store
    from hscmae.data.store import open_store
    from hscmae.embedding import embed_file, embed_rows
    from hscmae.methods import load
    from hscmae.ray_engine import embed_on_ray

    model = load(run)
    if holdout is None:
        holdout = holdout_for(run, file, drop_bad_rows=drop_bad_rows)
    with rows_progress("embed", enabled=not as_json) as progress, as_store(output, overwrite=overwrite) as store:
        rows = embed_file(
            model,
            file,
            store,
            split=split,
            holdout=holdout,
            overwrite=overwrite,
            drop_bad_rows=drop_bad_rows,
            run=run,
            blocks=partial(embed_on_ray, holdout=holdout) if engine == "ray" else embed_rows,
            progress=progress,
        )
        modalities = open_store(store).modalities
    if as_json:
        print_json({"output": str(output), "rows": rows, "modalities": modalities, "dim": model.config.dim})
    else:
        say(f"{output}: {rows} rows")


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
    from hscmae.audit import audit as audit_pairs
    from hscmae.cli.progress import stage_progress
    from hscmae.cli.tables import print_audit
    from hscmae.methods import load

    model = load(run)
    pairs = read_pairs(file, drop_bad_rows=drop_bad_rows, modalities=[*model.dims_], holdout=holdout, run=run)
    pairs = pairs if pairs.split is None and split == "train" else pairs.of_split(split)
    with stage_progress(enabled=not as_json, transient=True) as progress:
        found = audit_pairs(model, pairs, seed=seed, progress=progress)
    if as_json:
        print_json(found.as_json())
    else:
        print_audit(found, top)

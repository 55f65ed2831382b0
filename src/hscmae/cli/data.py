"""Verbs on feature files: ``inspect`` and ``convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hscmae.cli.options import DropBad, Holdout, Input, Json, Overwrite, Split
from hscmae.cli.output import print_json, say
from hscmae.errors import InputError

verbs = typer.Typer()


@verbs.command(epilog="Example: hscmae inspect AVE.h5 --against published/AVE.h5")
def inspect(
    file: Input,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE2", help="Another file of the same clips, to compare with.", show_default=False),
    ] = None,
    holdout: Holdout = None,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> int:
    """What is in a feature file, and everything wrong with it, in one pass.

    The exit code is 2 where a fault stops training; silent or repeated rows do not.
    """
    from hscmae.data.inspect import inspect_file

    found = inspect_file(file, against, drop_bad_rows=drop_bad_rows, holdout=holdout)
    if as_json:
        print_json(found.to_json())
    elif found.modalities:
        from hscmae.cli.tables import print_inspection

        print_inspection(found)
    else:
        raise InputError(found.problems[0].line(str(file)))
    return 0 if found.ok else 2


@verbs.command(epilog="Example: hscmae convert AVE.h5 --output ave")
def convert(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="Feature files.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(metavar="STORE", help="Store to write, or a .h5, .npz or .parquet file.", show_default=False),
    ],
    overwrite: Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a conversion that was interrupted.")] = False,
    dtype: Annotated[
        Literal["float16", "float32"] | None,
        typer.Option(help="Type in the store; float16 stays and all else is float32 by default.", show_default=False),
    ] = None,
    split: Split = "all",
    holdout: Holdout = None,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> None:
    """Feature files of any supported format to one store, or a file to .h5, .npz or .parquet."""
    from hscmae.cli.progress import stage_progress
    from hscmae.data.convert import convert as convert_files
    from hscmae.data.store import interrupted_state

    try:
        with stage_progress(enabled=not as_json) as progress:
            rows = convert_files(
                inputs,
                output,
                overwrite=overwrite,
                resume=resume,
                drop_bad_rows=drop_bad_rows,
                dtype=dtype,
                split=split,
                holdout=holdout,
                progress=lambda path, done, total: progress(path.name, done, total),
            )
    except KeyboardInterrupt:
        if interrupted_state(output):
            say("what was done is kept: the same command with --resume goes on from there", err=True)
        raise
    if as_json:
        print_json({"output": str(output), "rows": rows})
    else:
        say(f"{output}: {rows} rows")

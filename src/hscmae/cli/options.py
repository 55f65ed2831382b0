"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Input = Annotated[Path, typer.Argument(metavar="FILE", help="Feature file or store.", show_default=False)]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained model.", show_default=False)]
Archived = Annotated[
    Path, typer.Argument(metavar="ARCHIVE", help="Folder of build, or embeddings of embed.", show_default=False)
]
Table = Annotated[str, typer.Option(metavar="T", help="Table of a pgvector index.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on stdout.")]
DropBad = Annotated[bool, typer.Option("--drop-bad-rows", help="Leave out rows with NaN, infinity or a repeated id.")]
Holdout = Annotated[
    str | None,
    typer.Option(metavar="SPEC", help="Split for a file without one: id-hash:SHARE or tail:SHARE.", show_default=False),
]
Split = Annotated[str, typer.Option(help="train, val, test or all.")]
Modalities = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="The two modalities to use, where FILE has more.", show_default=False),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
Results = Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder of results.", show_default=False)]
ResumeJobs = Annotated[bool, typer.Option("--resume", help="Keep the fits that DIR has, do the others.")]
Excluded = Annotated[
    Path | None,
    typer.Option("--exclude-ids", metavar="F", help="Leave out these ids: a text or feature file.", show_default=False),
]
Seeds = Annotated[int, typer.Option(min=1, help="Fits a method and split, with seeds 0, 1, ...")]
Resplits = Annotated[
    int, typer.Option(min=0, help="Random resplits, 20% held out; 0: the split of the file or --holdout.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, as loss.tau=0.1; repeatable.", show_default=False),
]
Jobs = Annotated[int, typer.Option(min=1, help="Fits at a time; they then share the machine that times them.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads a fit.", show_default=False)]

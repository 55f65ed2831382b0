"""``extract``: from a folder of recordings to features."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from hscmae.cli.options import Json, Overwrite
from hscmae.cli.output import command, print_json, say

verbs = typer.Typer()

EPILOG = (
    "Example: hscmae extract recordings/ --output features\n\n"
    "Sounds and pictures of trained networks: hscmae extract recordings/ --output features --audio yamnet "
    "--visual efficientnet-lite0\n\n"
    "New files later: hscmae extract recordings/ --output features --update"
)


@verbs.command(epilog=EPILOG)
def extract(
    media: Annotated[
        list[Path],
        typer.Argument(
            metavar="MEDIA...",
            help="Files and folders: videos, or sounds and pictures paired by name.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="STORE", help="Store to write.", show_default=False)],
    audio: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="light, yamnet, vggish, transformers:ID (AST, CLAP) or none; the best at hand by default.",
            show_default=False,
        ),
    ] = None,
    visual: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="light, efficientnet-lite0, inception-v3, transformers:ID (CLIP, SigLIP, DINOv2) or none; the best "
            "at hand by default.",
            show_default=False,
        ),
    ] = None,
    window: Annotated[
        float | None, typer.Option(help="Seconds of a row; a file under 1.5 of them is one. [default: 10]")
    ] = None,
    hop: Annotated[
        float | None, typer.Option(help="Seconds from one window to the next. [default: the window]")
    ] = None,
    pool: Annotated[
        Literal["none", "mean"] | None, typer.Option(help="mean: a vector a row instead of one a second.")
    ] = None,
    frames: Annotated[
        Literal["second", "key"] | None,
        typer.Option(help="second: a picture a second; key: of key frames alone, faster. [default: second]"),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="F.csv", help="Labels to put in: columns id, label, perhaps split.", show_default=False),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="File or folder of networks' weights; repeatable.", show_default=False),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Decoding processes; one a core by default.", show_default=False)
    ] = None,
    engine: Annotated[
        Literal["plain", "ray"], typer.Option(help="ray: on a Ray cluster (RAY_ADDRESS), the same result.")
    ] = "plain",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first file with a problem.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an extraction that was interrupted.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Take in new and changed files, drop vanished ones.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """From recordings to features: sounds and pictures described by trained networks, a row every ten seconds.

    Files that cannot be read are reported, one line each, and passed over; media.csv in the store lists them.
    """
    from hscmae.cli.progress import clips_progress
    from hscmae.extract.job import Settings, run
    from hscmae.extract.spool import interrupted_job

    try:
        with clips_progress("extract", enabled=not as_json) as progress:
            done = run(
                media,
                output,
                Settings(audio, visual, window, hop, pool, frames, weights or []),
                labels=labels,
                jobs=jobs,
                engine=engine,
                strict=strict,
                resume=resume,
                update=update,
                overwrite=overwrite,
                progress=progress,
                say=lambda line: say(line, err=True),
            )
    except KeyboardInterrupt:
        if interrupted_job(output):
            say("what was done is kept: the same command with --resume goes on from there", err=True)
        raise
    if as_json:
        found = {
            "output": str(output),
            "rows": done.rows,
            "clips": done.clips,
            "described": done.described,
            "kept": done.kept,
            "dropped": done.dropped,
            "missing": done.missing,
            "problems": done.problems,
            "recipe": done.recipe,
        }
        print_json(found)
        return
    if done.problems:
        kinds = Counter(line.rsplit(": ", 1)[-1] for line in done.problems)
        shown = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(5))
        say(f"{len(done.problems)} problems ({shown}); see {output}/media.csv", err=True)
    changes = f" ({done.described} new or changed, {done.kept} kept, {done.dropped} dropped)" if update else ""
    lacking = "".join(f", {count} without {m}" for m, count in done.missing.items())
    say(f"{output}: {done.rows} rows of {done.clips} clips{lacking}{changes}. Next: {command('inspect', output)}")

"""Verbs of an archive: ``build`` and ``search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hscmae.cli.options import Archived, Excluded, Json, Table
from hscmae.cli.output import command, print_json, say

if TYPE_CHECKING:
    from hscmae.search.archive import Answer, Result

verbs = typer.Typer()

WARNINGS = 10  # shown

Weights = Annotated[
    list[Path] | None,
    typer.Option(metavar="PATH", help="File or folder of networks' weights; repeatable.", show_default=False),
]


@verbs.command(
    epilog="Example: hscmae build recordings/ --output archive\n\n"
    "New files later: hscmae build recordings/ --output archive --update\n\n"
    "A build that was interrupted goes on when the same command is given again."
)
def build(
    output: Annotated[Path, typer.Option(metavar="ARCHIVE", help="Folder of the archive.", show_default=False)],
    media: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="MEDIA...",
            help="Files and folders: videos, or sounds and pictures paired by name; the archive's own by default.",
            show_default=False,
        ),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Take in new and changed files, drop vanished ones; the model stays.")
    ] = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="Learn the model anew.")] = False,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="A trained model, or its name on the hub, instead of training.", show_default=False
        ),
    ] = None,
    background: Annotated[
        Path | None,
        typer.Option(
            metavar="F",
            help="Unlabelled pairs of other sources with the same features, for few clips.",
            show_default=False,
        ),
    ] = None,
    exclude_ids: Excluded = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="F.csv",
            help="Labels for --where and the report: columns id, label. Never trained on.",
            show_default=False,
        ),
    ] = None,
    audio: Annotated[str | None, typer.Option(metavar="NAME", help="As of extract.", show_default=False)] = None,
    visual: Annotated[str | None, typer.Option(metavar="NAME", help="As of extract.", show_default=False)] = None,
    window: Annotated[
        float | None, typer.Option(help="Seconds of a row; longer files are cut. [default: 10]", show_default=False)
    ] = None,
    weights: Weights = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Decoding processes; one a core by default.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of training.")] = 0,
    as_json: Json = False,
) -> None:
    """From a folder of recordings to an archive to search: extract, inspect, train, embed, report."""
    from hscmae.cli.progress import stage_progress
    from hscmae.extract.job import Settings
    from hscmae.search.build import build as build_archive

    with stage_progress(enabled=not as_json) as progress:
        done = build_archive(
            media or [],
            output,
            update=update,
            retrain=retrain,
            settings=Settings(audio, visual, window, weights=weights or []),
            labels=labels,
            background=background,
            run=run,
            exclude=exclude_ids,
            seed=seed,
            jobs=jobs,
            progress=progress,
            say=lambda line: say(line, err=True),
        )
    if as_json:
        print_json({**vars(done), "output": str(output)})
        return
    for line in done.warnings[:WARNINGS]:
        say(f"warning: {line}", err=True)
    if len(done.warnings) > WARNINGS:
        say(f"and {len(done.warnings) - WARNINGS} more: see {output}/report.html", err=True)
    changes = f" ({done.described} recordings new or changed, {done.kept} kept, {done.dropped} dropped)"
    say(
        f"{output}: {done.rows} clips, {done.pairs} with sound and picture"
        f"{changes if update else ''}{', model trained' if done.trained else ''}\n\n"
        f"Next:\n  {command('search', output, done.example)}\n  {command('search', output, 'ANY_SOUND_OR_PICTURE')}\n"
        f"  {output}/report.html in a browser"
    )


@verbs.command(
    epilog="Example: hscmae search archive dog.wav\n\n"
    "What sounds like two minutes into a talk: hscmae search archive talks/monday.mp4 --at 120 --to audio\n\n"
    "Among some clips alone: hscmae search archive dog.wav --where label=dog --where folder=fold1"
)
def search(
    archive: Archived,
    query: Annotated[
        str,
        typer.Argument(metavar="QUERY", help="A clip's id, a media file, or an .npy feature row.", show_default=False),
    ],
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="The model, if the archive does not name it.", show_default=False),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="M", help="The query's modality, or both; its first by default.", show_default=False
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="M", help="The results' modality, or both fused; the other one by default.", show_default=False
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Results.")] = 10,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Only clips of which this is true: label, split, folder, a column of media.csv; repeatable.",
            show_default=False,
        ),
    ] = None,
    group: Annotated[
        bool, typer.Option("--group", help="One result for a recording's windows and for near-duplicates.")
    ] = False,
    at: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Where in a media file the query is; its best window by default.",
            show_default=False,
        ),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            metavar="INDEX",
            help="Search this index of hscmae index (a folder, or postgresql://... with --table).",
            show_default=False,
        ),
    ] = None,
    table: Table = "hscmae",
    weights: Weights = None,
    open_: Annotated[bool, typer.Option("--open", help="Play or show the best result.")] = False,
    as_json: Json = False,
) -> None:
    """The clips that look like a sound, sound like a picture, or are like a clip."""
    from contextlib import ExitStack

    from hscmae.search.archive import Archive

    with ExitStack() as stack:
        opened = stack.enter_context(Archive.open(archive, run=run, weights=weights or []))
        found_index = None
        if index is not None:
            from hscmae.search.index import open_index

            found_index = stack.enter_context(open_index(index, opened, table=table))
        answer = opened.answer(query, k, from_=from_, to=to, where=where or [], group=group, at=at, index=found_index)
        if as_json:
            print_json(answer.as_json())
        else:
            _print_answer(answer)
        if open_ and answer.results:
            file = opened.file(answer.results[0])
            if file is None:
                say(f"{answer.results[0].path}: not found, so it cannot be opened", err=True)
            else:
                typer.launch(str(file))


def _print_answer(answer: Answer) -> None:
    from rich.table import Table
    from rich.text import Text

    from hscmae.cli.tables import console
    from hscmae.errors import printable

    out = console()
    title = f"{answer.query}: {answer.source} → {answer.target}"
    out.print(Text(printable(title)), soft_wrap=True)
    if not answer.results:
        out.print("nothing found")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("clip", overflow="fold")
    for result in answer.results:
        table.add_row(str(result.rank), f"{result.score:.3f}", Text(printable(place_of(result))))
    out.print(table)


def place_of(result: Result) -> str:
    """Where a result is to be heard or seen: ``talks/monday.mp4 at 2:00``."""
    name = result.path or result.id
    if "#t=" not in result.id or result.start is None:
        return name
    minutes, seconds = divmod(int(result.start), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    return f"{name} at {clock}" if result.path else f"{name.partition('#')[0]} at {clock}"

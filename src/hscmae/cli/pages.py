"""Verbs that write a page to look at: ``demo`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hscmae.cli.inputs import read_pairs
from hscmae.cli.options import DropBad, Holdout, Json, Overwrite, Run, Split
from hscmae.cli.output import command, print_json, say

verbs = typer.Typer()


@verbs.command(epilog="Example: hscmae demo --output demo")
def demo(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")] = Path("demo"),
    clips: Annotated[int, typer.Option(min=60, help="Clips in the corpus.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the corpus and of training.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Offline, from nothing: make media files, extract, train, compare with baselines, write a report."""
    from hscmae.cli.progress import stage_progress
    from hscmae.cli.tables import print_demo
    from hscmae.demo.run import run_demo

    with stage_progress(enabled=not as_json) as progress:
        results = run_demo(output, clips=clips, seed=seed, overwrite=overwrite, progress=progress)
    if as_json:
        print_json({"results": [{"method": r.method, **r.metrics} for r in results]})
        return
    print_demo(results)
    features, run = output / "features", output / "run"
    say(
        f"\nTo read: open {output / 'report.html'} in a browser.\n"
        f"The corpus is in {output / 'media'}, its features in {features}, the model in {run}. Next:\n"
        f"  {command('inspect', features)}\n"
        f"  {command('evaluate', run, features)}\n"
        f"  {command('report', run, features, '--media', output / 'media', '--output', 'again.html')}\n"
        f"  {command('train', 'YOUR_FEATURES.h5', '--output', 'runs/mine')}\n"
        f"To see, hear and search it at http://127.0.0.1:8000/:\n  {command('serve', output)}"
    )


@verbs.command(epilog="Example: hscmae report runs/ave AVE.h5 --media clips --output ave.html")
def report(
    run: Run,
    output: Annotated[Path, typer.Option(metavar="F.html", help="The page to write.", show_default=False)],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Feature file or store; without it: training alone.", show_default=False),
    ] = None,
    media: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The clips' media files, named by their ids.", show_default=False),
    ] = None,
    split: Split = "test",
    holdout: Holdout = None,
    overwrite: Overwrite = False,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> None:
    """One self-contained HTML page about a run: data, training, metrics, a map, examples to see and hear."""
    from hscmae.artifact import read_config
    from hscmae.cli.progress import stage_progress
    from hscmae.report import write_report

    pairs = None
    if file is not None:
        trained_on = [*read_config(run)["modalities"]]
        pairs = read_pairs(file, drop_bad_rows=drop_bad_rows, modalities=trained_on, holdout=holdout, run=run)
    with stage_progress(enabled=not as_json) as progress:
        written = write_report(
            run, output, file=file, pairs=pairs, split=split, media=media, overwrite=overwrite, progress=progress
        )
    if as_json:
        print_json(written)
    else:
        say(f"{output}: {written['bytes'] / 1e6:.1f} MB; open it in a browser")

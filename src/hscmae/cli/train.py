"""Verbs on one model: ``train`` and ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hscmae.cli.inputs import leave_out, names, read_pairs, with_split
from hscmae.cli.options import (
    Changes,
    DropBad,
    Excluded,
    Holdout,
    Input,
    Json,
    Modalities,
    Overwrite,
    Run,
    Split,
)
from hscmae.cli.output import command, print_json, say
from hscmae.errors import InputError

verbs = typer.Typer()
WORTH_TELLING = 0.02  # share of wrong pairs


@verbs.command(
    epilog="Example: hscmae train AVE.h5 --output runs/ave --set affinity.k=30 --seed 1\n\n"
    "In several processes: torchrun --nproc-per-node 4 -m hscmae train AVE.h5 --output runs/ave"
)
def train(
    file: Input,
    output: Annotated[Path, typer.Option(metavar="RUN", help="Folder of the run.", show_default=False)],
    method: Annotated[str, typer.Option(help="hscmae, or a baseline: ridge-cca, infonce, ...")] = "hscmae",
    preset: Annotated[str, typer.Option(help="default, or paper: as the paper describes it.")] = "default",
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.", show_default=False)] = None,
    set_: Changes = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of every random draw; 0 by default.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from RUN's last checkpoint.")] = False,
    overwrite: Overwrite = False,
    modalities: Modalities = None,
    exclude_ids: Excluded = None,
    background: Annotated[
        Path | None,
        typer.Option(
            metavar="F",
            help="Unlabelled pairs of other sources with the same features, for when training pairs are few; clips "
            "that FILE has are left out of it.",
            show_default=False,
        ),
    ] = None,
    split: Split = "train",
    holdout: Holdout = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads a process; all by default.", show_default=False)
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write RUN/tensorboard too.")] = False,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> None:
    """Train a model on paired features, without their labels."""
    from dataclasses import replace

    from hscmae.cli.progress import training_progress
    from hscmae.data.readers import read
    from hscmae.data.recipe import recipe_of
    from hscmae.data.splits import without_clips_of
    from hscmae.methods import get_method
    from hscmae.runs import settings_from, train_run

    settings = settings_from(config, set_ or [])
    if seed is not None and settings.get("seed", seed) != seed:
        raise InputError(f"--seed {seed}, but the settings say seed={settings['seed']}: leave out one of the two")
    model = get_method(method).from_settings(settings if seed is None else {**settings, "seed": seed}, preset)
    files = [file] if background is None else [file, background]
    found = [read(f, drop_bad_rows=drop_bad_rows, modalities=names(modalities)) for f in files]
    pairs, *others = leave_out(exclude_ids, found)
    if others:
        others = [without_clips_of(others[0], pairs)]
        say(f"background: {len(others[0])} pairs of {background}, without the clips of {file}", err=True)
    pairs = with_split(pairs, holdout)
    if split != "train":
        pairs = replace(pairs.of_split(split), split=None)
    with training_progress(enabled=not as_json) as progress:
        summary = train_run(
            model,
            pairs,
            output,
            resume=resume,
            overwrite=overwrite,
            threads=threads,
            tensorboard=tensorboard,
            data={
                "source": file.name,
                "split": split,
                "holdout": holdout,
                "excluded": exclude_ids and exclude_ids.name,
                "background": background and background.name,
            },
            recipe=recipe_of(file),
            background=others[0] if others else None,
            progress=progress,
        )
    if as_json:
        print_json({"output": str(output), "method": method, **summary})
    else:
        chosen = summary.get("chosen_step")
        steps = "" if chosen is None else f", {chosen} steps chosen without labels"
        if summary.get("wrong_share_ci", [0])[0] > WORTH_TELLING:
            low, high = summary["wrong_share_ci"]
            say(
                f"{low:.0%} to {high:.0%} of the pairs look wrong and count less; {command('audit', output, file)} "
                "lists them"
            )
        say(f"{output}: {method} on {summary['rows']} rows{steps}. Next: {command('evaluate', output, file)}")


@verbs.command(epilog="Example: hscmae evaluate runs/ave AVE.h5 --split test --json")
def evaluate(
    run: Run,
    file: Input,
    split: Split = "test",
    holdout: Holdout = None,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples of the 95% intervals; 0: none.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> None:
    """Cross-modal retrieval metrics with 95% intervals."""
    from hscmae.cli.progress import stage_progress
    from hscmae.cli.tables import print_metrics
    from hscmae.evaluation.protocol import evaluate as evaluate_method
    from hscmae.methods import load

    model = load(run)
    pairs = read_pairs(file, drop_bad_rows=drop_bad_rows, modalities=[*model.dims_], holdout=holdout, run=run)
    with stage_progress(enabled=not as_json, transient=True) as progress:
        metrics = evaluate_method(model, pairs, split=split, bootstrap=bootstrap, seed=seed, progress=progress)
    if as_json:
        print_json(metrics)
    else:
        print_metrics(metrics)

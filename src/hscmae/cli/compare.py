"""Verbs that fit many models: ``benchmark``, ``tune`` and ``ablate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hscmae.cli.inputs import names, read_pairs
from hscmae.cli.options import (
    Changes,
    DropBad,
    Excluded,
    Holdout,
    Input,
    Jobs,
    Json,
    Modalities,
    Overwrite,
    Resplits,
    Results,
    ResumeJobs,
    Seeds,
    Threads,
)
from hscmae.cli.output import command, print_json, say
from hscmae.errors import InputError

if TYPE_CHECKING:
    from hscmae.benchmark.jobs import Contender

verbs = typer.Typer()


@verbs.command(epilog="Example: hscmae benchmark AVE.h5 --methods ridge-cca,hscmae --splits 10 --output bench")
def benchmark(
    file: Input,
    output: Results,
    methods: Annotated[str, typer.Option(help="all, or names with commas: METHOD or METHOD:PRESET.")] = "all",
    seeds: Seeds = 5,
    splits: Resplits = 0,
    trials: Annotated[
        int, typer.Option(min=0, help="Tune each method first by so many trials, without labels; 0: as they are.")
    ] = 0,
    curve: Annotated[
        list[str] | None,
        typer.Option(help="Robustness too: wrong-pairs, co-occurrence or partial; repeatable.", show_default=False),
    ] = None,
    resume: ResumeJobs = False,
    overwrite: Overwrite = False,
    modalities: Modalities = None,
    exclude_ids: Excluded = None,
    holdout: Holdout = None,
    jobs: Jobs = 1,
    threads: Threads = None,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> None:
    """Every method under one protocol: one table with paired intervals, and plots."""
    from hscmae.benchmark.jobs import contenders
    from hscmae.benchmark.protocol import benchmark as run_benchmark
    from hscmae.cli.progress import jobs_progress

    who = contenders(names(methods) or [])
    _one_way_to_split(splits, holdout)
    pairs = read_pairs(
        file,
        drop_bad_rows=drop_bad_rows,
        modalities=names(modalities),
        exclude_ids=exclude_ids,
        holdout=holdout,
    )
    with jobs_progress(enabled=not as_json) as progress:
        results = run_benchmark(
            pairs,
            output,
            who,
            seeds=seeds,
            splits=splits,
            trials=trials,
            own_split=holdout or "file",
            curves=curve or [],
            resume=resume,
            overwrite=overwrite,
            jobs=jobs,
            threads=threads,
            progress=progress,
        )
    _show_results(output, "benchmark.md", results, as_json)


@verbs.command(epilog="Example: hscmae tune AVE.h5 --method hscmae --trials 20 --output tuned")
def tune(
    file: Input,
    output: Results,
    method: Annotated[str, typer.Option(help="Whose settings to search.")] = "hscmae",
    preset: Annotated[str, typer.Option(help="The settings to start from.")] = "default",
    set_: Changes = None,
    trials: Annotated[int, typer.Option(min=1, help="Settings to try; the first are those as they are.")] = 20,
    resume: ResumeJobs = False,
    overwrite: Overwrite = False,
    modalities: Modalities = None,
    exclude_ids: Excluded = None,
    holdout: Holdout = None,
    threads: Threads = None,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> None:
    """Search a method's settings without labels: by agreement of held-out training pairs' neighbourhoods."""
    from hscmae.benchmark.tuning import tune as run_tuning
    from hscmae.cli.progress import jobs_progress
    from hscmae.cli.tables import print_document

    base = _contender(method, preset, set_)
    pairs = read_pairs(
        file,
        drop_bad_rows=drop_bad_rows,
        modalities=names(modalities),
        exclude_ids=exclude_ids,
        holdout=holdout,
    )
    with jobs_progress(enabled=not as_json) as progress:
        found = run_tuning(
            pairs,
            output,
            base,
            trials,
            split=holdout or "file",
            resume=resume,
            overwrite=overwrite,
            threads=threads,
            progress=progress,
        )
    if as_json:
        print_json({"output": str(output), **found})
    else:
        print_document((output / "tune.md").read_text(encoding="utf-8"))
        chosen = ("--method", method, "--config", output / "best.yaml")
        say(f"Next: {command('train', file, *chosen, '--output', 'RUN')}")


@verbs.command(epilog="Example: hscmae ablate AVE.h5 --parts local,warm-start,masking.ratio --output ablation")
def ablate(
    file: Input,
    output: Results,
    parts: Annotated[
        str,
        typer.Option(help="Parts to change, with commas: local, ema, ...; settings to sweep: masking.ratio, ...; all."),
    ] = "all",
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="Sweep every setting of note too.")] = False,
    seeds: Seeds = 5,
    splits: Resplits = 0,
    preset: Annotated[str, typer.Option(help="HSC-MAE's preset to take apart.")] = "default",
    set_: Changes = None,
    resume: ResumeJobs = False,
    overwrite: Overwrite = False,
    modalities: Modalities = None,
    exclude_ids: Excluded = None,
    holdout: Holdout = None,
    jobs: Jobs = 1,
    threads: Threads = None,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> None:
    """HSC-MAE with each part removed or changed, one at a time; its sensitivity to each setting."""
    from hscmae.benchmark.ablation import ablate as run_ablation
    from hscmae.benchmark.ablation import variants
    from hscmae.cli.progress import jobs_progress

    named = [] if parts == "all" else names(parts) or []
    who = variants(_contender("hscmae", preset, set_), named, sensitivity=sensitivity)
    _one_way_to_split(splits, holdout)
    pairs = read_pairs(
        file,
        drop_bad_rows=drop_bad_rows,
        modalities=names(modalities),
        exclude_ids=exclude_ids,
        holdout=holdout,
    )
    with jobs_progress(enabled=not as_json) as progress:
        results = run_ablation(
            pairs,
            output,
            who,
            seeds=seeds,
            splits=splits,
            own_split=holdout or "file",
            resume=resume,
            overwrite=overwrite,
            jobs=jobs,
            threads=threads,
            progress=progress,
        )
    _show_results(output, "ablation.md", results, as_json)


def _contender(method: str, preset: str, changes: list[str] | None) -> Contender:
    from hscmae.benchmark.jobs import contenders
    from hscmae.runs import settings_from

    (base,) = contenders([method if preset == "default" else f"{method}:{preset}"])
    settings = settings_from(None, changes or [])
    if "seed" in settings:
        raise InputError("--set seed: the seeds of the fits are 0, 1, ...; leave it out")
    return base.changed(settings)


def _one_way_to_split(splits: int, holdout: str | None) -> None:
    if splits and holdout:
        raise InputError("--splits draws splits of its own: leave out --holdout")


def _show_results(output: Path, table: str, results: list[dict[str, Any]], as_json: bool) -> None:
    from hscmae.cli.tables import print_document

    if as_json:
        print_json({"output": str(output), "results": results})
    else:
        print_document((output / table).read_text(encoding="utf-8"))

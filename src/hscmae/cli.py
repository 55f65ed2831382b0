"""The command line: one verb a function, thin; what a verb does lives in the library.

Results go to stdout (with ``--json`` one object and nothing else), everything else to stderr. torch is imported inside
the verbs, so that ``--help`` is instant.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hscmae import cli_extract
from hscmae.errors import InputError, RunError, printable

if TYPE_CHECKING:
    from hscmae.benchmark.jobs import Contender
    from hscmae.data.pairs import Pairs

ONLY_TRAIN = "only train works in several processes: start the other verbs without torchrun"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="One embedding space for two modalities, learned from paired, unlabelled features.",
    epilog="Any verb takes --debug, which shows the traceback of an error.",
)

Input = Annotated[Path, typer.Argument(metavar="FILE", help="Feature file or store.", show_default=False)]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained model.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on stdout.")]
DropBad = Annotated[bool, typer.Option("--drop-bad-rows", help="Leave out rows with NaN, infinity or a repeated id.")]
Holdout = Annotated[
    str | None,
    typer.Option(metavar="SPEC", help="Split for a file without one: id-hash:SHARE or tail:SHARE.", show_default=False),
]
Split = Annotated[str, typer.Option(help="train, val, test or all.")]
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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 wrong usage or bad input, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # torchrun's
        from hscmae.training.distributed import run_as_one

        return run_as_one(lambda: _run(given) if "train" in given[:1] else _failed(ONLY_TRAIN, 2, False))
    code, say = _run(given)
    say()
    return code


def _run(arguments: list[str]) -> tuple[int, Callable[[], None]]:
    """The exit code, and what is to be said about it."""
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s", stream=sys.stderr)
    try:
        code = app(arguments, standalone_mode=False)
        if code == 130:  # typer turns an interrupt into its exit code
            raise KeyboardInterrupt
        return int(code or 0), lambda: None
    except KeyboardInterrupt:
        return _failed("interrupted", 130, debug)
    except InputError as error:
        return _failed(str(error), 2, debug)
    except RunError as error:
        return _failed(str(error), 1, debug)
    except typer.Abort:
        return _failed("interrupted", 130, debug)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # usage errors of the option parser
            return int(error.exit_code), error.show
        if isinstance(error, BrokenPipeError):
            return 1, lambda: None
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = "" if isinstance(error, OSError) else f"unexpected {type(error).__name__}: "
        return _failed(f"{kind}{what}{'' if debug else ' (--debug shows where)'}", 1, debug)


def _failed(message: str, code: int, debug: bool) -> tuple[int, Callable[[], None]]:
    where = traceback.format_exc() if debug else ""
    return code, lambda: print(f"{where}error: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)


@app.command(epilog="Example: hscmae inspect AVE.h5 --against published/AVE.h5")
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
        _print_json(found.to_json())
    elif found.modalities:
        from hscmae.console import print_inspection

        print_inspection(found)
    else:
        raise InputError(found.problems[0].line(str(file)))
    return 0 if found.ok else 2


app.command(epilog=cli_extract.EPILOG)(cli_extract.extract)


@app.command(epilog="Example: hscmae convert AVE.h5 --output ave")
def convert(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="Feature files.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(metavar="STORE", help="Store to write; a file where it ends in .h5 or .npz.", show_default=False),
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
    """Feature files of any supported format to one store, or a file to .h5 or .npz."""
    from hscmae.data.convert import convert as convert_files
    from hscmae.data.store import interrupted_state
    from hscmae.progress import stage_progress

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
            typer.echo("what was done is kept: the same command with --resume goes on from there", err=True)
        raise
    if as_json:
        _print_json({"output": str(output), "rows": rows})
    else:
        typer.echo(f"{output}: {rows} rows")


@app.command(
    epilog="Example: hscmae train AVE.h5 --output runs/ave --set affinity.k=30 --seed 1\n\n"
    "In several processes: torchrun --nproc-per-node 4 -m hscmae train AVE.h5 --output runs/ave"
)
def train(
    file: Input,
    output: Annotated[Path, typer.Option(metavar="RUN", help="Folder of the run.", show_default=False)],
    method: Annotated[str, typer.Option(help="hscmae, or a baseline: ridge-cca, infonce, ...")] = "hscmae",
    preset: Annotated[str, typer.Option(help="default, or paper: as the paper describes it.")] = "default",
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.", show_default=False)] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting, as loss.tau=0.1; repeatable.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random draw.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from RUN's last checkpoint.")] = False,
    overwrite: Overwrite = False,
    exclude_ids: Annotated[
        Path | None,
        typer.Option(metavar="F", help="Leave out these ids: a text file or a feature file.", show_default=False),
    ] = None,
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

    from hscmae.data.splits import exclude_ids as exclude
    from hscmae.methods import get_method
    from hscmae.progress import training_progress
    from hscmae.runs import settings_from, train_run

    settings = settings_from(config, set_ or [])
    model = get_method(method).from_settings({**settings, "seed": seed}, preset)
    pairs = _read(file, drop_bad_rows, holdout, exclude_ids)
    others = None
    if background is not None:
        others = exclude(_read(background, drop_bad_rows, None, exclude_ids), pairs.ids)
        typer.echo(f"background: {len(others)} pairs of {background}, without the clips of {file}", err=True)
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
                "holdout": holdout,
                "excluded": exclude_ids and exclude_ids.name,
                "background": background and background.name,
            },
            background=others,
            progress=progress,
        )
    if as_json:
        _print_json(summary)
    else:
        chosen = summary.get("chosen_step")
        steps = "" if chosen is None else f", {chosen} steps chosen without labels"
        typer.echo(f"{output}: {method} on {summary['rows']} rows{steps}. Next: hscmae evaluate {output} {file}")


@app.command(epilog="Example: hscmae evaluate runs/ave AVE.h5 --split test --json")
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
    from hscmae.artifact import load_artifact
    from hscmae.console import print_metrics
    from hscmae.evaluation.protocol import evaluate as evaluate_method

    model = load_artifact(run)
    pairs = _read(file, drop_bad_rows, holdout or _recorded_holdout(run), None)
    metrics = evaluate_method(model, pairs, split=split, bootstrap=bootstrap, seed=seed)
    if as_json:
        _print_json(metrics)
    else:
        print_metrics(metrics)


@app.command(epilog="Example: hscmae embed runs/ave AVE.h5 --output ave-embeddings --split test")
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
    from hscmae.artifact import load_artifact
    from hscmae.embedding import embed_file
    from hscmae.progress import rows_progress

    model = load_artifact(run)
    with rows_progress("embed", enabled=not as_json) as progress:
        rows = embed_file(
            model,
            file,
            output,
            split=split,
            holdout=holdout or _recorded_holdout(run),
            overwrite=overwrite,
            drop_bad_rows=drop_bad_rows,
            engine=engine,
            progress=progress,
        )
    if as_json:
        _print_json({"output": str(output), "rows": rows, "modalities": list(model.dims_), "dim": model.config.dim})
    else:
        typer.echo(f"{output}: {rows} rows")


@app.command(epilog="Example: hscmae audit runs/ave AVE.h5 --split train --top 20")
def audit(
    run: Run,
    file: Input,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "train",
    holdout: Holdout = None,
    top: Annotated[int, typer.Option(min=1, help="Pairs to show; --json gives all.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of partitions, random pairs and intervals.")] = 0,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> None:
    """Pairs whose modalities disagree, most suspicious first, with the estimated share of wrong pairs."""
    from hscmae.artifact import load_artifact, read_config
    from hscmae.audit import audit as audit_pairs

    model = load_artifact(run)
    pairs = _read(file, drop_bad_rows, holdout or _recorded_holdout(run), None)
    pairs = pairs if pairs.split is None and split == "train" else pairs.of_split(split)
    seen = split != "test" and read_config(run)["data"].get("source") == file.name
    found = audit_pairs(model, pairs, seen=seen, seed=seed)
    if as_json:
        _print_json(found.as_json())
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


@app.command(epilog="Example: hscmae benchmark AVE.h5 --methods ridge-cca,hscmae --splits 10 --output bench")
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
    from hscmae.progress import jobs_progress

    who = contenders([name.strip() for name in methods.split(",") if name.strip()])
    _one_way_to_split(splits, holdout)
    pairs = _read(file, drop_bad_rows, holdout, exclude_ids)
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


@app.command(epilog="Example: hscmae tune AVE.h5 --method hscmae --trials 20 --output tuned")
def tune(
    file: Input,
    output: Results,
    method: Annotated[str, typer.Option(help="Whose settings to search.")] = "hscmae",
    preset: Annotated[str, typer.Option(help="The settings to start from.")] = "default",
    set_: Changes = None,
    trials: Annotated[int, typer.Option(min=1, help="Settings to try; the first are those as they are.")] = 20,
    resume: ResumeJobs = False,
    overwrite: Overwrite = False,
    exclude_ids: Excluded = None,
    holdout: Holdout = None,
    threads: Threads = None,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> None:
    """Search a method's settings without labels: by agreement of held-out training pairs' neighbourhoods."""
    from hscmae.benchmark.tuning import tune as run_tuning
    from hscmae.progress import jobs_progress

    base = _contender(method, preset, set_)
    pairs = _read(file, drop_bad_rows, holdout, exclude_ids)
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
        _print_json({"output": str(output), **found})
    else:
        typer.echo((output / "tune.md").read_text(encoding="utf-8"))
        typer.echo(f"Next: hscmae train {file} --method {method} --config {output}/best.yaml --output RUN")


@app.command(epilog="Example: hscmae ablate AVE.h5 --parts local,warm-start,masking.ratio --output ablation")
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
    from hscmae.progress import jobs_progress

    named = [] if parts == "all" else [name.strip() for name in parts.split(",") if name.strip()]
    who = variants(_contender("hscmae", preset, set_), named, sensitivity=sensitivity)
    _one_way_to_split(splits, holdout)
    pairs = _read(file, drop_bad_rows, holdout, exclude_ids)
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


@app.command(epilog="Example: hscmae demo --output demo")
def demo(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")] = Path("demo"),
    clips: Annotated[int, typer.Option(min=200, help="Clips in the corpus.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the corpus and of training.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Offline, from nothing: make media files, extract, train, compare with baselines, write a report."""
    from hscmae.demo.run import run_demo
    from hscmae.progress import stage_progress

    with stage_progress(enabled=not as_json) as progress:
        results = run_demo(output, clips=clips, seed=seed, overwrite=overwrite, progress=progress)
    if as_json:
        _print_json({"results": [{"method": r.method, **r.metrics} for r in results]})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Find the picture to a sound and the sound to a picture, on clips never seen in training")
    for column in ("method", "mAP", "95% interval", "sound → picture", "picture → sound"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for r in results:
        low, high = r.metrics["avg/mAP_ci"]
        figures = (f"{r.metrics[f'{d}/mAP']:.3f}" for d in ("avg", "a2v", "v2a"))
        average, a2v, v2a = figures
        table.add_row(r.title, average, f"{low:.3f} to {high:.3f}", a2v, v2a)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    typer.echo(
        f"\nTo see and hear: open {output}/report.html in a browser.\n"
        f"The corpus is in {output}/media, its features in {output}/features, the model in {output}/run. Next:\n"
        f"  hscmae inspect {output}/features\n"
        f"  hscmae evaluate {output}/run {output}/features\n"
        f"  hscmae report {output}/run {output}/features --media {output}/media --output again.html\n"
        f"  hscmae train YOUR_FEATURES.h5 --output runs/mine"
    )


@app.command(epilog="Example: hscmae report runs/ave AVE.h5 --media clips --output ave.html")
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
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "test",
    holdout: Holdout = None,
    overwrite: Overwrite = False,
    drop_bad_rows: DropBad = False,
    as_json: Json = False,
) -> None:
    """One self-contained HTML page about a run: data, training, metrics, a map, examples to see and hear."""
    from hscmae.progress import stage_progress
    from hscmae.report import write_report

    pairs = None if file is None else _read(file, drop_bad_rows, holdout or _recorded_holdout(run), None)
    with stage_progress(enabled=not as_json) as progress:
        written = write_report(
            run, output, file=file, pairs=pairs, split=split, media=media, overwrite=overwrite, progress=progress
        )
    if as_json:
        _print_json(written)
    else:
        typer.echo(f"{output}: {written['bytes'] / 1e6:.1f} MB; open it in a browser")


def _contender(method: str, preset: str, changes: list[str] | None) -> Contender:
    from hscmae.benchmark.jobs import contenders
    from hscmae.runs import settings_from

    (base,) = contenders([method if preset == "default" else f"{method}:{preset}"])
    return base.changed(settings_from(None, changes or []))


def _one_way_to_split(splits: int, holdout: str | None) -> None:
    if splits and holdout:
        raise InputError("--splits draws splits of its own: leave out --holdout")


def _show_results(output: Path, table: str, results: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        _print_json({"output": str(output), "results": results})
    else:
        typer.echo((output / table).read_text(encoding="utf-8"))


def _read(file: Path, drop_bad_rows: bool, holdout: str | None, exclude: Path | None) -> Pairs:
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


def _recorded_holdout(run: Path) -> str | None:
    from hscmae.artifact import read_config

    recorded = read_config(run).get("data", {}).get("holdout")
    return None if recorded is None else str(recorded)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, allow_nan=False))


if __name__ == "__main__":
    sys.exit(main())

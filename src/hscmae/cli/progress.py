"""Progress bars on stderr for the verbs that take long; each yields what the library calls as it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def training_progress(*, enabled: bool) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """A bar with losses, learned weights, the validation criterion and the time left."""
    if not enabled:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(record: dict[str, Any]) -> None:
            phase = record["phase"]
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=record["steps"], figures="")
            losses = {k.removeprefix("loss/"): v for k, v in record.items() if k.startswith("loss/")}
            text = " ".join(
                f"{name} {value:.3f}" + (f"×{record[f'weight/{name}']:.2f}" if f"weight/{name}" in record else "")
                for name, value in losses.items()
            )
            text += "".join(f"  {k.removeprefix('val/')} {v:.4f}" for k, v in record.items() if k.startswith("val/"))
            bars.update(tasks[phase], completed=record["step"], figures=text)

        yield show


@contextmanager
def stage_progress(*, enabled: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage of a job: called with the stage, what is done and what there is."""
    if not enabled:
        yield lambda stage, done, total: None
        return
    with Progress(console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show


@contextmanager
def rows_progress(what: str, *, enabled: bool) -> Iterator[Callable[[int, int | None], None] | None]:
    """A bar over rows: called with rows done and, where known, rows in all."""
    if not enabled:
        yield None
        return
    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def clips_progress(what: str, *, enabled: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar over clips with their count and the time left: called with clips done and clips in all."""
    if not enabled:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def jobs_progress(*, enabled: bool) -> Iterator[Callable[[str, int, int, str], None] | None]:
    """A bar for each stage of a benchmark: called with the stage, jobs done, jobs in all, and a note beside the bar."""
    if not enabled:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int, note: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note="")
            bars.update(tasks[stage], completed=done, note=escape(note))

        yield show

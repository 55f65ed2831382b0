"""Progress bars on stderr for the verbs that take long; each yields what the library calls as it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from hscmae.errors import printable


def _console() -> Console:
    """Bars move on a terminal alone: a notebook's shell asks for colours, and would be filled with their every step."""
    return Console(stderr=True, force_terminal=sys.stderr.isatty())


def _words(template: str, *, rest: bool = False) -> TextColumn:
    """A column of text as it is; one that takes the rest of the line is cut to it."""
    return TextColumn(template, markup=False, table_column=Column(no_wrap=True, ratio=1 if rest else None))


def _steps() -> tuple[ProgressColumn, ...]:
    """What is done of what there is, and the time left."""
    return tuple(column(table_column=Column(no_wrap=True)) for column in (MofNCompleteColumn, TimeRemainingColumn))


@contextmanager
def training_progress(*, enabled: bool) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """A bar with losses, learned weights, the validation criterion and the time left."""
    if not enabled:
        yield None
        return
    columns = (_words("{task.description}"), BarColumn(bar_width=12), *_steps())
    figures = _words("{task.fields[figures]}", rest=True)
    with Progress(*columns, figures, console=_console(), expand=True) as bars:
        tasks: dict[str, Any] = {}

        def show(record: dict[str, Any]) -> None:
            phase = record["phase"]
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=record["steps"], figures="")
            # What matters most first: what does not fit the terminal is cut off.
            text = "".join(f"{k.removeprefix('val/')} {v:.4f}  " for k, v in record.items() if k.startswith("val/"))
            text += " ".join(
                f"{name} {value:.3f}" + (f"×{record[f'weight/{name}']:.2f}" if f"weight/{name}" in record else "")
                for name, value in ((k.removeprefix("loss/"), v) for k, v in record.items() if k.startswith("loss/"))
            )
            bars.update(tasks[phase], completed=record["step"], figures=text)

        yield show


@contextmanager
def stage_progress(*, enabled: bool, transient: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage of a job: called with the stage, what is done and what there is; transient bars go away."""
    if not enabled:
        yield lambda stage, done, total: None
        return
    columns = (_words("{task.description}"), BarColumn(), *_steps())
    with Progress(*columns, console=_console(), transient=transient) as bars:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(printable(stage), total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show


@contextmanager
def rows_progress(what: str, *, enabled: bool) -> Iterator[Callable[[int, int | None], None] | None]:
    """A bar over rows: called with rows done and, where known, rows in all."""
    if not enabled:
        yield None
        return
    with Progress(_words("{task.description}"), BarColumn(), *_steps(), console=_console()) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def clips_progress(what: str, *, enabled: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar over clips with their count and the time left: called with clips done and clips in all."""
    if not enabled:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console()) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def jobs_progress(*, enabled: bool) -> Iterator[Callable[[str, int, int, str], None] | None]:
    """A bar for each stage of a benchmark: called with the stage, jobs done, jobs in all, and a note beside the bar."""
    if not enabled:
        yield None
        return
    done, note = MofNCompleteColumn(table_column=Column(no_wrap=True)), _words("{task.fields[note]}", rest=True)
    columns = (_words("{task.description}"), BarColumn(bar_width=12), done, note)
    with Progress(*columns, console=_console(), expand=True) as bars:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int, note: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(printable(stage), total=total, note="")
            bars.update(tasks[stage], completed=done, note=printable(note))

        yield show

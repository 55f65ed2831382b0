"""The command: its verbs in the order of the help, and what becomes of an error."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from hscmae.cli import archive, compare, data, export, extract, index, pages, search, serve, train
from hscmae.cli.output import say
from hscmae.errors import InputError, RunError, first_line, printable
from hscmae.version import __version__

DEBUG = "--debug"
ONLY_TRAIN = "only train works in several processes: start the other verbs without torchrun"


def _show_version(asked: bool) -> None:
    if asked:
        say(f"hscmae {__version__}")
        raise typer.Exit


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="One embedding space for two modalities, learned from paired, unlabelled features.",
    epilog="Any verb takes --debug, which shows the traceback of an error.",
)
for title, module in (
    ("Data", extract),
    ("Data", data),
    ("Model", train),
    ("Model", archive),
    ("Model", export),
    ("Archive", search),
    ("Archive", index),
    ("Archive", serve),
    ("Comparison", compare),
    ("Pages", pages),
):
    for command in module.verbs.registered_commands:
        command.rich_help_panel = title
        app.registered_commands.append(command)


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 wrong usage or bad input, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # torchrun's
        from hscmae.training.distributed import run_as_one

        return run_as_one(
            lambda: _run(given) if [a for a in given if a != DEBUG][:1] == ["train"] else _failed(ONLY_TRAIN, 2, False)
        )
    code, explain = _run(given)
    explain()
    return code


def _run(arguments: list[str]) -> tuple[int, Callable[[], None]]:
    """The exit code, and what is to be said about it."""
    debug = DEBUG in arguments
    arguments = [a for a in arguments if a != DEBUG]
    logging.basicConfig(level=logging.WARNING, handlers=[_Warnings()])
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
            if hasattr(error, "message"):
                error.message = printable(error.message)
            return int(error.exit_code), error.show
        if isinstance(error, BrokenPipeError):
            return 1, lambda: None
        if isinstance(error, OSError) and error.filename is not None:
            return _failed(f"{os.fsdecode(error.filename)}: {error.strerror}", 1, debug)
        what = first_line(error)
        kind = "" if isinstance(error, OSError) else f"unexpected {type(error).__name__}: "
        return _failed(f"{kind}{what}{'' if debug else ' (--debug shows where)'}", 1, debug)


class _Warnings(logging.Handler):
    """What the library warns of, as a line on stderr; names in it may come from files."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"warning: {record.getMessage()}", err=True)


def _failed(message: str, code: int, debug: bool) -> tuple[int, Callable[[], None]]:
    where = traceback.format_exc() if debug else ""
    return code, lambda: say(f"{where}error: {' '.join(message.split())}", err=True)

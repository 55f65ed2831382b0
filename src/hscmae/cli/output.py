"""What a verb says: lines for people, one JSON object for programs.

Text from files is untrusted, their names too: whatever could steer a terminal is printed as an escape.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

import typer

from hscmae.errors import printable


def say(text: str, *, err: bool = False) -> None:
    """Print lines for people."""
    typer.echo("\n".join(printable(line) for line in text.split("\n")), err=err)


def print_json(value: Any) -> None:
    """The one object of ``--json``."""
    typer.echo(json.dumps(value, allow_nan=False))


def command(*words: object) -> str:
    """A command that can be pasted into a shell.

    >>> command("evaluate", "my run", "AVE.h5")
    "hscmae evaluate 'my run' AVE.h5"
    """
    return shlex.join(["hscmae", *map(str, words)])

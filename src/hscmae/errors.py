"""What can go wrong, in words that a user can act on.

``InputError`` is for bad input or wrong usage: the command line prints its message on one line and exits with code 2.
``RunError`` is for a failure while running (a loss that is not finite, a worker that died): exit code 1.
Neither ever shows a traceback unless ``--debug`` is given.
"""

from __future__ import annotations

from collections.abc import Sequence


class HscmaeError(Exception):
    """Base of the errors that the library raises on purpose."""


class InputError(HscmaeError, ValueError):
    """Input that cannot be used; the message names file, dataset and rows where they are known."""


class RunError(HscmaeError, RuntimeError):
    """A failure while running that is not the input's fault alone."""


def describe_rows(rows: Sequence[int], limit: int = 5) -> str:
    """Name rows for an error message: ``rows 3, 7, 9`` or ``rows 3, 7, 9, 12, 15 and 40 more``.

    >>> describe_rows([3])
    'row 3'
    >>> describe_rows(range(8), limit=3)
    'rows 0, 1, 2 and 5 more'
    """
    shown = ", ".join(str(int(row)) for row in rows[:limit])
    rest = len(rows) - limit
    return f"row{'s' if len(rows) > 1 else ''} {shown}" + (f" and {rest} more" if rest > 0 else "")


def first_line(error: BaseException) -> str:
    r"""An error's own words, on one line; its kind where it has none.

    >>> first_line(ValueError("no\nand again no")), first_line(TimeoutError())
    ('no', 'TimeoutError')
    """
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def printable(text: str) -> str:
    r"""``text`` with what could steer a terminal, or that it cannot show, as escapes: names in files are untrusted.

    >>> printable("red \x1b[31m")
    'red \\x1b[31m'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

"""Writes ``methods/__init__.pyi``: what type checkers and editors know of the constructors, made from the settings.

    python tests/stubs.py

Constructors are made at run time (``methods/estimator.py``), which no type checker follows. ``test_types.py`` fails
where the file is not what this gives.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from hscmae import methods
from hscmae.config import describe

STUB = Path(methods.__file__).with_suffix(".pyi")
HEAD = '''"""Written by ``make stubs``: the constructors' parameters, which are made at run time, for type checkers."""

# fmt: off
from pathlib import Path
from typing import Literal

'''
TAIL = """
METHODS: dict[str, type[Method]]

def get_method(name: str) -> type[Method]: ...
def load(folder: str | Path) -> Method: ...
"""


def name_of(kind: Any) -> str:
    """A type as it is written.

    >>> name_of(int), name_of(Literal["a", "b"])
    ('int', 'Literal["a", "b"]')
    """
    if get_origin(kind) is Literal:
        return f"Literal[{', '.join(chr(34) + value + chr(34) for value in get_args(kind))}]"
    return str(kind.__name__)


def stub() -> str:
    """The file's text."""
    classes = sorted(methods.METHODS.values(), key=lambda method: (method.__module__, method.__name__))
    imports = ["from .base import Method as Method\n"]
    bodies = []
    for method in classes:
        name = method.__name__
        imports.append(f"from .{method.__module__.rpartition('.')[2]} import {name} as _{name}\n")
        presets = Literal.__getitem__(tuple(method.presets))
        parameters = [("preset", presets), *((n, kind) for n, (kind, _, _) in describe(method.Config).items())]
        listed = ", ".join(f"{n}: {name_of(kind)} = ...".replace(" ", "\0") for n, kind in parameters)
        lines = textwrap.fill(listed, 112, break_long_words=False, break_on_hyphens=False).replace("\0", " ")
        body = f"    def __init__(\n        self, *,\n{textwrap.indent(lines, ' ' * 8)}\n    ) -> None: ..."
        bodies.append(f"\nclass {name}(_{name}):\n{body}\n")
    return HEAD + "".join(imports) + "".join(bodies) + TAIL


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")

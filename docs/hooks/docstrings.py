"""What docstrings have that Markdown lacks: formulas of Sphinx, bare examples, settings made at run time."""

from __future__ import annotations

import inspect
import re
import textwrap
from importlib import import_module
from typing import Any

import griffe

BLOCK = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*|[ ]*(?=\n\1 +\S)))*)", re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")
DEFAULT = re.compile(r" \(default [^()]*\)\.$", re.MULTILINE)
DOCTEST = re.compile(r"^( *)>>> .*(?:\n\1\S.*|\n\1 .*)*", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is rendered."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        # The constructor of a method and the list of its settings are made with the class; a stub has neither.
        if not cls.path.startswith("hscmae.methods."):
            return
        made = getattr(import_module(cls.module.path), cls.name)
        text = DEFAULT.sub(".", inspect.getdoc(made) or "")
        cls.docstring = griffe.Docstring(as_markdown(text), parent=cls)
        if isinstance(constructor := cls.members.get("__init__"), griffe.Function):
            for parameter in constructor.parameters:
                if parameter.default == "...":
                    parameter.default = repr(inspect.signature(made).parameters[parameter.name].default)


def as_markdown(text: str) -> str:
    """Formulas between dollars, examples in fences."""
    text = BLOCK.sub(_formula, text)
    text = INLINE.sub(lambda found: f"${' '.join(found[1].split())}$", text)
    return DOCTEST.sub(_example, text)


def _formula(found: re.Match[str]) -> str:
    return textwrap.indent(f"$$\n{' '.join(found[2].split())}\n$$", found[1])


def _example(found: re.Match[str]) -> str:
    return textwrap.indent(f"```pycon\n{textwrap.dedent(found[0])}\n```", found[1])

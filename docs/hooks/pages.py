"""What the build of the site adds to its pages: the reference of the commands, and formulas as MathML.

MathML is drawn by the browser itself, so that formulas need no script.
"""

from __future__ import annotations

import html
import re
import subprocess
import sys
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex makes of $...$ and $$...$$.
FORMULA = re.compile(
    r'<span class="arithmatex">\\\((?P<inline>.*?)\\\)</span>|<div class="arithmatex">\\\[(?P<block>.*?)\\\]</div>',
    re.DOTALL,
)
EXAMPLE = re.compile(r"^(.+): ((?:hscmae|torchrun) .+)$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return f"{markdown}\n{commands()}" if page.file.src_uri == "cli.md" else markdown


def on_page_content(content: str, **_: Any) -> str:
    return FORMULA.sub(as_mathml, content)


def commands() -> str:
    """The reference of every verb, as typer writes it of the application; examples as blocks."""
    typer = [sys.executable, "-m", "typer", "hscmae.cli", "utils", "docs", "--name", "hscmae"]
    text = subprocess.run(typer, check=True, capture_output=True, text=True).stdout
    _, _, verbs = text.partition("\n## ")
    return EXAMPLE.sub(r"\1:\n\n```console\n\2\n```", f"## {verbs}")


def as_mathml(formula: re.Match[str]) -> str:
    """One formula; what \\qquad holds apart gets a line of its own, since a page is narrow."""
    if formula["inline"] is not None:
        return f'<span class="formula">{convert(html.unescape(formula["inline"]).strip())}</span>'
    lines = re.split(r"(?<=,)\s*\\qquad\b", html.unescape(formula["block"]))
    return "".join(convert(line.strip(), display="block") for line in lines)

"""Figures in documents stand between marks that name the script which writes them, so that none can drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hscmae.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def fill(page: Path, script: str, parts: Mapping[str, str]) -> None:
    """Write each part between its marks, ``<!-- NAME: written by SCRIPT -->`` and ``<!-- end of NAME -->``."""
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- {name}: written by {script} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise SystemExit(f"{page} lacks {begin} or {end}")
        text = f"{before}{begin}\n\n{part.strip()}\n\n{end}{after}"
    write_atomic(page, text.encode())

"""HTML for notebooks, readable on light and dark pages; all text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(title: str, rows: Iterable[Sequence[object]], header: Sequence[object] = ()) -> str:
    """A titled table; each row's first cell is its name.

    >>> table("sizes", [("audio", 128)])
    '<div><strong>sizes</strong><table><tr><th style="text-align:left">audio</th><td>128</td></tr></table></div>'
    """
    head = f"<tr>{''.join(f'<th>{text(cell)}</th>' for cell in header)}</tr>" if header else ""
    body = "".join(
        f'<tr><th style="text-align:left">{text(name)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return f"<div><strong>{text(title)}</strong><table>{head}{body}</table></div>"


def text(value: object) -> str:
    """``plain``, escaped."""
    return escape(plain(value))


def plain(value: object) -> str:
    """A value as a person reads it: numbers with three decimals, nothing for ``None``."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)

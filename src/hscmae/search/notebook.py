"""What a search found, for a notebook: pictures to look at and sounds to play, where the media are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hscmae.errors import HscmaeError
from hscmae.extract.media import MediaClip
from hscmae.notebook import text

BUDGET = 6_000_000  # bytes of pictures and sounds in one cell
STYLE = "display:inline-block;vertical-align:top;width:160px;margin:0 10px 12px 0;font-size:12px;overflow-wrap:anywhere"


@dataclass(frozen=True)
class Tile:
    """One clip: a heading, lines of text, and its files where they are found."""

    head: str
    lines: Sequence[str]
    clip: MediaClip | None


def tiles_html(title: str, tiles: Sequence[Tile]) -> str:
    """Tiles side by side; without the extra ``media``, or without files, the same without pictures and sounds."""
    media = _media({place: tile.clip for place, tile in enumerate(tiles) if tile.clip is not None})
    shown = "".join(_tile(tile, media.get(place, {})) for place, tile in enumerate(tiles))
    return f"<div><p><strong>{text(title)}</strong></p>{shown}</div>"


def _media(clips: dict[int, MediaClip]) -> dict[int, dict[str, Any]]:
    from hscmae.report.media import embed_media  # its decoders are not needed for a search without a notebook

    try:
        return embed_media(clips, BUDGET) if clips else {}
    except HscmaeError:
        return {}


def _tile(tile: Tile, media: dict[str, Any]) -> str:
    parts = [f"<strong>{text(tile.head)}</strong>"]
    if "image" in media:
        parts.append(f'<img src="{media["image"]}" alt="" style="max-width:150px;display:block">')
    if "sound" in media:
        parts.append(f'<audio controls preload="none" src="{media["sound"]}" style="width:150px"></audio>')
    return f'<div style="{STYLE}">{"".join(parts)}{"<br>".join(map(text, tile.lines))}</div>'

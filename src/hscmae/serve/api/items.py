"""Clips: what is known of them, their thumbnails, sounds, waveforms and files. By id alone, never by a path."""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response

from hscmae.serve.api.models import ClipOut, ClipsOut, FiltersOut, Number, WaveformOut, Where, problems
from hscmae.serve.api.search import as_json
from hscmae.serve.media import Place, find, open_place
from hscmae.serve.problems import Problem
from hscmae.serve.ranges import file_response, part_of, unchanged
from hscmae.serve.searching import rows_of
from hscmae.serve.services import card, row_of, services
from hscmae.serve.snapshot import Snapshot

router = APIRouter(tags=["clips"])
CACHED = "private, max-age=3600"
SANDBOX = "default-src 'none'; sandbox"
Id = Annotated[
    str,
    Path(max_length=4096, description="The clip, percent-encoded.", openapi_examples={"clip": {"value": "dogs/rex"}}),
]
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


@router.get("/api/items", response_model=ClipsOut, responses=problems(400, 422))
async def items(
    request: Request,
    k: Number = 24,
    offset: Annotated[int, Query(ge=0, le=100_000_000)] = 0,
    where: Where = None,
    sample: Annotated[bool, Query(description="Spread over the archive instead of from its beginning.")] = False,
) -> Response:
    """Clips of the archive, in its order."""
    snapshot = services(request).snapshot
    rows = rows_of(snapshot, where or ())
    total = len(snapshot.archive) if rows is None else len(rows)
    if sample:
        count = min(k, total)
        places = [(2 * i + 1) * total // (2 * count) for i in range(count)]
    else:
        places = list(range(min(offset, total), min(offset + k, total)))
    found = places if rows is None else rows[places].tolist()
    return as_json({"total": total, "clips": [card(snapshot, row) for row in found]})


@router.get("/api/filters", response_model=FiltersOut, responses=problems())
async def filters(request: Request) -> Response:
    """What results can be filtered by, and how many clips there are of each."""
    facets = services(request).snapshot.facets
    return as_json({"filters": {c: {v: len(rows) for v, rows in values.items()} for c, values in facets.items()}})


@router.get(
    "/api/items/{id:path}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": BINARY}}, 304: {"description": "As before."}, **problems(404, 422)},
)
async def thumbnail(request: Request, id: Id) -> Response:
    """A clip's picture, 256 pixels square."""
    app, snapshot = services(request), services(request).snapshot
    row = row_of(snapshot, id)
    place = find(snapshot, row, "visual")
    etag = place.etag("thumbnail", row)
    return _same(request, etag) or _cached(await app.media.thumbnail(snapshot, row, place), "image/jpeg", etag)


@router.get(
    "/api/items/{id:path}/sound",
    response_class=Response,
    responses={
        200: {"content": {"audio/mpeg": BINARY}},
        206: {"description": "A part.", "content": {"audio/mpeg": BINARY}},
        304: {"description": "As before."},
        **problems(404, 416, 422),
    },
)
async def sound(request: Request, id: Id) -> Response:
    """A clip's sound as an MP3, from its first second to its last."""
    app, snapshot = services(request), services(request).snapshot
    row = row_of(snapshot, id)
    place = find(snapshot, row, "audio")
    etag = place.etag("sound", row)
    found = _same(request, etag)
    return found or _cached(await app.media.sound(snapshot, row, place), "audio/mpeg", etag, request)


@router.get(
    "/api/items/{id:path}/waveform",
    response_model=WaveformOut,
    responses={304: {"description": "As before."}, **problems(404, 422)},
)
async def waveform(request: Request, id: Id) -> Response:
    """The envelope of a clip's sound."""
    app, snapshot = services(request), services(request).snapshot
    row = row_of(snapshot, id)
    place = find(snapshot, row, "audio")
    etag = place.etag("waveform", row)
    if (found := _same(request, etag)) is not None:
        return found
    peaks = await app.media.waveform(snapshot, row, place)
    return as_json({"peaks": peaks}, {"ETag": etag, "Cache-Control": CACHED})


@router.head("/api/items/{id:path}/media", include_in_schema=False)
@router.get(
    "/api/items/{id:path}/media",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": BINARY, "audio/*": BINARY, "image/*": BINARY, "video/*": BINARY}},
        206: {"description": "A part.", "content": {"application/octet-stream": BINARY}},
        304: {"description": "As before."},
        **problems(404, 416, 422),
    },
)
async def media(
    request: Request,
    id: Id,
    modality: Annotated[
        str | None, Query(max_length=64, description="Of which file; the picture's by default.")
    ] = None,
) -> Response:
    """A clip's own file, or the part of it that `Range` asks for."""
    snapshot = services(request).snapshot
    row = row_of(snapshot, id)
    place = _file_of(snapshot, row, modality)
    headers = {
        "Content-Security-Policy": SANDBOX,
        "Cache-Control": CACHED,
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(os.fsencode(place.path.name), safe='')}",
    }
    return file_response(
        open_place(place), place.size, place.kind, place.etag("media"), request.headers, request.method, headers
    )


@router.get("/api/items/{id:path}", response_model=ClipOut, responses=problems(404, 422))
async def item(request: Request, id: Id) -> Response:
    """A clip: its labels, files and modalities."""
    snapshot = services(request).snapshot
    return as_json(card(snapshot, row_of(snapshot, id)))


def _file_of(snapshot: Snapshot, row: int, modality: str | None) -> Place:
    if modality is not None:
        return find(snapshot, row, modality if modality in ("audio", "visual") else "")
    try:
        return find(snapshot, row, "visual")
    except Problem:
        return find(snapshot, row, "audio")


def _same(request: Request, etag: str) -> Response | None:
    """That nothing changed since the client asked before."""
    if unchanged(request.headers, etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": etag, "Cache-Control": CACHED})
    return None


def _cached(content: bytes, kind: str, etag: str, request: Request | None = None) -> Response:
    headers = {"ETag": etag, "Cache-Control": CACHED, "Content-Security-Policy": SANDBOX}
    if request is None:
        return Response(content, media_type=kind, headers=headers)
    headers["Accept-Ranges"] = "bytes"
    part = part_of(request.headers, etag, len(content))
    if part is None:
        return Response(content, media_type=kind, headers=headers)
    start, stop = part
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
    return Response(content[start:stop], HTTPStatus.PARTIAL_CONTENT, headers, kind)

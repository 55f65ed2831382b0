"""Searching by a clip, by a link's vector, or by a file; and why a result was found."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.formparsers import MultiPartException

from hscmae.errors import InputError
from hscmae.search.archive import Query as Asked
from hscmae.serve.api.models import (
    AnswerOut,
    EmbeddedOut,
    From,
    Group,
    Number,
    Offset,
    To,
    Where,
    WhyOut,
    problems,
)  # fmt: skip
from hscmae.serve.problems import Problem
from hscmae.serve.services import Services, card, row_of, services
from hscmae.serve.snapshot import Snapshot
from hscmae.serve.uploads import read_upload
from hscmae.serve.vectors import MOST_TEXT, from_text, to_text

router = APIRouter(tags=["search"])
MOST_SHARED = 12
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
Id = Annotated[
    str | None,
    Query(max_length=4096, description="A clip.", openapi_examples={"clip": {"value": "dogs/rex"}}),
]
Vector = Annotated[
    str | None, Query(max_length=MOST_TEXT, description="A query as an answer's `vector` and a link hold it.")
]
At = Annotated[
    float | None,
    Query(ge=0, le=21_600, allow_inf_nan=False, description="Seconds in the file at which the query begins."),
]


@dataclass(frozen=True)
class Wanted:
    """Which results, whatever the query."""

    to: To = None
    k: Number = 24
    offset: Offset = 0
    where: Where = None
    group: Group = False


@router.get("/api/search", response_model=AnswerOut, responses=problems(400, 404, 410, 422))
async def search(
    request: Request,
    wanted: Annotated[Wanted, Depends()],
    id: Id = None,
    vector: Vector = None,
    from_: From = None,
) -> Response:
    """The clips nearest to a clip, or to a link's query, the best first; the query itself is left out."""
    app = services(request)
    snapshot = app.snapshot
    return await _answer(app, snapshot, _asked(snapshot, id, vector, from_), wanted, vector)


@router.post(
    "/api/search", response_model=AnswerOut, responses=problems(400, 408, 409, 413, 415, 422, 507), openapi_extra=FORM
)
async def search_by_file(
    request: Request, wanted: Annotated[Wanted, Depends()], from_: From = None, at: At = None
) -> Response:
    """The clips nearest to a sound, a picture or a video that is sent; `vector` of the answer repeats the search."""
    app = services(request)
    snapshot = app.snapshot
    _known(snapshot, wanted.to)
    asked = await _of_file(app, snapshot, request, from_, at)
    # Searched by what the link will hold, so that the link gives the same results.
    vector = to_text(snapshot.archive, asked.z)
    asked = replace(asked, z=from_text(snapshot.archive, vector))
    return await _answer(app, snapshot, asked, wanted, vector)


@router.post(
    "/api/embed", response_model=EmbeddedOut, responses=problems(400, 408, 409, 413, 415, 422, 507), openapi_extra=FORM
)
async def embed(request: Request, from_: From = None, at: At = None) -> Response:
    """A file's embeddings, a unit row for each of its windows."""
    app = services(request)
    snapshot = app.snapshot
    asked = await _of_file(app, snapshot, request, from_, at)
    found = {
        "from": asked.source,
        "embeddings": asked.z.astype(float).round(6).tolist(),
        "vector": to_text(snapshot.archive, asked.z),
    }
    return as_json(found)


@router.get("/api/why", response_model=WhyOut, responses=problems(400, 404, 410, 422))
async def why(
    request: Request,
    result: Annotated[str, Query(max_length=4096, description="A clip that was found.")],
    id: Id = None,
    vector: Vector = None,
    from_: From = None,
    to: To = None,
    k: Annotated[int, Query(ge=1, le=MOST_SHARED)] = 4,
) -> Response:
    """Clips that connect a query and a result: like the query in its modality, like the result in its own."""
    app = services(request)
    snapshot = app.snapshot
    asked = _asked(snapshot, id, vector, from_)
    row = row_of(snapshot, result)
    target = _known(snapshot, to) or snapshot.archive.other(asked.source)
    found = await app.searcher.connecting(snapshot, asked, row, target, k)
    return as_json(
        {
            "shared": [
                {**card(snapshot, row), "like_query": round(one, 4), "like_result": round(two, 4)}
                for row, one, two in found
            ]
        }
    )


def _asked(snapshot: Snapshot, name: str | None, vector: str | None, source: str | None) -> Asked:
    """A query by a clip or by a vector."""
    if (name is None) == (vector is None):
        raise Problem(HTTPStatus.BAD_REQUEST, "Say what to search by: either `id`, a clip, or `vector`, from a link.")
    _known(snapshot, source)
    archive = snapshot.archive
    if name is not None:
        row_of(snapshot, name)
        try:
            return archive.query_clip(name, source)
        except InputError:
            has = " and ".join(snapshot.modalities(row_of(snapshot, name))) or "nothing"
            raise Problem(HTTPStatus.BAD_REQUEST, f"This clip has no {source}; it has {has}.") from None
    z = from_text(archive, vector or "")
    return Asked("your file", source or archive.modalities[0], z)


async def _of_file(app: Services, snapshot: Snapshot, request: Request, source: str | None, at: float | None) -> Asked:
    _known(snapshot, source)
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the file as the part “file” of a multipart form.")
    full = Problem(HTTPStatus.INSUFFICIENT_STORAGE, "The file could not be looked at: is the server's disk full?")
    try:
        form = await request.form(max_files=1, max_fields=8, max_part_size=4096)
    except (MultiPartException, ValueError, LookupError):
        raise Problem(HTTPStatus.BAD_REQUEST, "The form cannot be read.") from None
    except OSError:
        raise full from None
    try:
        return await app.uploads.query(snapshot, await read_upload(form), source, at)
    except OSError:
        raise full from None
    finally:
        await form.close()


async def _answer(app: Services, snapshot: Snapshot, asked: Asked, wanted: Wanted, vector: str | None) -> Response:
    target, end = _known(snapshot, wanted.to), wanted.offset + wanted.k
    found = await app.searcher.answer(snapshot, asked, end + 1, to=target, where=wanted.where or (), group=wanted.group)
    rows = snapshot.archive.clips.row_of
    results = [
        {**card(snapshot, rows[r.id]), "rank": r.rank, "score": round(r.score, 6), "modality": r.modality}
        for r in found.results[wanted.offset : end]
    ]
    more = len(found.results) > end
    return as_json(
        {
            "query": found.query,
            "from": found.source,
            "to": found.target,
            "vector": vector,
            "more": more,
            "results": results,
        }
    )


def _known(snapshot: Snapshot, space: str | None) -> str | None:
    if space is not None and space not in snapshot.archive.spaces:
        raise Problem(
            HTTPStatus.BAD_REQUEST, f"No such modality; the archive has {', '.join(snapshot.archive.spaces)}."
        )
    return space


def as_json(value: Any, headers: dict[str, str] | None = None) -> Response:
    """An answer that is known to be of the shape that its route promises."""
    content = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(content.encode("utf-8", "replace"), media_type="application/json", headers=headers)

"""The map, what the archive is, and what machines ask: health, readiness, metrics; and the page's login."""

from __future__ import annotations

import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from hscmae.artifact import read_config
from hscmae.errors import HscmaeError
from hscmae.search.archive import ARCHIVE, REPORT, RUN
from hscmae.serve.api.models import ClipsOut, MapOut, RowsIn, TokenIn, problems
from hscmae.serve.api.search import as_json
from hscmae.serve.guard import COOKIE
from hscmae.serve.problems import Problem, busy
from hscmae.serve.ranges import unchanged
from hscmae.serve.services import card, services
from hscmae.serve.snapshot import Snapshot
from hscmae.version import __version__

router = APIRouter(tags=["archive"])
REPORT_POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "sandbox allow-scripts; frame-ancestors 'self'"
)


@router.get("/api/map", response_model=MapOut, responses=problems())
async def map_(request: Request) -> Response:
    """What the map shows, once it is computed."""
    outcome = services(request).background.outcomes["map"]
    about = outcome.about or {"clips": 0, "modalities": [], "labels": [], "clusters": []}
    return as_json({"state": outcome.state, "why": outcome.why, "version": outcome.version, **about})


@router.get(
    "/api/map/points",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "As before."},
        **problems(404),
    },
)
async def points(request: Request) -> Response:
    """Where the clips are on the map: see `/api/map`."""
    outcome = services(request).background.outcomes["map"]
    if outcome.state != "ready":
        raise Problem(HTTPStatus.NOT_FOUND, "The map is not computed yet.")
    etag = f'"{outcome.version}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if unchanged(request.headers, etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(outcome.content, media_type="application/octet-stream", headers=headers)


@router.post("/api/map/clips", response_model=ClipsOut, responses=problems(400, 409, 413, 415, 422))
async def clips_on_map(request: Request, asked: RowsIn) -> Response:
    """Clips by their numbers on the map."""
    snapshot = services(request).snapshot
    if asked.version != snapshot.version:
        raise Problem(HTTPStatus.CONFLICT, "The archive was rebuilt since: load the map again.")
    rows = [row for row in asked.rows if row < len(snapshot.archive)]
    return as_json({"total": len(rows), "clips": [card(snapshot, row) for row in rows]})


@router.get("/api/about", responses=problems())
async def about(request: Request) -> Response:
    """What the archive is: clips, modalities, when it was built, recipe and model."""
    app = services(request)
    snapshot = app.snapshot
    return as_json(described(snapshot) | {"token": app.gate.token is not None})


def described(snapshot: Snapshot) -> dict[str, Any]:
    """An archive in figures and words; nothing of the server's own paths."""
    archive = snapshot.archive
    built = max(
        (p.stat().st_mtime for p in (snapshot.folder / ARCHIVE, archive.folder / "manifest.json") if p.is_file()),
        default=None,
    )
    found: dict[str, Any] = {
        "name": snapshot.folder.resolve().name,
        "version": snapshot.version,
        "clips": len(archive),
        "pairs": len(snapshot.complete),
        "modalities": {m: int(archive.present(m).sum()) for m in archive.modalities},
        "dim": archive.dim,
        "built": None if built is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(built)),
        "hscmae": __version__,
        "windows": snapshot.windows,
        "uploads": snapshot.complaint is None,
        "report": (snapshot.folder / REPORT).is_file(),
        "metrics": snapshot.about.get("metrics"),
        "recipe": None,
        "model": None,
    }
    with suppress(HscmaeError):
        found["recipe"] = archive.recipe
    with suppress(HscmaeError, KeyError, OSError):
        config = read_config(snapshot.folder / RUN)
        found["model"] = {
            "method": config["method"],
            "preset": config["preset"],
            "sha256": config["sha256"],
            "training": config["training"],
            "excluded": config.get("data", {}).get("excluded"),
            "versions": config["versions"],
        }
    return found


@router.get(
    "/report",
    response_class=Response,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}, **problems(404)},
)
async def report(request: Request) -> Response:
    """The archive's report, shut in: it can ask for nothing."""
    path = services(request).snapshot.folder / REPORT
    try:
        content = path.read_bytes()
    except OSError:
        raise Problem(HTTPStatus.NOT_FOUND, "This archive has no report.") from None
    headers = {"Content-Security-Policy": REPORT_POLICY, "X-Frame-Options": "SAMEORIGIN"}
    return Response(content, media_type="text/html; charset=utf-8", headers=headers)


@router.post("/login", status_code=204, response_class=Response, responses=problems(413, 415, 422))
async def login(request: Request, given: TokenIn) -> Response:
    """Exchange the token for the page's cookie."""
    gate = services(request).gate
    if gate.token is None:
        return Response(status_code=204)
    if not gate.opens(given.token):
        raise Problem(HTTPStatus.UNAUTHORIZED, "That is not the token.", {"WWW-Authenticate": 'Bearer realm="hscmae"'})
    answer = Response(status_code=204)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, gate.session(), max_age=30 * 86400, httponly=True, samesite="strict", secure=secure)
    return answer


@router.get("/healthz", responses=problems())
async def healthz() -> Response:
    """That the server lives."""
    return as_json({"status": "ok"})


@router.get("/readyz", responses=problems())
async def readyz(request: Request) -> Response:
    """That it can answer searches."""
    app = services(request)
    if app.draining:
        raise busy("The server is being stopped.", 5)
    return as_json({"status": "ready", "clips": len(app.snapshot.archive)})


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(generate_latest(services(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)

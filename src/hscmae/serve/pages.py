"""The page's files: read once from the package, sent by their names, never by a path that a client gives."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response

from hscmae.serve.problems import Problem
from hscmae.serve.ranges import unchanged

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
PAGES = {"/": "index.html", "/docs": "docs.html"}


@dataclass(frozen=True)
class File:
    """A file of the page, as it is and compressed."""

    content: bytes
    small: bytes
    kind: str
    etag: str


def pages() -> APIRouter:
    """Routes of the page and of what it is made of."""
    router = APIRouter()
    known = {file.name: _read(file) for file in (files("hscmae.serve") / "page").iterdir() if not file.is_dir()}
    known["report.css"] = _read(files("hscmae.report") / "page" / "page.css")  # the page is in the report's manner

    @router.get("/static/{name}", include_in_schema=False)
    async def static(request: Request, name: str) -> Response:
        if name not in known or name.endswith(".html"):
            raise Problem(404, "There is nothing here.")
        return _sent(request, known[name])

    for path, name in PAGES.items():
        router.add_api_route(path, _endpoint(known[name]), methods=["GET", "HEAD"], include_in_schema=False)
    return router


def _endpoint(file: File) -> Callable[[Request], Awaitable[Response]]:
    async def page(request: Request) -> Response:
        return _sent(request, file)

    return page


def _read(file: Traversable) -> File:
    content = file.read_bytes()
    ending = "." + file.name.rpartition(".")[2]
    etag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    return File(content, gzip.compress(content, mtime=0), TYPES.get(ending, "application/octet-stream"), etag)


def _sent(request: Request, file: File) -> Response:
    headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if unchanged(request.headers, file.etag):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.small, media_type=file.kind, headers={**headers, "Content-Encoding": "gzip"})
    return Response(file.content, media_type=file.kind, headers=headers)

"""The app: routes, what every request passes, and what begins and ends with the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from hscmae.serve.api import items, overview, review, search
from hscmae.serve.api.models import ProblemOut
from hscmae.serve.guard import Guard
from hscmae.serve.limits import Limits
from hscmae.serve.observe import Observe
from hscmae.serve.pages import pages
from hscmae.serve.problems import JSON, body_of
from hscmae.serve.services import Services
from hscmae.serve.settings import Settings
from hscmae.version import __version__

DESCRIPTION = """
Find the picture to a sound and the sound to a picture. Where the server asks for a token, send it as
`Authorization: Bearer TOKEN`. Errors are `application/problem+json` with a sentence for people in `detail`. Overload is
answered by 503 with `Retry-After`.
"""


def create_app(settings: Settings) -> FastAPI:
    """The app that serves an archive.

    Raises:
        InputError: no archive, or a state folder that cannot be used.
    """
    held = Services.make(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        held.media.warm()
        held.uploads.warm()
        held.background.start()
        watching = asyncio.create_task(held.shelf.watch(held.background.start))
        try:
            yield
        finally:
            held.draining = True
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await held.background.close()
            held.close()

    app = FastAPI(
        title="hscmae",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
    )
    app.state.services = held
    for group in (search, items, review, overview):
        app.include_router(group.router)
    app.include_router(pages())
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(RequestValidationError, _invalid)
    # Added last is outermost.
    app.add_middleware(Limits, settings=settings, metrics=held.metrics)
    app.add_middleware(Guard, gate=held.gate)
    app.add_middleware(Observe, metrics=held.metrics)
    _describe(app)
    return app


def _plain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {
        404: "There is nothing here.",
        405: "This cannot be done here.",
        400: "This request cannot be read.",
    }
    return _problem(request, error.status_code, words.get(error.status_code, "This did not work."), error.headers)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = next(iter(error.errors()), {})
    where = ".".join(str(part) for part in first.get("loc", ())[1:])
    return _problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, f"{where or 'The request'}: {first.get('msg', 'wrong')}.")


def _problem(request: Request, status: int, detail: str, headers: object = None) -> Response:
    given = dict(headers) if isinstance(headers, dict) else {}
    request_id = request.scope.get("state", {}).get("request_id", "")
    return Response(body_of(status, detail, request_id), status, given, JSON)


def _describe(app: FastAPI) -> None:
    """Add the shape of problems, and the token, to the OpenAPI document."""
    document = app.openapi()
    document["components"]["schemas"]["ProblemOut"] = ProblemOut.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
    if app.state.services.gate.token is not None:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    app.openapi_schema = document

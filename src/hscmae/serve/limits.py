"""How much a request may bring, and how slowly: bytes are counted before anything parses them.

A body that is announced or turns out too large is refused; one that comes in slower than anybody's line is given up;
and all bodies together may hold no more than a budget. A client that does not take its answer is let go.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from hscmae.serve.observe import Metrics
from hscmae.serve.problems import Message, Problem, TooSlow, busy
from hscmae.serve.settings import Settings

MOST_JSON = 65_536  # bytes of a body that is not an upload
MOST_TARGET = 16_384  # bytes of a path, and of a query string
UPLOADS = frozenset({"/api/search", "/api/embed"})


class Limits:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.held = 0  # bytes, of all bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if max(len(scope.get("raw_path") or b""), len(scope["query_string"])) > MOST_TARGET:
            raise Problem(HTTPStatus.REQUEST_URI_TOO_LONG, "This address is too long.")
        most = self.settings.most_upload if scope["path"] in UPLOADS else MOST_JSON
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or len(announced) > 20:
            raise Problem(HTTPStatus.BAD_REQUEST, "Content-Length is not a number.")
        if int(announced) > most:
            raise too_large(most)
        counted = _Counted(self, receive, most)
        try:
            await self.app(scope, counted, self._patient(send))
        finally:
            self._hold(-counted.bytes)

    def _hold(self, more: int) -> None:
        self.held += more
        if more:
            self.metrics.received.set(self.held)

    def _patient(self, send: Send) -> Send:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self.settings.patience * 3):
                    await send(message)
            except TimeoutError:
                raise TooSlow from None

        return send_in_time


class _Counted:
    """``receive`` of one request, counted and timed."""

    def __init__(self, limits: Limits, receive: Receive, most: int) -> None:
        self.limits, self.receive, self.most = limits, receive, most
        self.bytes, self.began, self.done = 0, time.monotonic(), False

    async def __call__(self) -> Message:
        if self.done:  # waiting for the client to leave takes as long as it takes
            return await self.receive()
        settings = self.limits.settings
        late = self.began + settings.patience + self.bytes / settings.least_rate
        try:
            async with asyncio.timeout(max(0.0, late - time.monotonic())):
                message = await self.receive()
        except TimeoutError:
            raise Problem(
                HTTPStatus.REQUEST_TIMEOUT, "The upload came in too slowly.", {"Connection": "close"}
            ) from None
        if message["type"] != "http.request":
            self.done = True
            return message
        more = len(message.get("body", b""))
        self.done = not message.get("more_body", False)
        self.bytes += more
        self.limits._hold(more)
        if self.bytes > self.most:
            raise too_large(self.most)
        if self.limits.held > settings.most_received:
            raise busy("Many files are being sent at once. Please try again in a moment.", 5)
        return message


def too_large(most: int) -> Problem:
    """The body is larger than allowed."""
    unit = f"{most / 1e6:.0f} MB" if most >= 1e6 else f"{most / 1e3:.0f} kB"
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"That is more than {unit}, the most that can be sent. A few seconds of the recording are enough.",
        {"Connection": "close"},
    )

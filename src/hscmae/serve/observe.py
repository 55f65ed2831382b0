"""Request ids, one line of JSON in the log for each request, metrics, and no trace of an error for the client.

Neither the log nor the metrics ever hold a query string, a header or a clip's name: routes are named by their pattern.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Receive, Scope, Send

from hscmae.serve.problems import Message, Problem, TooSlow, messages

log = logging.getLogger("hscmae.serve")
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Metrics:
    """What ``/metrics`` tells Prometheus; a registry of its own for each app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "hscmae_requests", "Requests by route and status.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "hscmae_request_seconds", "Seconds until an answer was sent.", ["route"], buckets=BUCKETS,
            registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge("hscmae_requests_in_flight", "Requests being answered.", registry=self.registry)
        self.batch = Histogram(
            "hscmae_search_batch", "Searches answered by one matrix product.", buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )  # fmt: skip
        self.takeovers = Counter("hscmae_takeovers", "Rebuilt archives taken over.", registry=self.registry)
        self.clips = Gauge("hscmae_clips", "Clips in the archive.", registry=self.registry)
        self.received = Gauge("hscmae_received_bytes", "Bytes of bodies that are held.", registry=self.registry)


class Observe:
    """ASGI middleware, the outermost one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8).encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        began, status, sent = time.perf_counter(), 0, 0

        async def send_marked(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        self.metrics.in_flight.inc()
        error: str | None = None
        try:
            await self.app(scope, receive, send_marked)
        except Problem as problem:
            if not status:
                for message in messages(problem, request_id.decode()):
                    await send_marked(message)
        except TooSlow:
            error = "client too slow"  # returning before the answer is complete closes the connection
        except Exception as failure:
            error = type(failure).__name__
            log.exception("unexpected", extra={"fields": {"request": request_id.decode()}})
            if status:
                raise  # the answer has begun: the connection is closed
            words = "Something went wrong here. The log says what, under the request's id."
            for message in messages(Problem(500, words), request_id.decode()):
                await send_marked(message)
        finally:
            seconds = time.perf_counter() - began
            self._note(scope, status, seconds, sent, request_id.decode(), error)

    def _note(self, scope: Scope, status: int, seconds: float, sent: int, request_id: str, error: str | None) -> None:
        route = getattr(scope.get("route"), "path", None) or "none"
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.metrics.in_flight.dec()
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        if not log.isEnabledFor(logging.INFO):
            return
        fields: dict[str, Any] = {"request": request_id, "method": method, "route": route, "status": status}
        fields |= {"ms": round(seconds * 1e3, 2), "bytes": sent}
        log.info("request", extra={"fields": fields if error is None else fields | {"error": error}})


class JsonLines(logging.Formatter):
    """Log records as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the log of the server, and uvicorn's warnings, to stderr as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, least in (("hscmae.serve", level), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(least)

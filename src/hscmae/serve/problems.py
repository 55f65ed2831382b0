"""What a client is told when something is wrong: RFC 9457's ``application/problem+json``, in words, and no more.

Messages are written here for people; what the library says of files never goes out as it is, for it names paths.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

Message = MutableMapping[str, Any]
JSON = "application/problem+json"


class Problem(Exception):
    """An answer that says what is wrong.

    Attributes:
        status: of HTTP.
        detail: what is wrong and what to do, for people.
        headers: further ones.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


class TooSlow(Exception):
    """A client does not take its answer."""


def busy(detail: str = "Too much is going on at once. Please try again in a moment.", seconds: int = 1) -> Problem:
    """Overload: come again."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": str(seconds)})


def body_of(status: int, detail: str, request_id: str) -> bytes:
    """The answer's JSON."""
    title = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"
    return json.dumps({"title": title, "status": status, "detail": detail, "request_id": request_id}).encode()


def messages(problem: Problem, request_id: str) -> tuple[Message, Message]:
    """The answer as ASGI sends it."""
    content = body_of(problem.status, problem.detail, request_id)
    headers = {"Content-Type": JSON, "Content-Length": str(len(content)), "Cache-Control": "no-store"}
    headers |= problem.headers
    start = {
        "type": "http.response.start",
        "status": problem.status,
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    return start, {"type": "http.response.body", "body": content}

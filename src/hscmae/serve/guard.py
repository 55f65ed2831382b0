"""Who may ask: this machine's own pages, or whoever brings the token; and the headers that tie a browser's hands.

Without a token the server listens on loopback, where any page of any site could reach it through the user's browser: so
the ``Host`` must be this machine's (no DNS rebinding), and a request that a browser marks as another site's is refused.
With a token, programs send it as ``Authorization: Bearer``; the page sends it once and is given a cookie made of it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from hscmae.serve.problems import Message, Problem
from hscmae.serve.settings import is_loopback

COOKIE = "hscmae_session"
SAFE = frozenset({"GET", "HEAD"})
# What anybody may ask for: that the server lives, and the page, which is in the package and says nothing.
OPEN = frozenset({"/", "/healthz", "/readyz", "/login", "/docs", "/openapi.json", "/favicon.ico"})
OPEN_FOLDER = "/static/"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(self)",
    "cache-control": "no-store",
}
STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000")


class Gate:
    """Knows the token, or that there is none."""

    def __init__(self, token: str | None) -> None:
        self.token = token

    def opens(self, given: str) -> bool:
        """Whether a token is the right one, in a time that does not depend on where they differ."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def session(self) -> str:
        """What the page's cookie holds: made of the token, but not the token."""
        return hmac.new((self.token or "").encode(), b"hscmae session", hashlib.sha256).hexdigest()

    def admits(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a request brings the token or the cookie made of it."""
        if self.token is None:
            return True
        scheme, _, given = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() == "bearer" and self.opens(given.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self.session().encode())


class Guard:
    """ASGI middleware: refuses strangers, and sets the security headers of every answer."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app, self.gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        secure = scope.get("scheme") == "https"

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*_completed(message.get("headers", ()), secure)]
            await send(message)

        try:
            self._check(scope["method"], scope["path"], headers)
            await self.app(scope, receive, send_guarded)
        except Problem as problem:
            problem.headers = {**{k: v for k, v in HEADERS.items() if k != "cache-control"}, **problem.headers}
            raise

    def _check(self, method: str, path: str, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if self.gate.token is None and not is_loopback(_name(host)):
            raise Problem(421, "This server answers to this machine's own name alone: http://127.0.0.1 or localhost.")
        if headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site") and (
            method not in SAFE or path.startswith("/api/")
        ):
            raise Problem(403, "A page of another site asked for this.")
        origin = headers.get(b"origin")
        if method not in SAFE and origin is not None and urlsplit(origin.decode("latin-1")).netloc != host:
            raise Problem(403, "A page of another site asked for this.")
        if path in OPEN or path.startswith(OPEN_FOLDER) or self.gate.admits(headers):
            return
        raise Problem(401, "This archive asks for a token.", {"WWW-Authenticate": 'Bearer realm="hscmae"'})


def _name(host: str) -> str:
    """The name in a ``Host`` header, without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


def _completed(given: Iterable[tuple[bytes, bytes]], secure: bool) -> Iterable[tuple[bytes, bytes]]:
    names = set()
    for name, value in given:
        names.add(name.lower())
        yield name, value
    for known, text in HEADERS.items():
        if known.encode() not in names:
            yield known.encode(), text.encode()
    if secure:
        yield STRICT_TRANSPORT

"""The process: a socket, uvicorn with an eye on slow clients, and an end that lets requests finish."""

from __future__ import annotations

import contextlib
import signal
import socket
from asyncio import TimerHandle, Transport
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hscmae.errors import InputError
from hscmae.serve.settings import Settings

MOST_CONNECTIONS = 4096
MOST_HEAD = 65_536  # bytes of a request's headers
KEEP_ALIVE, GRACE = 10, 15  # seconds: of an idle connection; that requests may go on after the end was asked for


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, with limits on how long and how large the headers of a request may be."""

    patience = 10.0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head = 0
        self._late: TimerHandle | None = None
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._expect()

    def _expect(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.patience, self.transport.abort)

    def _arrived(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._late is not None and self.parser is not None:
            self._head += len(data)
            if self._head > MOST_HEAD:
                self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._fields = 0
        self._expect()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += len(name) + len(value)
        if self._fields > MOST_HEAD:  # trailers of a body count as well
            raise ValueError("headers too large")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._arrived()
        self._head = 0
        super().on_headers_complete()


def listen(settings: Settings) -> socket.socket:
    """A socket that listens where the settings say.

    Raises:
        InputError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host.strip("[]"), settings.port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"cannot listen on {settings.host} port {settings.port} ({error.strerror}); name another --port"
        ) from None


def run(app: FastAPI, settings: Settings, place: socket.socket, started: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; requests under way may then finish."""
    _more_files()
    protocol = type("Protocol", (PatientProtocol,), {"patience": settings.patience})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
    server = _Server(config, started)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn raises them again when all is done
    server.run(sockets=[place])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._say = started

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._say()


def _more_files() -> None:
    """Allow as many open files as the system lets a user have: a connection is one."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = min(hard, 4 * MOST_CONNECTIONS) if hard != resource.RLIM_INFINITY else 4 * MOST_CONNECTIONS
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))

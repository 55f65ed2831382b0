"""One archive, and one app over it, for all tests of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from hscmae.serve.app import create_app
from hscmae.serve.settings import Settings
from serve.serving import LOCAL, make_archive


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def client(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Asks an app without a token."""
    app = create_app(Settings(archive, state=tmp_path_factory.mktemp("state")))
    with TestClient(app, base_url=LOCAL) as found:
        yield found


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints a figure of a long test, whatever pytest captures."""

    def told(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", flush=True)

    return told

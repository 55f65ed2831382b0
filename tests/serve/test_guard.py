"""Who may ask, what is told to browsers, and what never reaches a client or a log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from hscmae.cli import main
from hscmae.errors import InputError
from hscmae.serve.app import create_app
from hscmae.serve.guard import COOKIE
from hscmae.serve.observe import JsonLines, log
from hscmae.serve.settings import Settings
from serve.serving import LOCAL

pytest_plugins = ("serve.fixtures",)

TOKEN = "correct horse battery staple"
CLOSED = [
    "/api/search?id=high/01",
    "/api/items/high%2F01",
    "/api/about",
    "/metrics",
    "/report",
    "/api/decisions/export",
]


@pytest.fixture(scope="module")
def guarded(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    app = create_app(Settings(archive, state=tmp_path_factory.mktemp("state"), token=TOKEN, host="0.0.0.0"))
    with TestClient(app, base_url="http://archive.example.org") as found:
        yield found


def test_a_token_is_asked_for_everything_of_the_archive(guarded: TestClient) -> None:
    for path in CLOSED:
        answer = guarded.get(path)
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer"), path
        assert guarded.get(path, headers={"Authorization": f"Bearer {TOKEN}x"}).status_code == 401
        assert guarded.get(path, headers={"Authorization": f"Basic {TOKEN}"}).status_code == 401
        assert guarded.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json", "/static/main.js"):
        assert guarded.get(path).status_code == 200, path


def test_a_token_in_an_address_is_none(guarded: TestClient) -> None:
    for name in ("token", "access_token", "authorization"):
        assert guarded.get("/api/about", params={name: TOKEN}).status_code == 401


def test_the_page_exchanges_the_token_for_a_cookie(guarded: TestClient) -> None:
    assert guarded.post("/login", json={"token": "wrong"}).status_code == 401
    answer = guarded.post("/login", json={"token": TOKEN})
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 204 and "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    assert guarded.get("/api/about").status_code == 200
    guarded.cookies.clear()
    for value in ("", "x", "0" * 64, "ü", cookie.partition("=")[2][:63]):
        assert guarded.get("/api/about", headers=[("cookie", f"{COOKIE}={value}".encode())]).status_code == 401  # type: ignore[list-item]


def test_over_https_cookies_and_addresses_stay_there(archive: Path, tmp_path: Path) -> None:
    app = create_app(Settings(archive, state=tmp_path, token=TOKEN))
    with TestClient(app, base_url="https://archive.example.org") as found:
        answer = found.post("/login", json={"token": TOKEN})
        assert "Secure" in answer.headers["set-cookie"]
        assert answer.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "[::2]", "10.0.0.1"])
def test_without_a_token_only_this_machines_names_are_answered(client: TestClient, host: str) -> None:
    answer = client.get("/api/about", headers={"Host": host})
    assert answer.status_code == 421


def test_names_of_this_machine(client: TestClient) -> None:
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert client.get("/api/about", headers={"Host": host}).status_code == 200


def test_other_sites_pages_get_and_change_nothing(client: TestClient) -> None:
    decision = {"id": "high/01", "decision": "drop"}
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post("/api/decisions", json=decision, headers=headers).status_code == 403
    assert client.get("/api/search?id=high/01", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200  # a link to the page
    # A form of another site can send no JSON.
    answer = client.post("/api/decisions", content=json.dumps(decision), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422
    assert client.get("/api/decisions").json() == []
    assert (
        client.post("/api/decisions", json={**decision, "decision": None}, headers={"Origin": LOCAL}).status_code == 200
    )


def test_every_answer_ties_the_browsers_hands(client: TestClient) -> None:
    for path in ("/", "/api/about", "/nothing", "/api/search", "/api/items/high%2F01/thumbnail", "/report"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer", path
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-frame-options"] in ("DENY", "SAMEORIGIN")
        assert headers["cross-origin-resource-policy"] == "same-origin" and headers["x-request-id"]
        assert "server" not in headers and "access-control-allow-origin" not in headers
    policy = client.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy and "script-src 'self'" in policy
    refused = client.get("/api/about", headers={"Host": "evil.example"}).headers
    assert refused["x-content-type-options"] == "nosniff"


def test_nothing_is_redirected(client: TestClient) -> None:
    """Who asks over http is told, not led on: a program's token would go out again and again unseen."""
    for path in ("/", "/docs/", "/api/search/", "/api/items/", "//evil.example/", "/report/", "/static/", "/login/"):
        answer = client.get(path, follow_redirects=False)
        assert not answer.has_redirect_location and not 300 <= answer.status_code < 400, path


def test_request_ids_are_taken_over_if_harmless(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1.2"}).headers["x-request-id"] == "abc-1.2"
    for bad in ("a b", "x" * 65, "<b>", ""):
        given = client.get("/healthz", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert given != bad and len(given) == 16


def test_the_log_holds_no_secret_and_no_name(guarded: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger=log.name)
    log.propagate = True
    guarded.get("/api/search", params={"id": "high/01"}, headers={"Authorization": f"Bearer {TOKEN}"})
    guarded.post("/login", json={"token": TOKEN})
    guarded.get("/api/items/high%2F01/thumbnail", headers={"Authorization": f"Bearer {TOKEN}"})
    lines = [JsonLines().format(record) for record in caplog.records]
    requests = [json.loads(line) for line in lines if json.loads(line)["message"] == "request"]
    assert [r["route"] for r in requests] == ["/api/search", "/login", "/api/items/{id:path}/thumbnail"]
    assert all(r["request"] and r["status"] in (200, 204) and r["ms"] > 0 for r in requests)
    for line in lines:
        assert TOKEN not in line and "high" not in line


def test_a_fault_shows_no_trace(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(Settings(archive, state=tmp_path))

    def broken(*_: object) -> None:
        raise RuntimeError(f"secret of {archive}")

    monkeypatch.setattr("hscmae.serve.api.items.card", broken)
    with TestClient(app, base_url=LOCAL, raise_server_exceptions=False) as found:
        answer = found.get("/api/items/high%2F01")
    assert answer.status_code == 500 and "secret" not in answer.text and "Traceback" not in answer.text
    assert answer.json()["request_id"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "set a token in the environment"),
        ({"token": "short"}, "at least 16 characters"),
        ({"media": (Path("/no/such"),)}, "no such folder"),
    ],
)
def test_settings_that_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Settings(Path("archive"), **options)  # type: ignore[arg-type]


def test_the_verb_says_what_is_wrong(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        ([str(tmp_path)], "neither an archive (hscmae build) nor embeddings"),
        ([str(archive), "--host", "0.0.0.0"], "set a token in the environment"),
        ([str(archive), "--host", "203.0.113.7", "--token", TOKEN], "cannot listen on 203.0.113.7"),
    ):
        assert main(["serve", *arguments, "--state", str(tmp_path / "s")]) == 2
        assert words in capsys.readouterr().err

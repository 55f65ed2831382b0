"""Files and requests made to do harm: no fault, no hang, nothing from outside the archive, and the server lives on."""

from __future__ import annotations

import asyncio
import io
import os
import random
import re
import shutil
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import psutil
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hscmae.serve.app import create_app
from hscmae.serve.problems import Problem
from hscmae.serve.settings import Settings
from hscmae.serve.snapshot import Snapshot
from hscmae.serve.sniff import agrees, ending_of
from hscmae.serve.uploads import LOCK, Upload, Uploads, safe_name
from serve.serving import LOCAL

pytest_plugins = ("serve.fixtures",)

FINE = {200, 400, 408, 409, 413, 415, 422, 503}
SECRET = "the secret of the outside"


def upload(client: TestClient, content: bytes, name: str = "file", path: str = "/api/search") -> Any:
    return client.post(path, files={"file": (name, content)})


def alive(client: TestClient) -> None:
    assert client.get("/api/search", params={"id": "high/01", "k": 1}).status_code == 200


def png(width: int, height: int) -> bytes:
    """A PNG that says it is of a size, of a few bytes: a bomb where that is large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packed = zlib.compress(bytes(min(10_000_000, (width + 1) * height)), 9)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def wav(seconds_claimed: float) -> bytes:
    rate, size = 16_000, int(seconds_claimed * 32_000) & 0xFFFFFFFF
    head = b"RIFF" + struct.pack("<I", (size + 36) & 0xFFFFFFFF) + b"WAVEfmt "
    return (
        head + struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16) + b"data" + struct.pack("<I", size) + bytes(64)
    )


def picture(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("bomb.png", png(60_000, 60_000), {422}),
        ("wide.png", png(2**31 - 1, 1), {422}),
        ("empty.png", b"", {400}),
        ("short.png", b"\x89PNG\r\n\x1a\n", {422}),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", {415}),
        ("page.html", b"<html><script>alert(1)</script>", {415}),
        ("page.png", b"<html><script>alert(1)</script>", {415}),
        ("sound.png", wav(1), {415}),
        ("picture.wav", picture(), {415}),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", {415}),
        ("concat.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n", {415}),
        ("archive.zip", b"PK\x03\x04" + bytes(100), {415}),
        ("code.py", b"import os", {415}),
        ("long.wav", wav(100_000), {200, 422}),
        ("nothing.mp4", b"\0\0\0\x18ftypmp42" + bytes(100), {422}),
        ("nothing.webm", b"\x1aE\xdf\xa3" + bytes(100), {422}),
        ("fine\0.png", picture(), {200, 400}),
        ("../../../etc/passwd.png", picture(), {200}),
        ("x" * 5000 + ".png", picture(), {200, 400}),
        ("\u202egnp.exe", picture(), {415}),
        ("con.png", picture("BMP"), {200}),
        ("a.gif", picture("GIF"), {200}),
    ],
)
def test_what_is_no_media_is_refused_in_words(client: TestClient, name: str, content: bytes, status: set[int]) -> None:
    answer = upload(client, content, name)
    assert answer.status_code in status, answer.text
    if answer.status_code != 200:
        assert answer.json()["detail"].endswith(".") and "/" not in answer.json()["detail"].replace("and/or", "")
    else:
        assert "/" not in answer.json()["query"] and len(answer.json()["query"]) <= 120
    alive(client)


def test_a_playlist_within_an_allowed_container_reads_nothing(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(wav(0.01))
    for head in (b"ID3\x04\0\0\0\0\0\0", b"RIFF\0\0\0\0WAVE", b"OggS"):
        answer = upload(client, head + f"#EXTM3U\nfile://{tmp_path}/secret.wav".encode(), "a.mp3")
        assert answer.status_code in (415, 422)


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"--x",
        b"--x--\r\n",
        b"--x\r\n\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="other"\r\n\r\ntext\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n1\r\n' * 3 + b"--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 100 + b"--x--\r\n",
        b"--x\r\n" + b"H: " + b"v" * 100_000 + b"\r\n\r\n1\r\n--x--\r\n",
        b"\xff" * 1000,
    ],
)
def test_broken_forms_are_refused(client: TestClient, form: bytes) -> None:
    for kind in (
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "multipart/form-data; boundary=" + "y" * 300,
    ):
        answer = client.post("/api/search", content=form, headers={"Content-Type": kind})
        assert answer.status_code in (400, 415, 422), (kind, answer.text)
    assert client.post("/api/search", content=form).status_code in (400, 415)


PATHS = [
    "../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/archive.json",
    "....//....//etc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "C:\\windows\\win.ini",
    "high/01%00.png",
    "high/01\0",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x",
    "high/../high/01",
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    "x" * 5000,
    "high/01/media/../../../archive.json",
    "",
    ".",
    "..",
]


@pytest.mark.parametrize("name", PATHS)
def test_no_path_leads_out(client: TestClient, name: str) -> None:
    plain = not {".", "..", ""} & set(name.split("/"))  # else the client itself asks for another address
    for part in ("", "/thumbnail", "/sound", "/waveform", "/media"):
        for asked in (quote(name, safe=""), quote(name, safe="/%")):
            answer = client.get(f"/api/items/{asked}{part}")
            assert answer.status_code in (404, 414, 422) or (answer.status_code == 200 and not plain), answer.text
            assert b"root:" not in answer.content and b"hscmae-archive" not in answer.content
    for asked in (quote(name, safe=""), quote(name, safe="/%")):
        answer = client.get(f"/static/{asked}")
        assert answer.status_code in (404, 414) or (answer.status_code == 200 and not plain)
        assert b"root:" not in answer.content
    assert client.get("/api/search", params={"id": name}).status_code in (400, 404, 422)


@pytest.fixture
def tampered(archive: Path, tmp_path: Path) -> Iterator[tuple[TestClient, list[str]]]:
    """An archive whose list of media names files that are none of its own."""
    media, outside = tmp_path / "media", tmp_path / "outside"
    shutil.copytree(archive.parent / "media", media)
    outside.mkdir()
    for name in ("secret.png", "secret.txt"):
        (outside / name).write_text(SECRET)
    (media / "link.png").symlink_to(outside / "secret.png")
    (media / "folder").symlink_to(outside)
    (media / "text.txt").write_text(SECRET)
    os.mkfifo(media / "pipe.png")
    places = ["../outside/secret.png", str(outside / "secret.png"), "link.png", "folder/secret.png", "text.txt"]
    places += ["pipe.png", ".", "high", "high/\0.png", "../../../../../../etc/passwd", "/dev/zero", "x" * 5000 + ".png"]
    with TestClient(create_app(Settings(archive, state=tmp_path / "state")), base_url=LOCAL) as found:
        opened = found.app.state.services.snapshot.archive  # type: ignore[attr-defined]
        opened.roots[:] = [media]
        names = [f"high/{2 * k + 1:02d}" for k in range(len(places))]
        for name, place in zip(names, places, strict=True):
            opened.clips.media[name]["visual"] = place
        yield found, names


def test_files_outside_the_archives_folders_are_not_served(tampered: tuple[TestClient, list[str]]) -> None:
    client, names = tampered
    for name in names:
        for part in ("media?modality=visual", "thumbnail"):
            answer = client.get(f"/api/items/{quote(name, safe='')}/{part}")
            assert answer.status_code == 404, (name, part, answer.text[:200])
            assert SECRET not in answer.text
    assert client.get("/api/items/high%2F41/thumbnail").status_code == 200


@pytest.mark.parametrize(
    "name", [b'a"; b\n\r\nSet-Cookie: c.png', b"caf\xe9.png", "日本.png".encode(), b"\xe2\x80\xaegnp.png"]
)
def test_names_of_files_stay_within_their_header(tampered: tuple[TestClient, list[str]], name: bytes) -> None:
    client, names = tampered
    snapshot = client.app.state.services.snapshot  # type: ignore[attr-defined]
    place = snapshot.archive.roots[0] / os.fsdecode(name)
    place.write_bytes(picture())
    snapshot.archive.clips.media[names[0]]["visual"] = place.name
    answer = client.get(f"/api/items/{quote(names[0], safe='')}/media?modality=visual")
    assert answer.status_code == 200 and answer.content == picture()
    assert re.fullmatch(r"inline; filename\*=UTF-8''[A-Za-z0-9%._~-]+\.png", answer.headers["content-disposition"])
    assert "set-cookie" not in answer.headers
    assert client.get(f"/api/items/{quote(names[0], safe='')}").status_code == 200


def test_an_upload_leaves_nothing_behind(client: TestClient) -> None:
    folder = client.app.state.services.uploads.folder  # type: ignore[attr-defined]
    for content in (picture(), b"\x89PNG\r\n\x1a\n", b"<html>"):
        upload(client, content)
        assert [path.name for path in folder.iterdir()] == [LOCK]


def test_each_upload_has_a_decoder_of_its_own(client: TestClient) -> None:
    uploads = client.app.state.services.uploads  # type: ignore[attr-defined]
    seen = set()
    for content in (picture(), b"\x89PNG\r\n\x1a\n" + bytes(50), picture()):
        pid = uploads._next._child.pid  # waiting already
        upload(client, content)
        assert not psutil.pid_exists(pid)
        seen.add(pid)
    assert len(seen) == 3
    psutil.Process(uploads._next._child.pid).kill()
    time.sleep(0.2)
    assert upload(client, picture()).status_code == 200


def test_a_full_disk_is_said_to_be_full(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hscmae.serve.uploads.tempfile.mkstemp", full)
    answer = upload(client, picture())
    assert answer.status_code == 507 and "full" in answer.json()["detail"]


def test_bodies_together_have_a_budget(archive: Path, tmp_path: Path) -> None:
    with TestClient(create_app(Settings(archive, state=tmp_path, most_received=10_000)), base_url=LOCAL) as client:
        answer = upload(client, bytes(20_000))
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
        assert upload(client, b"<html>").status_code == 415  # the budget is free again


def test_too_many_uploads_are_told_to_come_again(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_ = Settings(archive, state=tmp_path)
    snapshot = Snapshot(settings_)
    uploads = Uploads(settings_)
    monkeypatch.setattr(uploads, "_embed", lambda *_: time.sleep(0.02))

    async def many() -> list[Any]:
        file = Upload("a.png", io.BytesIO(picture()))
        return await asyncio.gather(
            *(uploads.query(snapshot, file, None, None) for _ in range(20)), return_exceptions=True
        )

    found = asyncio.run(many())
    uploads.close()
    refused = [f for f in found if isinstance(f, Problem)]
    assert len(refused) == 12 and all(p.status == 503 and int(p.headers["Retry-After"]) > 0 for p in refused)


def test_names_are_shown_short_and_plain() -> None:
    assert safe_name("a/b\\c\r\n\x1b[31m.wav") == "c[31m.wav"
    assert len(safe_name("x" * 10_000)) <= 120
    assert ending_of(wav(1)) == ".wav" and ending_of(picture()) == ".png" and ending_of(b"MZ") is None
    assert agrees("a.webm", ".mkv") and not agrees("a.svg", ".png")


def seeds(archive: Path) -> list[bytes]:
    media = archive.parent / "media"
    kinds = ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]
    return [
        *(picture(kind) for kind in kinds),
        (media / "high" / "01.wav").read_bytes()[:8000],
        (media / "film.mp4").read_bytes(),
    ]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A file with bytes changed, cut out, doubled or swapped, most of them near its head."""
    found = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        place = min(int(rng.expovariate(1 / (len(found) / 8 + 1))), max(0, len(found) - 1))
        match rng.randrange(5):
            case 0 if found:
                found[place] = rng.randrange(256)
            case 1:
                del found[place : place + rng.randint(1, 64)]
            case 2:
                found[place:place] = rng.choice([b"\0" * 16, b"\xff" * 8, b"\x7f\xff\xff\xff", bytes(found[:32])])
            case 3:
                del found[place:]
            case _:
                other = rng.randrange(len(found) + 1)
                found[place : place + 8] = found[other : other + 8]
    return bytes(found)


def bombard(client: TestClient, archive: Path, count: int, seed: int) -> str:
    """Upload mutated files; how they were answered."""
    rng, files = random.Random(seed), seeds(archive)
    statuses, slowest, began = Counter[int](), 0.0, time.monotonic()
    for k in range(count):
        before = time.monotonic()
        name = rng.choice(["a.png", "a.wav", "a.mp4", "a.jpg"] + 4 * ["a"])  # half of them are decoded by their head
        answer = upload(client, mutated(rng.choice(files), rng), name)
        assert answer.status_code in FINE, (k, answer.text)
        statuses[answer.status_code] += 1
        slowest = max(slowest, time.monotonic() - before)
    alive(client)
    assert {200, 415, 422} <= statuses.keys()  # else the mutations are too mild, or too wild, to test anything
    answered = ", ".join(f"{n} by {status}" for status, n in sorted(statuses.items()))
    return f"{count} mutated uploads in {time.monotonic() - began:.0f} s, the slowest in {slowest:.1f} s: {answered}"


def test_mutated_uploads(client: TestClient, archive: Path) -> None:
    bombard(client, archive, 300, 0)


@pytest.mark.long
def test_thousands_of_mutated_uploads(client: TestClient, archive: Path, tell: Callable[[str], None]) -> None:
    tell(bombard(client, archive, 5000, 1))


TEXT = st.text(max_size=40) | st.sampled_from([*PATHS, "high/01", "audio", "both", "label=high", "label=", "=", "-1"])
PARAMETERS = st.dictionaries(
    st.sampled_from(["id", "vector", "from", "to", "k", "offset", "where", "group", "at", "result", "sample", "open"]),
    TEXT | st.integers(-(10**20), 10**20).map(str) | st.floats().map(str) | st.lists(TEXT, max_size=10),
    max_size=6,
)
ROUTES = ["/api/search", "/api/why", "/api/items", "/api/suspicious", "/api/map", "/api/decisions", "/api/filters"]


def request(client: TestClient, route: str, parameters: dict[str, Any], method: str, body: bytes) -> None:
    answer = client.request(method, route, params=parameters, content=body or None)
    assert answer.status_code < 500 or answer.status_code == 503, answer.text
    if answer.status_code >= 400 and method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json" and "Traceback" not in answer.text


REQUESTS = given(
    route=st.sampled_from(ROUTES),
    parameters=PARAMETERS,
    method=st.sampled_from(["GET", "GET", "GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"]),
    body=st.binary(max_size=60) | st.sampled_from([b"{}", b"[]", b"null", b'{"id":1}', b"[" * 5000]),
)
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@REQUESTS
@settings(max_examples=300, deadline=None, suppress_health_check=QUIET, derandomize=True)
def test_made_up_requests(client: TestClient, route: str, parameters: dict[str, Any], method: str, body: bytes) -> None:
    request(client, route, parameters, method, body)


@pytest.mark.long
@REQUESTS
@settings(max_examples=5000, deadline=None, suppress_health_check=QUIET)
def test_thousands_of_requests(
    client: TestClient, route: str, parameters: dict[str, Any], method: str, body: bytes
) -> None:
    request(client, route, parameters, method, body)


def described(client: TestClient, examples: int) -> None:
    """Requests made of the OpenAPI document: each answer is of a status that it promises."""
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    for found in schema.get_all_operations():
        fuzz(client, found.ok(), examples)
    alive(client)


def as_file(value: Any) -> tuple[str | None, bytes]:
    """A part of a form, whatever it was generated of."""
    name, content = value[:2] if isinstance(value, tuple) else ("file", value)
    return name, content if isinstance(content, bytes) else str(content).encode("utf-8", "replace")


def fuzz(client: TestClient, operation: Any, examples: int) -> None:
    promised = operation.definition.raw["responses"].keys() | {"404", "405", "414", "415"}

    @given(case=operation.as_strategy())
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    def ask(case: Any) -> None:
        made = case.as_transport_kwargs(base_url=LOCAL)
        content = made.get("data") if isinstance(made.get("data"), (bytes, str)) else None
        given_ = {key: made.get(key) for key in ("params", "headers", "json")}
        if (files := made.get("files")) is not None:
            given_["files"] = [
                (name, as_file(value)) for name, value in (files.items() if isinstance(files, dict) else files)
            ]
        try:
            answer = client.request(made["method"], made["url"].removeprefix(LOCAL), content=content, **given_)
        except (ValueError, TypeError):
            return  # what the client itself does not send
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        assert str(answer.status_code) in promised, (made["url"], answer.text)

    ask()


def test_requests_made_of_the_openapi_document(client: TestClient) -> None:
    described(client, 8)


@pytest.mark.long
def test_thousands_of_requests_made_of_the_openapi_document(client: TestClient) -> None:
    described(client, 250)

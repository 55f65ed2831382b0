"""The API gives what the library gives, to whoever may ask."""

from __future__ import annotations

import asyncio
import io
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from hscmae.data.splits import read_ids
from hscmae.search import Archive
from hscmae.search.archive import Query
from hscmae.serve.app import create_app
from hscmae.serve.observe import Metrics
from hscmae.serve.problems import Problem
from hscmae.serve.searching import Searcher, shared_neighbours
from hscmae.serve.settings import Settings
from hscmae.serve.snapshot import Snapshot
from hscmae.serve.vectors import MOST_WINDOWS
from media_files import RATE, write_wav
from serve.serving import CLIPS, LOCAL, until

pytest_plugins = ("serve.fixtures",)

ROWS = CLIPS + 1 + 3  # the video, and three windows


def ranked(answer: dict[str, Any]) -> list[tuple[int, str, float]]:
    return [(r["rank"], r["id"], r["score"]) for r in answer["results"]]


def expected(archive: Path, query: Any, k: int, **options: Any) -> list[tuple[int, str, float]]:
    with Archive.open(archive) as opened:
        return [(r.rank, r.id, round(r.score, 6)) for r in opened.search(query, k, **options)]


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({}, {}),
        ({"from": "visual", "to": "audio"}, {"from_": "visual", "to": "audio"}),
        ({"from": "both", "to": "both"}, {"from_": "both", "to": "both"}),
        ({"where": "label=high"}, {"where": ["label=high"]}),
        ({"where": ["label=low", "folder=low"]}, {"where": ["label=low", "folder=low"]}),
        ({"group": "true", "to": "audio"}, {"group": True, "to": "audio"}),
    ],
)
def test_a_search_is_the_librarys(
    client: TestClient, archive: Path, asked: dict[str, Any], options: dict[str, Any]
) -> None:
    found = client.get("/api/search", params={"id": "high/01", "k": 20, **asked}).json()
    assert ranked(found) == expected(archive, "high/01", 20, **options)
    assert "high/01" not in [r["id"] for r in found["results"]]


def test_pages_follow_each_other(client: TestClient, archive: Path) -> None:
    whole = expected(archive, "low/00", 1000)
    pages, offset = [], 0
    while True:
        page = client.get("/api/search", params={"id": "low/00", "k": 30, "offset": offset}).json()
        pages += ranked(page)
        offset += 30
        if not page["more"]:
            break
    assert pages == whole and len(pages) > 60


def test_searches_together_are_searches_alone(archive: Path, tmp_path: Path) -> None:
    settings = Settings(archive, state=tmp_path)
    snapshot = Snapshot(settings)
    names = [snapshot.archive.clips.id(row) for row in range(40)]
    queries = [snapshot.archive.query_clip(name) for name in names]

    async def many() -> list[Any]:
        metrics = Metrics()
        searcher = Searcher(settings, metrics)
        found = await asyncio.gather(*(searcher.answer(snapshot, q, 5 + i % 7) for i, q in enumerate(queries)))
        batches = next(
            s for m in metrics.registry.collect() for s in m.samples if s.name == "hscmae_search_batch_count"
        )
        assert batches.value < 20
        searcher.close()
        return found

    for i, answer in enumerate(asyncio.run(many())):
        alone = snapshot.archive.answer(names[i], 5 + i % 7)
        assert [vars(r) for r in answer.results] == [vars(r) for r in alone.results]


def test_too_many_searches_are_told_to_come_again(archive: Path, tmp_path: Path) -> None:
    settings = Settings(archive, state=tmp_path, most_waiting=4)
    snapshot = Snapshot(settings)
    query = snapshot.archive.query_clip("low/00")

    async def many() -> list[Any]:
        searcher = Searcher(settings, Metrics())
        found = await asyncio.gather(*(searcher.answer(snapshot, query, 3) for _ in range(20)), return_exceptions=True)
        assert len((await searcher.answer(snapshot, query, 3)).results) == 3
        return found

    found = asyncio.run(many())
    refused = [f for f in found if isinstance(f, Problem)]
    assert refused and all(p.status == 503 and p.headers["Retry-After"] == "1" for p in refused)
    assert len(refused) < 20


def upload(client: TestClient, path: Path, name: str | None = None, **params: Any) -> Any:
    with path.open("rb") as file:
        return client.post("/api/search", params=params, files={"file": (name or path.name, file)})


@pytest.mark.parametrize("name", ["high/03.wav", "high/03.png", "film.mp4"])
def test_an_upload_finds_what_its_file_finds_and_its_link_repeats_it(
    client: TestClient, archive: Path, name: str
) -> None:
    path = archive.parent / "media" / name
    found = upload(client, path, k=20).json()
    near = {r: s for _, r, s in expected(archive, path, 100)}
    own = name.partition(".")[0]
    assert found["results"][0]["id"] == own or own in {r["id"] for r in found["results"]} or found["from"] == "audio"
    # The link holds half precision: scores differ by no more than that.
    for result in found["results"]:
        if result["id"] != own:
            assert result["score"] == pytest.approx(near[result["id"]], abs=2e-3)
    again = client.get(
        "/api/search", params={"vector": found["vector"], "from": found["from"], "to": found["to"], "k": 20}
    )
    assert ranked(again.json()) == ranked(found)


def test_a_long_upload_is_looked_at_in_windows(client: TestClient, archive: Path) -> None:
    path = archive.parent / "media" / "long.wav"
    with path.open("rb") as file:
        found = client.post("/api/embed", files={"file": file}).json()
    rows = np.array(found["embeddings"])
    assert rows.shape[0] > 1 and np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    at = upload(client, path, at=12, to="audio")
    assert at.status_code == 200, at.text


def test_embeddings_are_of_every_window_not_only_of_those_that_fit_a_link(archive: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * (MOST_WINDOWS + 1) * RATE)
    app = create_app(Settings(archive, state=tmp_path / "state", query_seconds=600.0))
    with TestClient(app, base_url=LOCAL) as client, write_wav(tmp_path / "x.wav", noise).open("rb") as file:
        assert len(client.post("/api/embed", files={"file": file}).json()["embeddings"]) == MOST_WINDOWS + 1


def test_why_names_clips_near_both(client: TestClient, archive: Path, tmp_path: Path) -> None:
    shared = client.get("/api/why", params={"id": "high/01", "result": "high/05", "k": 4}).json()["shared"]
    assert len(shared) == 4 and {"high/01", "high/05"}.isdisjoint(s["id"] for s in shared)
    assert [min(s["like_query"], s["like_result"]) for s in shared] == sorted(
        (min(s["like_query"], s["like_result"]) for s in shared), reverse=True
    )
    snapshot = Snapshot(Settings(archive, state=tmp_path))
    opened = snapshot.archive
    z = {m: np.asarray(opened.embeddings(m)[:], np.float64) for m in opened.modalities}
    row = {n: opened.clips.row_of[n] for n in ("high/01", "high/05", shared[0]["id"])}
    best = row[shared[0]["id"]]
    assert shared[0]["like_query"] == pytest.approx(float(z["audio"][row["high/01"]] @ z["audio"][best]), abs=1e-3)
    assert shared[0]["like_result"] == pytest.approx(float(z["visual"][row["high/05"]] @ z["visual"][best]), abs=1e-3)
    query = Query("x", "audio", opened.query_clip("high/01").z)
    assert len(shared_neighbours(snapshot, query, row["high/05"], "visual", 3)) == 3


def test_clips_are_listed_and_filtered(client: TestClient) -> None:
    every = client.get("/api/items", params={"k": 100}).json()
    assert every["total"] == ROWS and len(every["clips"]) == ROWS
    some = client.get("/api/items", params={"k": 10, "sample": "true"}).json()["clips"]
    assert len({c["id"] for c in some}) == 10
    high = client.get("/api/items", params={"k": 100, "where": "label=high"}).json()
    assert high["total"] == CLIPS // 2 and all(c["labels"] == ["high"] for c in high["clips"])
    filters = client.get("/api/filters").json()["filters"]
    assert filters["label"] == {"high": CLIPS // 2, "low": CLIPS // 2} and filters["folder"]["high"] == CLIPS // 2
    long = [c for c in every["clips"] if c["id"].startswith("long")]
    assert [c["start"] for c in long] == [0.0, 10.0, 20.0] or len(long) == 2
    assert client.get("/api/items/film").json()["video"] is True


def item(name: str, part: str) -> str:
    return f"/api/items/{quote(name, safe='')}/{part}"


def test_thumbnails_are_small_jpegs_with_an_etag(client: TestClient) -> None:
    for name in ("high/01", "film"):
        answer = client.get(item(name, "thumbnail"))
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).size == (256, 256)
        again = client.get(item(name, "thumbnail"), headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304 and not again.content
    assert client.get(item("long#t=10,25", "thumbnail")).status_code == 404


def test_a_sound_is_that_of_its_window(client: TestClient, archive: Path) -> None:
    name = next(c["id"] for c in client.get("/api/items", params={"k": 100}).json()["clips"] if "#t=10" in c["id"])
    content = client.get(item(name, "sound")).content
    with av.open(io.BytesIO(content)) as container:
        assert container.streams.audio[0].codec_context.name.startswith("mp3")
        seconds = sum(f.samples for f in container.decode(audio=0)) / 32_000
    start, end = (float(t) for t in name.partition("#t=")[2].split(","))
    assert seconds == pytest.approx(end - start, abs=0.2)
    part = client.get(item(name, "sound"), headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == content[10:20]
    peaks = client.get(item(name, "waveform")).json()["peaks"]
    assert len(peaks) == 64 and max(peaks) == 1.0


def test_a_file_comes_in_ranges(client: TestClient, archive: Path) -> None:
    content = (archive.parent / "media" / "film.mp4").read_bytes()
    whole = client.get(item("film", "media"))
    assert whole.content == content and whole.headers["content-type"] == "video/mp4"
    assert whole.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert whole.headers["content-disposition"] == "inline; filename*=UTF-8''film.mp4"
    head = client.head(item("film", "media"))
    assert head.headers["content-length"] == str(len(content)) and not head.content
    for header, status, part in (
        ("bytes=0-99", 206, content[:100]),
        ("bytes=100-", 206, content[100:]),
        ("bytes=-7", 206, content[-7:]),
        (f"bytes=5-{10**17}", 206, content[5:]),
        ("bytes=0-1,5-6", 200, content),
        ("bytes=9-3", 200, content),
        (f"bytes={len(content)}-", 416, None),
    ):
        answer = client.get(item("film", "media"), headers={"Range": header})
        assert answer.status_code == status, header
        assert part is None or answer.content == part
    stale = client.get(item("film", "media"), headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert stale.status_code == 200 and stale.content == content
    same = client.get(item("film", "media"), headers={"If-None-Match": whole.headers["etag"]})
    assert same.status_code == 304


def test_decisions_are_exported_as_the_library_reads_them(client: TestClient, tmp_path: Path) -> None:
    ready = until(lambda: (a := client.get("/api/suspicious", params={"k": 100}).json())["state"] == "ready" and a, 60)
    assert ready["total"] > 60 and 0 <= ready["wrong_share"] <= 1
    scores = [pair["score"] for pair in ready["pairs"]]
    assert scores == sorted(scores, reverse=True)
    first, second, third = (pair["id"] for pair in ready["pairs"][:3])
    for name, choice in ((first, "drop"), (second, "keep"), (third, "unsure"), (third, "drop"), (first, "unsure")):
        assert client.post("/api/decisions", json={"id": name, "decision": choice}).json()["decision"] == choice
    after = client.get("/api/suspicious", params={"k": 100}).json()
    assert after["decided"] == {"keep": 1, "drop": 1, "unsure": 1}
    assert [pair["decision"] for pair in after["pairs"][:3]] == ["unsure", "keep", "drop"]
    still = client.get("/api/suspicious", params={"k": 100, "open": "true"}).json()["pairs"]
    assert {first, second, third}.isdisjoint(pair["id"] for pair in still)
    exported = client.get("/api/decisions/export")
    assert "attachment" in exported.headers["content-disposition"]
    (tmp_path / "list.txt").write_bytes(exported.content)
    assert read_ids(tmp_path / "list.txt").tolist() == [third.encode()]
    for name in (first, second, third):
        client.post("/api/decisions", json={"id": name, "decision": None})
    assert client.get("/api/decisions").json() == []


def test_the_map_places_every_clip(client: TestClient) -> None:
    about = until(lambda: (a := client.get("/api/map").json())["state"] == "ready" and a, 60)
    answer = client.get("/api/map/points")
    numbers = np.frombuffer(answer.content, "<u2")
    n = about["clips"]
    assert n == ROWS and len(numbers) == 2 * n * 2 + 2 * n
    places = numbers[: 4 * n].reshape(2, n, 2)
    clips = client.post("/api/map/clips", json={"version": about["version"], "rows": list(range(n))}).json()["clips"]
    for row, clip in enumerate(clips):
        assert [m for k, m in enumerate(about["modalities"]) if (places[k, row] != 65535).all()] == clip["modalities"]
        label = numbers[4 * n + row]
        assert [about["labels"][label]] == clip["labels"] if label != 65535 else not clip["labels"]
    assert (numbers[5 * n :] < len(about["clusters"])).all()
    assert client.get("/api/map/points", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    old = client.post("/api/map/clips", json={"version": "other", "rows": [0]})
    assert old.status_code == 409 and "rebuilt" in old.json()["detail"]


def test_about_and_the_report(client: TestClient, archive: Path) -> None:
    about = client.get("/api/about").json()
    assert about["clips"] == ROWS and about["modalities"] == {"audio": ROWS, "visual": CLIPS + 1}
    assert about["recipe"]["audio"]["extractor"] == "light" and about["model"]["method"] == "ridge-cca"
    assert isinstance(about["metrics"]["avg/R@10"], float)
    assert str(archive.parent) not in json.dumps(about)
    report = client.get("/report")
    assert "sandbox allow-scripts" in report.headers["content-security-policy"] and "<h2>" in report.text


def test_health_readiness_and_metrics(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "clips": ROWS}
    client.get("/api/items/high%2F01")
    text = client.get("/metrics").text
    assert 'hscmae_requests_total{method="GET",route="/api/items/{id:path}",status="200"}' in text
    assert f"hscmae_clips {float(ROWS)}" in text and "high/01" not in text


def test_every_answer_names_its_kind_and_letters(client: TestClient) -> None:
    static = [f"/static/{name}" for name in ("main.js", "app.css", "icon.svg")]
    for path in ("/", "/docs", "/report", "/metrics", "/api/decisions/export", *static):
        kind = client.get(path).headers["content-type"]
        assert kind.partition(";")[0].startswith(("text/", "image/svg+xml")) and "charset=utf-8" in kind, path
    for path in ("/api/about", "/openapi.json", "/nothing"):  # JSON is UTF-8 and takes no parameter
        assert re.fullmatch(r"application/(problem\+)?json", client.get(path).headers["content-type"]), path


def test_the_page_and_the_api_page_need_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.headers["content-type"].startswith("text/html")
        for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
            assert address.startswith(("/", "#")), address
            if not address.startswith("#") and address != "/report":
                assert client.get(address).status_code == 200, address
    script = client.get("/static/main.js", headers={"Accept-Encoding": "gzip"})
    assert script.headers["content-encoding"] == "gzip" and script.headers["content-type"].startswith("text/javascript")
    assert client.get("/static/main.js", headers={"If-None-Match": script.headers["etag"]}).status_code == 304
    assert client.get("/static/index.html").status_code == client.get("/static/app.py").status_code == 404


def test_every_route_is_documented(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    routes = {"/api/search", "/api/embed", "/api/items/{id}", "/api/suspicious", "/healthz", "/readyz", "/metrics"}
    assert (
        routes | {f"/api/items/{{id}}/{part}" for part in ("thumbnail", "sound", "media")} <= document["paths"].keys()
    )
    for methods in document["paths"].values():
        for route in methods.values():
            assert route["description"] and route["responses"]
    example = document["components"]["schemas"]["AnswerOut"]["examples"][0]
    real = client.get("/api/search", params={"id": "high/01", "k": 1}).json()
    assert example.keys() == real.keys() and example["results"][0].keys() == real["results"][0].keys()


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/search", 400, "either `id`"),
        ("/api/search?id=nothing", 404, "no clip of this name"),
        ("/api/search?id=high/01&to=smell", 400, "audio, visual, both"),
        ("/api/search?id=long%23t=0,10&from=visual", 400, "has no visual; it has audio"),
        ("/api/search?id=high/01&where=label=blue", 400, "No clip has that"),
        ("/api/search?id=high/01&where=secret=1", 400, "label, folder"),
        ("/api/search?id=high/01&k=1000", 422, "k: "),
        ("/api/search?vector=xyz", 400, "damaged"),
        ("/api/search?vector=0123456789ab.AAAA", 400, "damaged"),
        ("/api/items/nothing", 404, "no clip of this name"),
        ("/api/items/high%2F01/media?modality=x", 404, "no file of that kind"),
        ("/nothing", 404, "nothing here"),
    ],
)
def test_what_is_wrong_is_said_to_people(client: TestClient, path: str, status: int, words: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["detail"] and answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_link_of_another_model_is_told_so(client: TestClient, archive: Path) -> None:
    vector = upload(client, archive.parent / "media" / "high" / "03.wav").json()["vector"]
    answer = client.get("/api/search", params={"vector": "0" * 12 + vector[12:]})
    assert answer.status_code == 410 and "learned anew" in answer.json()["detail"]

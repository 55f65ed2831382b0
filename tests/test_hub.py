"""Models travel: up to a stand-in of the hub's HTTP API by the hub's own library, and down again."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import hscmae
from conftest import make_pairs
from hscmae.errors import InputError

pytest.importorskip("huggingface_hub", reason="needs huggingface-hub")
REPO = "somebody/model"


class Hub(ThreadingHTTPServer):
    """One repository: what was created, committed and asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.commits = 0
        self.tokens: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def _answer(self, body: Any, status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.tokens.add(self.headers.get("Authorization"))
        if path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self._answer({"url": f"{hub.url}/{REPO}"})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path == f"/api/models/{REPO}/preupload/main":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif path == f"/api/models/{REPO}/commit/main":
            hub.commits += 1
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer({"success": True, "commitOid": hub.sha, "commitUrl": f"{hub.url}/{REPO}/commit/{hub.sha}"})
        else:
            self._answer({"error": "not here"}, 404)

    def do_GET(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        resolve = f"/{REPO}/resolve/{hub.sha}/"
        if path == f"/api/models/{REPO}/tree/{hub.sha}":
            about = [(name, hashlib.sha1(content).hexdigest(), len(content)) for name, content in hub.files.items()]
            self._answer([{"type": "file", "path": name, "oid": oid, "size": size} for name, oid, size in about])
        elif path.startswith(f"/api/models/{REPO}") and hub.files:
            self._answer({"id": REPO, "sha": hub.sha, "siblings": [{"rfilename": name} for name in hub.files]})
        elif path.startswith(resolve) and path.removeprefix(resolve) in hub.files:
            content = hub.files[path.removeprefix(resolve)]
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            self._answer(content, X_Repo_Commit=hub.sha, ETag=etag)
        else:
            self._answer({"error": "not here"}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def python(code: str, hub: Hub, home: Path) -> subprocess.CompletedProcess[str]:
    """The hub's library reads its address when it is imported: so a process of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    told = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": "hf_token"}
    command = [sys.executable, "-c", f"import hscmae, numpy as np\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, env=own | told)


def test_a_model_goes_up_and_comes_down_the_same(hub: Hub, tmp_path: Path) -> None:
    pairs = make_pairs(80)
    model = hscmae.HSCMAE(dim=6, network_width=16, training_steps=4, training_evaluations=2).fit(pairs)
    model.save(tmp_path / "model")
    up = python(f"print(hscmae.push_to_hub({str(tmp_path / 'model')!r}, {REPO!r}, private=True))", hub, tmp_path / "up")
    assert up.returncode == 0, up.stderr
    assert up.stdout.strip().startswith(f"{hub.url}/{REPO}")
    (created,) = hub.created
    assert (created["organization"], created["name"]) == ("somebody", "model")
    assert created.get("visibility") == "private" or created.get("private") is True  # by the library's version
    assert hub.tokens == {"Bearer hf_token"}
    assert hub.commits == 1
    assert set(hub.files) == {"model.safetensors", "config.json", "README.md"}  # no ids of training clips
    card = yaml.safe_load(hub.files["README.md"].decode().split("---")[1])
    assert card["library_name"] == "hscmae"

    np.save(tmp_path / "x.npy", pairs.features["audio"])
    code = f"z = hscmae.from_pretrained({REPO!r}).embed('audio', np.load({str(tmp_path / 'x.npy')!r}))\n"
    down = python(code + f"np.save({str(tmp_path / 'z.npy')!r}, z)", hub, tmp_path / "down")
    assert down.returncode == 0, down.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), model.embed("audio", pairs.features["audio"]))


def test_metrics_stand_in_the_card_as_the_hub_reads_them(hub: Hub, tmp_path: Path) -> None:
    hscmae.RidgeCCA(dim=4).fit(make_pairs(60)).save(tmp_path / "model")
    metrics = {
        "split": "test",
        "avg/mAP": 0.5,
        "avg/mAP_ci": [0.4, 0.6],
        "avg/MedR": 3.5,
        "a2v/mAP": 0.25,
        "n_queries": 9,
    }
    code = f"hscmae.push_to_hub({str(tmp_path / 'model')!r}, {REPO!r}, metrics={metrics!r}, data='AVE | x: y')"
    done = python(code, hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(hub.files) == {"model.safetensors", "config.json", "README.md"}
    before, after = (t.decode() for t in ((tmp_path / "model" / "README.md").read_bytes(), hub.files["README.md"]))
    assert after.split("---", 2)[2].strip() == before.split("---", 2)[2].strip()
    card = yaml.safe_load(after.split("---")[1])
    assert card["library_name"] == "hscmae"
    (entry,) = card["model-index"]
    (result,) = entry["results"]
    assert entry["name"] == "model" and result["dataset"]["name"] == "AVE | x: y"
    assert {m["type"]: m["value"] for m in result["metrics"]} == {"mAP": 0.5, "MedR": 3.5}


@pytest.mark.parametrize(
    "call", [f"from_pretrained({REPO!r})", "from_pretrained('a/b/c')", "push_to_hub('model', 'a/b/c')"]
)
@pytest.mark.parametrize("reached", [True, False])
def test_what_the_hub_refuses_is_one_clear_line(hub: Hub, tmp_path: Path, call: str, reached: bool) -> None:
    hscmae.RidgeCCA(dim=4).fit(make_pairs(60)).save(tmp_path / "model")
    if not reached:
        hub.shutdown()
        hub.server_close()
    code = f"""
import os
os.chdir({str(tmp_path)!r})
try:
    hscmae.{call}
except hscmae.InputError as error:
    print(error)
"""
    done = python(code, hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(call.split("'")[-2] + ": ") and done.stdout.count("\n") == 1


def test_a_folder_needs_no_hub_and_what_is_no_model_is_not_pushed(tmp_path: Path) -> None:
    pairs = make_pairs(60)
    model = hscmae.RidgeCCA(dim=4).fit(pairs)
    model.save(tmp_path / "model")
    again = hscmae.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(
        again.embed("audio", pairs.features["audio"]), model.embed("audio", pairs.features["audio"])
    )
    with pytest.raises(InputError, match="not a trained model"):
        hscmae.push_to_hub(tmp_path, REPO)

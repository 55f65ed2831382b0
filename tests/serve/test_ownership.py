"""What the server removes is its own, and what it starts knows no secret."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from hscmae.extract.jail import child_environment
from hscmae.serve import uploads
from hscmae.serve.app import create_app
from hscmae.serve.settings import Settings
from serve.serving import LOCAL, until

pytest_plugins = ("serve.fixtures",)


def test_only_folders_of_dead_servers_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    foreign, dead = (tmp_path / f"{uploads.PREFIX}{name}" for name in ("999999-mine", "dead"))
    for folder in (foreign, dead):
        folder.mkdir()
        (folder / "file").write_text("")
    (dead / uploads.LOCK).touch()
    living = uploads.Uploads(Settings(tmp_path))
    assert not dead.exists() and (foreign / "file").exists()
    again = uploads.Uploads(Settings(tmp_path))
    assert living.folder.exists()
    for server in (living, again):
        server.close()
    assert [path.name for path in tmp_path.iterdir()] == [foreign.name]


def test_a_lock_is_held_before_a_folder_can_be_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = uploads.Uploads(Settings(tmp_path))
    handle = os.open(server.folder / uploads.LOCK, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)
    server.close()


def test_files_in_the_state_folder_that_are_not_ours_stay(archive: Path, tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    old = tmp_path / f"map-{'0' * 16}.bin"
    names = [tmp_path / name for name in ("map-europe.bin", "suspicious-mails.json")]
    for path in (old, *names):
        path.write_text("mine")
    with TestClient(create_app(Settings(archive, state=tmp_path)), base_url=LOCAL) as client:
        until(lambda: client.get("/api/map").json()["state"] != "computing", 120)
    assert all(path.read_text() == "mine" for path in names)
    assert not old.exists()


def test_children_do_not_know_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSCMAE_TOKEN", "a secret of many characters")
    assert "a secret of many characters" not in child_environment().values()

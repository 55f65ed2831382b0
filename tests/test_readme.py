"""The README keeps its word: its Python runs, its verbs exist, its files are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hscmae
from hscmae.cli import app
from hscmae.methods import HSCMAE

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)

    class Quick(HSCMAE):
        def __init__(self, **settings: object) -> None:
            super().__init__(**settings, training_steps=4, network_width=16, warm_start_ridge=3.0)

    monkeypatch.setattr(hscmae, "HSCMAE", Quick, raising=False)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, {})
    assert 0 < float(capsys.readouterr().out) < 1
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_the_verbs_exist() -> None:
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"^hscmae (\w+)", README, re.MULTILINE)) <= verbs


def test_every_file_of_the_map_exists_and_every_module_is_on_it() -> None:
    listed = set()
    for row in re.findall(r"^\| (`.*?) \|", README, re.MULTILINE):
        names = re.findall(r"`([^`]+)`", row)
        folder = Path(names[0]).parent if not names[0].endswith("/") else Path(names[0])
        for name in names:
            path = ROOT / name if (ROOT / name).exists() else ROOT / folder / name
            assert path.exists(), name
            listed.add(path)
    for module in (ROOT / "src" / "hscmae").rglob("*.py"):
        if module.name != "__init__.py":
            assert any(module == path or path in module.parents for path in listed), module

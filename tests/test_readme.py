"""The README keeps its word: its Python runs, its verbs exist, its files are there."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

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
    first, own = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    variables: dict[str, object] = {}
    exec(first, variables)
    assert 0 < float(capsys.readouterr().out) < 1
    rng = np.random.default_rng(0)
    variables |= {"A": rng.normal(size=(100, 6)), "V": rng.normal(size=(100, 9))}
    exec(own, variables)
    assert 0 < float(capsys.readouterr().out) < 1
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_every_command_is_one() -> None:
    """Each is understood: no verb or option that there is not, and none left out that must be given."""
    text = README.replace("\n", " ")
    shown = re.findall(r"^(hscmae \w+ .*?)(?: +#|$)", README, re.MULTILINE) + re.findall(
        r"`(hscmae (?!VERB)\w+ .*?)`", text
    )
    assert len(shown) > 10
    for line in shown:
        _, verb, *words = shlex.split(line)
        get_command(app).commands[verb].make_context(verb, words)


def test_the_map_names_every_folder() -> None:
    listed = set()
    for row in re.findall(r"^\| (`.*?) \|", README, re.MULTILINE):
        first, *others = (Path(name) for name in re.findall(r"`([^`]+)/`", row))
        listed |= {first, *(first.parent / other for other in others)}
    packages = {module.parent.relative_to(ROOT) for module in (ROOT / "src").rglob("*.py")}
    assert listed >= packages and all((ROOT / folder).is_dir() for folder in listed)


def test_the_map_of_the_benchmarks_names_every_module() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    modules = {path.stem for folder in ("timings", "studies") for path in (ROOT / "benchmarks" / folder).glob("*.py")}
    assert {
        name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in row.strip("`").split("`, `")
    } == modules


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("folder", ["src", "benchmarks"])
def test_every_module_says_what_it_is_for(folder: str) -> None:
    for module in (ROOT / folder).rglob("*.py"):
        text = module.read_text()
        assert not text or ast.get_docstring(ast.parse(text)), module

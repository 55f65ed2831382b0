"""The site of the documentation: it builds without a warning, is whole, and needs nothing from elsewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from hscmae.cli import app
from hscmae.methods import METHODS

pytest.importorskip("mkdocs", reason="needs the extra docs")
ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ("hscmae", "hscmae.extract", "hscmae.report", "hscmae.search")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def anchors(site: Path) -> set[str]:
    return set(re.findall(r'id="(hscmae[\w.]*)"', "".join(page.read_text() for page in site.rglob("*.html"))))


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_its_place(module: str, anchors: set[str]) -> None:
    names = importlib.import_module(module).__all__
    assert not [name for name in names if not {f"{module}.{name}", f"hscmae.{name}"} & anchors]


def test_every_setting_is_told(site: Path) -> None:
    text = (site / "api" / "models.html").read_text()
    for method in METHODS.values():
        assert all(f"<code>{name}</code>" in text for name in method().get_params())


def test_every_verb_and_option_is_told(site: Path) -> None:
    text = (site / "cli.html").read_text()
    for name, command in get_command(app).commands.items():
        assert f"hscmae {name}" in text
        for parameter in command.params:
            assert all(option in text for option in parameter.opts if option.startswith("--"))


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe|source|video|audio)\b[^>]*\ssrc="(?:https?:)?//[^"]+', text)
        loaded += [link for link in re.findall(r"<link\b[^>]*>", text) if re.search(r'href="(https?:)?//', link)]
        assert not loaded, page


def test_every_formula_is_drawn(site: Path) -> None:
    text = (site / "method.html").read_text()
    assert text.count("<math") > 20
    for page in site.rglob("*.html"):
        assert not re.search(r"arithmatex|<p>\.\. math", page.read_text()), page


def test_every_example_is_a_block(site: Path) -> None:
    """An unfenced ``>>>`` would be three quotations in each other."""
    assert not [page for page in (site / "api").rglob("*.html") if "<blockquote>" in page.read_text()]

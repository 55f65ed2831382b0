"""The site of the documentation: it builds without a warning, is whole, and needs nothing from elsewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.main import get_command

from chromium import browser as browser
from chromium import needs_chromium
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


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_narrow_window_and_ask_nobody_else(site: Path, address: str, browser: Any, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    for file in sorted(site.rglob("*.html")):
        page.goto(f"{address}/{file.relative_to(site)}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, file
    assert page.evaluate("document.body.dataset.mdColorScheme") == {"light": "default", "dark": "slate"}[scheme]
    page.close()
    assert not errors
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)


@needs_chromium
def test_search_finds_a_function(address: str, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1300, "height": 800})
    page.goto(address)
    page.keyboard.press("/")
    page.keyboard.type("affinity_infonce")
    page.locator("a.md-search-result__link[href*='affinity_infonce']").first.wait_for()
    page.close()

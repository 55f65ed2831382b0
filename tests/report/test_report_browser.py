"""The page in a real browser: no error, no request; sounds play, points answer, both themes and a phone's width.

Needs Debian's ``chromium`` and the Python package ``playwright``; skipped where either is absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_job import make_job, renamed

from chromium import needs_chromium
from hscmae.data.store import open_store
from hscmae.demo.corpus import KINDS, make_corpus, with_truth
from hscmae.extract import extract
from hscmae.report import write_report

pytest_plugins = ("chromium",)

HOSTILE = ["<img src=http://127.0.0.1:9/x onerror=alert(1)>", "</script><script>alert(1)</script>", "\" onclick='x"]

pytest.importorskip("av", reason="needs the extra media")
pytestmark = needs_chromium


@dataclass
class Seen:
    """A page and everything that it complained of or asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def texts(self, selector: str) -> list[str]:
        return [e.inner_text() for e in self.page.query_selector_all(selector)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of a small demo corpus: ``report.html`` with media, and ``hostile.html`` with names meant to do harm."""
    path = tmp_path_factory.mktemp("browser")
    truth = make_corpus(path / "media", clips=100, seed=1)
    extract([path / "media"], path / "extracted")
    pairs = with_truth(open_store(path / "extracted"), truth)
    pairs = pairs.take(np.arange(len(pairs)))
    job = make_job(path / "job", pairs)
    write_report(job.run, path / "report.html", file=job.file, pairs=pairs, media=path / "media")
    hostile = renamed(pairs, HOSTILE, [f"{HOSTILE[i % 3]}{i}" for i in range(len(KINDS))])
    write_report(job.run, path / "hostile.html", file=job.file, pairs=hostile, split="all")
    return path


def visit(browser: Any, file: Path, width: int = 1200, scheme: str = "light") -> Seen:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    seen = Seen(context.new_page())
    seen.page.on("console", lambda message: seen.complaints.append(message.text))
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("dialog", lambda dialog: (seen.complaints.append(dialog.message), dialog.dismiss()))
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    seen.page.goto(file.as_uri())
    return seen


def until(seen: Seen, condition: str) -> None:
    """Wait until a condition holds; Playwright's own waiting evaluates strings, which the page's policy forbids."""
    for _ in range(200):
        if seen.page.evaluate(condition):
            return
        seen.page.wait_for_timeout(25)
    raise AssertionError(f"never: {condition}")


def settled(seen: Seen, file: Path) -> None:
    """No complaint, and no request but for the file itself and for what is within it."""
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [file.as_uri()]


@pytest.fixture
def seen(browser: Any, folder: Path) -> Iterator[Seen]:
    page = visit(browser, folder / "report.html")
    yield page
    settled(page, folder / "report.html")
    page.page.context.close()


def test_every_section_shows(seen: Seen) -> None:
    titles = ["Data", "Training", "Metrics", "Precision and recall", "Classes", "Confusion among classes", "Map"]
    assert seen.texts("section > h2") == [*titles, "Examples", "Suspicious pairs", "Settings", "Versions"]
    for section in seen.page.query_selector_all("section"):
        assert section.bounding_box()["height"] > 80


def test_every_picture_is_decoded(seen: Seen) -> None:
    seen.page.evaluate("Promise.all([...document.images].map(i => i.decode()))")
    assert seen.page.evaluate("document.images.length") > 40
    assert seen.page.evaluate("[...document.images].every(i => i.naturalWidth > 50)")


def test_sounds_play_one_at_a_time(seen: Seen) -> None:
    sounds = seen.page.evaluate("Object.values(JSON.parse(document.getElementById('page-data').textContent).clips)")
    assert sum("sound" in clip for clip in sounds) > 20
    seen.page.evaluate(
        "async () => { const clips = Object.values(JSON.parse(document.getElementById('page-data').textContent).clips);"
        "for (const clip of clips.filter(c => c.sound).slice(0, 5)) {"
        "const a = new Audio(clip.sound); await a.play(); if (!(a.duration > 1)) throw Error('short'); a.pause(); } }"
    )
    first, second = seen.page.query_selector_all(".query .play")[:2]
    first.click()
    until(seen, "document.getElementById('player').currentTime > 0")
    assert first.get_attribute("class").split()[-1] == "playing"
    second.click()
    until(seen, "!document.getElementById('player').paused")
    assert len(seen.page.query_selector_all(".playing")) == 1
    second.click()
    assert seen.page.evaluate("document.getElementById('player').paused")
    assert seen.page.query_selector(".playing") is None


def point(seen: Seen, number: int) -> tuple[float, float]:
    mark = seen.page.query_selector_all("#map-chart .point")[number]
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_map_answers_to_hovering_and_clicking(seen: Seen) -> None:
    chart = seen.page.query_selector("#map-chart")
    chart.scroll_into_view_if_needed()
    assert len(seen.page.query_selector_all("#map-chart .point")) == 2 * 25
    x, y = point(seen, 0)
    seen.page.mouse.move(x, y)
    tip = seen.page.inner_text("#tip")
    assert tip.startswith("sound of clip")
    assert "cosine of sound and picture" in tip
    assert len(seen.page.query_selector_all(".point.on")) == 2
    assert seen.page.get_attribute(".link", "visibility") == "visible"
    seen.page.mouse.click(x, y)
    seen.page.mouse.move(5, 5)
    assert not seen.page.is_visible("#tip")
    assert seen.page.inner_text("#map-clip .name") in tip
    assert seen.page.query_selector("#map-clip img") is not None
    seen.page.click("#map-clip .play")
    until(seen, "document.getElementById('player').currentTime > 0")


def test_a_class_can_be_brought_out(seen: Seen) -> None:
    button = seen.page.query_selector("#map-legend button")
    name = button.inner_text()
    clips = seen.page.evaluate("JSON.parse(document.getElementById('page-data').textContent)")
    expected = sum(name not in clips["clips"][f"t{row}"]["classes"] for row in clips["map"]["rows"])
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert len(seen.page.query_selector_all(".point.dim")) == 2 * expected > 0
    button.click()
    assert seen.page.query_selector(".point.dim") is None


@pytest.mark.parametrize("selector", ["#training .dot", "#classes .bar", "#confusion [data-tip]", "#suspicious .tile"])
def test_marks_say_what_they_are(seen: Seen, selector: str) -> None:
    mark = seen.page.query_selector(selector)
    mark.scroll_into_view_if_needed()
    mark.hover()
    assert seen.page.inner_text("#tip") == mark.get_attribute("data-tip")


def brightness(seen: Seen, selector: str, what: str) -> float:
    colour = seen.page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{what}")
    return sum(float(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_and_the_button_between_them(browser: Any, folder: Path, scheme: str) -> None:
    seen = visit(browser, folder / "report.html", scheme=scheme)
    for dark in (scheme == "dark", scheme != "dark"):
        ground, ink = brightness(seen, "section", "backgroundColor"), brightness(seen, "section", "color")
        assert (ground < 60 and ink > 200) if dark else (ground > 230 and ink < 60)
        axis = brightness(seen, "svg text.axis", "fill")
        assert axis > 200 if dark else axis < 60
        seen.page.click("#theme")
    settled(seen, folder / "report.html")


@pytest.mark.parametrize("width", [320, 380, 768, 1600])
def test_no_width_makes_the_page_scroll_sideways(browser: Any, folder: Path, width: int) -> None:
    seen = visit(browser, folder / "report.html", width=width)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    smallest = seen.page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height))"
    )
    assert smallest >= 7.5
    settled(seen, folder / "report.html")


def test_it_prints_in_light_colours_without_controls(browser: Any, folder: Path) -> None:
    seen = visit(browser, folder / "report.html", scheme="dark")
    seen.page.emulate_media(media="print")
    assert brightness(seen, "section", "backgroundColor") > 230
    assert not seen.page.is_visible("nav")
    assert seen.page.pdf()[:5] == b"%PDF-"


def test_hostile_names_stay_text(browser: Any, folder: Path) -> None:
    seen = visit(browser, folder / "hostile.html")
    assert any(HOSTILE[0] in name for name in seen.texts(".name"))
    seen.page.query_selector("#map-chart").scroll_into_view_if_needed()
    for number in range(0, 200, 20):
        x, y = point(seen, number)
        seen.page.mouse.move(x, y)
        seen.page.mouse.click(x, y)
    assert "alert" in seen.page.inner_text("#map-clip") or "onclick" in seen.page.inner_text("#map-clip")
    assert seen.page.query_selector("img") is None
    assert len(seen.page.query_selector_all("script")) == 2
    settled(seen, folder / "hostile.html")


def test_the_policy_lets_no_other_script_run_and_no_request_leave(browser: Any, folder: Path, tmp_path: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    smuggled = (
        "<script>document.title='pwned'</script><img src='http://127.0.0.1:9/x' onerror=\"document.title='pwned'\">"
    )
    (tmp_path / "r.html").write_text(text.replace("</main>", smuggled + "</main>"), encoding="utf-8")
    seen = visit(browser, tmp_path / "r.html")
    assert seen.page.title() != "pwned"
    assert len(seen.complaints) >= 2

"""The page in a real browser, on a server in a process of its own: used by mouse, keys and assistive technology.

Needs Debian's ``chromium`` and the Python packages ``playwright`` and ``axe-playwright-python``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from chromium import ARGUMENTS, CHROMIUM, needs_chromium
from hscmae.cli import main
from hscmae.data.splits import read_ids
from media_files import RATE, write_wav
from serve.serving import CLIPS, Process, served

pytest_plugins = ("chromium", "serve.fixtures")

MEDIA = Path(__file__).resolve().parents[3] / "shared" / "media"
TABS = ("search", "map", "pairs", "about")

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def process(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("page")
    with served(archive, folder, "--state", str(folder / "state")) as found:
        yield found


@dataclass
class Seen:
    """A page, what it complained of, and where it asked."""

    page: Any
    url: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, hash_: str) -> None:
        self.page.goto(f"{self.url}/{hash_}")

    def count(self, selector: str) -> int:
        return len(self.page.query_selector_all(selector))

    def until(self, condition: str, seconds: float = 30) -> None:
        """Playwright's own waiting evaluates strings, which the page's policy forbids."""
        for _ in range(int(seconds * 20)):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never: {condition}; {self.complaints}")

    def settled(self) -> None:
        assert self.complaints == []
        assert [u for u in self.requests if not u.startswith((self.url, "blob:", "data:"))] == []


def visit(browser: Any, process: Process, hash_: str, width: int = 1200, scheme: str = "light") -> Seen:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True)
    context.grant_permissions(["microphone", "clipboard-read", "clipboard-write"], origin=process.url)
    seen = Seen(context.new_page(), process.url)
    seen.page.on("console", lambda message: seen.complaints.append(message.text))
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    seen.open(hash_)
    return seen


@pytest.fixture
def seen(browser: Any, process: Process) -> Iterator[Seen]:
    found = visit(browser, process, "")
    yield found
    found.settled()
    found.page.context.close()


RESULTS = "document.querySelectorAll('#results .score').length > 4"


def transfer(seen: Seen, path: Path, kind: str) -> Any:
    """A file as the page is given it, dropped or pasted."""
    seen.until("!document.querySelector('[data-panel=search]').hidden")
    return seen.page.evaluate_handle(
        "([bytes, name, type]) => { const t = new DataTransfer();"
        "t.items.add(new File([new Uint8Array(bytes)], name, {type})); return t; }",
        [list(path.read_bytes()), path.name, kind],
    )


def drop(seen: Seen, path: Path, kind: str) -> None:
    """Drop a file on the page, as a person does."""
    seen.page.dispatch_event("#drop", "drop", {"dataTransfer": transfer(seen, path, kind)})


def paste(seen: Seen, given: Any) -> None:
    """Paste what a ``DataTransfer`` holds."""
    seen.page.evaluate(
        "t => document.body.dispatchEvent("
        "new ClipboardEvent('paste', {clipboardData: t, bubbles: true, cancelable: true}))",
        given,
    )


def test_a_dropped_sound_finds_pictures_and_a_result_plays(seen: Seen, archive: Path) -> None:
    drop(seen, archive.parent / "media" / "high" / "03.wav", "audio/wav")
    seen.until(RESULTS)
    assert seen.page.inner_text("#found-title") == "Pictures that go with this sound"
    labels = [e.inner_text() for e in seen.page.query_selector_all("#results .classes")[:6]]
    assert labels.count("high") >= 4
    seen.until("[...document.querySelectorAll('#results img')].slice(0, 4).every(i => i.naturalWidth === 256)")
    seen.until("document.querySelectorAll('#results .play path').length > 2")
    seen.page.click("#results .play")
    seen.until("document.getElementById('player').currentTime > 0")
    assert seen.page.get_attribute("#results .play", "aria-pressed") == "true"
    seen.page.click("#results .play")
    assert seen.page.evaluate("document.getElementById('player').paused")


def test_a_link_repeats_a_search_by_a_file(browser: Any, process: Process, seen: Seen, archive: Path) -> None:
    drop(seen, archive.parent / "media" / "high" / "03.wav", "audio/wav")
    seen.until(RESULTS)
    seen.page.click("#link")
    link = seen.page.evaluate("navigator.clipboard.readText()")
    first = [e.inner_text() for e in seen.page.query_selector_all("#results .name")[:20]]
    other = visit(browser, process, link.partition("/#")[1][1:] + link.partition("/#")[2])
    other.until(RESULTS)
    assert [e.inner_text() for e in other.page.query_selector_all("#results .name")[:20]] == first
    other.settled()
    other.page.context.close()


def test_a_file_is_chosen_and_a_wrong_one_is_said_to_be_wrong(seen: Seen, archive: Path, tmp_path: Path) -> None:
    seen.until("!document.querySelector('[data-panel=search]').hidden")
    (tmp_path / "letter.png").write_text("Dear all")
    seen.page.set_input_files("#file", str(tmp_path / "letter.png"))
    seen.until("document.getElementById('status').textContent.includes('cannot be read')")
    assert seen.complaints == [
        "Failed to load resource: the server responded with a status of 415 (Unsupported Media Type)"
    ]
    seen.complaints.clear()
    seen.page.set_input_files("#file", str(archive.parent / "media" / "high" / "07.png"))
    seen.until(RESULTS)
    assert seen.page.inner_text("#found-title") == "Sounds that go with this picture"


def refused(status: int, route: Any) -> None:
    route.fulfill(status=status, body="<html>nginx</html>")


def test_what_a_proxy_refuses_is_said_kindly(seen: Seen, archive: Path) -> None:
    seen.until("!document.querySelector('[data-panel=search]').hidden")
    for status, words in ((413, "too large"), (502, "cannot be reached")):
        seen.page.route("**/api/search*", partial(refused, status))
        seen.page.set_input_files("#file", str(archive.parent / "media" / "high" / "07.png"))
        seen.until(f"document.getElementById('status').textContent.includes('{words}')")
        seen.page.unroute("**/api/search*")
    seen.complaints.clear()


def test_a_pasted_picture_finds_sounds(seen: Seen, archive: Path) -> None:
    paste(seen, transfer(seen, archive.parent / "media" / "high" / "07.png", "image/png"))
    seen.until(RESULTS)
    assert seen.page.inner_text("#found-title") == "Sounds that go with this picture"
    seen.until("document.querySelector('#query-clip img.own').naturalWidth === 50")
    before = seen.page.url
    paste(seen, seen.page.evaluate_handle("(t => (t.setData('text/plain', 'a word'), t))(new DataTransfer())"))
    seen.page.wait_for_timeout(300)
    assert seen.page.url == before  # words are not searched by


def test_what_the_microphone_hears_is_searched_by(browser: Any, process: Process, tmp_path: Path) -> None:
    """A tone is played to Chromium's made-up microphone; a tone of its height is what the search is by."""
    file = write_wav(tmp_path / "tone.wav", 0.4 * np.sin(2 * np.pi * 2000 * np.arange(5 * RATE) / RATE))
    other = browser.browser_type.launch(
        executable_path=CHROMIUM, args=[*ARGUMENTS, f"--use-file-for-fake-audio-capture={file}"]
    )
    found = visit(other, process, "#about")
    found.page.add_init_script(
        "const made = URL.createObjectURL; URL.createObjectURL = (file) => made((window.sent = file));"
    )
    found.open("#search")
    found.page.reload()
    found.until("!document.querySelector('[data-panel=search]').hidden")
    found.page.click("#record")
    found.until("document.getElementById('record').textContent.includes('(2 s)')")
    found.page.click("#record")
    found.until(RESULTS)
    assert found.page.inner_text("#found-title") == "Pictures that go with this sound"
    content = bytes(found.page.evaluate("sent.arrayBuffer().then((b) => [...new Uint8Array(b)])"))
    with av.open(io.BytesIO(content)) as container:
        rate = container.streams.audio[0].rate
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert 1.5 < len(sound) / rate < 6
    assert np.abs(np.fft.rfft(sound)).argmax() * rate / len(sound) == pytest.approx(2000, abs=20)
    found.page.click("#query-clip .play")
    found.until("document.getElementById('player').currentTime > 0")
    found.settled()
    other.close()


def test_a_recording_is_searched_by(seen: Seen) -> None:
    seen.until("!document.querySelector('[data-panel=search]').hidden")
    seen.page.click("#record")
    seen.until("document.getElementById('record').textContent.includes('(1 s)')")
    seen.page.click("#record")
    seen.until(RESULTS)
    assert seen.count("#query-clip .play") == 1


def test_click_filter_direction_and_scroll(seen: Seen) -> None:
    seen.until("document.querySelectorAll('#results .tile').length > 4")
    seen.page.click("#results .acts button")
    seen.until(RESULTS)
    assert "id=" in seen.page.url
    seen.page.click("#to button:first-child")
    seen.until("document.getElementById('found-title').textContent.startsWith('Sounds')")
    seen.page.select_option("#filters select", "label=low")
    seen.until("[...document.querySelectorAll('#results .classes')].every(e => e.textContent === 'low')")
    seen.until(RESULTS)
    before = seen.count("#results .tile")
    seen.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    seen.until(f"document.querySelectorAll('#results .tile').length > {before}")
    seen.page.click("#results .acts button:nth-child(2)")
    seen.until("document.getElementById('why').open")
    assert seen.count("#why-list .tile") > 0
    seen.page.keyboard.press("Escape")
    seen.page.go_back()
    seen.until("document.getElementById('filters').querySelector('select').value === ''")


def test_a_video_plays_at_its_second(seen: Seen) -> None:
    seen.open("#search?id=film&from=visual&to=visual")
    seen.until("document.querySelectorAll('#query-clip .shot.film').length === 1")
    seen.page.click("#query-clip .shot")
    seen.until("document.querySelector('#cinema video')?.src.includes('#t=0,3')")
    seen.page.click("#cinema [data-close]")
    seen.until("!document.getElementById('cinema').open")


def test_an_address_that_changes_while_another_is_shown_is_shown_alone(seen: Seen) -> None:
    seen.until("document.querySelectorAll('#results .tile').length > 4")
    for last in ("film", "film", "high/03"):  # the same address twice, as at the start, and another
        seen.page.evaluate(
            "last => { location.hash = '#search?id=film&from=visual&to=visual&group=1';"
            "  dispatchEvent(new Event('hashchange'));"
            "  location.hash = `#search?id=${encodeURIComponent(last)}&from=visual&to=visual`; }",
            last,
        )
        seen.until("!document.getElementById('found-title').textContent.startsWith('Results')")
        seen.page.wait_for_load_state("networkidle")
        assert [e.inner_text() for e in seen.page.query_selector_all("#query-clip .name")] == [last]
        ranks = "[...document.querySelectorAll('#results .tile')].map(e => e.querySelector('.name').textContent)"
        names = seen.page.evaluate(ranks)
        assert len(set(names)) == len(names) > 4


def test_the_map_is_hovered_over_and_circled(seen: Seen) -> None:
    seen.open("#map")
    seen.until("document.getElementById('canvas').dataset.seen > 100", 60)
    box = seen.page.query_selector("#canvas").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    found = False
    for k in range(100):  # somewhere on the way across there is a dot
        seen.page.mouse.move(
            box["x"] + box["width"] * (k % 10 + 0.5) / 10, box["y"] + box["height"] * (k // 10 + 0.5) / 10
        )
        seen.page.wait_for_timeout(90)
        if seen.count("#map-hover .tile"):
            found = True
            break
    assert found
    seen.page.mouse.move(box["x"] + 3, box["y"] + 3)
    seen.page.mouse.down()
    for x, y in ((0.99, 0.01), (0.99, 0.99), (0.01, 0.99), (0.01, 0.01)):
        seen.page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y, steps=4)
    seen.page.mouse.up()
    seen.until("document.querySelectorAll('#map-list .tile').length > 60")
    assert re.match(rf"{CLIPS + 4} clips: circled", seen.page.inner_text("#map-list-title"))
    seen.page.click("#map-keys button")
    seen.until(f"document.querySelectorAll('#map-list .tile').length === {CLIPS // 2}")
    seen.page.focus("#canvas")
    for key in ("+", "+", "ArrowLeft", "Enter"):
        seen.page.keyboard.press(key)
    seen.page.mouse.move(*middle)
    seen.page.mouse.wheel(0, -300)
    seen.until("document.getElementById('canvas').dataset.seen < 160")


def test_pairs_are_judged_by_key_and_exported(seen: Seen, tmp_path: Path) -> None:
    seen.open("#pairs")
    seen.until("!document.getElementById('pairs-body').hidden", 90)
    names = []
    for key, count in (("k", "1 kept, 0 dropped, 0 unsure"), ("d", "1 kept, 1 dropped, 0 unsure"), ("u", "1 unsure")):
        names.append(seen.page.inner_text("#pair .name"))
        seen.page.keyboard.press(key)
        seen.until(f"document.getElementById('pairs-count').textContent.includes('{count}')")
    seen.page.keyboard.press("Space")
    seen.until("document.getElementById('player').currentTime > 0")
    assert len(set(names)) == 3
    seen.page.keyboard.press("ArrowLeft")
    assert seen.page.inner_text("#pair .name") == names[2]
    assert seen.page.get_attribute("#verdicts [data-choice=unsure]", "aria-pressed") == "true"
    seen.page.click("#verdicts [data-choice=drop]")
    seen.until("document.getElementById('pairs-count').textContent.includes('2 dropped, 0 unsure')")
    with seen.page.expect_download() as waiting:
        seen.page.click("#export")
    waiting.value.save_as(tmp_path / "list.txt")
    assert sorted(read_ids(tmp_path / "list.txt").tolist()) == sorted(n.encode() for n in names[1:])
    seen.page.reload()
    seen.until("document.getElementById('pairs-count').textContent.includes('1 kept, 2 dropped')", 60)


def test_about_and_the_report_and_the_api(seen: Seen) -> None:
    seen.open("#about")
    seen.until("document.querySelectorAll('#facts dd').length > 4")
    assert str(CLIPS + 4) in seen.page.inner_text("#facts") and "light" in seen.page.inner_text("#recipe")
    seen.page.goto(f"{seen.url}/docs")
    seen.until("document.querySelectorAll('#routes section').length > 12")
    assert "curl" in seen.page.inner_text("#routes")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 380])
def test_everybody_can_use_it(browser: Any, process: Process, scheme: str, width: int) -> None:
    """axe-core finds nothing, and no tab makes the page scroll sideways."""
    for tab in (*TABS, "search?id=high%2F01", "docs"):
        found = visit(browser, process, "docs" if tab == "docs" else f"#{tab}", width, scheme)
        ready = {
            "map": "document.getElementById('canvas').dataset.seen > 0",
            "pairs": "!document.getElementById('pairs-body').hidden",
            "about": "document.querySelectorAll('#facts dd').length > 4",
            "docs": "document.querySelectorAll('#routes section').length > 12",
        }.get(tab, "document.querySelectorAll('#results .tile').length > 4")
        found.until(ready, 90)
        found.page.wait_for_timeout(300)
        # axe is put in through the debugger, beside the page's policy.
        violations = axe.Axe().run(
            found.page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
        )
        assert violations.violations_count == 0, (tab, violations.generate_report())
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width, tab
        found.settled()
        found.page.context.close()


@pytest.mark.long
@pytest.mark.real
def test_real_sounds_find_real_pictures(browser: Any, tmp_path: Path) -> None:
    """An archive of ../shared/media: the sound of a dog finds dogs."""
    if not MEDIA.is_dir():
        pytest.skip("needs the real media in ../shared/media")
    command = ["build", str(MEDIA), "--output", str(tmp_path / "archive"), "--labels", str(MEDIA / "labels.csv")]
    assert main([*command, "--weights", str(MEDIA.parent / "models")]) == 0
    with served(tmp_path / "archive", tmp_path) as process:
        found = visit(browser, process, "")
        for kind in ("dalmatian", "watch", "helicopter"):
            found.open("#search")
            drop(found, next(iter(sorted(MEDIA.rglob(f"{kind}-3*.ogg")))), "audio/ogg")
            found.until(RESULTS)
            labels = [e.inner_text() for e in found.page.query_selector_all("#results .classes")[:10]]
            assert labels.count(kind) >= 8, labels
        found.settled()
        found.page.context.close()


@pytest.mark.long
def test_the_demo_is_served_as_it_says(browser: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--clips", "200", "--output", str(tmp_path / "demo")]) == 0
    verb, folder = capsys.readouterr().out.strip().splitlines()[-1].split()[1:]
    assert verb == "serve"
    with served(Path(folder), tmp_path) as process:
        found = visit(browser, process, "")
        drop(found, next(iter(sorted((tmp_path / "demo" / "media").glob("*.wav")))), "audio/wav")
        found.until(RESULTS)
        found.until("document.querySelectorAll('#results img').length > 4")
        found.open("#pairs")
        found.until("!document.getElementById('pairs-body').hidden", 120)
        found.settled()
        found.page.context.close()


def test_it_prints_in_light_colours(browser: Any, process: Process) -> None:
    found = visit(browser, process, "#search?id=high%2F01", scheme="dark")
    found.until(RESULTS)
    found.page.emulate_media(media="print")
    assert not found.page.is_visible("nav") and not found.page.is_visible("#more")
    assert found.page.pdf()[:5] == b"%PDF-"
    found.page.context.close()


def test_a_token_is_asked_for_and_kept_in_no_address(browser: Any, archive: Path, tmp_path: Path) -> None:
    token = "a token of the test that is long"
    with served(archive, tmp_path, "--state", str(tmp_path / "state"), token=token) as process:
        found = visit(browser, process, "#search?id=high%2F01")
        found.until("!document.getElementById('login').hidden")
        found.page.fill("#token", "wrong wrong wrong wrong")
        found.page.press("#token", "Enter")
        found.until("document.getElementById('status').textContent === 'That is not the token.'")
        found.page.fill("#token", token)
        found.page.press("#token", "Enter")
        found.until(RESULTS)
        assert all("token" not in url.partition("?")[2] for url in found.requests)
        assert token not in process.log.read_text()
        assert {re.sub(r"\d+", "", c) for c in found.complaints} <= {
            "Failed to load resource: the server responded with a status of  (Unauthorized)"
        }
        found.page.context.close()

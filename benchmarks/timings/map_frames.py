"""The page's map in headless Chromium: what a frame costs while a large collection is moved, zoomed and pointed at.

    python -m benchmarks.timings.serve --only map --no-page

Input comes from playwright's mouse as from a person's, but for the wheel. A frame's script time is what its animation
callbacks and the canvas's own events take; frames are the deltas of requestAnimationFrame, which here include drawing
by the processor where a person's browser has a graphics card. Needs Debian's ``chromium`` and playwright.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.timings.figures import figure

LIMIT = "<= 16 ms"
SIZE = {"width": 1280, "height": 900}
# Put in before the page's own scripts: times of animation callbacks and of the canvas's events, by frame.
METER = """
(() => {
  const meter = window.meter = { on: false, frames: [], script: [], spent: 0, each: null };
  const timed = (act) => function (...given) {
    const began = performance.now();
    try { return act.apply(this, given); } finally { meter.spent += performance.now() - began; }
  };
  const frame = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (act) => frame(timed(act));
  const listen = EventTarget.prototype.addEventListener;
  EventTarget.prototype.addEventListener = function (kind, act, options) {
    const ours = this instanceof HTMLCanvasElement && /^(pointer|wheel)/.test(kind);
    return listen.call(this, kind, ours ? timed(act) : act, options);
  };
  let last = 0;
  const tick = (now) => {
    if (meter.on && last) { meter.frames.push(now - last); meter.script.push(meter.spent); }
    meter.spent = 0;
    last = now;
    if (meter.each) meter.each(now);
    frame(tick);
  };
  frame(tick);
})();
"""
Move = Callable[[Any, float, float, float], None]


def hover(page: Any, t: float, x: float, y: float) -> None:
    """Point here and there."""
    page.mouse.move(x + 300 * math.sin(1.7 * t), y + 200 * math.sin(2.3 * t))


# The wheel turns in every frame: playwright's own waits too long for each turn.
WHEEL = """
([x, y]) => { meter.each = (now) => document.getElementById("canvas").dispatchEvent(new WheelEvent("wheel",
  { deltaY: Math.sin(now / 500) * 40, clientX: x, clientY: y, cancelable: true })); }
"""


def zoom(page: Any, t: float, x: float, y: float) -> None:
    """Zoom in and out again."""
    if not page.evaluate("meter.each"):
        page.evaluate(WHEEL, [x, y])
    page.wait_for_timeout(50)


TASKS: tuple[tuple[str, bool, Move], ...] = (
    ("pointing", False, hover),
    ("moving", True, hover),
    ("zooming", False, zoom),
)


def measured(page: Any, move: Move, drag: bool, seconds: float) -> dict[str, float]:
    """Median and 99th percentile of a frame and of its script, in ms, during ``seconds`` of input."""
    box = page.query_selector("#canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    if drag:
        page.mouse.down()
    page.evaluate("meter.frames = [], meter.script = [], meter.on = true")
    began = time.monotonic()
    while (t := time.monotonic() - began) < seconds:
        move(page, t, x, y)
    found = page.evaluate("(meter.on = false, meter.each = null, [meter.frames, meter.script])")
    if drag:
        page.mouse.up()
    frames, script = (np.asarray(values) for values in found)
    return {
        "frames": len(frames),
        "frame p50": float(np.median(frames)),
        "frame p99": float(np.percentile(frames, 99)),
        "script p50": float(np.median(script)),
        "script p99": float(np.percentile(script, 99)),
    }


def looked_at(port: int, seconds: float) -> dict[str, dict[str, float]]:
    """Each task's figures, on the whole map and on a part of it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as run:
        arguments = ["--headless", "--no-sandbox", "--disable-gpu"]
        browser = run.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = browser.new_context(viewport=SIZE).new_page()
        page.add_init_script(METER)
        page.goto(f"http://127.0.0.1:{port}/#map")
        while not page.evaluate("document.getElementById('canvas')?.dataset.seen > 0"):
            page.wait_for_timeout(100)
        page.evaluate("document.getElementById('canvas').scrollIntoView({block: 'center'})")
        found = {}
        for name, drag, move in TASKS:
            page.click(f"#map-tool button:nth-child({2 if drag else 1})")
            page.click("#zoom-all")
            found[name] = measured(page, move, drag, seconds)
        browser.close()
    return found


def rows(port: int, n: int, seconds: float = 4.0) -> list[dict[str, Any]]:
    """Script time of a frame for each task; frames and medians beside it.

    Args:
        port: of a server whose archive has ``n`` clips of two modalities.
        seconds: of each task.
    """
    found = looked_at(port, seconds)
    return [
        figure(
            f"a frame's script while {name}, map of {n:,} clips ({2 * n:,} points)",
            f["script p99"],
            "ms, p99",
            LIMIT,
            reference=f"script p50 {f['script p50']:.1f} ms; frame p50 {f['frame p50']:.1f} ms, "
            f"p99 {f['frame p99']:.1f} ms ({f['frames']:.0f} frames, no graphics card)",
        )
        for name, f in found.items()
    ]

// The tab “Map”: draws the collection, answers to pointer and keys, lists what is circled.

import { $, ask, choice, get, item, make, post, say, turns, words } from "./util.js";
import { play, stop, tile } from "./clips.js";
import { paint } from "./paint.js";
import { Points } from "./points.js";

const COLOURS = ["#4a7fd4", "#f08a24", "#d94a4a", "#35b0a7", "#4f9e3f", "#d9b300", "#a665c9", "#f27aa5", "#99694a", "#7c8798", "#1f9bd6", "#9bb52c"];
const NONE = "#8b95a5";
const LISTED = 200;
const canvas = $("canvas");
const base = document.createElement("canvas");
let head = null;
let points = null;
let view = { x: 0.5, y: 0.5, scale: 500 };
let tool = "circle";
let colour = "cluster";
let showing = "both";
let lit = null;
let hover = -1;
let pinned = -1;
let lasso = null;
let loud = false;
let stale = true; // the points must be drawn anew
let undressed = true; // they are to look otherwise
let asked = false;
let timer = 0;
const cards = new Map();
const begin = turns();
const beginList = turns();

export function leave() { begin(); clearTimeout(timer); }

export async function show() {
  const latest = begin();
  clearTimeout(timer);
  let found;
  try { found = await get("/api/map"); } catch (error) { if (latest()) $("map-state").textContent = error.message; return; }
  if (!latest()) return;
  $("map-body").hidden = found.state !== "ready";
  $("map-state").textContent = found.state === "computing" ? "The map is being drawn for the first time; this takes a moment, longer for large archives." : found.why;
  if (found.state === "computing") timer = setTimeout(show, 2000);
  if (found.state !== "ready") return;
  $("map-state").hidden = true;
  if (!head || head.version !== found.version) {
    const numbers = new Uint16Array(await (await ask("/api/map/points")).arrayBuffer());
    if (!latest()) return;
    head = found;
    points = new Points(head, numbers);
    undressed = true;
    cards.clear();
    colour = head.labels.length ? "label" : "cluster";
    controls();
    all();
  }
  resize();
}

const keyOf = (clip) => (colour === "label" ? points.label[clip] : points.cluster[clip]);
const names = () => (colour === "label" ? head.labels : head.clusters);
const shown = (p) => showing === "both" || head.modalities[Math.floor(p / points.clips)] === showing;
const bright = (p) => lit === null || keyOf(p % points.clips) === lit;

function controls() {
  const several = head.modalities.length > 1;
  choice($("map-show"), [...head.modalities.map((m) => [m, words(m)]), ...(several ? [["both", "both"]] : [])], showing, (m) => { showing = m; restyle(); });
  choice($("map-colour"), [...(head.labels.length ? [["label", "label"]] : []), ["cluster", "cluster"]], colour, (c) => { colour = c; lit = null; keys(); restyle(); });
  choice($("map-tool"), [["circle", "circle some"], ["move", "move"]], tool, (t) => { tool = t; canvas.style.cursor = t === "move" ? "grab" : "crosshair"; });
  keys();
}

function keys() {
  const counts = new Map();
  for (let i = 0; i < points.clips; i++) counts.set(keyOf(i), (counts.get(keyOf(i)) || 0) + 1);
  $("map-keys").replaceChildren(...names().map((name, c) => {
    const swatch = make("i");
    swatch.style.background = COLOURS[c % COLOURS.length];
    const button = make("button", { type: "button", "aria-pressed": "false" }, swatch, `${name} (${counts.get(c) || 0})`);
    button.addEventListener("click", () => {
      lit = lit === c ? null : c;
      for (const [k, other] of [...$("map-keys").children].entries()) other.setAttribute("aria-pressed", String(k === lit));
      restyle();
      if (lit !== null) list([...Array(points.clips).keys()].filter((i) => keyOf(i) === lit), name);
      else list([], "");
    });
    return button;
  }));
  const loudly = make("input", { type: "checkbox" });
  loudly.checked = loud;
  loudly.addEventListener("change", () => { loud = loudly.checked; if (!loud) stop(); });
  $("map-keys").append(make("label", { class: "check" }, loudly, "play sounds when pointed at"));
}

function all() {
  view = { x: 0.5, y: 0.5, scale: 0.92 * Math.min(canvas.clientWidth || 600, canvas.clientHeight || 500) };
}

function resize() {
  const ratio = Math.min(2, devicePixelRatio || 1);
  for (const c of [canvas, base]) {
    c.width = Math.round(canvas.clientWidth * ratio);
    c.height = Math.round(canvas.clientHeight * ratio);
  }
  redraw();
}
let widest = 0;
new ResizeObserver(() => {
  if (!points || !canvas.clientWidth || canvas.clientWidth === widest) return;
  widest = canvas.clientWidth;
  all();
  resize();
}).observe(canvas);

function redraw() { stale = true; frame(); }
function restyle() { undressed = true; redraw(); }
function frame() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; render(); });
}

// Colours of the page's style; asking for one costs a layout, so they are kept until the theme changes.
const tokens = new Map();
function recolour() { tokens.clear(); if (points) redraw(); }
document.addEventListener("theme", recolour);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
function token(name) {
  if (!tokens.has(name)) tokens.set(name, computed(name));
  return tokens.get(name);
}
function computed(name) {
  const probe = make("span");
  probe.style.color = `var(${name})`;
  canvas.after(probe);
  const found = getComputedStyle(probe).color.match(/\d+/g).slice(0, 3).map(Number);
  probe.remove();
  return "#" + found.map((c) => c.toString(16).padStart(2, "0")).join("");
}

function render() {
  if (!points || !canvas.width) return;
  const ratio = canvas.width / canvas.clientWidth;
  const none = names().length;
  if (undressed) {
    points.dress((p) => (shown(p) ? Math.min(keyOf(p % points.clips), none) : -1), bright);
    undressed = false;
  }
  if (stale) {
    const colours = [...names().map((_, c) => COLOURS[c % COLOURS.length]), NONE];
    canvas.dataset.seen = paint(base, points, view, ratio, colours, token("--card"));
    stale = false;
  }
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(base, 0, 0);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const ink = token("--ink");
  const mark = hover >= 0 ? hover : pinned;
  if (mark >= 0) {
    const pair = head.modalities.map((_, m) => m * points.clips + (mark % points.clips)).filter((p) => !Number.isNaN(points.x[p]));
    context.strokeStyle = ink;
    context.lineWidth = 1.5;
    context.beginPath();
    for (const [k, p] of pair.entries()) context[k ? "lineTo" : "moveTo"](...screen(p));
    context.stroke();
    context.lineWidth = 2.5;
    for (const p of pair) { context.beginPath(); context.arc(...screen(p), 8, 0, 7); context.stroke(); }
  }
  if (lasso && lasso.length > 1) {
    context.strokeStyle = ink;
    context.fillStyle = ink;
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.beginPath();
    for (const [k, q] of lasso.entries()) context[k ? "lineTo" : "moveTo"](q[0], q[1]);
    context.closePath();
    context.stroke();
    context.globalAlpha = 0.07;
    context.fill();
    context.globalAlpha = 1;
    context.setLineDash([]);
  }
}

const screen = (p) => [(points.x[p] - view.x) * view.scale + canvas.clientWidth / 2, (points.y[p] - view.y) * view.scale + canvas.clientHeight / 2];
const world = (x, y) => [(x - canvas.clientWidth / 2) / view.scale + view.x, (y - canvas.clientHeight / 2) / view.scale + view.y];

function zoom(by, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const [wx, wy] = world(x, y);
  view.scale = Math.max(120, Math.min(60000, view.scale * by));
  view.x = wx - (x - canvas.clientWidth / 2) / view.scale;
  view.y = wy - (y - canvas.clientHeight / 2) / view.scale;
  redraw();
}
$("zoom-in").addEventListener("click", () => zoom(1.5));
$("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
$("zoom-all").addEventListener("click", () => { all(); redraw(); });

// ------------------------------------------------------------------------------------------------------- the pointer

const held = new Map();
let moved = 0;

function at(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), ...at(event)); }, { passive: false });
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  held.set(event.pointerId, at(event));
  moved = 0;
  lasso = held.size === 1 && tool === "circle" ? [at(event)] : null;
});
canvas.addEventListener("pointermove", (event) => {
  if (!points) return;
  const [x, y] = at(event);
  if (!held.has(event.pointerId)) { pointAt(x, y, event.pointerType); return; }
  const before = held.get(event.pointerId);
  if (held.size === 2) {
    const other = [...held.entries()].find(([id]) => id !== event.pointerId)[1];
    const far = (q) => Math.hypot(q[0] - other[0], q[1] - other[1]) || 1;
    zoom(far([x, y]) / far(before), (x + other[0]) / 2, (y + other[1]) / 2);
  } else if (tool === "move") {
    view.x -= (x - before[0]) / view.scale;
    view.y -= (y - before[1]) / view.scale;
    redraw();
  } else if (lasso) {
    lasso.push([x, y]);
    frame();
  }
  moved += Math.hypot(x - before[0], y - before[1]);
  held.set(event.pointerId, [x, y]);
});
function released(event) {
  if (!held.delete(event.pointerId) || !points) return;
  const drawn = lasso;
  lasso = null;
  if (moved < 6) {
    pointAt(...at(event), event.pointerType);
    pinned = hover;
    if (pinned < 0) describe(-1);
  } else if (drawn && drawn.length > 2) {
    const found = points.inside(drawn.map((q) => world(...q)));
    list(found, "circled");
  }
  frame();
}
canvas.addEventListener("pointerup", released);
canvas.addEventListener("pointercancel", released);
canvas.addEventListener("pointerleave", () => { if (!held.size && hover !== -1) { hover = -1; describe(pinned); frame(); } });

function pointAt(x, y, kind) {
  const reach = (kind === "touch" ? 26 : 14) / view.scale;
  const found = points.nearest(...world(x, y), reach);
  if (found === hover) return;
  hover = found;
  describe(found >= 0 ? found : pinned);
  frame();
}

let waiting = 0;
function describe(p) {
  clearTimeout(waiting);
  if (p < 0) return;
  waiting = setTimeout(async () => {
    const row = p % points.clips;
    let clip = cards.get(row);
    if (!clip) {
      try { [clip] = (await post("/api/map/clips", { version: head.version, rows: [row] })).clips; } catch (error) { lost(error); return; }
      if (cards.size > 2000) cards.clear();
      cards.set(row, clip);
    }
    const modality = head.modalities[Math.floor(p / points.clips)];
    const card = tile(clip, { from: modality });
    $("map-hover").replaceChildren(make("ol", { class: "tiles few" }, card));
    const button = card.querySelector(".play");
    if (loud && clip.sound && button) play(button, item(clip.id, "sound"));
  }, 70);
}

function lost(error) {
  if (error.status === 409) { head = null; say(error.message, true); show(); } else say(error.message, true);
}

async function list(rows, what) {
  const latest = beginList();
  $("map-list-section").hidden = !rows.length;
  if (!rows.length) { if (what) say("Nothing is circled."); return; }
  let found;
  try { found = await post("/api/map/clips", { version: head.version, rows: rows.slice(0, LISTED) }); } catch (error) { lost(error); return; }
  if (!latest()) return;
  $("map-list-title").textContent = `${rows.length} clip${rows.length === 1 ? "" : "s"}: ${what}${rows.length > LISTED ? `; the first ${LISTED}` : ""}`;
  $("map-list").replaceChildren(...found.clips.map((clip) => tile(clip)));
  say($("map-list-title").textContent);
}

canvas.addEventListener("keydown", (event) => {
  if (!points) return;
  const step = 60 / view.scale;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (moves[event.key]) { view.x += moves[event.key][0]; view.y += moves[event.key][1]; redraw(); }
  else if (event.key === "+" || event.key === "=") zoom(1.3);
  else if (event.key === "-") zoom(1 / 1.3);
  else if (event.key === "Escape") { lasso = null; pinned = -1; frame(); }
  else if (event.key === "Enter") {
    const [x0, y0] = world(0, 0);
    const [x1, y1] = world(canvas.clientWidth, canvas.clientHeight);
    list(points.inside([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), "in view");
  } else return;
  event.preventDefault();
});

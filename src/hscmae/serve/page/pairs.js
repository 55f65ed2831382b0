// The tab “Pairs to check”: one pair at a time, decided by key or button, kept at once.

import { $, get, item, make, post, say, turns } from "./util.js";
import { cinema, image, play, playButton, stop } from "./clips.js";

const WORDS = { keep: "kept", drop: "dropped", unsure: "left open" };
let pairs = [];
let total = 0;
let decided = {};
let at = 0;
let timer = 0;
let active = false;
const begin = turns();

export function leave() { active = false; begin(); clearTimeout(timer); stop(); }

export async function show() {
  active = true;
  const latest = begin();
  clearTimeout(timer);
  let found;
  try { found = await get("/api/suspicious?k=100"); } catch (error) { if (latest()) $("pairs-state").textContent = error.message; return; }
  if (!latest()) return;
  $("pairs-body").hidden = found.state !== "ready" || !found.pairs.length;
  if (found.state === "computing") {
    $("pairs-state").textContent = "The pairs are being compared; this takes a moment, longer for large archives.";
    timer = setTimeout(show, 2000);
    return;
  }
  if (found.state === "failed") { $("pairs-state").textContent = found.why; return; }
  const [low, high] = found.wrong_share_ci.map((share) => Math.round(100 * share));
  $("pairs-state").textContent = `About ${Math.round(100 * found.wrong_share)}% of the pairs are estimated to be wrong (95% interval ${low} to ${high}%). The most suspicious come first.`;
  const all = found.pairs;
  while (all.length < found.total && all.length < 2000) {
    const more = await get(`/api/suspicious?k=100&offset=${all.length}`);
    if (!latest()) return;
    if (!more.pairs.length) break;
    all.push(...more.pairs);
  }
  pairs = all;
  total = pairs.length;
  const open = pairs.findIndex((pair) => !pair.decision);
  at = open < 0 ? 0 : open;
  render();
}

function counts() {
  decided = { keep: 0, drop: 0, unsure: 0 };
  for (const pair of pairs) if (pair.decision) decided[pair.decision]++;
  const done = decided.keep + decided.drop + decided.unsure;
  $("pairs-progress").max = Math.max(1, total);
  $("pairs-progress").value = done;
  $("pairs-count").textContent = `Pair ${at + 1} of ${total} · ${decided.keep} kept, ${decided.drop} dropped, ${decided.unsure} unsure`;
}

function render() {
  stop();
  const pair = pairs[at];
  if (!pair) return;
  const card = make("div", { class: "card" });
  const shot = pair.video
    ? make("button", { class: "shot", type: "button", "aria-label": `Play the video of ${pair.id}`, click: () => cinema(pair) }, image(pair))
    : make("div", { class: "shot" }, image(pair));
  const side = make("div");
  if (pair.sound) side.append(playButton(pair));
  side.append(
    make("p", { class: "name" }, pair.id),
    make("p", { class: "classes" }, pair.labels.join(", ")),
    make("p", { class: "reading" }, `${pair.random_better > 0.99 ? "More than 99" : Math.round(100 * pair.random_better)}% of pairs made at random agree better than this one.`),
  );
  card.append(shot, side);
  $("pair").replaceChildren(card);
  for (const button of $("verdicts").children) button.setAttribute("aria-pressed", String(button.dataset.choice === pair.decision));
  $("pair-back").disabled = at === 0;
  $("pair-next").disabled = at >= total - 1;
  counts();
}

async function decide(choice) {
  const pair = pairs[at];
  if (!pair) return;
  const before = pair.decision;
  try {
    await post("/api/decisions", { id: pair.id, decision: before === choice ? null : choice });
  } catch (error) { say(`Not kept: ${error.message}`, true); return; }
  pair.decision = before === choice ? null : choice;
  say(pair.decision ? `${pair.id}: ${WORDS[pair.decision]}` : `${pair.id}: taken back`);
  if (pair.decision && pairs[at] === pair && at < total - 1) at++;
  render();
}

function go(step) {
  at = Math.max(0, Math.min(total - 1, at + step));
  render();
}

function sound() {
  const button = document.querySelector("#pair .play");
  if (button) play(button, item(pairs[at].id, "sound"));
}

for (const button of $("verdicts").children) button.addEventListener("click", () => decide(button.dataset.choice));
$("pair-back").addEventListener("click", () => go(-1));
$("pair-next").addEventListener("click", () => go(1));
$("pair-play").addEventListener("click", sound);

const KEYS = { k: () => decide("keep"), d: () => decide("drop"), u: () => decide("unsure"), " ": sound, ArrowLeft: () => go(-1), ArrowRight: () => go(1) };
addEventListener("keydown", (event) => {
  if (!active || $("pairs-body").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("input, select, textarea, dialog")) return;
  // A focused button answers to space and Enter itself.
  if (event.key === " " && event.target.closest("button, a")) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

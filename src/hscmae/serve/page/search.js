// The tab “Search”. What is searched for stands in the address after “#search?”, so that a link repeats it.

import { $, ask, choice, get, item, make, say, turns, word, words } from "./util.js";
import { playButton, stop, tile, when } from "./clips.js";

const PAGE = 24;
const MOST = 1000;
let about = null;
let filters = {};
let state = new URLSearchParams();
let shown = 0;
let loading = null; // AbortController of the request that fills the list
let held = null; // the file that was searched by: {vector, url, kind, name}
let recorder = null;
const begin = turns();

export async function start(facts) {
  about = facts;
  filters = (await get("/api/filters")).filters;
  for (const note of facts.uploads ? [] : ["This archive can be searched by its own clips alone: its model or networks are not at hand."]) {
    $("drop").replaceChildren(make("p", {}, note));
  }
  if (!facts.uploads) return;
  $("file").addEventListener("change", () => { send($("file").files[0]); $("file").value = ""; });
  const drop = $("drop");
  for (const kind of ["dragenter", "dragover"]) addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) addEventListener(kind, (event) => { event.preventDefault(); drop.classList.remove("over"); });
  addEventListener("drop", (event) => { if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]); });
  addEventListener("paste", (event) => { if (event.clipboardData.files.length) send(event.clipboardData.files[0]); });
  $("record").addEventListener("click", record);
  if (!navigator.mediaDevices || !window.MediaRecorder) {
    $("record").disabled = true;
    $("drop-note").textContent += " Recording needs https or this machine's own address.";
  }
}

$("clear").addEventListener("click", () => { held = null; location.hash = "#search"; });
$("link").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is copied.");
  } catch {
    say("Copy the address of this page: it repeats the search.");
  }
});
$("group").addEventListener("change", () => change("group", $("group").checked ? "1" : null));
$("more").addEventListener("click", () => load());
new IntersectionObserver((entries) => { if (entries[0].isIntersecting && !$("more").hidden) load(); }, { rootMargin: "500px" }).observe($("more"));

function change(key, value) {
  const next = new URLSearchParams(state);
  if (value === null) next.delete(key);
  else next.set(key, value);
  location.hash = `#search?${next}`;
}

// Show what an address asks for.
export async function show(parameters) {
  const latest = begin();
  stop();
  state = new URLSearchParams(parameters);
  const asked = state.has("id") || state.has("vector");
  $("drop").hidden = asked;
  $("query").hidden = !asked;
  $("ask-title").textContent = asked ? "Your search" : "What do you have?";
  if (loading) loading.abort();
  loading = null;
  shown = 0;
  $("results").replaceChildren();
  $("more").hidden = true;
  $("nothing").hidden = true;
  selects(asked ? $("filters") : $("browse-filters"));
  if (asked) $("browse-filters").replaceChildren();
  $("found-title").textContent = asked ? "Results" : "Or begin with one of these";
  if (asked) await controls(latest);
  if (latest()) await load();
}

function selects(place) {
  place.replaceChildren();
  for (const [column, values] of Object.entries(filters)) {
    const names = Object.entries(values);
    if (names.length < 2 || names.length > 2000) continue;
    const select = make("select", { "aria-label": `Only clips of this ${column}` });
    select.append(make("option", { value: "" }, `every ${column}`));
    const chosen = state.getAll("where").find((w) => w.startsWith(`${column}=`));
    for (const [value, count] of names) select.append(make("option", { value: `${column}=${value}`, selected: chosen === `${column}=${value}` }, `${value} (${count})`));
    select.addEventListener("change", () => {
      const others = state.getAll("where").filter((w) => !w.startsWith(`${column}=`));
      const next = new URLSearchParams(state);
      next.delete("where");
      for (const w of [...others, select.value].filter(Boolean)) next.append("where", w);
      location.hash = `#search?${next}`;
    });
    place.append(select);
  }
}

async function controls(latest) {
  const place = $("query-clip");
  place.replaceChildren();
  $("group").checked = state.has("group");
  $("group-label").hidden = !about.windows;
  let has = about.spaces;
  if (state.has("id")) {
    try {
      const clip = await get(item(state.get("id")));
      if (!latest()) return;
      has = clip.modalities;
      place.append(tile(clip, { bare: true, tag: "div" }));
    } catch (error) { if (latest()) say(error.message, true); return; }
  } else if (held && held.vector === state.get("vector")) {
    const card = make("div", { class: "tile" });
    if (held.kind === "image") card.append(make("img", { class: "own", src: held.url, alt: "Your picture", width: 200 }));
    if (held.kind === "video") card.append(make("video", { src: held.url, controls: true, width: 200 }));
    if (held.kind === "audio") card.append(playButton({ id: held.name }, held.url));
    card.append(make("div", { class: "name", title: held.name }, held.name));
    place.append(card);
    has = held.from === "audio" ? ["audio"] : held.kind === "video" ? ["audio", "visual"] : ["visual"];
  } else {
    place.append(make("div", { class: "tile" }, make("div", { class: "name" }, "A file that was sent"), make("div", { class: "classes" }, "The link holds what the model made of it, not the file.")));
    has = [state.get("from") || "audio"];
  }
  const from = state.get("from") || has[0];
  $("from-set").hidden = has.length < 2 || state.has("vector");
  choice($("from"), [...has, ...(has.length > 1 ? ["both"] : [])].map((m) => [m, m === "both" ? "both" : word(m)]), from, (m) => change("from", m));
  const modalities = Object.keys(about.modalities);
  const other = modalities.find((m) => m !== from) || modalities[0];
  choice($("to"), about.spaces.map((m) => [m, m === "both" ? "both together" : words(m)]), state.get("to") || other, (m) => change("to", m));
}

async function load() {
  if (loading) return;
  const mine = loading = new AbortController();
  $("more").disabled = true;
  const parameters = new URLSearchParams();
  for (const key of ["id", "vector", "from", "to"]) if (state.has(key)) parameters.set(key, state.get(key));
  for (const w of state.getAll("where")) parameters.append("where", w);
  if (state.has("group")) parameters.set("group", "true");
  const asked = state.has("id") || state.has("vector");
  try {
    if (asked) {
      parameters.set("k", PAGE);
      parameters.set("offset", shown);
      const found = await get(`/api/search?${parameters}`, { signal: mine.signal });
      append(found);
    } else {
      if (!shown && !state.has("where")) parameters.set("sample", "true");
      parameters.set("k", PAGE);
      parameters.set("offset", shown);
      const found = await get(`/api/items?${parameters}`, { signal: mine.signal });
      for (const clip of found.clips) $("results").append(tile(clip));
      shown += found.clips.length;
      $("more").hidden = !state.has("where") || shown >= found.total || !found.clips.length;
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    $("nothing").hidden = false;
    $("nothing").textContent = error.message;
  } finally {
    if (loading === mine) loading = null;
    $("more").disabled = false;
  }
}

function append(found) {
  for (const result of found.results) {
    $("results").append(tile(result, { rank: result.rank, score: result.score, wanted: found.to, from: state.get("from"), why: (clip) => why(clip, found) }));
  }
  shown += found.results.length;
  $("more").hidden = !found.more || shown >= MOST;
  if (!shown) {
    $("nothing").hidden = false;
    $("nothing").textContent = "Nothing was found. Fewer filters find more.";
  }
  if (shown === found.results.length) $("found-title").textContent = `${found.to === "both" ? "Clips" : words(found.to).replace(/^./, (c) => c.toUpperCase())} that go with this ${word(found.from)}`;
}

async function why(clip, found) {
  const parameters = new URLSearchParams({ result: clip.id, to: found.to, from: found.from });
  for (const key of ["id", "vector"]) if (state.has(key)) parameters.set(key, state.get(key));
  try {
    const { shared } = await get(`/api/why?${parameters}`);
    const list = $("why-list");
    list.replaceChildren();
    $("why-words").textContent = shared.length
      ? `These clips connect them: their ${word(found.from)} is like your query's, and their ${word(found.to)} is like that of ${when(clip)}.`
      : "No clip of the archive is among the nearest of both: the model sees what they share only from afar.";
    for (const one of shared) list.append(tile(one, { note: `like your query ${one.like_query.toFixed(2)} · like the result ${one.like_result.toFixed(2)}` }));
    $("why").showModal();
  } catch (error) { say(error.message, true); }
}

async function send(file) {
  if (!file) return;
  document.body.classList.add("working");
  location.hash = "#search";
  $("drop-words").textContent = `Looking at ${file.name || "it"} …`;
  const form = new FormData();
  form.append("file", file, file.name || "recording");
  try {
    const answer = await ask("/api/search?k=1", { method: "POST", body: form });
    const found = await answer.json();
    if (held) URL.revokeObjectURL(held.url);
    const kind = file.type.split("/")[0];
    held = { vector: found.vector, url: URL.createObjectURL(file), kind: kind === "video" && found.from === "audio" && file.name.startsWith("recording") ? "audio" : kind, name: file.name || "recording", from: found.from };
    location.hash = `#search?${new URLSearchParams({ vector: found.vector, from: found.from, to: found.to })}`;
  } catch (error) {
    say(error.message, true);
  } finally {
    document.body.classList.remove("working");
    $("drop-words").textContent = "Drop a sound, a picture or a video here, or paste it.";
  }
}

async function record() {
  const button = $("record");
  if (recorder) { recorder.stop(); return; }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  } catch {
    say("The microphone is not to be had. Allow this page to use it, or choose a file.", true);
    return;
  }
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  const began = Date.now();
  const clock = setInterval(() => { button.textContent = `■ Stop (${Math.floor((Date.now() - began) / 1000)} s)`; }, 250);
  const limit = setTimeout(() => recorder && recorder.stop(), 10_000);
  recorder.addEventListener("stop", () => {
    clearInterval(clock);
    clearTimeout(limit);
    for (const track of stream.getTracks()) track.stop();
    const type = recorder.mimeType;
    recorder = null;
    button.classList.remove("on");
    button.textContent = "● Record a sound";
    const ending = type.includes("mp4") ? "m4a" : type.includes("ogg") ? "ogg" : "webm";
    send(new File(parts, `recording.${ending}`, { type }));
  });
  button.classList.add("on");
  button.textContent = "■ Stop (0 s)";
  recorder.start();
}

// A clip wherever it appears: its picture, its sound, what can be done with it.

import { $, draw, get, item, make, say } from "./util.js";

const player = $("player");
let playing = null;

function stopped() {
  if (playing) { playing.classList.remove("playing"); playing.setAttribute("aria-pressed", "false"); }
  playing = null;
}
player.addEventListener("ended", stopped);
player.addEventListener("error", () => { if (playing) { say("This sound cannot be played.", true); stopped(); } });

export function stop() { player.pause(); stopped(); }

export function play(button, source) {
  const again = playing === button;
  stop();
  if (again) return;
  player.src = source;
  playing = button;
  button.classList.add("playing");
  button.setAttribute("aria-pressed", "true");
  player.play().catch((error) => { if (error.name !== "AbortError") stopped(); });
}

// What is looked at is fetched, a few at a time; what the server is too busy for is asked for again.
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    entry.target.dispatchEvent(new CustomEvent("seen"));
  }
}, { rootMargin: "300px" });
export function whenSeen(element, act) {
  element.addEventListener("seen", act, { once: true });
  seen.observe(element);
}

export function wave(peaks) {
  const n = peaks.length;
  const svg = draw("svg", { viewBox: `0 0 ${n} 2`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const d = peaks.map((p, i) => `M${i + 0.5} ${(1 - Math.max(p, 0.03)).toFixed(2)}V${(1 + Math.max(p, 0.03)).toFixed(2)}`).join("");
  svg.append(draw("path", { d }));
  return svg;
}

// Waveforms are fetched two at a time, so that pictures come first on a slow line.
const queue = [];
let fetching = 0;
async function next() {
  if (fetching >= 2 || !queue.length) return;
  fetching++;
  const [id, place] = queue.shift();
  try {
    if (place.isConnected) place.replaceWith(wave((await get(item(id, "waveform"))).peaks));
  } catch { place.textContent = "sound"; }
  fetching--;
  next();
}

export function playButton(clip, source = null) {
  const button = make("button", { class: "play", type: "button", "aria-pressed": "false", "aria-label": `Play the sound of ${clip.id}` });
  const place = make("span", { class: "wave" });
  button.append(make("span", { "aria-hidden": "true" }, "▶"), place);
  button.addEventListener("click", () => play(button, source || item(clip.id, "sound")));
  if (!source) {
    whenSeen(button, () => { queue.push([clip.id, place]); next(); });
  } else place.textContent = "sound";
  return button;
}

export function image(clip) {
  const picture = make("img", { alt: `Picture of ${clip.id}`, decoding: "async", width: 256, height: 256 });
  let tries = 0;
  picture.addEventListener("error", () => {
    // An image does not say what went wrong: a busy server is asked again, a missing file is not.
    if (++tries <= 3) setTimeout(() => { picture.src = item(clip.id, "thumbnail"); }, 1200 * tries);
    else picture.replaceWith(make("span", { class: "none" }, "no picture to show"));
  });
  whenSeen(picture, () => { picture.src = item(clip.id, "thumbnail"); });
  return picture;
}

export function when(clip) {
  if (clip.start === null || !clip.id.includes("#t=")) return clip.id;
  const s = Math.floor(clip.start);
  const clock = `${s >= 3600 ? Math.floor(s / 3600) + ":" : ""}${String(Math.floor(s / 60) % 60).padStart(s >= 3600 ? 2 : 1, "0")}:${String(s % 60).padStart(2, "0")}`;
  return `${clip.id.replace(/#t=.*$/, "")} at ${clock}`;
}

export function cinema(clip) {
  stop();
  $("cinema-title").textContent = when(clip);
  const until = clip.end === null ? "" : `,${clip.end}`;
  const film = make("video", { controls: true, autoplay: true, playsinline: true, src: `${item(clip.id, "media")}#t=${clip.start || 0}${until}` });
  film.addEventListener("error", () => {
    film.replaceWith(make("p", {}, "Your browser cannot play this kind of video. "), make("a", { class: "button", href: item(clip.id, "media"), download: "" }, "Download it"));
  });
  $("screen").replaceChildren(film);
  $("cinema").showModal();
}

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => { if (event.target === dialog || event.target.closest("[data-close]")) dialog.close(); });
  dialog.addEventListener("close", () => { stop(); $("screen").replaceChildren(); });
}

const href = (clip, from) => `#search?${new URLSearchParams(from ? { id: clip.id, from } : { id: clip.id })}`;

// A tile. `options`: from (the modality to search by), why (what to do when asked why), wanted (the modality found),
// tag (of the element).
export function tile(clip, options = {}) {
  const name = when(clip);
  const li = make(options.tag || "li", { class: `tile${options.wanted ? " wanted-" + options.wanted : ""}` });
  if (options.score !== undefined) {
    const full = Math.max(0, Math.min(1, options.score)) * 100;
    const fill = make("i");
    fill.style.width = `${full}%`;
    li.append(
      make("div", { class: "score" }, make("b", {}, options.rank ? `${options.rank}.` : ""), make("span", { title: "cosine: 1 is most alike" }, options.score.toFixed(3))),
      make("div", { class: "meter", "aria-hidden": "true" }, fill),
    );
  }
  if (clip.picture) {
    const label = clip.video ? `Play the video of ${clip.id}` : `Search by ${clip.id}`;
    const shot = make("button", { class: `shot${clip.video ? " film" : ""}`, type: "button", "aria-label": label }, image(clip));
    shot.addEventListener("click", () => (clip.video ? cinema(clip) : (location.hash = href(clip, options.from))));
    li.append(shot);
  }
  if (clip.sound) li.append(playButton(clip));
  li.append(make("div", { class: "name", title: clip.id }, name));
  if (clip.labels.length) li.append(make("div", { class: "classes" }, clip.labels.join(", ")));
  if (options.note) li.append(make("div", { class: "classes" }, options.note));
  if (!options.bare) {
    const acts = make("div", { class: "acts" });
    acts.append(make("button", { type: "button", "aria-label": `Search by ${clip.id}`, click: () => { $("why").close(); location.hash = href(clip, options.from); } }, "Search by this"));
    if (options.why) acts.append(make("button", { type: "button", "aria-label": `Why was ${clip.id} found?`, click: () => options.why(clip) }, "Why?"));
    li.append(acts);
  }
  return li;
}

// Elements, requests and short messages. Text from the archive reaches the page as textContent alone.

export const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function draw(name, attributes = {}) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

let fading = 0;
export function say(text, wrong = false) {
  const status = $("status");
  status.textContent = text;
  status.classList.toggle("wrong", wrong);
  clearTimeout(fading);
  if (text) fading = setTimeout(() => { status.textContent = ""; }, wrong ? 9000 : 3500);
}

export const WORDS = { audio: ["sound", "sounds"], visual: ["picture", "pictures"], both: ["sound and picture", "both"] };
export const word = (modality) => (WORDS[modality] || [modality, modality])[0];
export const words = (modality) => (WORDS[modality] || [modality, modality])[1];

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

const AWAY = "The server cannot be reached. Is it still running?";
const BETWEEN = { 413: "This file is too large to be sent. A few seconds of the recording are enough.", 502: AWAY, 504: AWAY };

// A request; where the server is busy it is made again, as often as the server says, three times at most.
export async function ask(path, options = {}) {
  for (let tries = 0; ; tries++) {
    let answer;
    try {
      answer = await fetch(path, { credentials: "same-origin", ...options });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, AWAY);
    }
    if (answer.ok) return answer;
    if (answer.status === 503 && tries < 3) {
      await pause(1000 * Math.min(5, Number(answer.headers.get("Retry-After")) || 1));
      continue;
    }
    let detail = BETWEEN[answer.status] || "This did not work.";
    try { detail = (await answer.json()).detail || detail; } catch { /* not JSON: the answer of a proxy */ }
    if (answer.status === 401 && path !== "/login") document.dispatchEvent(new CustomEvent("login"));
    throw new Refused(answer.status, detail);
  }
}

export const get = async (path, options) => (await ask(path, options)).json();
export const post = async (path, value) =>
  (await ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) })).json();

export const item = (id, part = "") => `/api/items/${encodeURIComponent(id)}${part ? "/" + part : ""}`;

// Of several calls that wait for answers, only the latest may draw: begin() says that a call begins, and gives it the
// question whether it is still the latest.
export function turns() {
  let latest = 0;
  return () => { const mine = ++latest; return () => mine === latest; };
}

// Buttons of which one is pressed; gives a function that presses one.
export function choice(place, options, chosen, change) {
  place.replaceChildren();
  const buttons = new Map();
  const press = (value) => { for (const [v, b] of buttons) b.setAttribute("aria-pressed", String(v === value)); };
  for (const [value, label] of options) {
    const button = make("button", { type: "button", click: () => { press(value); change(value); } }, label);
    buttons.set(value, button);
    place.append(button);
  }
  press(chosen);
  return press;
}

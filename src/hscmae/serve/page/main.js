// Tabs, theme, login. Which tab is shown, and what it shows, stands in the address after “#”.

import { $, ask, get, make, say } from "./util.js";
import * as search from "./search.js";
import * as map from "./map.js";
import * as pairs from "./pairs.js";
import { show as showAbout } from "./about.js";
import { stop } from "./clips.js";

const TITLES = { search: "Search", map: "Map", pairs: "Pairs to check", about: "About" };
let about = null;
let current = null;

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const now = root.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  theme(now === "dark" ? "light" : "dark");
});
function theme(name) {
  document.documentElement.style.colorScheme = name;
  try { localStorage.setItem("theme", name); } catch { /* private windows */ }
  document.dispatchEvent(new CustomEvent("theme"));
}
try { const kept = localStorage.getItem("theme"); if (kept === "dark" || kept === "light") document.documentElement.style.colorScheme = kept; } catch { /* private windows */ }

async function route() {
  if (!about) return;
  const [name, parameters = ""] = decodeHash();
  const tab = name in TITLES ? name : "search";
  if (name && name === "main") return;
  for (const panel of document.querySelectorAll("[data-panel]")) panel.hidden = panel.dataset.panel !== tab;
  for (const link of document.querySelectorAll("[data-tab]")) {
    if (link.dataset.tab === tab) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TITLES[tab]}: ${about.name}`;
  stop();
  if (current === "pairs" && tab !== "pairs") pairs.leave();
  if (current === "map" && tab !== "map") map.leave();
  current = tab;
  if (tab === "search") await search.show(parameters);
  if (tab === "map") await map.show();
  if (tab === "pairs") await pairs.show();
  if (tab === "about") { about = await facts(); showAbout(about); }
}
const decodeHash = () => { const [name, ...rest] = location.hash.slice(1).split("?"); return [name, rest.join("?")]; };

async function facts() {
  const found = await get("/api/about");
  const modalities = Object.keys(found.modalities);
  found.spaces = modalities.length > 1 ? [...modalities, "both"] : modalities;
  return found;
}

async function begin() {
  try {
    about = await facts();
  } catch (error) {
    if (error.status !== 401) { $("main").prepend(make("section", {}, make("p", {}, error.message))); }
    return;
  }
  $("login").hidden = true;
  $("archive").textContent = about.name;
  await search.start(about);
  await route();
}

document.addEventListener("login", () => {
  for (const panel of document.querySelectorAll("[data-panel]")) panel.hidden = true;
  $("login").hidden = false;
  $("token").focus();
});
$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await ask("/login", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token: $("token").value }) });
    $("token").value = "";
    await begin();
  } catch (error) { say(error.message, true); }
});
addEventListener("hashchange", route);
begin();

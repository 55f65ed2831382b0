// The tab “About”.

import { $, make, words } from "./util.js";

const number = (n) => n.toLocaleString("en");

function rows(table, entries) {
  table.replaceChildren(make("tbody", {}, ...entries.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "words" }, String(value))))));
}

function flat(value, prefix = "") {
  if (value === null || typeof value !== "object") return [[prefix, value === null ? "none" : value]];
  return Object.entries(value).flatMap(([key, inner]) => flat(inner, prefix ? `${prefix}: ${key}` : key));
}

export function show(about) {
  const facts = [
    ["clips", number(about.clips), `${number(about.pairs)} with sound and picture`],
    ...Object.entries(about.modalities).map(([m, n]) => [words(m), number(n), `of ${number(about.clips)} clips`]),
    ["built", about.built ? about.built.slice(0, 10) : "?", about.built ? `${about.built.slice(11, 16)} UTC` : ""],
  ];
  for (const [name, value] of Object.entries(about.metrics || {})) {
    if (typeof value === "number" && ["avg/mAP", "avg/R@10"].includes(name)) facts.push([name.replace("avg/", ""), value.toFixed(3), about.metrics.split === "all" ? "on all clips, those that it learned from included" : `on the clips of split ${about.metrics.split}`]);
  }
  $("facts").replaceChildren(...facts.map(([name, value, remark]) => make("div", {}, make("dt", {}, name), make("dd", {}, value), make("dd", {}, remark))));
  const model = about.model;
  rows($("model"), model ? [["method", `${model.method} (preset ${model.preset})`], ["embedding", `${about.dim} dimensions`], ["weights, SHA-256", model.sha256], ["left out of training", model.excluded || "nothing"], ...Object.entries(model.training).filter(([, v]) => v !== null && typeof v !== "object").map(([name, v]) => [`training: ${name.replaceAll("_", " ")}`, v]), ...flat(model.versions)] : [["embedding", `${about.dim} dimensions`]]);
  rows($("recipe"), about.recipe ? flat(about.recipe) : [["recipe", "not made of media"]]);
  $("report-section").hidden = !about.report;
  $("retrain").textContent = "hscmae build --output ARCHIVE --retrain --exclude-ids exclude-ids.txt";
}

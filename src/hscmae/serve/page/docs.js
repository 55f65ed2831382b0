// The API's page, made of /openapi.json: nothing is fetched from elsewhere.

import { $, get, make } from "./util.js";

const followed = (document_, schema) => (schema && schema.$ref ? document_.components.schemas[schema.$ref.split("/").pop()] : schema);

function kind(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop().replace("Out", "");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items) || "things"}`;
  if (schema.const !== undefined) return String(schema.const);
  return schema.type || "";
}

const plain = (text) => (text || "").trim().replaceAll("`", "");
const cell = (name, text) => make(name, { class: "words" }, text);

function table(head, rows) {
  return make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": head.join(", ") }, make("table", {}, make("thead", {}, make("tr", {}, ...head.map((h) => cell("th", h)))), make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((text) => cell("td", text)))))));
}

function example(method, path, route) {
  const given = (route.parameters || []).map((p) => [p, Object.values(p.examples || {})[0]]).filter(([, e]) => e);
  let shown = path;
  const query = [];
  for (const [p, e] of given) {
    const values = [].concat(e.value).map((v) => encodeURIComponent(v));
    if (p.in === "path") shown = shown.replace(`{${p.name}}`, values[0]);
    else query.push(...values.map((v) => `${p.name}=${v}`));
  }
  const body = route.requestBody && Object.keys(route.requestBody.content)[0];
  const more = body === "multipart/form-data" ? " -F file=@dog.wav" : body ? ` -H 'Content-Type: application/json' -d '{...}'` : "";
  return `curl${more} '${location.origin}${shown}${query.length && body !== "multipart/form-data" ? "?" + query.join("&") : ""}'`;
}

async function show() {
  const document_ = await get("/openapi.json");
  $("about").textContent = plain(document_.info.description);
  for (const [path, methods] of Object.entries(document_.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      const section = make("section", {}, make("h2", {}, `${method.toUpperCase()} ${path}`), make("p", {}, plain(route.description)));
      const parameters = route.parameters || [];
      if (parameters.length) section.append(table(["parameter", "meaning", "type"], parameters.map((p) => [p.in === "path" ? `{${p.name}}` : p.name + (p.required ? " *" : ""), plain(p.description), kind(p.schema)])));
      for (const [type, content] of Object.entries((route.requestBody || {}).content || {})) {
        const schema = followed(document_, content.schema) || {};
        section.append(table([`body: ${type}`, "type"], Object.entries(schema.properties || {}).map(([name, s]) => [name, kind(s)])));
      }
      const good = ((route.responses["200"] || {}).content || {})["application/json"];
      const schema = good && followed(document_, good.schema);
      if (schema && schema.properties) section.append(table(["answer", "type"], Object.entries(schema.properties).map(([name, s]) => [name, kind(s)])));
      section.append(make("p", {}, "For example:"), make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Example" }, make("code", {}, example(method, path, route))));
      $("routes").append(section);
    }
  }
}
show();

/** The page of the HTTP interface: draws what openapi.json tells. */

import { json, keepKey, key } from "./api.js";
import { copyOnClick } from "./clipboard.js";
import { byId, make } from "./elements.js";
import { t } from "./language.js";
import { bodyOf, curl, fieldsOf, operations, resolve, typeOf } from "./openapi.js";
import { startHeader } from "./site-header.js";
import { TEXTS } from "./docs-texts.js";

const PLACES = { path: "inPath", query: "inQuery", header: "inHeader", cookie: "inCookie" };
const GROUPS = [["/v1/", "openai"], ["/api/runs", "trainingRuns"], ["", "more"]];
const WIDE = "(min-width: 56rem)"; // as in docs.css

const base = new URL("./", document.baseURI).href;

let api = null;
let model = "MODEL";

async function ask() {
  try {
    api = await json("openapi.json");
    trouble(null);
    draw();
    model = (await json("v1/models")).data[0]?.id ?? model;
  } catch (error) {
    if (api === null) trouble(error);
  }
  draw();
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

function trouble(error) {
  const locked = error?.status === 401;
  byId("standing").hidden = true;
  byId("trouble").hidden = error === null;
  byId("key-form").hidden = !locked;
  byId("again").hidden = locked;
  if (locked) byId("problem").textContent = t(key() === "" ? "keyWanted" : "keyWrong");
  else if (error) byId("problem").textContent = error.status ? t("failed", { message: error.message }) : t("gone");
}

// ---- drawing ----

function draw() {
  if (api === null) return;
  byId("start").hidden = document.querySelector(".contents").hidden = false;
  byId("version").textContent = api.info.version;
  byId("address").textContent = base;
  byId("python").textContent = python();
  const groups = grouped(operations(api));
  byId("contents").replaceChildren(...groups.map(([name, found]) => make("li", {}, name, make("ol", {}, ...found.map(linkTo)))));
  byId("routes").replaceChildren(...groups.flatMap(([name, found]) => [make("h2", { class: "group" }, name), ...found.map(card)]));
}

/** [name of a group, its operations], by the server's tags or by the beginnings of paths. */
function grouped(found) {
  const groups = new Map(GROUPS.map(([, name]) => [t(name), []]));
  for (const operation of found) {
    const name = operation.group ?? t(GROUPS.find(([beginning]) => operation.path.startsWith(beginning))[1]);
    groups.set(name, [...(groups.get(name) ?? []), operation]);
  }
  return [...groups].filter(([, members]) => members.length);
}

function python() {
  return [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${base}v1", api_key="${key() === "" ? "none" : "KEY"}")`,
    `answer = client.completions.create(model=${JSON.stringify(model)}, prompt="Once upon a time", max_tokens=40)`,
    "print(answer.choices[0].text)",
  ].join("\n");
}

function linkTo({ id, method, path }) {
  return make("li", {}, make("a", { href: `#${id}` }, badge(method), " ", path));
}

function badge(method) {
  return make("span", { class: `method ${method.toLowerCase()}` }, method);
}

function card(operation) {
  const { id, method, path, told } = operation;
  const title = make("h3", { id: `${id}-title` }, badge(method), " ", make("code", {}, path));
  const parts = [title, make("p", { class: "summary" }, ...marked(told.summary ?? ""))];
  if (told.description && told.description !== told.summary) parts.push(...paragraphs(told.description));
  if (told.parameters.length) parts.push(heading("parameters"), table(told.parameters.map(parameterRow)));
  const body = bodyOf(api, told);
  if (body) parts.push(make("h4", {}, t("body", { type: body[0] })), table(fieldsOf(api, body[1].schema, false)));
  parts.push(heading("answers"), make("ul", { class: "answers" }, ...Object.entries(told.responses ?? {}).map(answer)));
  parts.push(heading("example"), example(operation));
  return make("section", { id, class: "card route", "aria-labelledby": `${id}-title` }, ...parts);
}

function parameterRow(told) {
  const parameter = resolve(api, told);
  const { schema, name, required = false, description } = parameter;
  const meaning = [t(PLACES[parameter.in]), description ?? resolve(api, schema).description].filter(Boolean).join("; ");
  return { name, type: typeOf(api, schema, false), required, standard: resolve(api, schema).default, meaning };
}

function answer([status, told]) {
  const { description, content = {} } = resolve(api, told);
  const kinds = Object.entries(content);
  const line = [make("code", { class: `status s${status[0]}` }, status), " ", ...marked(description ?? "")];
  const fields = kinds.flatMap(([, { schema }]) => fieldsOf(api, schema, true));
  const types = kinds.map(([media]) => media).filter((media) => media !== "application/json");
  if (types.length) line.push(" ", make("span", { class: "muted small" }, types.join(", ")));
  if (fields.length) line.push(make("details", {}, make("summary", {}, t("fields")), table(fields)));
  return make("li", {}, ...line);
}

function example(operation) {
  const code = make("code", {}, curl(api, operation, base, key() !== "", model));
  const button = make("button", { type: "button", "aria-label": t("copyOf", { name: `${operation.method} ${operation.path}` }) }, t("copy"));
  copyOnClick(button, code);
  return make("div", { class: "example" }, make("pre", { tabindex: "0" }, code), button);
}

function heading(name) {
  return make("h4", {}, t(name));
}

/** A table of fields; on a phone its rows become blocks, so roles are written out. */
function table(fields) {
  const head = ["name", "kind", "standard", "meaning"].map((name) => make("th", { role: "columnheader", scope: "col" }, t(name)));
  const rows = fields.map(({ name, type, required, standard, meaning }) => {
    const shown = required ? make("em", {}, t("required")) : standard === undefined ? "" : make("code", {}, JSON.stringify(standard));
    return make(
      "tr",
      { role: "row" },
      make("th", { role: "rowheader", scope: "row" }, make("code", {}, name)),
      make("td", { role: "cell", class: "type" }, type),
      make("td", { role: "cell", class: "standard", "data-label": required || shown === "" ? "" : `${t("standard")}: ` }, shown),
      make("td", { role: "cell", class: "meaning" }, ...marked(meaning)),
    );
  });
  const top = make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...head));
  return make("table", { role: "table", class: "fields" }, top, make("tbody", { role: "rowgroup" }, ...rows));
}

function paragraphs(text) {
  return text.split(/\n{2,}/).map((part) => make("p", {}, ...marked(part)));
}

/** Text in which `code` stands between backticks. */
function marked(text) {
  return text.split("`").map((part, place) => (place % 2 ? make("code", {}, part) : part));
}

// ---- wiring ----

byId("again").addEventListener("click", ask);
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(byId("key").value, false);
  ask();
});
document.querySelector(".contents details").open = matchMedia(WIDE).matches;
copyOnClick(byId("copy-python"), byId("python"));
startHeader(TEXTS, draw);
ask();

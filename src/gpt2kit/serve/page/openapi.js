/** Reading an OpenAPI description: its operations, types in words, fields, and a call of each as a line of curl. */

import { number, t } from "./language.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const MODEL_OF = "/v1/models/";
const DEEPEST = 4; // fields of fields of fields
// What a first try would send; shown where a route has a field of that name.
const TRIED = {
  prompt: "Once upon a time",
  text: "Once upon a time",
  seed: "Once upon a time",
  max_tokens: 40,
  messages: [{ role: "user", content: "Hello!" }],
  tokens: [15496, 995],
  name: "run1",
};

/** Every operation: {method, path, id, group, told: the operation itself}. */
export function operations(api) {
  return Object.entries(api.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => {
      const told = { ...item[method], parameters: [...(item.parameters ?? []), ...(item[method].parameters ?? [])] };
      const id = `${method}${path.replace(/[^a-zA-Z0-9]+/g, "-")}`.replace(/-$/, "");
      return { method: method.toUpperCase(), path, id, told, group: told.tags?.[0] ?? null };
    }));
}

export function resolve(api, schema) {
  for (let depth = 0; schema?.$ref && depth < 20; depth += 1) {
    schema = schema.$ref.slice(2).split("/").reduce((inner, key) => inner?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], api);
  }
  return schema ?? {};
}

const variants = (schema) => schema.anyOf ?? schema.oneOf ?? null;

/** A type in words: "string or list of integer, 0 to 20". Null is left out where a field may be left out as well. */
export function typeOf(api, schema, withNull = true, depth = 0) {
  const told = resolve(api, schema);
  const several = variants(told)?.filter((each) => withNull || resolve(api, each).type !== "null");
  if (depth > DEEPEST) return told.title ?? t("anything");
  if (several) return several.map((each) => typeOf(api, each, withNull, depth + 1)).join(t("or"));
  if (told.allOf?.length === 1) return typeOf(api, told.allOf[0], withNull, depth + 1);
  if (told.const !== undefined) return JSON.stringify(told.const);
  if (told.enum) return told.enum.map((value) => JSON.stringify(value)).join(t("or"));
  if (told.type === "array") return t("listOf", { type: typeOf(api, told.items, true, depth + 1) });
  if (told.type === "object" || told.properties) return told.title ?? "object";
  const type = Array.isArray(told.type) ? told.type.join(t("or")) : told.type ?? t("anything");
  return [type, limits(told)].filter(Boolean).join(", ");
}

function limits({ minimum: low, maximum: high, exclusiveMinimum: above, exclusiveMaximum: below }) {
  if (low !== undefined && high !== undefined) return t("between", { low: show(low), high: show(high) });
  const known = { least: low, above, most: high, below };
  return Object.entries(known).filter(([, value]) => value !== undefined).map(([key, value]) => t(key, { value: show(value) })).join(", ");
}

/** 2^63 rather than 9,223,372,036,854,775,808, which JavaScript cannot even hold. */
function show(value) {
  const power = Math.log2(Math.abs(value));
  if (power >= 20 && Number.isInteger(power)) return `${value < 0 ? "-" : ""}2^${power}`;
  return Number.isInteger(value) ? number(value) : String(value);
}

/** The fields of an object, those of objects inside it below them: {name, type, required, standard, meaning}. */
export function fieldsOf(api, schema, withNull, prefix = "", depth = 0) {
  const told = objectIn(api, schema);
  if (!told || depth > DEEPEST) return [];
  return Object.entries(told.properties).flatMap(([key, field]) => {
    const { description, default: standard } = { ...resolve(api, field), ...field };
    const name = prefix + key;
    const required = told.required?.includes(key) ?? false;
    const own = { name, type: typeOf(api, field, withNull || required), required, standard, meaning: description ?? "" };
    const list = listIn(api, field);
    return [own, ...fieldsOf(api, list ?? field, withNull, `${name}${list ? "[]" : ""}.`, depth + 1)];
  });
}

/** The object that a schema is, or may be. */
function objectIn(api, schema) {
  const told = resolve(api, schema);
  if (told.properties) return told;
  const inner = variants(told) ?? told.allOf ?? [];
  return inner.map((each) => resolve(api, each)).find((each) => each.properties) ?? null;
}

function listIn(api, schema) {
  const told = resolve(api, schema);
  const lists = [told, ...(variants(told) ?? []).map((each) => resolve(api, each))].filter(({ type }) => type === "array");
  return lists.map(({ items }) => items).find((items) => objectIn(api, items)) ?? null;
}

/** The body of an operation as [media type, its description], or null. */
export function bodyOf(api, told) {
  const content = resolve(api, told.requestBody).content;
  return content ? Object.entries(content)[0] : null;
}

/** A call from a shell. `withKey` adds the header that carries a key; `model` is the name of one that is served. */
export function curl(api, operation, base, withKey, model) {
  const { told, method } = operation;
  const found = (name) => tried(api, parameter(told, name)) ?? name.toUpperCase();
  const fill = (whole, name) => (operation.path.startsWith(MODEL_OF) ? encodeURIComponent(model) : found(name));
  const path = operation.path.slice(1).replace(/\{(\w+)[^}]*\}/g, fill);
  const url = new URL(path, base);
  for (const { name, in: place, required } of told.parameters) {
    if (place === "query" && required) url.searchParams.set(name, found(name));
  }
  const body = bodyOf(api, told);
  const parts = [`curl ${method === "GET" || body ? "" : `-X ${method} `}${quoted(url.href)}`];
  if (withKey) parts.push('-H "Authorization: Bearer $API_KEY"');
  if (body) parts.push(...sent(api, body));
  return parts.join(" \\\n  ");
}

const parameter = (told, name) => told.parameters.find((each) => each.name === name) ?? { name };

function tried(api, { name, example, schema }) {
  return example ?? resolve(api, schema).examples?.[0] ?? TRIED[name];
}

function sent(api, [media, told]) {
  const value = told.example ?? Object.values(told.examples ?? {})[0]?.value ?? madeUp(api, told.schema);
  if (media === "application/json") return [`-H "Content-Type: application/json"`, `-d ${quoted(JSON.stringify(value))}`];
  const flag = media === "multipart/form-data" ? "-F" : "--data-urlencode";
  return Object.entries(value).map(([name, each]) => `${flag} ${quoted(`${name}=${each}`)}`);
}

function madeUp(api, schema) {
  const told = objectIn(api, schema) ?? {};
  const given = resolve(api, schema).example ?? resolve(api, schema).examples?.[0];
  if (given !== undefined) return given;
  const { properties = {}, required = [] } = told;
  const fit = ([name, field]) => !(name === "seed" && !typeOf(api, field).startsWith("string"));
  const wanted = Object.entries(properties).filter(([name]) => required.includes(name) || name in TRIED).filter(fit);
  return Object.fromEntries(wanted.map(([name, field]) => [name, TRIED[name] ?? plain(api, field)]));
}

function plain(api, schema) {
  const told = resolve(api, schema);
  const first = resolve(api, variants(told)?.[0] ?? told);
  return first.default ?? first.enum?.[0] ?? { string: "text", integer: 1, number: 1, boolean: true, array: [] }[first.type] ?? {};
}

/** For a POSIX shell. */
function quoted(text) {
  return /^[\w./:?&=%-]+$/.test(text) && !/[?&]/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** The settings of the sampling panel as values: what they are called, what is allowed, presets, and their way into a
 * request or a link. No page. */

export const FIELDS = [
  { name: "max_tokens", id: "max-tokens", low: 1, high: 500, step: 1, top: 1e6, initial: 80, whole: true },
  { name: "temperature", id: "temperature", low: 0, high: 2, step: 0.05, top: 1e6, initial: 0.8 },
  { name: "top_k", id: "top-k", low: 0, high: 200, step: 1, top: 1e6, initial: 40, whole: true },
  { name: "top_p", id: "top-p", low: 0.01, high: 1, step: 0.01, top: 1, initial: 0.95 },
  { name: "min_p", id: "min-p", low: 0, high: 0.5, step: 0.01, top: 1, initial: 0 },
  { name: "repetition_penalty", id: "repetition-penalty", low: 0.5, high: 2, step: 0.05, bottom: 0.01, top: 100, initial: 1 },
];

export const PRESETS = {
  precise: { temperature: 0.5, top_k: 40, top_p: 0.9, min_p: 0, repetition_penalty: 1.1 },
  balanced: { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0, repetition_penalty: 1 },
  wild: { temperature: 1.15, top_k: 0, top_p: 1, min_p: 0.02, repetition_penalty: 1 },
  greedy: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, repetition_penalty: 1 },
};

const MOST_SEED = Number.MAX_SAFE_INTEGER;
const MOST_LINK = 8000; // characters; longer ones are cut by mail and chat programs

export const INITIAL = Object.freeze({
  ...Object.fromEntries(FIELDS.map((field) => [field.name, field.initial])),
  stop: "",
  seed: null,
  locked: false,
  count: 1,
});

/** What is wrong with a value: null, or the key of a text and what it needs. `most` is the server's limit, if known. */
export function wrongNumber(field, text, most = field.top) {
  const value = Number(text);
  const bottom = field.bottom ?? field.low;
  if (String(text).trim() === "" || !Number.isFinite(value)) return ["notANumber", {}];
  if (field.whole && !Number.isInteger(value)) return ["notWhole", {}];
  if (value < bottom) return ["tooSmall", { bottom }];
  if (value > most) return ["tooLarge", { most }];
  return null;
}

export function wrongSeed(text) {
  const value = Number(text);
  const sound = String(text).trim() !== "" && Number.isInteger(value) && value >= 0 && value <= MOST_SEED;
  return sound ? null : ["wrongSeed", { most: MOST_SEED }];
}

export function freshSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

/** The name of the preset that the settings are, or null. */
export function presetOf(settings) {
  const holds = ([, preset]) => Object.entries(preset).every(([name, value]) => settings[name] === value);
  return Object.entries(PRESETS).find(holds)?.[0] ?? null;
}

/** Stop strings, one a line; \n, \t and \\ stand for what they do elsewhere. */
function stopStrings(text) {
  const signs = { n: "\n", t: "\t", "\\": "\\" };
  return text.split("\n").filter((line) => line !== "").map((line) => line.replace(/\\([nt\\])/g, (_, sign) => signs[sign]));
}

/** The settings under the server's names. */
export function samplingOf(settings) {
  const sampling = Object.fromEntries(FIELDS.map(({ name }) => [name, settings[name]]));
  const stop = stopStrings(settings.stop);
  return stop.length > 0 ? { ...sampling, stop } : sampling;
}

/** Settings out of anything: what is sound is taken, the rest is as it was. Returns [settings, names of what was not]. */
export function soundSettings(found, otherwise = INITIAL) {
  const settings = { ...otherwise };
  const refused = [];
  for (const field of FIELDS) {
    if (!(field.name in found)) continue;
    if (wrongNumber(field, found[field.name]) === null) settings[field.name] = Number(found[field.name]);
    else refused.push(field.name);
  }
  if (typeof found.stop === "string") settings.stop = found.stop;
  if (found.seed !== undefined && found.seed !== null) {
    if (wrongSeed(found.seed) === null) settings.seed = Number(found.seed);
    else refused.push("seed");
  }
  if (found.locked !== undefined) settings.locked = String(found.locked) === "true";
  if (found.count !== undefined) settings.count = Number(found.count) === 3 ? 3 : 1;
  return [settings, refused];
}

/** The part of a link after "#": prompt, model and settings. Null where it would be too long. */
export function linkHash(prompt, model, settings) {
  const seed = settings.seed === null ? {} : { seed: settings.seed, locked: settings.locked };
  const { stop, count } = settings;
  const numbers = Object.fromEntries(FIELDS.map(({ name }) => [name, settings[name]]));
  const hash = new URLSearchParams({ prompt, ...(model === "" ? {} : { model }), ...numbers, ...(stop === "" ? {} : { stop }), count, ...seed });
  const link = hash.toString();
  return link.length > MOST_LINK ? null : link;
}

/** What a link's hash carries: { prompt, model, found }, or null where it is not one of ours. */
export function readHash(hash) {
  const values = Object.fromEntries(new URLSearchParams(hash.replace(/^#/, "")));
  if (!("prompt" in values)) return null;
  const { prompt, model = "", ...found } = values;
  return { prompt: prompt.replace(/\r\n?/g, "\n"), model, found };
}

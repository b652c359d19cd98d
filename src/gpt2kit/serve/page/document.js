/** The text that is written here, without the page around it: runs of the user's text and of the model's tokens.
 *
 * A run is { text, tokens } and never changes; an edit makes new runs. `tokens` is null where the user wrote. Where
 * the model wrote it lists what the text is made of, most often one token, several where a character spreads over
 * them, none where only a part of a token was kept. A token is { id, logprob, entropy, top: [{ id, text, logprob }] }.
 * `partial` marks tokens at the end of a text that are the beginning of a character only; `model` names who wrote, or is "".
 * Positions count UTF-16 units, as JavaScript's strings do.
 */

export function userRun(text) {
  return Object.freeze({ text, tokens: null });
}

export function modelRun(text, tokens, partial = false, model = "") {
  return Object.freeze({ text, tokens: Object.freeze(tokens), partial, model });
}

export function textOf(runs) {
  return runs.map((run) => run.text).join("");
}

export function lengthOf(runs) {
  return runs.reduce((sum, run) => sum + run.text.length, 0);
}

/** The runs between two positions. A token that is cut becomes the user's text. */
export function slice(runs, start, end = Infinity) {
  const kept = [];
  let at = 0;
  for (const run of runs) {
    const from = Math.max(start - at, 0);
    const to = Math.min(end - at, run.text.length);
    if (from < to) kept.push(to - from === run.text.length ? run : userRun(run.text.slice(from, to)));
    at += run.text.length;
  }
  return joined(kept);
}

/** The runs with everything between two positions replaced by what the user typed. */
export function replaced(runs, start, end, text) {
  const typed = text === "" ? [] : [userRun(text)];
  return joined([...slice(runs, 0, start), ...typed, ...slice(runs, end)]);
}

/** Neighbouring runs of the user's become one, so that equal documents look equal. */
export function joined(runs) {
  const result = [];
  for (const run of runs) {
    const last = result.at(-1);
    if (run.text === "") continue;
    if (run.tokens === null && last?.tokens === null) result[result.length - 1] = userRun(last.text + run.text);
    else result.push(run);
  }
  return result;
}

/** What one edit changed: { start, end, text }, or null. Where several readings fit, the one that ends at `caret`. */
export function difference(before, after, caret = after.length) {
  if (before === after) return null;
  const most = Math.min(before.length, after.length);
  const tail = Math.min(most, Math.max(after.length - caret, 0));
  let suffix = 0;
  while (suffix < tail && before.at(-1 - suffix) === after.at(-1 - suffix)) suffix += 1;
  let prefix = 0;
  while (prefix < most - suffix && before[prefix] === after[prefix]) prefix += 1;
  while (suffix < most - prefix && before.at(-1 - suffix) === after.at(-1 - suffix)) suffix += 1;
  return { start: prefix, end: before.length - suffix, text: after.slice(prefix, after.length - suffix) };
}

/** Whether the ids of a run are ids of this model's. */
export function writtenBy(run, model) {
  return run.model === model || run.model === "" || model === "";
}

/** The runs before a position, as a request to a model: text up to a whole character, and the ids of the bytes that
 * follow it. `before` are the runs of that text; the ids stand for the runs after them. */
export function promptOf(runs, model) {
  let whole = runs.length;
  while (whole > 0 && runs[whole - 1].partial && writtenBy(runs[whole - 1], model)) whole -= 1;
  const before = runs.slice(0, whole);
  const forcedIds = runs.slice(whole).flatMap((run) => run.tokens.map((token) => token.id));
  return { before, prompt: textOf(before), forcedIds };
}

/** The UTF-16 position of a count of whole characters (code points), as the server counts. */
export function positionOfCharacter(text, characters) {
  let at = 0;
  for (let count = 0; count < characters && at < text.length; count += 1) {
    at += text.codePointAt(at) > 0xffff ? 2 : 1;
  }
  return at;
}

/** A name for a document: its first words. */
export function nameOf(runs, most = 48) {
  const words = textOf(runs.slice(0, 200)).slice(0, 400).trim().replace(/\s+/g, " ");
  const letters = [...words];
  if (letters.length <= most) return words;
  const cut = letters.slice(0, most).join("");
  return `${cut.includes(" ") ? cut.slice(0, cut.lastIndexOf(" ")) : cut}…`;
}

// ---- as JSON: short names, since a browser keeps only some five million characters ----

export function packed(runs, alternatives = true) {
  return runs.map((run) => {
    if (run.tokens === null) return run.text;
    const rest = { ...(run.partial ? { p: 1 } : {}), ...(run.model === "" ? {} : { m: run.model }) };
    return { t: run.text, k: run.tokens.map((token) => packedToken(token, alternatives)), ...rest };
  });
}

function packedToken({ id, logprob, entropy, top }, alternatives) {
  const short = (value) => (value === null ? null : Number(value.toFixed(4)));
  const listed = alternatives ? top.map((one) => [one.id, one.text, short(one.logprob)]) : [];
  return [id, short(logprob), short(entropy), listed];
}

/** The runs that `packed` wrote; throws a TypeError for anything else, since files come from anywhere. */
export function unpacked(list) {
  if (!Array.isArray(list)) throw new TypeError("runs must be a list");
  return joined(list.map((item) => {
    if (typeof item === "string") return userRun(item);
    if (typeof item?.t !== "string" || !Array.isArray(item.k)) throw new TypeError("a run must be a text or an object with t and k");
    return modelRun(item.t, item.k.map(unpackedToken), item.p === 1, typeof item.m === "string" ? item.m : "");
  }));
}

function unpackedToken(item) {
  const real = (value) => typeof value === "number" && Number.isFinite(value);
  const [id, logprob, entropy, top] = Array.isArray(item) ? item : [];
  const listed = Array.isArray(top) ? top : [];
  const sound = Number.isInteger(id) && id >= 0 && (logprob === null || real(logprob)) && (entropy === null || real(entropy));
  if (!sound || !listed.every((one) => Array.isArray(one) && Number.isInteger(one[0]) && typeof one[1] === "string" && real(one[2]))) {
    throw new TypeError("a token must be [id, logprob, entropy, alternatives]");
  }
  return { id, logprob, entropy, top: listed.map(([one, text, value]) => ({ id: one, text, logprob: value })) };
}

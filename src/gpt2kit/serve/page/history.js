/** The documents that this browser keeps: one entry of localStorage each. No page.
 *
 * An entry is { format, version, name, saved, model, runs }; an exported file is the same.
 */

import { nameOf, packed, unpacked } from "./document.js";

const PREFIX = "gpt2kit.document.";
const OPEN = "gpt2kit.open"; // in this tab: which document is open
const FORMAT = "gpt2kit-document";

export function freshId() {
  return `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
}

export function keyOf(id) {
  return PREFIX + id;
}

/** A document as it is kept or exported. */
export function entryOf(runs, model, saved, alternatives = true) {
  return { format: FORMAT, version: 1, name: nameOf(runs), saved, model, runs: packed(runs, alternatives) };
}

/** What `entryOf` wrote, from text that may be anything. Throws an Error that says what is wrong. */
export function readEntry(text) {
  const entry = JSON.parse(text);
  if (entry?.format !== FORMAT) throw new TypeError(`its "format" is not "${FORMAT}"`);
  if (entry.version !== 1) throw new TypeError(`its "version" is ${JSON.stringify(entry.version)}, expected 1`);
  return { name: String(entry.name ?? ""), saved: validTime(Number(entry.saved)), runs: unpacked(entry.runs) };
}

/** Keep a document. Returns "kept", "thin" (without alternatives), "full" or "closed". Empty ones are not kept. */
export function keep(id, runs, model, now) {
  try {
    if (runs.length === 0) {
      localStorage.removeItem(keyOf(id));
      return "kept";
    }
    localStorage.setItem(keyOf(id), JSON.stringify(entryOf(runs, model, now)));
    remember(id);
    return "kept";
  } catch (error) {
    if (error.name === "SecurityError" || typeof localStorage === "undefined") return "closed";
  }
  try {
    localStorage.setItem(keyOf(id), JSON.stringify(entryOf(runs, model, now, false)));
    remember(id);
    return "thin";
  } catch {
    return "full";
  }
}

/** Which document this tab opens when it is loaded again. */
export function remember(id) {
  try {
    sessionStorage.setItem(OPEN, id);
  } catch {
    // The newest document is opened instead.
  }
}

export function remembered() {
  try {
    return sessionStorage.getItem(OPEN);
  } catch {
    return null;
  }
}

/** A document that is kept, or null. */
export function load(id) {
  try {
    return readEntry(localStorage.getItem(keyOf(id)));
  } catch {
    return null;
  }
}

/** Dates reach 8.64e15 milliseconds from 1970; beyond that nothing can be shown. */
function validTime(milliseconds) {
  return Math.abs(milliseconds) <= 8.64e15 ? milliseconds : 0;
}

/** What is kept: [{ id, name, saved }], newest first. */
export function list() {
  let keys;
  try {
    keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  } catch {
    return [];
  }
  const found = keys.map((key) => ({ id: key.slice(PREFIX.length), entry: load(key.slice(PREFIX.length)) }));
  const sound = found.filter(({ entry }) => entry !== null);
  return sound.map(({ id, entry }) => ({ id, name: entry.name, saved: entry.saved })).sort((a, b) => b.saved - a.saved);
}

/** Take a document away. Returns its entry as it was kept, for `bring`. */
export function remove(id) {
  const entry = localStorage.getItem(keyOf(id));
  localStorage.removeItem(keyOf(id));
  return entry;
}

export function bring(id, entry) {
  localStorage.setItem(keyOf(id), entry);
}

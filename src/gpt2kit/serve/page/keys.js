/** The keyboard: which key does what, and the list that tells so. */

import { make } from "./elements.js";
import { t } from "./language.js";

const SHORTCUTS = [
  [["Ctrl", "Enter"], "key_generate"],
  [["Esc"], "key_stop"],
  [["Ctrl", "R"], "key_retry"],
  [["Ctrl", "Z"], "key_undo"],
  [["Ctrl", "Shift", "Z"], "key_redo"],
  [["<"], "key_tries", [">"]],
  [["1"], "key_choose", ["2"], ["3"]],
  [["F2"], "key_tokens"],
  [["?"], "key_help"],
];

const APPLE = /mac|iphone|ipad/i.test(navigator.userAgentData?.platform ?? navigator.platform);

/** Call the actions by key. What the keys mean to a field that is typed in stays the field's own. */
export function listenToKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || document.querySelector("dialog[open]") !== null) return;
    const action = event.ctrlKey || event.metaKey ? withControl(event, actions) : alone(event, actions);
    if (action === null) return;
    if (action() !== false) event.preventDefault();
  });
}

function withControl(event, { generate, retry, travel, turn }) {
  const key = event.key.toLowerCase();
  if (event.altKey) return null;
  if (key === "enter") return generate;
  if (key === "r" && !event.shiftKey) return retry;
  if (key === "<" || key === ">") return () => turn(key === "<" ? -1 : 1);
  if (inField(event.target)) return null;
  if (key === "z") return () => travel(event.shiftKey ? 1 : -1);
  if (key === "y") return () => travel(1);
  return null;
}

function alone(event, { leave, walk, help, turn, choose }) {
  if (event.key === "Escape") return leave;
  if (event.key === "F2") return walk;
  if (event.altKey || inField(event.target) || event.target.isContentEditable) return null;
  if (event.key === "?") return help;
  if (event.key === "<" || event.key === ">") return () => turn(event.key === "<" ? -1 : 1);
  return () => choose(event.key);
}

function inField(target) {
  return target.matches?.("input:not([type=range]), textarea, select") ?? false;
}

export function listShortcuts(list) {
  const rows = SHORTCUTS.flatMap(([keys, text, ...others]) => {
    const shown = [keys, ...others].map((one) => one.map((key) => make("kbd", {}, APPLE && key === "Ctrl" ? "⌘" : key)));
    const joined = shown.map((one) => one.flatMap((key, n) => (n === 0 ? [key] : [" + ", key])));
    return [make("dt", {}, ...joined.flatMap((one, n) => (n === 0 ? one : [" ", ...one]))), make("dd", {}, t(text))];
  });
  list.replaceChildren(...rows);
}

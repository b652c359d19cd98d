/** The sampling panel: presets, a slider and a box for each setting, the seed and its lock. */

import { byId, icon, make } from "./elements.js";
import { t } from "./language.js";
import { FIELDS, INITIAL, PRESETS, presetOf, soundSettings, wrongNumber, wrongSeed } from "./sampling.js";

const STORE = "gpt2kit.settings";

export class SettingsPanel {
  #values;
  #wrong = new Map(); // name of a field -> its text's key and values
  #mostTokens = undefined; // what the server allows

  constructor(form, onChange) {
    Object.assign(this, { form, onChange });
    this.#values = kept();
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => this.#input(event.target));
    this.draw();
  }

  get values() {
    return this.#values;
  }

  /** The id of the first field that is wrong, or null. */
  get wrong() {
    const [name] = this.#wrong.keys();
    return name === undefined ? null : idOf(name);
  }

  set mostTokens(most) {
    this.#mostTokens = most;
    this.#check("max_tokens", byId("max-tokens").value);
  }

  set(values) {
    this.#values = { ...this.#values, ...values };
    for (const name of Object.keys(values)) this.#wrong.delete(name);
    this.#fill();
    this.#changed();
  }

  /** Say at a field what the server said of it. Returns whether there is such a field. */
  refuse(name, message) {
    const error = byId(`${idOf(name)}-error`);
    if (error === null) return false;
    error.textContent = message;
    byId(idOf(name)).setAttribute("aria-invalid", "true");
    return true;
  }

  /** Draw the panel in the page's language. */
  draw() {
    this.#wrong.clear();
    const presets = Object.keys(PRESETS).map((name) => this.#button(t(`preset_${name}`), name, () => this.set(PRESETS[name])));
    const numbers = FIELDS.map((field) => this.#number(field));
    const all = make("button", { type: "button", className: "link small" }, t("resetAll"));
    all.addEventListener("click", () => this.set({ ...INITIAL }));
    this.form.replaceChildren(
      make("div", { className: "segments", id: "presets", role: "group", "aria-label": t("presets") }, ...presets),
      ...numbers.slice(0, 2), this.#seed(), ...numbers.slice(2), this.#stop(), make("div", {}, all));
    this.#fill();
  }

  #button(label, value, action) {
    const button = make("button", { type: "button", value }, label);
    button.addEventListener("click", action);
    return button;
  }

  #number({ name, id, low, high, step }) {
    const bounds = { min: low, max: high, step };
    const box = make("input", { type: "number", id, step, min: low, inputMode: "decimal", "aria-describedby": `${id}-help ${id}-error` });
    const slider = make("input", { type: "range", ...bounds, id: `${id}-slider`, "aria-label": t("slider", { name: t(name) }) });
    const reset = this.#reset(name, () => this.set({ [name]: INITIAL[name] }));
    const label = make("label", { htmlFor: id }, t(name));
    return make("div", { className: "field" }, label, box, reset, slider, ...notes(id, t(`${name}Help`)));
  }

  #reset(name, action) {
    const button = make("button", { type: "button", id: `${idOf(name)}-reset`, className: "quiet icon-only reset", "aria-label": t("reset", { name: t(name) }) }, icon("reset"));
    button.title = t("reset", { name: t(name) });
    button.addEventListener("click", action);
    return button;
  }

  #seed() {
    const box = make("input", { type: "text", id: "seed", inputMode: "numeric", autocomplete: "off", placeholder: t("fresh"), "aria-describedby": "seed-help seed-error" });
    const lock = make("button", { type: "button", id: "seed-lock", className: "quiet icon-only", "aria-label": t("seedLock") }, icon("lock"));
    lock.title = t("seedLock");
    lock.addEventListener("click", () => this.#lock());
    const label = make("label", { htmlFor: "seed" }, t("seed"));
    return make("div", { className: "field seed-field" }, label, box, lock, ...notes("seed", t("seedHelp")));
  }

  #lock() {
    const locked = !this.#values.locked;
    if (!locked) this.#wrong.delete("seed");
    this.set({ locked, seed: this.#values.seed ?? (locked ? 42 : null) });
  }

  #stop() {
    const label = make("label", { htmlFor: "stop-strings" }, t("stopStrings"));
    const box = make("textarea", { id: "stop-strings", rows: 2, spellcheck: false, "aria-describedby": "stop-strings-help" });
    return make("div", { className: "field" }, label, box, ...notes("stop-strings", t("stopHelp")));
  }

  #input(element) {
    if (element.id === "stop-strings") {
      this.#values = { ...this.#values, stop: element.value };
      byId("stop-strings-error").textContent = "";
      return this.#changed();
    }
    if (element.id === "seed") return this.#typedSeed(element.value);
    const field = FIELDS.find(({ id }) => element.id === id || element.id === `${id}-slider`);
    if (field === undefined) return undefined;
    const other = byId(element.id === field.id ? `${field.id}-slider` : field.id);
    other.value = element.value;
    if (!this.#check(field.name, element.value)) return this.#marks();
    this.#values = { ...this.#values, [field.name]: Number(element.value) };
    return this.#changed();
  }

  /** A seed that is typed is meant to be used: it locks. An empty box asks for fresh ones again. */
  #typedSeed(text) {
    if (text.trim() !== "" && !this.#check("seed", text)) return;
    if (text.trim() === "") this.#tell("seed", null);
    this.#values = { ...this.#values, seed: text.trim() === "" ? null : Number(text), locked: text.trim() !== "" };
    this.#marks();
    this.#changed();
  }

  #check(name, text) {
    const field = FIELDS.find((one) => one.name === name);
    const most = name === "max_tokens" ? this.#mostTokens : undefined;
    const wrong = field === undefined ? wrongSeed(text) : wrongNumber(field, text, most);
    this.#tell(name, wrong);
    return wrong === null;
  }

  #tell(name, wrong) {
    if (wrong === null) this.#wrong.delete(name);
    else this.#wrong.set(name, wrong);
    byId(`${idOf(name)}-error`).textContent = wrong === null ? "" : t(...wrong);
    byId(idOf(name)).setAttribute("aria-invalid", String(wrong !== null));
  }

  #fill() {
    for (const { name, id } of FIELDS) {
      if (this.#wrong.has(name)) continue;
      byId(id).value = byId(`${id}-slider`).value = this.#values[name];
      this.#tell(name, null);
    }
    byId("seed").value = this.#values.seed ?? "";
    this.#tell("seed", null);
    byId("stop-strings").value = this.#values.stop;
    this.#marks();
  }

  #marks() {
    const preset = presetOf(this.#values);
    for (const button of byId("presets").children) button.setAttribute("aria-pressed", String(button.value === preset));
    byId("seed-lock").setAttribute("aria-pressed", String(this.#values.locked));
    for (const { name, id, initial } of FIELDS) byId(`${id}-reset`).disabled = this.#values[name] === initial && !this.#wrong.has(name);
  }

  #changed() {
    this.#marks();
    try {
      localStorage.setItem(STORE, JSON.stringify(this.#values));
    } catch {
      // The settings hold until the page is left.
    }
    this.onChange(this.#values);
  }
}

function idOf(name) {
  return name === "stop" ? "stop-strings" : FIELDS.find((field) => field.name === name)?.id ?? name;
}

function notes(id, help) {
  const error = make("span", { className: "field-error", id: `${id}-error`, role: "alert" });
  return [error, make("span", { className: "help", id: `${id}-help` }, help)];
}

function kept() {
  try {
    const found = JSON.parse(localStorage.getItem(STORE) ?? "{}");
    return soundSettings(found)[0];
  } catch {
    return { ...INITIAL };
  }
}

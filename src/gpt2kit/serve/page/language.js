/** The language of a page: English or Chinese, as the browser asks or as was chosen, and the texts in it.
 *
 * HTML names its texts: data-t="key" is the element's text, data-t-label="key" its aria-label and tooltip,
 * data-t-name="key" its aria-label only, data-t-hint="key" its aria-description. A page hands its table of texts to `useTexts` once.
 */

const STORE = "gpt2kit.language";
const LANGUAGES = ["en", "zh"];

let texts = { en: {}, zh: {} };
let chosen = null; // on this page, also where the browser keeps nothing

export function useTexts(table) {
  texts = table;
}

export function language() {
  if (chosen !== null) return chosen;
  try {
    const kept = localStorage.getItem(STORE);
    if (LANGUAGES.includes(kept)) return kept;
  } catch {
    // Storage is closed to us: ask the browser.
  }
  const asked = (navigator.languages ?? [navigator.language]).map((tag) => tag.slice(0, 2).toLowerCase());
  return asked.find((tag) => LANGUAGES.includes(tag)) ?? "en";
}

export function setLanguage(tag) {
  chosen = tag;
  try {
    localStorage.setItem(STORE, tag);
  } catch {
    // The choice holds until the page is left.
  }
}

/** The text of a key, with {name} filled in from `values`. */
export function t(key, values = {}) {
  const text = texts[language()][key] ?? texts.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** A number as this language writes it. */
export function number(value, digits = 0) {
  const places = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(language(), places).format(value);
}

/** Put the language's texts into everything below `root` that names one. */
export function translate(root = document) {
  document.documentElement.lang = (language()) === "zh" ? "zh-CN" : "en";
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const [name, attribute] of Object.entries({ tName: "aria-label", tHint: "aria-description" })) {
    const selector = name === "tName" ? "[data-t-name]" : "[data-t-hint]";
    for (const element of root.querySelectorAll(selector)) element.setAttribute(attribute, t(element.dataset[name]));
  }
  for (const element of root.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", t(element.dataset.tLabel));
    element.title = t(element.dataset.tLabel);
  }
}

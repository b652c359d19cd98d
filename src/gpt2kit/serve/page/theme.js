/** Light, dark, or as the system has it. Imported early by every page; a button with id "theme" goes through the three. */

const STORE = "gpt2kit.theme";
let chosen = null; // on this page, also where the browser keeps nothing
const THEMES = ["system", "light", "dark"];

/** What was chosen last; "system" where nothing was, or where the browser keeps nothing. */
export function theme() {
  if (chosen !== null) return chosen;
  try {
    const kept = localStorage.getItem(STORE);
    return THEMES.includes(kept) ? kept : "system";
  } catch {
    return "system";
  }
}

/** The theme after this one, in the order of the button. */
export function nextTheme() {
  return THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
}

export function setTheme(name) {
  chosen = name;
  try {
    localStorage.setItem(STORE, name);
  } catch {
    // A browser that keeps nothing still shows the theme until the page is left.
  }
  show(name);
}

function show(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}

show(theme());

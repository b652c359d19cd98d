/** Copying text, also where the browser has no clipboard for the page: over plain HTTP from another machine. */

import { t } from "./language.js";

const SHOWN_MS = 2000;

/** Let a button copy the text of an element. The page's texts must have `copy`, `copied` and `notCopied`. */
export function copyOnClick(button, element) {
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(element); // also for whoever has to copy by hand
    const copied = await copyText(element.textContent);
    button.textContent = t(copied ? "copied" : "notCopied");
    setTimeout(() => { button.textContent = t("copy"); }, SHOWN_MS);
  });
}

/** Returns whether the text is in the clipboard now. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyByCommand(text);
  }
}

/** The old way: the browser asks what to copy, whatever is selected. */
function copyByCommand(text) {
  const give = (event) => {
    event.preventDefault();
    event.clipboardData.setData("text/plain", text);
  };
  document.addEventListener("copy", give, { once: true, capture: true });
  const copied = document.execCommand("copy");
  document.removeEventListener("copy", give, { capture: true });
  return copied;
}

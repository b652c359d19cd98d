/** A button that copies the text of an element. */

import { t } from "./language.js";

const SHOWN_MS = 2000;

/** The page's texts must have `copy`, `copied` and `notCopied`. */
export function copyOnClick(button, element) {
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(element); // also for whoever has to copy by hand
    const copied = await write(element.textContent);
    button.textContent = t(copied ? "copied" : "notCopied");
    setTimeout(() => { button.textContent = t("copy"); }, SHOWN_MS);
  });
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return document.execCommand("copy"); // pages over plain HTTP from another machine have no clipboard
  }
}

/** How much of the text before the caret the model can read, and from where. */

import { json } from "./api.js";
import { positionOfCharacter } from "./document.js";
import { byId } from "./elements.js";
import { number, t } from "./language.js";

const PAUSE = 350; // milliseconds without a change before the text is counted

export class Meter {
  #timer = null;
  #abort = null;
  #counted = null; // { text, model, count, window, dropped }

  /** `onDropped(position)` is told where the part that is read begins. */
  constructor(onDropped) {
    this.onDropped = onDropped;
  }

  /** Count a text soon; a newer one takes its place. */
  measure(text, model) {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    if (this.#counted?.text === text && this.#counted.model === model) return;
    this.#timer = setTimeout(() => this.#count(text, model), PAUSE);
  }

  /** Write the figures again, in the page's language. */
  draw() {
    const counted = this.#counted;
    if (counted === null) return;
    const values = { count: number(counted.count), window: number(counted.window), dropped: number(counted.dropped) };
    byId("meter-text").textContent = t(counted.dropped > 0 ? "meterDropped" : "meter", values);
    byId("meter").classList.toggle("over", counted.dropped > 0);
    byId("meter-bar").value = Math.min(counted.count / counted.window, 1);
  }

  async #count(text, model) {
    this.#abort = new AbortController();
    const body = { prompt: text, parse_special: false, return_offsets: true, ...(model === "" ? {} : { model }) };
    try {
      const { count, max_model_len: window, offsets } = await json("tokenize", { body, signal: this.#abort.signal });
      const dropped = Math.max(count - window, 0);
      this.#counted = { text, model, count, window, dropped };
      this.draw();
      this.onDropped(dropped === 0 ? 0 : positionOfCharacter(text, offsets[dropped]));
    } catch (error) {
      // Whoever generates is told what is wrong with the server; a meter that cannot count shows nothing.
      if (error.name !== "AbortError") byId("meter-text").textContent = "";
    }
  }
}

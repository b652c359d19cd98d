/** Three alternatives side by side, growing as they are written; one is taken by click, button or the keys 1, 2, 3. */

import { textOf } from "./document.js";
import { make } from "./elements.js";
import { t } from "./language.js";

export class Alternatives {
  #cards = [];

  /** `onTake(index)` is called with the choice, -1 for none of them. */
  constructor(element, onTake) {
    Object.assign(this, { element, onTake });
  }

  get open() {
    return !this.element.hidden;
  }

  /** Show tries; `first` is the number of the first of them among the tries of their place. */
  show(tries, first) {
    Object.assign(this, { tries, first });
    this.draw();
    this.element.hidden = false;
    this.element.focus({ preventScroll: true });
    this.element.scrollIntoView({ block: "nearest" });
  }

  /** Draw the cards, in the page's language. */
  draw() {
    this.#cards = this.tries.map((one, index) => this.#card(index));
    const none = make("button", { type: "button", className: "quiet" }, t("noneOfThem"));
    none.addEventListener("click", () => this.onTake(-1));
    const header = make("header", {}, make("h2", {}, t("alternatives")), none);
    this.element.setAttribute("aria-label", t("alternatives"));
    this.element.replaceChildren(header, make("div", { className: "alternatives-row" }, ...this.#cards.map(({ card }) => card)));
    this.update();
  }

  update() {
    this.#cards.forEach(({ text, note }, index) => {
      const { runs, figures } = this.tries[index];
      const written = textOf(runs);
      text.textContent = written !== "" ? written : figures === null ? "" : t("alternativeEmpty");
      const reason = figures === null ? null : t(`reason_${figures.reason}`);
      note.textContent = reason === null ? t("alternativeWriting") : t("alternativeFigures", { count: figures.tokens, reason });
    });
  }

  close() {
    this.element.hidden = true;
    this.element.replaceChildren();
    this.#cards = [];
  }

  /** Take by key or by arrow; returns whether the key meant something here. */
  key(name) {
    const chosen = Number(name) - 1;
    if (this.#cards[chosen] !== undefined) {
      this.onTake(chosen);
      return true;
    }
    const step = { ArrowLeft: -1, ArrowRight: 1 }[name];
    if (step === undefined) return false;
    const at = this.#cards.findIndex(({ button }) => button === document.activeElement);
    const next = at < 0 ? (step > 0 ? 0 : this.#cards.length - 1) : (at + step + this.#cards.length) % this.#cards.length;
    this.#cards[next].button.focus();
    return true;
  }

  #card(index) {
    const text = make("p", {});
    const note = make("span", { className: "muted small figures" });
    const button = make("button", { type: "button" }, t("take", { number: index + 1 }));
    const card = make("article", { className: "alternative", "aria-label": t("alternative", { number: index + 1 }) }, make("header", {}, button, note), text);
    card.addEventListener("click", () => {
      const selecting = !getSelection().isCollapsed && card.contains(getSelection().anchorNode);
      if (!selecting) this.onTake(index);
    });
    return { card, text, note, button };
  }
}

/** The line that says what goes on, and the figures below it. Problems stay until they are solved or dismissed. */

import { byId, make } from "./elements.js";
import { number, t } from "./language.js";

/** What is wrong, in the page's language where it knows the error, else in the server's words. */
export function told({ code, message }) {
  const text = t(`error_${code}`);
  return text.startsWith("error_") ? message : text;
}

export class Status {
  #timer = null;
  #shown = ""; // what stands there, so that the same again is not read out again
  #wait = null; // counts down to when a busy server may be asked again
  #problem = null; // { text, actions } while one stands there

  /** Say something that passes; `lasting` stays until the next word. */
  say(text, { busy = false, lasting = false } = {}) {
    this.#show(text, [], { busy });
    if (!lasting && !busy) this.#timer = setTimeout(() => this.clear(), 8000);
  }

  /** What the model wrote, for those who listen. */
  readOut(text) {
    byId("aloud").textContent = text;
  }

  clear() {
    this.#show("", [], {});
  }

  /** Say what is wrong: `text()` tells it, "" once it is over; `actions` are [key of a text, function] and come as buttons. */
  problem(text, actions = []) {
    const buttons = [...actions, ["dismiss", () => this.clear()]].map(([name, action]) => [t(name), action]);
    this.#show(text(), buttons, { problem: true });
    this.#problem = { text, actions };
  }

  /** Draw anew, as in another language: a problem stays, other words go. */
  draw() {
    if (this.#problem === null || this.#problem.text() === "") this.clear();
    else this.problem(this.#problem.text, this.#problem.actions);
  }

  /** A problem that may be over after so many seconds: the button counts down, and works at once. */
  busy(text, seconds, again) {
    this.problem(text, [["tryAgain", again]]);
    const [button] = byId("status").querySelectorAll("button");
    let left = Math.ceil(seconds ?? 0);
    const tick = () => {
      button.textContent = left > 0 ? t("retryIn", { seconds: left }) : t("tryAgain");
      left -= 1;
      if (left < 0) clearInterval(this.#wait);
    };
    tick();
    this.#wait = setInterval(tick, 1000);
  }

  #show(text, actions, { busy = false, problem = false }) {
    clearTimeout(this.#timer);
    clearInterval(this.#wait);
    this.#problem = null;
    const shown = JSON.stringify([text, busy, problem]);
    if (shown === this.#shown && actions.length === 0) return;
    this.#shown = shown;
    const buttons = actions.map(([label, action]) => {
      const button = make("button", { type: "button" }, label);
      button.addEventListener("click", action);
      return button;
    });
    const line = byId("status");
    line.classList.toggle("busy", busy);
    line.classList.toggle("problem", problem);
    line.replaceChildren(...(text === "" ? [] : [make("span", {}, text)]), ...buttons);
  }

  /** The figures of a try, with a button that makes them come again; null clears the line. */
  figures(figures, onReproduce) {
    const line = byId("figures");
    if (figures === null) return line.replaceChildren();
    const { tokens, perSecond, firstTokenSeconds, reason, seed } = figures;
    const parts = [tokens === 1 ? t("figure_token") : t("figure_tokens", { count: number(tokens) })];
    if (perSecond !== null) parts.push(t("figure_speed", { speed: number(perSecond, perSecond < 10 ? 1 : 0) }));
    if (firstTokenSeconds !== null) parts.push(t("figure_first", { seconds: number(firstTokenSeconds, 2) }));
    parts.push(t(`reason_${reason}`), t("figure_seed", { seed }));
    const again = make("button", { type: "button", className: "link", title: t("reproduceLabel") }, t("reproduce"));
    again.addEventListener("click", () => onReproduce(figures));
    return line.replaceChildren(...parts.map((part) => make("span", {}, part)), make("span", {}, again));
  }
}

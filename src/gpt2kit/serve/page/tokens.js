/** What else the model could have written: a popover with a token's alternatives, by pointer, tap or keyboard. */

import { make } from "./elements.js";
import { number, t } from "./language.js";

const HOVER_DELAY = 300; // milliseconds before a popover opens under the pointer
const LEAVE_DELAY = 250; // and before it closes, time to move into it
const SIGNS = { "\n": "↵", "\r": "␍", "\t": "⇥", " ": "␣" };

/** A token's text with its blanks and control characters made visible. */
function visible(text) {
  const bytes = /^bytes:((?:\\x[0-9a-f]{2})+)$/i.exec(text);
  if (bytes) return `⟨${bytes[1].replaceAll("\\x", " ").trim().toUpperCase()}⟩`;
  const shown = text.replace(/[\n\r\t]/g, (sign) => SIGNS[sign]).replace(/^ +| +$/g, (blanks) => SIGNS[" "].repeat(blanks.length));
  return shown.replace(/[\u0000-\u001f\u007f-\u009f]/g, (sign) => `\\x${sign.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

function share(logprob) {
  const percent = 100 * Math.exp(logprob);
  return percent < 0.1 ? t("below") : t("probability", { share: number(percent, 1) });
}

export class Tokens {
  #run = null; // whose popover is open
  #timer = null;
  #walking = false;
  #touched = false; // whether the last pointer was a finger or a pen

  /** `onBranch(run, k, id)` is called to go on with another token in place of the k-th of a run. */
  constructor(popover, editor, { onBranch, onWalk, say }) {
    Object.assign(this, { popover, editor, onBranch, onWalk, say });
    const text = editor.element;
    text.addEventListener("pointerover", (event) => event.pointerType === "mouse" && this.#hover(event));
    text.addEventListener("pointerout", (event) => event.pointerType === "mouse" && this.#later(() => this.close(), LEAVE_DELAY));
    text.addEventListener("pointerdown", ({ pointerType }) => (this.#touched = pointerType !== "mouse"));
    text.addEventListener("mousedown", (event) => this.#beforeTap(event));
    text.addEventListener("click", (event) => this.#tap(event));
    text.addEventListener("keydown", (event) => this.#walkKey(event));
    popover.addEventListener("pointerenter", () => clearTimeout(this.#timer));
    popover.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.#later(() => this.close(), LEAVE_DELAY));
    popover.addEventListener("keydown", (event) => this.#listKey(event));
    document.addEventListener("pointerdown", (event) => {
      if (!popover.contains(event.target) && !event.target.closest?.(".token")) this.close();
    });
    addEventListener("resize", () => this.close());
    addEventListener("scroll", () => this.#run !== null && this.#place(), { passive: true, capture: true });
  }

  get open() {
    return this.#run !== null;
  }

  get walking() {
    return this.#walking;
  }

  /** The text has changed: nothing points at a token that is gone. */
  follow() {
    if (this.#run === null || this.editor.spanOf(this.#run) !== null) return;
    this.#run = null;
    if (this.#walking) this.walk(false);
    else this.close();
  }

  close() {
    clearTimeout(this.#timer);
    this.editor.element.querySelector(".pointed")?.classList.remove("pointed");
    this.#run = null;
    this.popover.hidden = true;
  }

  #later(action, delay) {
    clearTimeout(this.#timer);
    if (this.popover.contains(document.activeElement) || this.#walking) return;
    this.#timer = setTimeout(action, delay);
  }

  #hover(event) {
    const run = this.editor.runOf(event.target);
    if (run === null || event.buttons !== 0) return;
    if (run === this.#run) clearTimeout(this.#timer);
    else this.#later(() => this.show(run), HOVER_DELAY);
  }

  /** A finger's first tap on a token shows its alternatives; only a second one goes there to write, with the keyboard. */
  #beforeTap(event) {
    const run = this.editor.runOf(event.target);
    if (this.#touched && run !== null && run !== this.#run && !this.editor.focused) event.preventDefault();
  }

  #tap(event) {
    const run = this.editor.runOf(event.target);
    if (run === null || (this.editor.focused && !getSelection().isCollapsed)) return;
    if (this.#walking) this.#point(run);
    else if (this.#touched && run === this.#run) this.close();
    else this.show(run);
  }

  show(run) {
    const span = this.editor.spanOf(run);
    if (span === null) return;
    this.close();
    this.#run = run;
    span.classList.add("pointed");
    this.popover.setAttribute("aria-label", t("token", { name: visible(run.text) }));
    this.popover.replaceChildren(...run.tokens.flatMap((token, k) => this.#part(run, token, k)));
    if (run.tokens.length === 0) this.popover.append(make("p", { className: "muted" }, t("noAlternatives")));
    this.popover.hidden = false;
    this.popover.scrollTop = 0;
    this.#place();
  }

  #part(run, token, k) {
    const name = visible(run.text) + (run.tokens.length > 1 ? ` ${t("tokenPart", { number: k + 1, count: run.tokens.length })}` : "");
    const entropy = token.entropy === null ? "" : t("entropy", { value: number(token.entropy, 2) });
    const header = make("div", { className: "head" }, make("h3", {}, t("token", { name })), make("span", { className: "muted figures" }, entropy));
    if (token.top.length === 0) return [header, make("p", { className: "muted" }, t("noAlternatives"))];
    const list = make("ul", {}, ...token.top.map((one) => make("li", {}, this.#alternative(run, k, one, token.id))));
    return [header, list];
  }

  #alternative(run, k, { id, text, logprob }, chosen) {
    const fill = make("i");
    fill.style.setProperty("--share", String(Math.exp(logprob)));
    const name = visible(text) === "" ? "∅" : visible(text);
    const row = make("button", { type: "button" },
      make("span", { className: "name" }, name), " ",
      make("span", { className: "bar", "aria-hidden": "true" }, fill), " ",
      make("span", { className: "share" }, share(logprob)));
    if (id === chosen) row.setAttribute("aria-current", "true");
    row.setAttribute("aria-label", t(id === chosen ? "tokenChosen" : "branch", { name, share: share(logprob) }));
    row.addEventListener("click", () => {
      this.close();
      if (id !== chosen) this.onBranch(run, k, id);
    });
    return row;
  }

  /** Below the token if there is room, else above it, always inside the window. */
  #place() {
    const span = this.editor.spanOf(this.#run);
    if (span === null) return this.close();
    const token = span.getClientRects()[0] ?? span.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.popover;
    const left = Math.max(8, Math.min(token.left - 16, document.documentElement.clientWidth - width - 8));
    const below = token.bottom + 6;
    const top = below + height < innerHeight - 8 ? below : Math.max(8, token.top - height - 6);
    this.popover.style.setProperty("left", `${left}px`);
    this.popover.style.setProperty("top", `${top}px`);
  }

  // ---- by keyboard: the text is not editable while its tokens are walked through ----

  walk(on) {
    if (on === this.#walking) return;
    const spans = this.#spans();
    if (on && spans.length === 0) {
      this.say(t("noTokens"));
      return;
    }
    const last = this.#run;
    this.close();
    this.#walking = on;
    this.editor.setEditable(!on);
    this.editor.element.classList.toggle("walking", on);
    this.onWalk(on);
    if (on) {
      this.say(t("tokensOn"));
      this.#point(this.editor.runOf(this.#nearest(spans)));
      return;
    }
    for (const span of spans) for (const name of ["tabindex", "role", "aria-label"]) span.removeAttribute(name);
    this.editor.focus();
    if (last !== null) this.editor.setCaret(this.editor.positionOf(last));
  }

  #spans() {
    return [...this.editor.element.querySelectorAll(".token")];
  }

  /** The last token that begins before the caret. */
  #nearest(spans) {
    const caret = this.editor.selection.start;
    return spans.findLast((span) => this.editor.positionOf(this.editor.runOf(span)) < caret) ?? spans[0];
  }

  #point(run) {
    const span = this.editor.spanOf(run);
    span.tabIndex = -1;
    span.setAttribute("role", "button");
    span.setAttribute("aria-label", t("token", { name: visible(run.text) }));
    span.focus({ preventScroll: true });
    span.scrollIntoView({ block: "nearest" });
    this.show(run);
  }

  #walkKey(event) {
    if (!this.#walking || event.ctrlKey || event.metaKey || event.altKey) return;
    const spans = this.#spans();
    const at = spans.indexOf(this.editor.spanOf(this.#run));
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: spans.length - 1 }[event.key];
    if (to !== undefined) this.#point(this.editor.runOf(spans[Math.max(0, Math.min(to, spans.length - 1))]));
    else if (["ArrowDown", "Enter", " "].includes(event.key)) this.popover.querySelector("button")?.focus();
    else return;
    event.preventDefault();
  }

  #listKey(event) {
    const rows = [...this.popover.querySelectorAll("li button")];
    const at = rows.indexOf(document.activeElement);
    const to = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (to < 0 && this.#walking) this.editor.spanOf(this.#run)?.focus();
    else rows[Math.max(0, Math.min(to, rows.length - 1))]?.focus();
  }

  /** Escape: from the alternatives to the token, from the token to the text. Returns whether there was a way out. */
  leave() {
    if (this.#walking && this.popover.contains(document.activeElement)) this.editor.spanOf(this.#run)?.focus();
    else if (this.#walking) this.walk(false);
    else if (this.open) this.close();
    else return false;
    return true;
  }
}

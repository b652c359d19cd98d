/** What the buttons do to the text: generate, stop, try again, turn to another try, branch, take, undo. */

import { lengthOf, promptOf, slice, textOf, writtenBy } from "./document.js";
import { scrollerOf } from "./editor.js";
import { emptyTry, generate, requestFor } from "./generation.js";
import { t } from "./language.js";
import { freshSeed, samplingOf } from "./sampling.js";
import { told } from "./status.js";
import { Writing } from "./writing.js";

const NEAR_END = 120; // pixels; who reads this close to the end is taken along as the text grows

const HAS_KEYS = matchMedia("(hover: hover) and (min-width: 40rem)"); // most likely a keyboard

export class Writer {
  #running = null; // { abort, place, first, count, reason }
  #frame = null;

  /** `model()` names the model; `onChange` is called after every change, `onRefused(error)` asks for what is missing,
   * `onWritten` hears that a model has answered. */
  constructor({ status, settings, model, onChange, onRefused, onWritten }) {
    Object.assign(this, { status, settings, model, onChange, onRefused, onWritten });
    this.writing = new Writing();
  }

  /** The editor and the panel of alternatives call the writer, so they come after it. */
  show(editor, alternatives) {
    Object.assign(this, { editor, alternatives });
  }

  get running() {
    return this.#running !== null;
  }

  get runs() {
    return this.writing.now.runs;
  }

  /** The text around the caret: what the model would read, and what would stay behind it. */
  around() {
    const caret = this.editor.selection.end;
    return { before: slice(this.runs, 0, caret), after: slice(this.runs, caret) };
  }

  /** The text before the newest generation, or all of it: what a link carries. */
  get prompt() {
    const { place, runs } = this.writing.now;
    return textOf(place === null ? runs : place.before);
  }

  open(runs) {
    this.stop();
    this.alternatives.close();
    this.writing = new Writing(runs);
    this.status.figures(null);
    this.draw(this.writing.now.caret);
  }

  // ---- the user writes ----

  edit(edit, caret) {
    this.#interrupt();
    this.writing.edit(edit, caret, performance.now());
    this.status.figures(null);
    this.draw(caret);
  }

  /** Typing ends a generation, since what it goes on from has changed. */
  #interrupt() {
    if (this.#running !== null) this.stop("stoppedByEdit");
    this.alternatives.close();
  }

  travel(step) {
    const nothing = this.running && !this.stop(); // a generation that wrote nothing is gone with that
    this.alternatives.close();
    if (nothing || !this.writing.travel(step)) return;
    this.drawFigures();
    this.draw(this.writing.now.caret);
  }

  // ---- the model writes ----

  generate() {
    if (this.#running !== null) return;
    const around = this.around();
    const { before, forcedIds } = promptOf(around.before, this.model());
    this.#write(this.writing.placeAt(before, around.after), forcedIds, this.settings.values.count);
  }

  /** Another try where the model wrote last. */
  retry() {
    const { place, current } = this.writing.now;
    if (place === null) return this.generate();
    const shown = place.tries[current];
    const { forcedIds } = shown?.model === this.model() ? shown : promptOf(place.before, this.model());
    this.stop();
    const { count, locked } = this.settings.values;
    const whole = ({ figures }) => ["length", "stop"].includes(figures?.reason);
    const same = locked ? place.tries.findIndex((one) => whole(one) && one.request === this.#mark(forcedIds, count)) : -1;
    if (same < 0) return this.#write(place, forcedIds, count);
    this.turnTo(same);
    return this.status.say(t("sameAgain"), { lasting: true });
  }

  /** Go on with another token in place of the k-th of a run; what stood there and behind it stays as a try. */
  branch(run, k, id) {
    if (!writtenBy(run, this.model())) return this.status.say(t("otherModel", { name: run.model }), { lasting: true });
    this.stop();
    this.alternatives.close();
    const { runs, place } = this.writing.now;
    const at = runs.indexOf(run);
    if (at < 0) return undefined;
    const inTry = place !== null && place.tries.some((one) => one.runs.includes(run));
    const after = inTry ? place.after : [];
    const { before, forcedIds } = promptOf(runs.slice(0, at), this.model());
    const removed = slice(runs, lengthOf(before), lengthOf(runs) - lengthOf(after));
    const here = this.writing.placeAt(before, after);
    const old = { ...emptyTry(forcedIds, run.model), runs: removed };
    if (!here.tries.some((one) => textOf(one.runs) === textOf(removed))) here.tries.push(old);
    return this.#write(here, [...forcedIds, ...run.tokens.slice(0, k).map((token) => token.id), id], 1);
  }

  /** Returns whether a generation was running that had written something. */
  stop(reason = "stoppedByYou") {
    if (this.#running === null) return false;
    const { abort, place, first, count } = this.#running;
    this.#running = null;
    abort.abort();
    const wrote = this.#settle(place, first, count, reason !== "stoppedByEdit");
    this.status.say(t(reason));
    return wrote;
  }

  turn(step) {
    const { place, current } = this.writing.now;
    if (place === null) return;
    const to = current < 0 && step < 0 ? place.tries.length - 1 : current + step;
    if (to >= 0 && to < place.tries.length) this.turnTo(to);
  }

  turnTo(index) {
    this.alternatives.close();
    this.writing.turn(this.writing.now.place, index);
    this.drawFigures();
    this.draw(this.writing.now.caret);
    this.editor.reveal(lengthOf(this.writing.now.place.before));
  }

  /** One of the alternatives is chosen, -1 for none; all of them stay as tries. */
  take(index) {
    const { place } = this.writing.now;
    const first = this.alternatives.first;
    this.alternatives.close();
    if (index < 0) this.stop();
    else if (place !== null) this.turnTo(first + index);
    this.editor.focus();
    if (this.#running === null) this.status.clear();
    this.draw();
  }

  // ---- one generation ----

  async #write(place, forcedIds, count, again = null) {
    const wrong = this.settings.wrong;
    if (wrong !== null) return this.onRefused({ field: wrong });
    const { values } = this.settings;
    const model = this.model();
    const seed = again ?? (values.locked && values.seed !== null ? values.seed : freshSeed());
    if (seed !== values.seed) this.settings.set({ seed });
    const tries = Array.from({ length: count }, () => ({ ...emptyTry(forcedIds, model), request: this.#mark(forcedIds, count) }));
    const first = place.tries.push(...tries) - count;
    const running = { abort: new AbortController(), place, first, count };
    this.#running = running;
    this.alternatives.close();
    this.writing.show(place, count === 1 ? first : -1);
    if (count > 1) this.alternatives.show(tries, first);
    this.status.figures(null);
    this.status.say(t("waiting"), { busy: true });
    this.draw(this.writing.now.caret);

    const request = requestFor({ prompt: textOf(place.before), forcedIds, model, sampling: samplingOf(values), count, seed });
    const listeners = { signal: running.abort.signal, onWait: (...what) => this.#waits(running, ...what), onText: () => this.#grown(running) };
    let problem = null;
    try {
      await generate(request, tries, listeners);
    } catch (error) {
      problem = error.name === "AbortError" ? null : error;
    }
    if (this.#running !== running) return this.#late(place); // stopped: what is left was said there
    this.#running = null;
    const wrote = this.#settle(place, first, count);
    const retry = () => this.#write(place, model === this.model() ? forcedIds : [], count, seed);
    if (problem !== null) return this.#failed(problem, wrote, retry);
    this.onWritten();
    if (!wrote) return this.status.say(t("nothingWritten"), { lasting: true });
    if (!this.alternatives.open) this.status.readOut(textOf(tries[0].runs));
    if (this.alternatives.open) return this.status.say(t(HAS_KEYS.matches ? "chooseByKey" : "chooseOne"), { lasting: true });
    return this.status.say(t("done"));
  }

  /** What makes one try of a place like another. */
  #mark(forcedIds, count) {
    const { values } = this.settings;
    return JSON.stringify([this.model(), samplingOf(values), values.seed, count, forcedIds]);
  }

  #waits(running, what, detail) {
    if (this.#running !== running) return;
    const texts = { starting: () => t("starting"), loading: () => t("loadingModel", { name: detail }) };
    const queued = () => (Number(detail) > 0 ? t("queued", { count: detail }) : t("queuedNext"));
    this.status.say((texts[what] ?? queued)(), { busy: true });
  }

  /** Draw what has grown, at most once a frame. */
  #grown(running) {
    if (this.#running !== running || this.#frame !== null) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = null;
      if (this.#running !== running) return;
      this.status.say(t("writing"), { busy: true });
      this.#drawTries(running.place);
    });
  }

  #drawTries(place) {
    const { now } = this.writing;
    if (this.alternatives.open) this.alternatives.update();
    if (now.place !== place || now.current < 0) return;
    const { start, end } = this.editor.selection;
    const follows = start === end && end === now.caret;
    const behind = lengthOf(now.runs) - lengthOf(place.after);
    const scroller = scrollerOf(this.editor.element);
    const below = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    this.writing.turn(place, now.current);
    const grown = lengthOf(this.runs) - lengthOf(now.runs);
    if (follows) this.draw(this.writing.now.caret);
    else this.draw(start >= behind ? start + grown : null, start >= behind ? end + grown : null);
    if (below < NEAR_END) scroller.scrollTop = scroller.scrollHeight;
  }

  /** The generation is over: draw the rest, unless an edit refers to what is drawn; tries without a text go.
   * Returns whether anything was written. */
  #settle(place, first, count, drawsRest = true) {
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    const fresh = place.tries.slice(first, first + count);
    const wrote = fresh.some((one) => one.runs.length > 0);
    if (wrote && drawsRest) this.#drawTries(place);
    if (!wrote) {
      place.tries.splice(first, count);
      this.alternatives.close();
      if (this.writing.now.place === place) drawsRest ? this.writing.forget() : this.writing.turn(place, -1);
    }
    this.drawFigures();
    this.draw(wrote ? null : this.writing.now.caret);
    return wrote;
  }

  /** The figures of a try that was stopped come when its stream has ended. */
  #late(place) {
    if (this.writing.now.place === place && this.#running === null) this.drawFigures();
    if (this.alternatives.open) this.alternatives.update();
  }

  drawFigures() {
    const { place, current } = this.writing.now;
    const figures = place?.tries[current]?.figures ?? null;
    this.status.figures(figures, () => this.#reproduce(figures));
  }

  #reproduce({ seed, count }) {
    this.settings.set({ seed, count, locked: true });
    this.status.say(t("reproduced", { seed }), { lasting: true });
  }

  #failed(error, wrote, retry) {
    const again = ["tryAgain", retry];
    if (error.status === 401) return this.onRefused({ error, retry });
    if (error.status === 429 || error.status === 503) return this.status.busy(() => told(error), error.retryAfter, retry);
    if (error.code === "connection_lost") return this.status.problem(() => (wrote ? t("cutOff") : told(error)), [again]);
    const shown = error.param !== null && this.settings.refuse(error.param, error.message);
    if (shown) this.onRefused({ error, field: error.param });
    return this.status.problem(() => told(error), error.status >= 500 ? [again] : []);
  }

  /** Show the text as it is; with a caret, put it there. */
  draw(caret = null, end = caret) {
    this.editor.draw(this.runs);
    if (caret !== null) this.editor.setCaret(caret, end);
    this.onChange();
  }
}

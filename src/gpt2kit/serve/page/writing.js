/** What is being written: the runs, where the model last wrote and its tries there, and the way back. No page, no server.
 *
 * A place is { before, after, tries }: the runs around it and what the model wrote there, one try after another. A try is
 * { runs, figures, forcedIds, model }; its runs grow while it is written. Places are shared by the states that undo goes through, so a try
 * stays reachable after an undo. A state is { runs, caret, place, current }; current is -1 where no try is shown.
 */

import { joined, lengthOf, replaced, textOf } from "./document.js";

const TYPING_PAUSE = 1500; // milliseconds; typing without a longer pause is undone at once
const MOST_STATES = 500;
const MOST_PLACES = 50;

export class Writing {
  #past = [];
  #future = [];
  #undone = []; // the future before the newest `show`
  #places = [];
  #lastEdit = null; // { at, time, kind } of the newest edit

  constructor(runs = []) {
    this.now = { runs, caret: lengthOf(runs), place: null, current: -1 };
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  /** The user's edit. Keystrokes that follow each other are one step back. */
  edit({ start, end, text }, caret, time) {
    const kind = text === "" ? "delete" : "insert";
    const last = this.#lastEdit;
    const goesOn = last !== null && last.kind === kind && time - last.time < TYPING_PAUSE && [start, end].includes(last.at);
    if (!goesOn || text.includes("\n") || text.length > 20) this.#remember();
    this.#future = [];
    this.now = { runs: replaced(this.now.runs, start, end, text), caret, place: null, current: -1 };
    this.#lastEdit = { at: caret, time, kind };
  }

  /** Make a place between two lists of runs; one with the same text around it is found again, with its tries. */
  placeAt(before, after, tries = []) {
    const alike = (place) => textOf(place.before) === textOf(before) && textOf(place.after) === textOf(after);
    const known = this.#places.find(alike);
    if (known !== undefined) return Object.assign(known, { before, after });
    const place = { before, after, tries };
    this.#places = [...this.#places.slice(1 - MOST_PLACES), place];
    return place;
  }

  /** Show a place with one of its tries, -1 for none, as a new step. */
  show(place, current) {
    this.#remember();
    this.#undone = this.#future;
    this.#future = [];
    this.turn(place, current);
  }

  /** Show another try of the place, or the same one grown, without a step of its own. */
  turn(place, current) {
    const written = place.tries[current]?.runs ?? [];
    const caret = lengthOf(place.before) + lengthOf(written);
    this.now = { runs: joined([...place.before, ...written, ...place.after]), caret, place, current };
    this.#lastEdit = null;
  }

  /** Go one step back (-1) or forth (1), past steps that look the same. Returns whether there was one. */
  travel(step) {
    const [from, to] = step < 0 ? [this.#past, this.#future] : [this.#future, this.#past];
    const shown = textOf(this.now.runs);
    let state = this.now;
    while (from.length > 0 && textOf(state.runs) === shown) {
      to.push(state);
      state = from.pop();
    }
    if (state === this.now) return false;
    this.now = state;
    this.#lastEdit = null;
    return true;
  }

  /** Take the newest step back for good, as after a generation that wrote nothing. */
  forget() {
    this.now = this.#past.pop() ?? this.now;
    this.#future = this.#undone;
  }

  #remember() {
    this.#past.push(this.now);
    if (this.#past.length > MOST_STATES) this.#past.shift();
    this.#lastEdit = null;
  }
}

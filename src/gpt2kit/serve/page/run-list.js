/** The table of runs, one row each: what to show is ticked in it. Rows stay the same elements while figures change. */

import { make } from "./elements.js";
import { age, count, loss, size } from "./figures.js";
import { t } from "./language.js";

const COLUMNS = ["step", "loss", "validationLoss", "bestStep", "size", "saved"];

export class RunList {
  constructor(body, onChoose) {
    this.body = body;
    this.onChoose = onChoose; // called with a name and whether it is ticked
    this.rows = new Map();
  }

  /** `chosen` is the set of names that are ticked. */
  show(runs, chosen) {
    const names = new Set(runs.map(({ name }) => name));
    for (const [name, row] of this.rows) {
      if (!names.has(name)) {
        row.element.remove();
        this.rows.delete(name);
      }
    }
    runs.forEach((run, place) => {
      const row = this.rows.get(run.name) ?? this.#add(run.name);
      if (this.body.children[place] !== row.element) this.body.insertBefore(row.element, this.body.children[place] ?? null);
      this.#fill(row, run, chosen.has(run.name));
    });
  }

  #add(name) {
    const element = make("tr", { role: "row" });
    const box = make("input", { type: "checkbox" });
    box.addEventListener("change", () => this.onChoose(name, box.checked));
    const shown = make("td", { role: "cell", class: "shown" }, make("label", { class: "tick" }, box));
    const [title, badge, notes] = [make("span"), make("span", { class: "badge" }), make("ul", { class: "notes" })];
    const heading = make("th", { role: "rowheader", scope: "row", class: "run-name" }, title, " ", badge, notes);
    const cells = Object.fromEntries(COLUMNS.map((key) => [key, make("td", { role: "cell", class: "number figures" })]));
    element.append(shown, heading, ...Object.values(cells));
    element.addEventListener("click", ({ target }) => {
      if (!target.closest("label, input, ul") && !getSelection().toString()) box.click();
    });
    const row = { element, box, title, badge, notes, cells };
    this.rows.set(name, row);
    return row;
  }

  #fill(row, run, ticked) {
    row.box.checked = ticked;
    row.box.setAttribute("aria-label", t("showRun", { name: run.name }));
    say(row.title, run.name);
    say(row.badge, run.training ? t("training") : "");
    row.badge.hidden = !run.training;
    if (row.notes.dataset.told !== run.notes.join("\n")) {
      row.notes.dataset.told = run.notes.join("\n");
      row.notes.replaceChildren(...run.notes.map((note) => make("li", {}, note)));
    }
    row.notes.hidden = !run.notes.length;
    const step = run.steps ? t("stepOf", { step: count(run.step ?? 0), steps: count(run.steps) }) : count(run.step);
    const saved = run.saved === null ? t("never") : age(Date.now() / 1000 - run.saved) ?? t("now");
    const texts = {
      step,
      loss: loss(run.loss),
      validationLoss: loss(run.validation_loss),
      bestStep: count(run.best_step),
      size: size(run.size_bytes),
      saved,
    };
    for (const [key, text] of Object.entries(texts)) {
      say(row.cells[key], text);
      row.cells[key].dataset.label = t(key); // a phone shows it beside the figure
    }
  }
}

/** Write only what is new, so that a selection and a screen reader's place stay. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

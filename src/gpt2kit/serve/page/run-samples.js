/** What a run wrote on its way: a slider over the steps. It stays at the newest sample while that is looked at. */

import { byId, make } from "./elements.js";
import { count } from "./figures.js";
import { t } from "./language.js";
import { say } from "./run-list.js";

const ONLY_SAMPLE = /^======== SAMPLE 1 ========\n(?![^]*\n======== SAMPLE 2 ========)/;

export class Samples {
  constructor() {
    this.runs = [];
    this.chosen = null; // the name of the run
    this.step = null; // null: the newest, also when a newer one comes
    byId("sample-run").addEventListener("change", ({ target }) => this.#choose(target.value));
    byId("sample-place").addEventListener("input", ({ target }) => this.#go(Number(target.value)));
    byId("older").addEventListener("click", () => this.#go(this.place - 1));
    byId("newer").addEventListener("click", () => this.#go(this.place + 1));
  }

  /** `runs` are details of runs; the samples of one of them are shown. */
  show(runs) {
    this.runs = runs;
    const names = runs.map(({ name }) => name);
    if (!names.includes(this.chosen)) [this.chosen, this.step] = [names[0] ?? null, null];
    const menu = byId("sample-run");
    if ([...menu.options].map(({ value }) => value).join("\n") !== names.join("\n")) {
      menu.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    }
    menu.value = this.chosen ?? "";
    this.#render();
  }

  #choose(name) {
    [this.chosen, this.step] = [name, null];
    this.#render();
  }

  #go(place) {
    const { step } = this.samples[place];
    this.step = place === this.samples.length - 1 ? null : step;
    this.#render();
  }

  #render() {
    const run = this.runs.find(({ name }) => name === this.chosen);
    byId("samples").hidden = !run;
    this.samples = [...(run?.samples ?? [])].reverse();
    const some = this.samples.length > 0;
    [byId("no-samples").hidden, byId("sample").hidden] = [some, !some];
    if (!some) return;
    const kept = this.samples.findIndex(({ step }) => step === this.step);
    this.place = kept === -1 ? this.samples.length - 1 : kept;
    const { step, text } = this.samples[this.place];
    const slider = byId("sample-place");
    slider.max = this.samples.length - 1;
    slider.value = this.place;
    const title = t("sampleStep", { step: count(step) });
    slider.setAttribute("aria-valuetext", title);
    byId("older").disabled = this.place === 0;
    byId("newer").disabled = this.place === this.samples.length - 1;
    say(byId("sample-step"), title);
    say(byId("sample-text"), text.replace(ONLY_SAMPLE, "").trim() || t("sampleEmpty"));
  }
}

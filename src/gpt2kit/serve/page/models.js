/** The menu of the models that are served. */

import { json } from "./api.js";
import { make } from "./elements.js";
import { number, t } from "./language.js";

const STORE = "gpt2kit.model";

export class Models {
  #models = [];
  #wanted = "";

  constructor(select, note, onChange) {
    Object.assign(this, { select, note });
    try {
      this.#wanted = localStorage.getItem(STORE) ?? "";
    } catch {
      // The server's first model is chosen.
    }
    select.addEventListener("change", () => {
      this.want(select.value);
      onChange();
    });
  }

  /** Whether the server has told its models. */
  get known() {
    return this.#models.length > 0;
  }

  get chosen() {
    return this.select.value;
  }

  /** Choose a model, now or when the server has told that it has it. */
  want(name) {
    this.#wanted = name;
    try {
      localStorage.setItem(STORE, name);
    } catch {
      // The choice holds until the page is left.
    }
    this.draw();
  }

  async load() {
    this.#models = (await json("v1/models")).data;
    this.draw();
  }

  /** A model has answered: ask anew which are in memory, where the menu says otherwise. */
  async refresh() {
    const model = this.#models.find(({ id }) => id === this.chosen);
    if (model?.loaded === false) await this.load().catch(() => {});
  }

  draw() {
    const options = this.#models.map(({ id, loaded }) => make("option", { value: id }, loaded === false ? t("modelNotLoaded", { name: id }) : id));
    const before = this.chosen;
    this.select.replaceChildren(...options);
    const wanted = [this.#wanted, before].find((name) => this.#models.some(({ id }) => id === name));
    if (wanted !== undefined) this.select.value = wanted;
    const model = this.#models.find(({ id }) => id === this.chosen);
    this.note.textContent = model === undefined ? "" : describe(model);
  }
}

function describe({ parameters, max_model_len: window, loaded }) {
  const short = parameters >= 1e9 ? `${number(parameters / 1e9, 1)}B` : parameters >= 1e6 ? `${number(parameters / 1e6)}M` : number(parameters ?? 0);
  const size = t("parameters", { count: short });
  const note = t("modelNote", { parameters: size, window: number(window) });
  return loaded === false ? t("modelUnloaded", { note }) : note;
}

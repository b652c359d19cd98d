/** The dialog of the documents that are kept: open, delete, export, import. */

import { textOf } from "./document.js";
import { byId, make } from "./elements.js";
import { bring, entryOf, list, readEntry, remove } from "./history.js";
import { language, t } from "./language.js";

export class Library {
  /** `current()` gives { id, runs, model }; `onOpen(id)` and `onImport(entry)` change what is open. */
  constructor({ current, onOpen, onImport, onDelete }) {
    Object.assign(this, { current, onOpen, onImport, onDelete });
    this.dialog = byId("history-panel");
    byId("export-text").addEventListener("click", () => this.#export("txt"));
    byId("export-json").addEventListener("click", () => this.#export("json"));
    byId("import").addEventListener("click", () => byId("import-file").click());
    byId("import-file").addEventListener("change", (event) => this.#import(event.target));
  }

  open() {
    this.#problem("");
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
  }

  draw() {
    const kept = list();
    const rows = kept.map((entry) => this.#row(entry));
    if (rows.length === 0) rows.push(make("li", { className: "muted" }, t("historyEmpty")));
    byId("history-list").replaceChildren(...rows);
  }

  #row({ id, name, saved }) {
    const shown = name === "" ? t("historyUnnamed") : name;
    const when = new Intl.DateTimeFormat(language(), { dateStyle: "medium", timeStyle: "short" }).format(saved);
    const note = id === this.current().id ? `${when} · ${t("historyCurrent")}` : when;
    const open = make("button", { type: "button", className: "open", "aria-label": t("historyOpen", { name: `${shown} ${note}` }) },
      make("span", { className: "name" }, shown), make("span", { className: "muted small" }, note));
    open.addEventListener("click", () => {
      this.dialog.close();
      this.onOpen(id);
    });
    const gone = make("button", { type: "button", className: "quiet", "aria-label": t("historyDeleteLabel", { name: shown }) }, t("historyDelete"));
    const row = make("li", {}, open, gone);
    gone.addEventListener("click", () => this.#delete(id, row));
    return row;
  }

  /** Deleting asks nothing and can be taken back while the dialog is open. */
  #delete(id, row) {
    const entry = remove(id);
    this.onDelete(id);
    const back = make("button", { type: "button", className: "link" }, t("restore"));
    back.addEventListener("click", () => {
      try {
        bring(id, entry);
        this.draw();
      } catch {
        this.#problem(t("storageFull"));
      }
    });
    row.replaceChildren(make("span", { className: "muted" }, t("historyDeleted")), back);
    back.focus();
  }

  #export(kind) {
    const { runs, model } = this.current();
    const entry = entryOf(runs, model, Date.now());
    const content = kind === "txt" ? textOf(runs) : `${JSON.stringify(entry, null, 1)}\n`;
    const type = kind === "txt" ? "text/plain;charset=utf-8" : "application/json";
    const url = URL.createObjectURL(new Blob([content], { type }));
    make("a", { href: url, download: `${fileNameOf(entry.name)}.${kind}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  async #import(input) {
    const [file] = input.files;
    if (file === undefined) return;
    try {
      const entry = readEntry(await file.text());
      this.dialog.close();
      this.onImport(entry);
    } catch (error) {
      this.#problem(t("importFailed", { name: file.name, problem: error.message }));
    }
    input.value = "";
  }

  #problem(message) {
    byId("history-problem").textContent = message;
    byId("history-problem").hidden = message === "";
  }
}

/** What every system takes as the name of a file: no special signs, no blanks in a row, no full stop at an end. */
function fileNameOf(name) {
  const plain = name.replace(/[\s\\/:*?"<>|\u0000-\u001f]+/g, " ");
  return plain.replace(/^[\s.]+|[\s\p{P}]+$/gu, "") || "gpt2kit";
}

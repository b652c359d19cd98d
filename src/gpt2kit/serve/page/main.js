/** The page for writing, put together. */

import { Alternatives } from "./alternatives.js";
import { json, keepKey, key, untilReady } from "./api.js";
import { copyText } from "./clipboard.js";
import { userRun, textOf } from "./document.js";
import { Editor } from "./editor.js";
import { byId } from "./elements.js";
import * as kept from "./history.js";
import { listenToKeys, listShortcuts } from "./keys.js";
import { t } from "./language.js";
import { Library } from "./library.js";
import { Meter } from "./meter.js";
import { Models } from "./models.js";
import { readHash, linkHash, soundSettings } from "./sampling.js";
import { SettingsPanel } from "./settings.js";
import { startHeader } from "./site-header.js";
import { Status, told } from "./status.js";
import { STRINGS } from "./strings.js";
import { Tokens } from "./tokens.js";
import { Writer } from "./writer.js";

const SAVE_PAUSE = 500; // milliseconds
const WIDE = matchMedia("(min-width: 62rem)");

byId("workbench").hidden = false;

const status = new Status();
const settings = new SettingsPanel(byId("settings-form"), () => drawButtons());
const models = new Models(byId("model"), byId("model-note"), () => changed());
const writer = new Writer({
  status,
  settings,
  model: () => models.chosen,
  onChange: () => changed(),
  onRefused: refused,
  onWritten: () => {
    models.refresh();
    keepAgain();
  },
});
const editor = new Editor(byId("document"), {
  onEdit: (edit, caret) => {
    tokens.close();
    writer.edit(edit, caret);
  },
  onHistory: (step) => writer.travel(step),
  onCaret: () => moved(),
  onCompose: () => writer.stop("stoppedByEdit"),
});
const alternatives = new Alternatives(byId("alternatives"), (index) => writer.take(index));
writer.show(editor, alternatives);
const tokens = new Tokens(byId("popover"), editor, {
  onBranch: (run, k, id) => {
    tokens.walk(false);
    writer.branch(run, k, id);
  },
  onWalk: (on) => byId("tokens").setAttribute("aria-pressed", String(on)),
  say: (text) => status.say(text, { lasting: true }),
});
const meter = new Meter((dropped) => editor.draw(writer.runs, dropped));
const library = new Library({
  current: () => ({ id: open.id, runs: writer.runs, model: models.chosen }),
  onOpen: (id) => openKept(id),
  onImport: (entry) => {
    writer.stop();
    status.say(t("imported"));
    openNew(entry.runs);
  },
  onDelete: (id) => {
    if (id !== open.id) return;
    open.saved = writer.runs; // or leaving the document would keep it again
    openNew([]);
  },
});

/** The document that is open. `saved` are the runs as they were kept last. */
const open = { id: kept.freshId(), saved: [], timer: null, foreign: false, state: "kept" };

// ---- what is shown follows what is written ----

function changed() {
  tokens.follow();
  moved();
  if (open.saved !== writer.runs) open.timer ??= setTimeout(save, SAVE_PAUSE);
}

function moved() {
  drawButtons();
  if (models.known && !writer.running) meter.measure(textOf(writer.around().before), models.chosen);
}

function drawButtons() {
  const { writing, running } = writer;
  const { place, current } = writing.now;
  const inside = textOf(writer.around().after) !== "";
  byId("go-label").textContent = t(running ? "stop" : inside ? "generateHere" : "generate");
  byId("go").classList.toggle("stop", running);
  const count = place?.tries.length ?? 0;
  const label = current < 0 ? t("tryNone", { count }) : t("tryLabel", { current: current + 1, count });
  byId("try-label").textContent = count > 1 ? label : "";
  byId("try-previous").disabled = count === 0 || current === 0 || (count === 1 && current < 0);
  byId("try-next").disabled = count === 0 || current >= count - 1;
  byId("retry").disabled = place === null;
  byId("undo").disabled = !writing.canUndo;
  byId("redo").disabled = !writing.canRedo;
  for (const button of byId("count").children) button.setAttribute("aria-pressed", String(Number(button.value) === settings.values.count));
}

// ---- keeping ----

function save() {
  clearTimeout(open.timer);
  open.timer = null;
  const { runs } = writer;
  if (open.saved === runs) return;
  if (open.foreign) {
    Object.assign(open, { id: kept.freshId(), foreign: false });
    status.say(t("otherTab"), { lasting: true });
  }
  const state = kept.keep(open.id, runs, models.chosen, Date.now());
  open.saved = runs;
  if (writer.running) return; // its words would cover ours; it is kept again at the end
  if (state !== open.state && state !== "kept") {
    const said = { thin: "storageThin", full: "storageFull", closed: "storageClosed" }[state];
    status.problem(() => t(said), [["history", () => library.open()]]);
  }
  open.state = state;
}

/** The model's words have covered what was said of the storage: it is said once more. */
function keepAgain() {
  Object.assign(open, { saved: [], state: "kept" });
  open.timer ??= setTimeout(save, SAVE_PAUSE);
}

function openNew(runs) {
  writer.stop();
  save();
  Object.assign(open, { id: kept.freshId(), saved: [], foreign: false, state: "kept" });
  kept.remember(open.id);
  writer.open(runs);
  save();
}

function openKept(id) {
  writer.stop();
  save();
  const entry = kept.load(id);
  if (entry === null) return;
  Object.assign(open, { id, saved: entry.runs, foreign: false });
  kept.remember(id);
  writer.open(entry.runs);
  open.saved = writer.runs;
}

/** A link's prompt and settings become a new document; otherwise what was open, or the newest, is opened. */
function openFirst() {
  const link = readHash(location.hash);
  if (link === null) {
    const id = kept.remembered() ?? kept.list()[0]?.id;
    if (id !== undefined && kept.load(id) !== null) openKept(id);
    return;
  }
  const [values, refusedNames] = soundSettings({ stop: "", locked: false, ...link.found }, settings.values);
  settings.set({ ...values, locked: values.locked && values.seed !== null });
  if (link.model !== "") models.want(link.model);
  history.replaceState(null, "", location.pathname + location.search);
  writer.stop();
  status.say(t(refusedNames.length > 0 ? "linkRefused" : "linkOpened", { names: refusedNames.join(", ") }), { lasting: true });
  openNew(link.prompt === "" ? [] : [userRun(link.prompt)]);
}

// ---- the server asks for something first ----

let halted; // what goes on once there is a key

function refused({ error, field, retry }) {
  if (error?.status === 401) {
    const wanted = key() === "" ? "keyNeeded" : "keyWrong";
    halted = retry ?? halted;
    status.problem(() => t(wanted));
    byId("key-form").hidden = false;
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      byId("key-form").hidden = true;
      status.clear();
      if (!keepKey(byId("key").value.trim(), byId("key-remember").checked)) status.say(t("keyUnkept"), { lasting: true });
      byId("key").value = "";
      connect();
      halted?.();
      halted = undefined;
    };
    // Whoever is typing, and has asked for nothing yet, types on.
    if (retry !== undefined || !editor.focused) byId("key").focus();
    return;
  }
  if (field === undefined) return;
  showSettings(true);
  if (error === undefined) {
    status.problem(() => (settings.wrong === null ? "" : t("wrongSettings")));
    byId(field).focus();
  }
}

/** Ask what the server serves, and wait while it starts. */
async function connect() {
  try {
    await models.load().catch(unlessLoading);
    await ((await ready()) ? models.load() : models.refresh());
    const { limits } = await json("info");
    settings.mostTokens = limits?.max_tokens;
  } catch (error) {
    if (error.status === 401) return refused({ error });
    return status.problem(() => told(error), [["tryAgain", () => {
      status.clear();
      connect();
    }]]);
  }
  return changed();
}

function unlessLoading(error) {
  if (error.code !== "loading") throw error;
}

/** Wait until the server can write, and say so meanwhile. Returns whether there was something to wait for. */
async function ready() {
  let waited = false;
  await untilReady(undefined, () => {
    if (!writer.running) status.say(t("error_loading"), { busy: true });
    waited = true;
  });
  if (waited && !writer.running) status.say(t("ready"));
  return waited;
}

// ---- buttons ----

function press(id, action) {
  byId(id).addEventListener("click", action);
}

function showSettings(shown) {
  byId("settings-panel").hidden = !shown;
  byId("settings").setAttribute("aria-expanded", String(shown));
}

function shade(on) {
  byId("document").classList.toggle("shaded", on);
  byId("legend").hidden = !on;
  byId("shade").setAttribute("aria-pressed", String(on));
}

async function copied(text, said, otherwise) {
  if (await copyText(text)) status.say(t(said));
  else otherwise();
}

function share() {
  const hash = linkHash(writer.prompt, models.chosen, settings.values);
  if (hash === null) return status.problem(() => t("shareTooLong"));
  const link = `${location.origin}${location.pathname}#${hash}`;
  return copied(link, "shared", () => {
    byId("share-panel").showModal();
    byId("share-link").value = link;
    byId("share-link").focus();
    byId("share-link").select();
  });
}

function toggleGenerate() {
  if (writer.running) writer.stop();
  else writer.generate();
}

function drawLanguage() {
  settings.draw();
  models.draw();
  meter.draw();
  listShortcuts(byId("shortcuts-list"));
  byId("document").dataset.placeholder = t("documentPlaceholder");
  tokens.close();
  if (alternatives.open) alternatives.draw();
  if (!writer.running) status.draw();
  writer.drawFigures();
  drawButtons();
}

// Who clicks a button goes on typing where the caret was. A finger's tap puts the keyboard of the screen away.
document.querySelector("#dock .buttons").addEventListener("mousedown", (event) => {
  if (matchMedia("(pointer: fine)").matches) event.preventDefault();
});
press("go", toggleGenerate);
press("retry", () => writer.retry());
press("try-previous", () => writer.turn(-1));
press("try-next", () => writer.turn(1));
press("undo", () => writer.travel(-1));
press("redo", () => writer.travel(1));
press("tokens", () => tokens.walk(!tokens.walking));
press("shade", () => shade(byId("legend").hidden));
press("count", ({ target }) => target.value && settings.set({ count: Number(target.value) }));
press("settings", () => {
  showSettings(byId("settings-panel").hidden);
  if (!WIDE.matches) byId("settings-close").focus();
});
press("settings-close", () => {
  showSettings(false);
  byId("settings").focus();
});
press("history", () => {
  save();
  library.open();
});
press("new", () => {
  status.draw();
  openNew([]);
  editor.focus();
});
press("copy", () => copied(textOf(writer.runs), "copied", () => status.problem(() => t("copyFailed"))));
press("share", share);
press("shortcuts", () => byId("shortcuts-panel").showModal());
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog || target.closest("[data-close]")) dialog.close();
  });
}

listenToKeys({
  generate: () => writer.generate(),
  retry: () => writer.retry(),
  travel: (step) => writer.travel(step),
  turn: (step) => writer.turn(step),
  walk: () => tokens.walk(!tokens.walking),
  help: () => byId("shortcuts-panel").showModal(),
  choose: (name) => alternatives.open && alternatives.key(name),
  leave: () => {
    if (writer.running) return writer.stop();
    if (tokens.leave()) return undefined;
    if (alternatives.open) return writer.take(-1);
    if (WIDE.matches || byId("settings-panel").hidden) return undefined;
    showSettings(false);
    return byId("settings").focus();
  },
});

addEventListener("beforeunload", (event) => writer.running && event.preventDefault());
addEventListener("pagehide", save);
addEventListener("visibilitychange", () => document.visibilityState === "hidden" && save());
addEventListener("hashchange", () => readHash(location.hash) !== null && openFirst());
addEventListener("storage", ({ key: entry, newValue }) => {
  if (entry === kept.keyOf(open.id) && newValue !== null) open.foreign = true;
});

showSettings(WIDE.matches);
startHeader(STRINGS, drawLanguage);
openFirst();
connect();

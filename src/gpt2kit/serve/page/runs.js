/** The page of runs: asks the server how they stand, as often as something moves, and draws it. */

import { json, keepKey } from "./api.js";
import { Chart, SLOTS, swatch } from "./chart.js";
import { copyOnClick } from "./clipboard.js";
import { byId, make } from "./elements.js";
import { clock, compact, count, loss, span } from "./figures.js";
import { number, t } from "./language.js";
import { RunList, say } from "./run-list.js";
import { Samples } from "./run-samples.js";
import { TEXTS } from "./runs-texts.js";
import { startHeader } from "./site-header.js";

const BUSY_SECONDS = 2; // between two questions about what is shown and trains
const QUIET_SECONDS = 15; // between two questions about all runs
const SHARE_OF_SERVER = 0.05; // of its time; one that is slow to answer is asked less often
const PATIENCE_MS = 20_000; // a server that hangs is gone
const FRESH_SECONDS = 600; // a run saved since may be in training where the system does not tell
const FIRST_SHOWN = 3;
const STANDING = ["step", "size_bytes", "saved", "training", "notes"];

let runs = null; // as the server told them last; null before it told any
let others = [];
let chosen = null; // names of the runs that are shown, a Set; null until there are runs
let byTokens = false;
let asked = null; // when the server last answered
let listDue = 0; // when all runs are asked about again, on the clock of performance.now()
let timer = 0;
let asking = false;
let askAgain = false; // something was ticked meanwhile
const slots = new Map(); // name: place in the colours; stays while the page is open
const details = new Map(); // name: the answer about that run
const list = new RunList(byId("rows"), choose);
const chart = new Chart(byId("chart"));
const samples = new Samples();

// ---- asking ----

async function ask() {
  clearTimeout(timer);
  askAgain = asking;
  if (asking) return;
  asking = true;
  const began = performance.now();
  let pause = QUIET_SECONDS;
  try {
    if (began >= listDue) await askList();
    await askDetails();
    asked = new Date();
    if (runs.some((run) => chosen?.has(run.name) && moves(run))) pause = BUSY_SECONDS;
    trouble(null);
  } catch (error) {
    trouble(error);
    listDue = 0;
    if (!error.status) pause = BUSY_SECONDS * 2;
  }
  asking = false;
  render();
  const cost = (performance.now() - began) / 1000;
  if (askAgain) ask();
  else if (!document.hidden && byId("key-form").hidden) timer = setTimeout(ask, 1000 * Math.max(pause, cost / SHARE_OF_SERVER));
}

async function askList() {
  ({ runs, other_programs: others } = await tell("api/runs"));
  listDue = performance.now() + 1000 * QUIET_SECONDS - 500; // half a second early, lest a timer miss it
  chosen ??= firstChosen();
}

function tell(path) {
  return json(path, { signal: AbortSignal.timeout(PATIENCE_MS) });
}

function moves({ training, saved }) {
  return training ?? Date.now() / 1000 - saved < FRESH_SECONDS;
}

/** Ask about the runs that are shown and may have moved: any event changes a run's size. */
async function askDetails() {
  const stale = runs.filter((run) => chosen?.has(run.name) && (moves(run) || !sameStanding(run, details.get(run.name))));
  const answers = await Promise.all(stale.map(({ name }) => tell(`api/runs/${encodeURIComponent(name)}`).catch(unlessGone)));
  for (const answer of answers.filter(Boolean)) {
    details.set(answer.name, answer);
    runs = runs.map((run) => (run.name === answer.name ? answer : run));
  }
}

function sameStanding(run, known) {
  return known !== undefined && STANDING.every((key) => String(run[key]) === String(known[key]));
}

/** A run may be removed between two questions. */
function unlessGone(error) {
  if (error.status !== 404) throw error;
  return null;
}

function firstChosen() {
  if (!runs.length) return null;
  const linked = new URLSearchParams(location.hash.slice(1)).getAll("run");
  const known = linked.filter((name) => runs.some((run) => run.name === name));
  if (known.length) return new Set(known);
  const training = runs.filter((run) => run.training);
  return new Set((training.length ? training : runs.slice(0, 1)).slice(0, FIRST_SHOWN).map(({ name }) => name));
}

async function choose(name, ticked) {
  if (ticked) chosen.add(name);
  else chosen.delete(name);
  const link = new URLSearchParams([...chosen].map((each) => ["run", each]));
  history.replaceState(null, "", `#${link}`);
  render();
  await ask();
}

function trouble(error) {
  const locked = error?.status === 401;
  byId("key-form").hidden = !locked;
  byId("trouble").hidden = error === null;
  if (error === null) return;
  if (locked) say(byId("trouble"), t(byId("key").value === "" ? "keyWanted" : "keyWrong"));
  else if (error.status) say(byId("trouble"), t("failed", { message: error.message }));
  else say(byId("trouble"), asked ? t("gone", { time: clock(asked) }) : t("goneAtOnce"));
}

// ---- drawing ----

function render() {
  const training = runs?.filter((run) => run.training).map(({ name }) => name) ?? [];
  if (asked) {
    const told = training.length ? "watching" : runs.some((run) => run.training === null) ? "unknown" : "quiet";
    say(byId("standing"), t(told, { names: training.join(", "), time: clock(asked) }));
  } else if (!byId("trouble").hidden) say(byId("standing"), "");
  if (runs === null) return;
  const shown = runs.filter(({ name }) => chosen?.has(name) && details.has(name)).map(({ name }) => details.get(name));
  byId("empty").hidden = runs.length > 0;
  byId("list").hidden = byId("curves").hidden = runs.length === 0;
  byId("others").hidden = others.length === 0;
  say(byId("others"), t("others", { names: others.join(", ") }));
  list.show(runs, chosen ?? new Set());
  drawCurves(shown);
  samples.show(shown);
}

function drawCurves(shown) {
  const drawn = shown.filter((run) => !byTokens || run.tokens_per_step);
  const left = shown.filter((run) => !drawn.includes(run)).map(({ name }) => name);
  const series = drawn.flatMap((run) => seriesOf(run));
  const some = series.some(({ points }) => points.length);
  const problem = left.length ? t("notInTokens", { names: left.join(", ") }) : !shown.length ? t("nothingChosen") : t("nothingMeasured");
  byId("no-curves").hidden = some && !left.length;
  say(byId("no-curves"), problem);
  byId("chart").hidden = byId("chart-hint").hidden = !some;
  byId("legend").replaceChildren(...drawn.map((run) => legendOf(run)));
  byId("chart").setAttribute("aria-label", t("chartLabel"));
  chart.draw(series, {
    x: t(byTokens ? "axisTokens" : "axisStep"),
    y: t("axisLoss"),
    showX: count,
    showTickX: (value) => (value >= 1e5 ? compact(value) : count(value)),
    showY: loss,
    showTickY: number,
    nothing: t("nothingMeasured"),
  });
  drawTable(drawn);
}

function slotOf(name) {
  if (!slots.has(name)) {
    const taken = new Set([...slots].filter(([each]) => chosen.has(each)).map(([, slot]) => slot));
    const free = [...Array(SLOTS).keys()].find((slot) => !taken.has(slot));
    slots.set(name, free ?? slots.size % SLOTS);
  }
  return slots.get(name);
}

function seriesOf(run) {
  const scale = byTokens ? run.tokens_per_step : 1;
  const points = ({ steps, losses }) => steps.map((step, place) => ({ x: step * scale, y: losses[place] }));
  const slot = slotOf(run.name);
  return [
    { label: t("learntOf", { name: run.name }), slot, marked: false, points: points(run.learnt) },
    { label: t("heldOutOf", { name: run.name }), slot, marked: true, points: points(run.held_out) },
  ].filter(({ points: found }) => found.length);
}

function legendOf(run) {
  const kinds = seriesOf(run).map((series) => make("span", { class: "key" }, swatch(series), t(series.marked ? "heldOut" : "learnt")));
  const facts = make("span", { class: "muted small figures" }, factsOf(run).join(" · "));
  return make("li", {}, make("strong", {}, run.name), ...kinds, facts);
}

/** The alternative to looking at the curve: where it has been lowest, how fast it moves, when it will end. */
function factsOf(run) {
  const facts = [];
  const losses = run.held_out.losses.filter((value) => value !== null);
  if (losses.length) {
    const lowest = Math.min(...losses);
    facts.push(t("lowest", { loss: loss(lowest), step: count(run.held_out.steps[run.held_out.losses.indexOf(lowest)]) }));
  }
  const speed = run.tokens_per_second?.at(-1);
  if (run.training && speed) {
    facts.push(t("speed", { speed: count(speed) }));
    const seconds = ((run.steps - run.step) * run.tokens_per_step) / speed;
    if (run.steps > run.step && run.tokens_per_step) facts.push(t("left", { time: span(seconds) }));
  }
  return facts;
}

function drawTable(drawn) {
  const measured = drawn.filter((run) => run.held_out.steps.length);
  byId("figures").hidden = !measured.length;
  const steps = [...new Set(measured.flatMap((run) => run.held_out.steps))].sort((one, other) => one - other);
  const heads = [t("step"), ...measured.map(({ name }) => name)].map((text) => make("th", { scope: "col" }, text));
  const rows = steps.map((step) => {
    const losses = measured.map(({ held_out: found }) => found.losses[found.steps.indexOf(step)]);
    return make("tr", {}, make("th", { scope: "row" }, count(step)), ...losses.map((value) => make("td", {}, loss(value))));
  });
  const parts = [make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows)];
  byId("figures-table").replaceChildren(make("table", { class: "figures" }, ...parts));
}


// ---- wiring ----

function showAxis(tokens) {
  byTokens = tokens;
  byId("by-step").setAttribute("aria-pressed", String(!tokens));
  byId("by-tokens").setAttribute("aria-pressed", String(tokens));
  render();
}

for (const button of document.querySelectorAll(".command button")) copyOnClick(button, button.previousElementSibling);
byId("by-step").addEventListener("click", () => showAxis(false));
byId("by-tokens").addEventListener("click", () => showAxis(true));
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(byId("key").value, false);
  ask();
});
document.addEventListener("visibilitychange", () => {
  listDue = 0;
  if (document.hidden) clearTimeout(timer);
  else ask();
});

startHeader(TEXTS, render);
ask();

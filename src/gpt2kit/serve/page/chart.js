/** Curves in one SVG: axes, lines, markers, and a cross-hair that mouse, finger and arrow keys move.
 *
 * A series: {label, slot, marked, points: [{x, y}]}, points in the order of x; a y of null is a gap.
 * `slot` chooses colour, marker and dashes together, so that no two runs differ by colour alone.
 */

const NAMESPACE = "http://www.w3.org/2000/svg";
const MARGIN = { top: 14, right: 14, bottom: 42, left: 54 };
const HEIGHT = { narrow: 260, wide: 360 };
const MOST_MARKERS = 20;
const FIRST_STEPS = 0.1; // the share of a curve that may leave the picture at the top
const NEAR = 0.04; // how far from the cross-hair a point may lie, as a share of the axis
const MARKERS = [
  "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
  "M-3.5,-3.5h7v7h-7z",
  "M0,-5L4.8,3.6H-4.8z",
  "M0,-5L5,0L0,5L-5,0z",
  "M0,5L4.8,-3.6H-4.8z",
  "M-1.5,-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
];
const DASHES = ["none", "7 3", "2 3", "9 3 2 3", "12 4", "1 2"];
export const SLOTS = MARKERS.length;

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A short piece of a series' line, for a legend. */
export function swatch(series) {
  const picture = svg("svg", { viewBox: "0 0 34 14", width: 34, height: 14, class: "swatch", "aria-hidden": "true" });
  picture.append(line(series, "M1,7H33"));
  if (series.marked) picture.append(marker(series, 17, 7));
  return picture;
}

function line(series, path) {
  const dashes = series.marked ? "none" : DASHES[series.slot % SLOTS];
  const kind = series.marked ? "held-out" : "learnt";
  return svg("path", { d: path, class: `line ${kind} slot-${series.slot % SLOTS}`, "stroke-dasharray": dashes });
}

function marker(series, x, y) {
  const slot = series.slot % SLOTS;
  return svg("path", { d: MARKERS[slot], transform: `translate(${x} ${y})`, class: `marker slot-${slot}` });
}

/** Round numbers from `low` to `high`, about `count` of them. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough * 0.99) ?? 10);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place += 1) found.push(place * step || 0); // never -0
  return found;
}

/** The losses to show: first steps and lone spikes may leave at the top, lest they squash all the rest. */
function lossLimits(series) {
  const parts = series.map(({ points }) => points.filter(({ y }) => y !== null)).filter((points) => points.length);
  if (!parts.length) return [0, 1];
  const low = Math.min(...parts.flat().map(({ y }) => y));
  const high = Math.max(...parts.map((points) => {
    const later = points.filter(({ x }) => x >= points.at(-1).x * FIRST_STEPS).map(({ y }) => y);
    return later.sort((one, other) => one - other)[Math.floor((later.length - 1) * 0.98)];
  }));
  const margin = (high - low) / 20 || 0.5;
  return [low - margin, high + margin];
}

export class Chart {
  /** Draws into `root`, which becomes a slider over the points: screen readers speak its value. */
  constructor(root) {
    this.root = root;
    this.place = null; // of the cross-hair in `xs`; null: not shown
    this.tip = document.createElement("div");
    this.tip.className = "chart-tip";
    this.tip.hidden = true;
    root.tabIndex = 0;
    root.setAttribute("role", "slider");
    root.addEventListener("pointermove", (event) => this.#point(event));
    root.addEventListener("pointerdown", (event) => this.#point(event));
    root.addEventListener("pointerleave", () => this.#move(null));
    root.addEventListener("blur", () => this.#move(null));
    root.addEventListener("keydown", (event) => this.#press(event));
    new ResizeObserver(() => this.#redraw()).observe(root);
  }

  /** `words`: {x, y: names of the axes; showX, showTickX, showY, showTickY: numbers to text}. */
  draw(series, words) {
    const old = this.place === null ? null : this.xs[this.place];
    [this.series, this.words] = [series, words];
    this.xs = [...new Set(series.flatMap(({ points }) => points.map(({ x }) => x)))].sort((one, other) => one - other);
    this.place = old === null || !this.xs.length ? null : nearest(this.xs, old);
    this.#redraw();
  }

  #redraw() {
    const width = this.root.clientWidth;
    if (!this.series || !width) return;
    const height = width < 560 ? HEIGHT.narrow : HEIGHT.wide;
    const [right, bottom] = [width - MARGIN.right, height - MARGIN.bottom];
    const [low, high] = lossLimits(this.series);
    const end = this.xs.at(-1) || 1;
    this.x = (value) => MARGIN.left + (value / end) * (right - MARGIN.left);
    this.y = (value) => bottom - ((value - low) / (high - low)) * (bottom - MARGIN.top);
    this.end = end;
    const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    picture.append(this.#axes(width, right, bottom, low, high, end));
    const box = svg("rect", { x: MARGIN.left, y: 0, width: right - MARGIN.left + MARGIN.right, height: bottom + 1 });
    const clip = svg("clipPath", { id: "chart-clip" }, box);
    const curves = svg("g", { "clip-path": "url(#chart-clip)" }, ...this.series.flatMap((one) => this.#curve(one)));
    this.cross = svg("g", { class: "cross" });
    picture.append(clip, curves, this.cross);
    this.root.replaceChildren(picture, this.tip);
    this.#move(this.place);
  }

  #axes(width, right, bottom, low, high, end) {
    const group = svg("g", { class: "axes" });
    const { words } = this;
    const levels = ticks(low, high, 7);
    const digits = Math.max(0, -Math.floor(Math.log10(levels[1] - levels[0]) + 1e-9));
    for (const value of levels) {
      const y = this.y(value);
      group.append(svg("line", { x1: MARGIN.left, x2: right, y1: y, y2: y }));
      group.append(svg("text", { x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, words.showTickY(value, digits)));
    }
    for (const value of ticks(0, end, Math.min(end, Math.max(2, Math.floor(width / 110))))) {
      const x = this.x(value);
      const anchor = x > right - 16 ? "end" : "middle";
      group.append(svg("line", { x1: x, x2: x, y1: bottom, y2: bottom + 4 }));
      group.append(svg("text", { x, y: bottom + 18, "text-anchor": anchor }, words.showTickX(value)));
    }
    group.append(svg("line", { x1: MARGIN.left, x2: right, y1: bottom, y2: bottom, class: "ground" }));
    const middle = (MARGIN.top + bottom) / 2;
    const turned = { x: 0, y: 0, transform: `translate(12 ${middle}) rotate(-90)`, "text-anchor": "middle" };
    group.append(svg("text", { x: (MARGIN.left + right) / 2, y: bottom + 37, "text-anchor": "middle" }, words.x));
    group.append(svg("text", turned, words.y));
    return group;
  }

  #curve(series) {
    let path = "";
    let open = false;
    for (const { x, y } of series.points) {
      if (y !== null) path += `${open ? "L" : "M"}${this.x(x).toFixed(1)},${this.y(y).toFixed(1)}`;
      open = y !== null;
    }
    const every = Math.ceil(series.points.length / MOST_MARKERS);
    const lone = series.points.length === 1; // a line of one point is not seen
    const marked = series.points.filter(({ y }, place) => y !== null && (series.marked || lone) && place % every === 0);
    return [line(series, path), ...marked.map(({ x, y }) => marker(series, this.x(x), this.y(y)))];
  }

  #point(event) {
    if (!this.xs?.length || !this.x) return;
    const share = (event.clientX - this.root.getBoundingClientRect().left - this.x(0)) / (this.x(this.end) - this.x(0));
    this.#move(nearest(this.xs, share * this.end));
  }

  #press(event) {
    const last = (this.xs?.length ?? 0) - 1;
    if (last < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const leap = Math.max(1, Math.round(last / 10));
    const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: leap, PageDown: -leap };
    const places = { Home: 0, End: last, Escape: null };
    if (event.key in moves) this.#move(Math.min(last, Math.max(0, (this.place ?? last) + moves[event.key])));
    else if (event.key in places) this.#move(places[event.key]);
    else return;
    event.preventDefault();
  }

  /** What the series are at the cross-hair: the nearest point of each that has one nearby. */
  #readings(x) {
    return this.series.flatMap((series) => {
      const points = series.points.filter(({ y }) => y !== null);
      if (!points.length) return [];
      const point = points[nearest(points.map((each) => each.x), x)];
      return Math.abs(point.x - x) <= this.end * NEAR ? [{ series, ...point }] : [];
    });
  }

  #move(place) {
    this.place = place;
    this.cross.replaceChildren();
    this.tip.hidden = place === null;
    const last = Math.max(0, this.xs.length - 1);
    const spoken = this.#spoken(place ?? last);
    const values = { valuemin: 0, valuemax: last, valuenow: place ?? last, valuetext: spoken };
    for (const [name, value] of Object.entries(values)) this.root.setAttribute(`aria-${name}`, value);
    if (place === null) return;
    const x = this.xs[place];
    const readings = this.#readings(x);
    const [top, bottom] = [MARGIN.top, this.root.firstChild.height.baseVal.value - MARGIN.bottom];
    this.cross.append(svg("line", { x1: this.x(x), x2: this.x(x), y1: top, y2: bottom }));
    for (const reading of readings) {
      const y = Math.max(top, this.y(reading.y)); // above the picture: told at its edge
      this.cross.append(svg("circle", { cx: this.x(reading.x), cy: y, r: 4.5, class: `slot-${reading.series.slot % SLOTS}` }));
    }
    this.#tell(x, readings);
  }

  #spoken(place) {
    if (!this.xs.length) return this.words.nothing;
    const x = this.xs[place];
    const readings = this.#readings(x).map((reading) => `${reading.series.label} ${this.#value(reading, x)}`);
    return [`${this.words.x} ${this.words.showX(x)}`, ...readings].join("; ");
  }

  /** What was measured; and where, if that was not at the cross-hair. */
  #value(reading, x) {
    const value = this.words.showY(reading.y);
    return reading.x === x ? value : `${value} (${this.words.x} ${this.words.showX(reading.x)})`;
  }

  #tell(x, readings) {
    const title = document.createElement("strong");
    title.textContent = `${this.words.x} ${this.words.showX(x)}`;
    const rows = readings.map((reading) => {
      const [row, label, value] = ["div", "span", "b"].map((name) => document.createElement(name));
      [label.textContent, value.textContent] = [reading.series.label, this.#value(reading, x)];
      row.append(swatch(reading.series), label, value);
      return row;
    });
    this.tip.replaceChildren(title, ...rows);
    const [at, width, room] = [this.x(x), this.tip.offsetWidth, this.root.clientWidth];
    const left = at + 14 + width <= room ? at + 14 : Math.max(0, at - 14 - width);
    this.tip.style.transform = `translate(${Math.round(left)}px, ${MARGIN.top}px)`;
  }
}

/** The place of the number in sorted `numbers` that is nearest to `wanted`. */
function nearest(numbers, wanted) {
  let [low, high] = [0, numbers.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low > 0 && wanted - numbers[low - 1] <= numbers[low] - wanted ? low - 1 : low;
}

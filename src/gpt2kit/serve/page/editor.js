/** The document on the page: one editable element whose children mirror the runs, and the user's edits in it.
 *
 * Edits that the browser announces are made in the runs and drawn from there. What it does not announce in a way that
 * can be refused (input methods, spelling) is read from the element afterwards and told as one difference.
 */

import { difference, textOf } from "./document.js";

const MARGIN = 12; // pixels kept free above and below a line that is scrolled to
const MOST_ENTROPY = 6; // nats; shading is full from here

export class Editor {
  #runs = [];
  #drawn = []; // { run, start, end, dropped, node } for each child, in order
  #dropped = 0; // characters at the beginning that the model will not read
  #composing = false;
  #ending = null; // the timer after which a composition is over
  #selection = null; // where the caret was last, { start, end }; null until it was set

  /** `onEdit({ start, end, text }, caret)` is asked to make an edit; `onHistory(step)` to undo (-1) or redo (1). */
  constructor(element, { onEdit, onHistory, onCaret, onCompose }) {
    Object.assign(this, { element, onEdit, onHistory, onCaret, onCompose });
    const supported = this.#editable("plaintext-only");
    if (!supported) element.setAttribute("contenteditable", "true");
    element.addEventListener("beforeinput", (event) => this.#announced(event));
    element.addEventListener("input", () => this.#happened());
    element.addEventListener("compositionstart", () => this.#compose());
    element.addEventListener("compositionend", () => (this.#ending = setTimeout(() => this.#composed())));
    element.addEventListener("dragstart", (event) => event.preventDefault());
    document.addEventListener("selectionchange", () => this.#moved());
    this.draw([]);
  }

  #editable(value) {
    this.element.setAttribute("contenteditable", value);
    return this.element.contentEditable === value;
  }

  /** Whether text can be typed; tokens can be walked through where it cannot. */
  setEditable(editable) {
    this.element.setAttribute("role", editable ? "textbox" : "group");
    if (editable) this.element.setAttribute("aria-multiline", "true");
    else this.element.removeAttribute("aria-multiline");
    if (!editable) this.element.setAttribute("contenteditable", "false");
    else if (!this.#editable("plaintext-only")) this.element.setAttribute("contenteditable", "true");
  }

  get focused() {
    return document.activeElement === this.element && this.element.isContentEditable;
  }

  /** The caret or selection, as positions in the text. Before it was ever set: the end. */
  get selection() {
    // The browser tells a moved caret late: ask it.
    if (this.focused && !this.#composing) this.#selection = this.#readSelection() ?? this.#selection;
    return this.#keptSelection();
  }

  #keptSelection() {
    const end = textOf(this.#runs).length;
    const { start, end: stop } = this.#selection ?? { start: end, end };
    return { start: Math.min(start, end), end: Math.min(stop, end) };
  }

  /** Put the caret at a position; it is shown only while the element has the focus. */
  setCaret(start, end = start) {
    this.#selection = { start, end };
    if (this.focused && !this.#composing) this.#showCaret();
  }

  focus() {
    const at = this.selection.end;
    this.element.focus({ preventScroll: true });
    this.setCaret(at);
  }

  /** Draw the runs; only children whose run changed are touched. */
  draw(runs, dropped = this.#dropped) {
    if (this.#composing) {
      this.#runs = runs;
      this.#dropped = dropped;
      return;
    }
    const wanted = segments(runs, dropped);
    const drawn = this.#drawn;
    const most = Math.min(wanted.length, drawn.length);
    let head = 0;
    while (head < most && same(wanted[head], drawn[head])) head += 1;
    let tail = 0;
    while (tail < most - head && same(wanted.at(-1 - tail), drawn.at(-1 - tail))) tail += 1;
    const fresh = wanted.slice(head, wanted.length - tail).map((segment) => ({ ...segment, node: nodeOf(segment) }));
    for (const { node } of drawn.slice(head, drawn.length - tail)) node.remove();
    const next = drawn[drawn.length - tail]?.node ?? this.#lastBreak();
    for (const { node } of fresh) this.element.insertBefore(node, next ?? null);
    this.#drawn = [...drawn.slice(0, head), ...fresh, ...drawn.slice(drawn.length - tail)];
    this.#runs = runs;
    this.#dropped = dropped;
    this.#endLine();
    if (this.focused && this.#selection !== null && fresh.length > 0) this.#showCaret();
  }

  /** Forget what was drawn, since the browser changed it, and draw anew. */
  #redraw() {
    this.#drawn = [];
    this.element.replaceChildren();
    this.draw(this.#runs);
  }

  /** The run whose span an element is or lies in, or null. */
  runOf(node) {
    const span = node?.closest?.(".token");
    return this.#drawn.find((segment) => segment.node === span)?.run ?? null;
  }

  /** The span of a run, or null. */
  spanOf(run) {
    return this.#drawn.find((segment) => segment.run === run)?.node ?? null;
  }

  /** Where a run begins in the text. */
  positionOf(run) {
    return textOf(this.#runs.slice(0, this.#runs.indexOf(run))).length;
  }

  // ---- the last line: a newline at the end shows only with something after it ----

  #lastBreak() {
    return this.element.querySelector(":scope > br");
  }

  #endLine() {
    const text = textOf(this.#runs);
    this.element.toggleAttribute("data-empty", text === "");
    const needed = text === "" || text.endsWith("\n");
    if (needed && this.#lastBreak() === null) this.element.append(document.createElement("br"));
    if (!needed) this.#lastBreak()?.remove();
  }

  // ---- what the user does ----

  #announced(event) {
    const kind = event.inputType;
    if (kind === "historyUndo" || kind === "historyRedo") {
      event.preventDefault();
      this.onHistory(kind === "historyUndo" ? -1 : 1);
      return;
    }
    if (kind.startsWith("format")) event.preventDefault();
    if (this.#composing || event.isComposing || !event.cancelable || kind.startsWith("format")) return;
    const text = typed(event);
    const range = this.#target(event);
    if (text === null || range === null) return;
    event.preventDefault();
    if (range.start === range.end && text === "") return;
    this.#change({ ...range, text });
  }

  /** What an edit replaces. Browsers that do not say it for typing mean the selection. */
  #target(event) {
    const [range] = event.getTargetRanges();
    if (range === undefined) return event.inputType.startsWith("insert") ? this.#readSelection() : null;
    return {
      start: this.#position(range.startContainer, range.startOffset),
      end: this.#position(range.endContainer, range.endOffset),
    };
  }

  #change(edit) {
    const caret = edit.start + edit.text.length;
    this.onEdit(edit, caret);
    this.reveal(caret);
  }

  /** The browser changed the element itself: find out how, and tell it. */
  #happened() {
    const text = shownText(this.element);
    const caret = this.#readSelection()?.end ?? text.length;
    const edit = difference(textOf(this.#runs), text, caret);
    if (this.#composing) {
      if (edit !== null) this.onEdit(edit, caret);
      return;
    }
    if (edit !== null) this.onEdit(edit, caret);
    this.#selection = { start: caret, end: caret };
    this.#redraw();
  }

  #compose() {
    clearTimeout(this.#ending);
    if (this.#composing) return;
    this.onCompose();
    this.#composing = true;
  }

  #composed() {
    if (!this.#composing) return;
    const caret = this.#readSelection()?.end;
    this.#happened();
    this.#composing = false;
    if (caret !== undefined) this.#selection = { start: caret, end: caret };
    this.#redraw();
  }

  // ---- the caret ----

  #moved() {
    if (this.#composing || !this.focused) return;
    const selection = this.#readSelection();
    if (selection === null) return;
    this.#selection = selection;
    this.onCaret();
  }

  #readSelection() {
    const selection = getSelection();
    if (selection.rangeCount === 0) return null;
    const { startContainer, startOffset, endContainer, endOffset } = selection.getRangeAt(0);
    if (!this.element.contains(startContainer) || !this.element.contains(endContainer)) return null;
    return { start: this.#position(startContainer, startOffset), end: this.#position(endContainer, endOffset) };
  }

  #position(node, offset) {
    const range = document.createRange();
    range.setStart(this.element, 0);
    range.setEnd(node, offset);
    return range.toString().length;
  }

  #showCaret() {
    const { start, end } = this.#keptSelection();
    const [from, to] = [this.#point(start), this.#point(end)];
    const shown = getSelection();
    const already = shown.anchorNode === from[0] && shown.anchorOffset === from[1];
    if (already && shown.focusNode === to[0] && shown.focusOffset === to[1]) return;
    shown.setBaseAndExtent(...from, ...to);
  }

  /** The node and offset of a position. */
  #point(position) {
    let at = 0;
    for (const { node, start, end } of this.#drawn) {
      const size = end - start;
      if (position <= at + size) return [node.firstChild ?? node, position - at];
      at += size;
    }
    return [this.element, this.#drawn.length];
  }

  /** Scroll so that the line of a position can be seen. */
  reveal(position) {
    const [node, offset] = this.#point(position);
    const range = document.createRange();
    range.setStart(node, Math.min(offset, node.length ?? node.childNodes.length));
    const box = range.getClientRects()[0] ?? this.element.lastElementChild?.getBoundingClientRect();
    const scroller = scrollerOf(this.element);
    const top = Math.max(scroller.getBoundingClientRect().top, 0) + MARGIN;
    const bottom = document.querySelector("#dock").getBoundingClientRect().top - MARGIN;
    if (box && box.bottom > bottom) scroller.scrollBy(0, box.bottom - bottom);
    else if (box && box.top < top) scroller.scrollBy(0, box.top - top);
  }
}

/** The element that scrolls the text: a column of its own on wide screens, the page on small ones. */
export function scrollerOf(element) {
  const column = element.closest("main");
  return getComputedStyle(column).overflowY === "auto" ? column : document.scrollingElement;
}

/** What a cancellable edit puts in place of its range; null where it is none of ours. */
function typed(event) {
  const kind = event.inputType;
  if (kind === "insertParagraph" || kind === "insertLineBreak") return "\n";
  if (kind.startsWith("delete")) return "";
  if (!kind.startsWith("insert")) return null;
  const text = event.data ?? event.dataTransfer?.getData("text/plain");
  return text === undefined ? null : text.replace(/\r\n?/g, "\n");
}

/** The text of the element as the browser left it. */
function shownText(element) {
  let text = "";
  for (const node of element.childNodes) {
    const block = node.nodeName === "DIV" || node.nodeName === "P";
    if (block && text !== "" && !text.endsWith("\n")) text += "\n";
    if (node.nodeName === "BR") text += node === element.lastChild ? "" : "\n";
    else text += node.nodeType === Node.TEXT_NODE ? node.data : shownText(node);
  }
  return text;
}

/** The runs as the children that show them: a run on the border of what is dropped is shown in two parts. */
function segments(runs, dropped) {
  const list = [];
  let at = 0;
  for (const run of runs) {
    const size = run.text.length;
    const border = dropped - at;
    if (run.tokens === null && border > 0 && border < size) {
      list.push({ run, start: 0, end: border, dropped: true }, { run, start: border, end: size, dropped: false });
    } else list.push({ run, start: 0, end: size, dropped: border >= size });
    at += size;
  }
  return list;
}

function same(a, b) {
  return a.run === b.run && a.start === b.start && a.end === b.end && a.dropped === b.dropped;
}

function nodeOf({ run, start, end, dropped }) {
  const text = document.createTextNode(run.text.slice(start, end));
  if (run.tokens === null && !dropped) return text;
  const span = document.createElement("span");
  span.append(text);
  if (dropped) span.classList.add("dropped");
  if (run.tokens !== null) {
    span.classList.add("token");
    const entropy = run.tokens[0]?.entropy ?? 0;
    span.style.setProperty("--unsure", String(Math.min(entropy / MOST_ENTROPY, 1)));
  }
  return span;
}

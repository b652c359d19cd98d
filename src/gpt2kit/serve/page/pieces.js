/** From a stream's pieces to runs: which token stands for which part of the text.
 *
 * The server sends text as soon as it is whole: the bytes of half a character, and what may become a stop string, come
 * with a later piece. So tokens wait here until the text that they stand for has come.
 */

import { modelRun } from "./document.js";

const MOST_WAITING = 16; // tokens; more of them, with text that is not theirs, are out of step
const encoder = new TextEncoder();
const lossy = new TextDecoder("utf-8", { ignoreBOM: true });

/** The bytes of a token as the server writes it: its text, or "bytes:\xe4\xb8" where that is no whole text. */
function bytesOf(token) {
  if (!/^bytes:(\\x[0-9a-f]{2})+$/i.test(token)) return encoder.encode(token);
  return Uint8Array.from(token.slice(6).split("\\x").slice(1), (hex) => parseInt(hex, 16));
}

/** The runs of one choice, growing as its pieces come. */
export class Pieces {
  /** `model` names who writes. */
  constructor(model = "") {
    this.model = model;
    this.runs = [];
    this.count = 0; // tokens that came
    this.waiting = []; // { token, bytes } whose text has not come yet
    this.text = ""; // text that came and is not in a run yet
  }

  /** Take one choice of a chunk. Returns whether there are new runs. */
  add(choice) {
    const before = this.runs.length;
    for (const token of tokensOf(choice)) {
      this.waiting.push({ token, bytes: bytesOf(token.text) });
      this.count += 1;
    }
    this.text += choice.text ?? "";
    while (this.#settle()) continue;
    return this.runs.length > before;
  }

  /** The text has ended: what waits becomes the last run, text without whole tokens or the first bytes of a character. */
  end(reason) {
    const tokens = this.waiting.map(({ token }) => token);
    const decoded = decode(this.waiting);
    if (this.text === "" && reason === "length" && decoded.endsWith("\ufffd")) this.text = decoded;
    if (this.text === "") return;
    const partial = tokens.length > 0 && decoded === this.text;
    this.runs.push(modelRun(this.text, partial ? tokens : [], partial, this.model));
    this.text = "";
  }

  /** Move the fewest waiting tokens that make up the beginning of the text into a run, and those that add nothing to it:
   * two bytes of a broken character are one sign, as one byte is. Where no text fits, all of them become one run. */
  #settle() {
    if (this.text === "") return false;
    for (let count = 1; count <= this.waiting.length; count += 1) {
      const text = decode(this.waiting.slice(0, count));
      if (text === "" || !this.text.startsWith(text)) continue;
      while (count < this.waiting.length && decode(this.waiting.slice(0, count + 1)) === text) count += 1;
      this.#move(text, count);
      return true;
    }
    const lost = this.waiting.length > MOST_WAITING && !decode(this.waiting).startsWith(this.text);
    if (lost) this.#move(this.text, this.waiting.length);
    return lost;
  }

  #move(text, count) {
    const tokens = this.waiting.slice(0, count).map(({ token }) => token);
    this.runs.push(modelRun(text, tokens, text.endsWith("\ufffd"), this.model));
    this.waiting = this.waiting.slice(count);
    this.text = this.text.slice(text.length);
  }
}

function decode(group) {
  return lossy.decode(Uint8Array.from(group.flatMap(({ bytes }) => [...bytes])));
}

/** The tokens of a choice's logprobs, each with its alternatives, likeliest first.
 *
 * The server lists the likeliest first too, but an object of JavaScript's puts keys such as "12" before all others:
 * sorting brings back the order in which the ids stand.
 */
function tokensOf({ logprobs }) {
  if (!logprobs) return [];
  return logprobs.tokens.map((text, n) => {
    const ids = logprobs.top_token_ids?.[n] ?? [];
    const likeliest = Object.entries(logprobs.top_logprobs?.[n] ?? {}).sort((a, b) => b[1] - a[1]);
    return {
      id: logprobs.token_ids[n],
      text,
      logprob: logprobs.token_logprobs[n],
      entropy: logprobs.entropy?.[n] ?? null,
      top: likeliest.map(([name, logprob], k) => ({ id: ids[k], text: name, logprob })),
    };
  });
}

/** One generation: a request out, tries growing as the stream comes in, figures at the end. */

import { ApiError, stream, untilReady } from "./api.js";
import { Pieces } from "./pieces.js";

const ALTERNATIVES = 10; // shown for every token

/** The request for a text after `prompt`. `sampling` holds the server's names. */
export function requestFor({ prompt, forcedIds, model, sampling, count, seed }) {
  return {
    ...(model === "" ? {} : { model }),
    prompt,
    ...sampling,
    ...(forcedIds.length > 0 ? { forced_ids: forcedIds } : {}),
    n: count,
    seed,
    truncate_prompt_tokens: -1,
    logprobs: ALTERNATIVES,
    return_token_ids: true,
    return_entropy: true,
    stream: true,
    stream_options: { include_usage: true },
  };
}

/** A try that nothing is written in yet; it begins with the forced ids, which are this model's. */
export function emptyTry(forcedIds, model) {
  return { runs: [], figures: null, forcedIds, model };
}

/** Write into the tries, one a choice. While waiting, `onWait` is told "starting", "queued" or "loading" and a detail;
 * `onText` is called whenever a try has grown. Every try has its figures afterwards, also where an error is thrown. */
export async function generate(request, tries, { signal, onWait, onText }) {
  const pieces = tries.map(() => new Pieces(request.model ?? ""));
  const reasons = tries.map(() => null);
  const clock = { sent: performance.now(), first: null, last: null };
  let seed = request.seed;
  let failed = "stopped";
  try {
    for await (const chunk of patient(request, signal, onWait, clock)) {
      seed = chunk.seed ?? seed;
      for (const choice of chunk.choices ?? []) {
        const had = pieces[choice.index].count;
        const grown = pieces[choice.index].add(choice);
        if (pieces[choice.index].count > had) clock.first ??= performance.now();
        clock.last = performance.now();
        reasons[choice.index] = choice.finish_reason ?? reasons[choice.index];
        if (choice.finish_reason) pieces[choice.index].end(choice.finish_reason);
        tries[choice.index].runs = [...pieces[choice.index].runs];
        if (grown || choice.finish_reason) onText();
      }
    }
  } catch (error) {
    failed = error.name === "AbortError" ? "stopped" : "lost";
    throw error;
  } finally {
    tries.forEach((one, index) => {
      one.figures = figuresOf(pieces, clock, { seed, index, reason: reasons[index] ?? failed });
    });
  }
}

/** The stream, begun again as soon as a server that is still starting is ready. */
async function* patient(request, signal, onWait, clock) {
  for (;;) {
    try {
      clock.sent = performance.now();
      yield* stream("v1/completions", request, { signal, onComment: (line) => heard(line, onWait) });
      return;
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 503 || error.code !== "loading") throw error;
      onWait("starting", "");
      await untilReady(signal, () => onWait("starting", ""));
    }
  }
}

function heard(line, onWait) {
  const [word, ...rest] = line.split(" ");
  if (word === "queued" || word === "loading") onWait(word, rest.join(" "));
}

function figuresOf(pieces, { sent, first, last }, { seed, index, reason }) {
  const tokens = pieces[index].count;
  const all = pieces.reduce((sum, one) => sum + one.count, 0);
  const seconds = first === null ? 0 : (last - first) / 1000;
  return {
    tokens,
    all,
    perSecond: seconds > 0 && all > pieces.length ? (all - pieces.length) / seconds : null,
    firstTokenSeconds: first === null ? null : (first - sent) / 1000,
    reason,
    seed,
    count: pieces.length,
  };
}

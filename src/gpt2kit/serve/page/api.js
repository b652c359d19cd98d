/** Talking to the server: JSON, streams, keys, and what went wrong in words of the server's own. */

const KEY_STORE = "gpt2kit.key";

/** What the server, or the way to it, has refused. `status` is 0 where no answer came. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, param, retryAfter });
  }
}

// ---- the key ----

export function key() {
  return read(() => sessionStorage) ?? read(() => localStorage) ?? "";
}

/** Keep a key until the tab closes, or for good; an empty one forgets. Returns false where the browser keeps nothing. */
export function keepKey(value, remember) {
  let kept = true;
  for (const [store, wanted] of [[() => sessionStorage, value !== ""], [() => localStorage, remember && value !== ""]]) {
    try {
      if (wanted) store().setItem(KEY_STORE, value);
      else store().removeItem(KEY_STORE);
    } catch {
      kept = false;
    }
  }
  return kept;
}

function read(store) {
  try {
    return store().getItem(KEY_STORE);
  } catch {
    return null;
  }
}

// ---- requests ----

/** The JSON that a path answers. A body makes it a POST. Throws ApiError. */
export async function json(path, { body, signal } = {}) {
  const response = await request(path, body, signal);
  try {
    return await response.json();
  } catch (error) {
    throw lost(error);
  }
}

/** Post a request for a stream; calls `onComment` with each comment line and yields each object. Throws ApiError. */
export async function* stream(path, body, { signal, onComment }) {
  const response = await request(path, body, signal);
  let done = false;
  try {
    for await (const line of lines(response.body)) {
      if (line.startsWith(":")) onComment(line.slice(1).trim());
      if (!line.startsWith("data:")) continue;
      const payload = line.slice(5).trim();
      done = payload === "[DONE]";
      if (done) continue; // the end of the answer follows; leaving before it would look like giving up
      const object = JSON.parse(payload);
      if (object.error) throw refused(response, object);
      yield object;
    }
  } catch (error) {
    throw error instanceof ApiError ? error : lost(error);
  }
  if (!done) throw lost(null);
}

async function request(path, body, signal) {
  if (!/^[\x21-\x7e]*$/.test(key())) throw new ApiError("", { status: 401 }); // no header can carry it
  const headers = key() === "" ? {} : { Authorization: `Bearer ${key()}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const options = { method: body === undefined ? "GET" : "POST", headers, signal };
  let response;
  try {
    response = await fetch(path, { ...options, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    throw lost(error);
  }
  if (response.ok) return response;
  throw refused(response, await response.json().catch(() => null));
}

function refused(response, answer) {
  const error = answer?.error ?? {};
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  const status = response.ok ? 500 : response.status;
  const { code = null, param = null } = error;
  return new ApiError(error.message ?? `HTTP ${response.status} ${response.statusText}`, { status, code, param, retryAfter });
}

function lost(error) {
  if (error?.name === "AbortError") return error;
  return new ApiError(error?.message ?? "", { code: "connection_lost" });
}

async function* lines(body) {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let rest = "";
  let ended = false;
  try {
    while (!ended) {
      const { value, done } = await reader.read();
      ended = done;
      rest += decoder.decode(value, { stream: !done });
      const whole = rest.split(/\r\n|\n/);
      rest = done ? "" : whole.pop();
      yield* whole;
    }
  } finally {
    if (!ended) reader.cancel().catch(() => {});
  }
}

/** Wait while the server loads its model, telling `onWait` so; throws for anything else, and when the signal aborts. */
export async function untilReady(signal, onWait) {
  for (;;) {
    try {
      await json("readyz", { signal });
      return;
    } catch (error) {
      if (error.code !== "loading") throw error;
      onWait();
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
    signal?.throwIfAborted();
  }
}

// The server's JSON endpoints under /chat/api/. All of them are of this page's own origin.

import { ask } from "./dom.js";

const KEY = "tunelm-key";
export const GONE = "The server does not answer. Is it still running?";

/** An answer other than success; `status` is 0 where there was none at all. */
export class Failed extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

let asking = null;

/** Ask for the key once, however many requests were refused. Resolves to whether there is one. */
function askKey(wrong) {
  asking ??= ask({
    title: "This server asks for a key",
    text: "Whoever runs it can give you one. It is kept until you close this tab.",
    yes: "Use this key",
    field: { label: "Key", secret: true },
    wrong,
  }).then((key) => {
    asking = null;
    if (key === null || !key.trim()) return false;
    sessionStorage.setItem(KEY, key.trim());
    return true;
  });
  return asking;
}

async function request(method, path, body, signal) {
  for (;;) {
    const headers = {}, key = sessionStorage.getItem(KEY);
    if (key) headers.Authorization = `Bearer ${key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const sent = body === undefined ? undefined : JSON.stringify(body);
    let answer;
    try {
      answer = await fetch(`/chat/api/${path}`, { method, headers, body: sent, signal, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failed(GONE, 0);
    }
    if (answer.ok) return answer;
    let said = `The server answered ${answer.status}.`;
    try { said = (await answer.json()).error.message; } catch { /* no JSON: the status must do */ }
    if (answer.status !== 401) throw new Failed(said, answer.status);
    sessionStorage.removeItem(KEY);
    if (!await askKey(key ? "That key was not accepted." : "")) {
      throw new Failed("Nothing can be shown without the key.", 401);
    }
  }
}

/** A request whose answer is JSON. */
export async function call(method, path, body) {
  return (await request(method, path, body)).json();
}

/** A request whose answer is text, to be saved. */
export async function text(path) {
  return (await request("GET", path)).text();
}

/** A request whose answer comes a JSON line at a time. Each line is given to `hear`. */
export async function listen(path, body, hear) {
  const answer = await request("POST", path, body);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try { part = await reader.read(); } catch { throw new Failed(GONE, 0); }
    if (part.done) break;
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) hear(JSON.parse(line));
  }
}

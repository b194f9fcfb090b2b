// The conversation as it is shown: turns, and the one that is being said.

import { $, announce, el, sign } from "./dom.js";

const SENTENCE = /[.!?…。！？]+["'”’)\]]*\s+|\n+/g;
let number = 0;

/** What scrolls: the log, or in a low window the whole page. */
function scrolled() {
  const log = $("log");
  return getComputedStyle(log).overflowY === "visible" ? document.scrollingElement : log;
}

/** Bring the end into sight. */
export function toEnd() {
  const place = scrolled();
  place.scrollTop = place.scrollHeight;
}

/** Keep the end in sight, unless the reader has gone up to read. */
export function keepingEnd(change) {
  const place = scrolled();
  const atEnd = place.scrollHeight - place.scrollTop - place.clientHeight < 80;
  change();
  if (atEnd) toEnd();
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** What the person said. */
export function ownTurn(turn) {
  const text = turn.text.trim();
  return el("article", { class: "turn own" },
    el("h3", { class: "sr" }, "You"),
    text && text !== "..." ? el("p", { class: "text", dir: "auto" }, text)
      : el("p", { class: "text silent" }, "(says nothing)"),
    notes(turn));
}

/** The strategy of a turn: a button that shows why it was chosen. */
function chip({ strategy, what, why }, mended) {
  const id = `why-${++number}`;
  const reason = el("div", { class: "why", id, hidden: true },
    what ? el("p", {}, `${capital(strategy)}: ${what}.`) : null, why ? el("p", {}, `Why: ${why}.`) : null, mended);
  const button = el("button", {
    type: "button", class: "chip", "aria-expanded": "false", "aria-controls": id,
    onclick: () => {
      reason.hidden = !reason.hidden;
      button.setAttribute("aria-expanded", String(!reason.hidden));
    },
  }, capital(strategy), el("span", { class: "sr" }, ": why?"));
  return [button, reason];
}

function tool(name, label, act, pressed = null) {
  return el("button", {
    type: "button", class: "tool", title: label, onclick: act,
    "aria-pressed": pressed === null ? null : String(pressed),
  }, sign(name), el("span", { class: "sr" }, label));
}

/** Thumbs, copy and again under an answer. `doing` has rate(turn, value) and again(). */
function tools(turn, doing) {
  const up = tool("up", "Good answer", () => rate(1), turn.rating === 1);
  const down = tool("down", "Bad answer", () => rate(-1), turn.rating === -1);
  async function rate(value) {
    const wanted = turn.rating === value ? 0 : value;
    if (!await doing.rate(turn, wanted)) return;
    turn.rating = wanted;
    up.setAttribute("aria-pressed", String(wanted === 1));
    down.setAttribute("aria-pressed", String(wanted === -1));
  }
  const copy = tool("copy", "Copy", async () => {
    try {
      await navigator.clipboard.writeText(turn.text);
      announce("Copied");
    } catch {
      announce("Copying is not possible here");
    }
  });
  const again = tool("again", "Answer again", () => doing.again());
  again.classList.add("again");
  return el("div", { class: "tools" }, up, down, copy, again);
}

/** What else is to be known of an answer. */
export function notes(turn) {
  const found = [...(turn.notes ?? [])];
  if (!turn.complete) found.unshift("The answer was cut off");
  if (!found.length) return null;
  return el("div", { class: "notes" }, ...found.map((note) => el("p", { class: "note", dir: "auto" }, note)));
}

/** An answer, being said or said. */
export class Answer {
  constructor(speaker, doing) {
    this.doing = doing;
    this.readable = el("span");
    // what is not yet a sentence is kept from screen readers: they would read it word by word
    this.tail = el("span", { "aria-hidden": "true" });
    this.dots = el("span", { class: "wait", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
    this.mended = el("div");
    this.head = el("div", { class: "head" }, el("h3", {}, speaker));
    this.text = el("p", { class: "text", dir: "auto" }, this.readable, this.tail);
    this.node = el("article", { class: "turn" }, this.head, this.text, this.dots);
  }

  /** The strategy, as soon as it is known. */
  strategy(turn) {
    if (this.chip || !turn.strategy) return;
    const [button, reason] = chip(turn, this.mended);
    this.chip = button;
    this.head.append(button);
    this.head.after(reason);
  }

  /** More of the text. */
  push(text) {
    this.dots.remove();
    const whole = this.tail.textContent + text;
    let cut = 0;
    for (const end of whole.matchAll(SENTENCE)) cut = end.index + end[0].length;
    if (cut) this.readable.append(el("span", {}, whole.slice(0, cut)));
    this.tail.textContent = whole.slice(cut);
  }

  /** The whole turn as it is kept. */
  done(turn) {
    this.dots.remove();
    const shown = this.readable.textContent;
    if (turn.text.startsWith(shown)) {
      const rest = turn.text.slice(shown.length);
      if (rest) this.readable.append(el("span", {}, rest));
    } else {
      this.readable.replaceChildren(el("span", {}, turn.text));
    }
    this.tail.textContent = "";
    this.strategy(turn);
    const mended = (turn.mended ?? []).map((note) => el("p", {}, `Put right by a rule: ${note}.`));
    this.mended.append(...mended);
    const below = [notes(turn), turn.id ? tools(turn, this.doing) : null];
    this.node.append(...below.filter(Boolean));
    return this.node;
  }

  /** It ended in the middle, and nobody knows what the server keeps of it; whether any came. */
  broken() {
    const text = this.readable.textContent + this.tail.textContent;
    if (text) this.done({ text, complete: false });
    return Boolean(text);
  }
}

// The page: which conversation is open, what is being said, and what keys do.

import { Failed, call, listen } from "./api.js";
import { $, alertUser, announce, ask } from "./dom.js";
import * as side from "./side.js";
import * as start from "./start.js";
import { Answer, keepingEnd, ownTurn, toEnd } from "./turns.js";
import { pairOf, waitingPair } from "./versus.js";

const ID = /^#([0-9a-f-]{8,64})$/i;
const NEW = "New conversation";
let offered = { limit: 100000 };
let open = null; // the conversation that is shown; null: a new one
let early = $("message").value; // what was typed before the page was ready
let busy = null; // {stop, over} while an answer comes

// --- what is shown -----------------------------------------------------------------------------

const draftOf = () => `tunelm-draft-${open?.id ?? "new"}`;

function fill(text) {
  $("message").value = text;
  grow();
}

const characters = (count) => `${count.toLocaleString("en")} character${count === 1 ? "" : "s"}`;

/** As high as its text; CSS sets the most. The draft outlives a reload. */
function grow() {
  const box = $("message");
  box.rows = Math.min(Math.max(box.value.split("\n").length, Math.ceil(box.value.length / 80), 1), 12);
  const left = offered.limit - [...box.value].length;
  $("count").textContent = left < offered.limit / 10
    ? `${characters(Math.abs(left))} ${left < 0 ? "too many" : "left"}` : "";
  $("count").classList.toggle("over", left < 0);
  if (box.value) sessionStorage.setItem(draftOf(), box.value);
  else sessionStorage.removeItem(draftOf());
  controls();
}

function controls() {
  const teaching = open ? open.tutor : start.teaches();
  $("send").hidden = Boolean(busy);
  $("stop").hidden = !busy;
  $("silence").hidden = Boolean(busy) || !teaching || Boolean($("message").value.trim());
  $("send").setAttribute("aria-disabled", String(!$("message").value.trim()));
}

function showHead() {
  $("title").textContent = open ? (open.title || "Untitled") : NEW;
  document.title = open?.title ? `${open.title} · tunelm` : "tunelm";
  $("acts").hidden = !open;
  const kind = open?.other ? "two models, blind" : open?.tutor ? `tutor, ${open.style}` : "";
  $("about").textContent = open ? [open.other ? "" : open.model, kind].filter(Boolean).join(" · ") : "";
  $("problem-bar").hidden = !open?.problem || open.problem === open.title;
  $("problem-text").textContent = open?.problem ?? "";
  $("start").hidden = Boolean(open);
  $("log").hidden = !open;
}

const speaker = () => (open.tutor ? "Tutor" : open.model);

function shownTurn(turn) {
  if (turn.role === "pair") return pairOf(turn, vote);
  if (turn.role === "user") return ownTurn(turn);
  return new Answer(turn.id ? speaker() : "One of the two", doing).done(turn);
}

function show(conversation) {
  open = conversation;
  alertUser("");
  showHead();
  const log = $("log");
  log.setAttribute("aria-live", "off"); // what was said long ago is not news
  log.replaceChildren(...(open?.turns ?? []).map(shownTurn));
  setTimeout(() => log.setAttribute("aria-live", "polite"), 200);
  toEnd();
  onlyLastAgain();
  fill(sessionStorage.getItem(draftOf()) ?? "");
  const last = open?.turns.at(-1);
  if (last?.role === "user") unanswered();
}

function unanswered() {
  const now = open.other ? [] : [["Answer now", again]]; // two answers are given once
  alertUser("The last message has no answer.", ...now);
}

/** Only the last answer can be asked for again. */
function onlyLastAgain() {
  const last = $("log").lastElementChild;
  for (const button of $("log").querySelectorAll(".again")) button.hidden = !last.contains(button);
}

// --- where we are ------------------------------------------------------------------------------

async function go(focus) {
  const id = ID.exec(location.hash)?.[1] ?? null;
  if (id === (open?.id ?? null) && offered.models) return;
  if (busy) { // whoever goes elsewhere does not wait for the answer here
    busy.stop?.();
    await busy.over;
  }
  side.openSide(false);
  try {
    const notes = offered.models ? [] : await begin();
    show(id ? await call("GET", `conversations/${id}`) : null);
    if (early) fill(early);
    early = "";
    if (notes.length) alertUser(notes.join(" "));
    side.refresh(id);
    if (focus) (id ? $("title") : $("message")).focus();
  } catch (error) {
    if (error.status === 404) {
      location.hash = "";
      show(null);
      side.refresh(null);
    }
    alertUser(error.message, ["Try again", () => go(focus)]);
  }
}

async function begin() {
  offered = await call("GET", "start");
  start.offer(offered);
  return offered.notes;
}

function goTo(id) {
  history.pushState(null, "", id ? `#${id}` : "#new");
}

// --- talking -----------------------------------------------------------------------------------

const doing = {
  again: () => again(),
  rate: async (turn, value) => {
    try {
      await call("POST", `turns/${turn.id}/rating`, { value });
      announce({ 1: "Rated good", 0: "Rating taken back", "-1": "Rated bad" }[value]);
      return true;
    } catch (error) {
      alertUser(error.message);
      return false;
    }
  },
};

async function vote(pair, choice) {
  try {
    const found = await call("POST", `pairs/${pair.id}/vote`, { choice });
    Object.assign(pair, found);
    return found;
  } catch (error) {
    alertUser(error.message);
    return null;
  }
}

async function send(text) {
  if (busy) return;
  if ([...text].length > offered.limit) {
    alertUser(`A message may have ${characters(offered.limit)}; this one has ${characters([...text].length)}.`);
    return;
  }
  alertUser("");
  work();
  try {
    if (open) await hear(`conversations/${open.id}/messages`, { text }, open.other);
    else {
      const chosen = start.chosen();
      await hear("conversations", { text, ...chosen }, Boolean(chosen.other));
    }
  } catch (error) {
    const retry = ["Try again", () => send($("message").value)];
    alertUser(error.message, ...(error instanceof Failed ? [retry] : []));
  } finally {
    rest();
  }
}

async function again() {
  if (busy || !open) return;
  const last = $("log").lastElementChild;
  const former = last && !last.classList.contains("own") ? last : null;
  if (former) former.hidden = true; // it stays where there is no other
  $("message").focus();
  work();
  try {
    if (await hear(`conversations/${open.id}/again`, {}, false)) former?.remove();
  } catch (error) {
    alertUser(error.message, ["Try again", again]);
  } finally {
    if (former) former.hidden = false;
    rest();
  }
}

function work() {
  busy = {};
  busy.over = new Promise((resolve) => { busy.end = resolve; });
  controls();
}

function rest() {
  busy.end();
  busy = null;
  controls();
  onlyLastAgain();
  side.refresh(open?.id ?? null);
}

/**
 * Ask for an answer and show it as it comes; resolves to whether there is anything of it. A text
 * that the server has not heard stays in the box.
 */
async function hear(path, body, pair) {
  const asked = body.text !== undefined;
  let live = null, failed = null, ended = false, some = true;
  const stop = () => call("POST", `conversations/${open.id}/stop`, {}).catch(() => null);
  const shown = (node) => keepingEnd(() => $("log").append(node));
  const begin = () => {
    live = pair ? { node: waitingPair() } : new Answer(speaker(), doing);
    shown(live.node);
    busy.stop = stop;
    controls();
  };
  if (!asked) begin();
  const take = {
    begun: ({ conversation }) => {
      sessionStorage.removeItem(draftOf());
      show(conversation);
      goTo(conversation.id);
    },
    heard: ({ turn, title }) => {
      fill("");
      open.title = title;
      showHead();
      shown(ownTurn(turn));
      begin();
    },
    strategy: (event) => live.strategy(event),
    piece: (event) => keepingEnd(() => live.push(event.text)),
    said: ({ turn }) => {
      ended = true;
      if (turn) keepingEnd(() => live.done(turn));
      else {
        some = false;
        live?.node.remove();
        if (asked) unanswered();
      }
    },
    pair: (event) => {
      ended = true;
      keepingEnd(() => live.node.replaceWith(pairOf(event.pair, vote)));
      announce("Both answers are here.");
    },
    failed: ({ message }) => { failed = new Failed(message, 500); },
  };
  try {
    await listen(path, body, (event) => take[event.event]?.(event));
    if (failed) throw failed;
    if (!ended) throw new Failed("The answer broke off: the connection was lost.", 0);
  } catch (error) {
    if (!live || ended) throw error;
    some = Boolean(live.broken?.());
    if (!some) live.node.remove();
    alertUser(error.message, ...(open.other ? [] : [["Answer again", recover]]));
  }
  return some;
}

/** After a broken answer: see what the server has kept of it, then ask anew. */
async function recover() {
  try {
    show(await call("GET", `conversations/${open.id}`));
    await again();
  } catch (error) {
    alertUser(error.message, ["Try again", recover]);
  }
}

// --- controls ----------------------------------------------------------------------------------

function submit() {
  const text = $("message").value;
  if (text.trim()) send(text);
}

$("composer").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
$("silence").addEventListener("click", () => { $("message").focus(); send(""); });
$("stop").addEventListener("click", () => { busy?.stop?.(); $("message").focus(); });
$("message").addEventListener("input", grow);
$("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || $("ask").open) return;
  if (!$("export-forms").hidden) forms(false);
  else if (busy?.stop) busy.stop();
});

function forms(shown) {
  $("export-forms").hidden = !shown;
  $("export").setAttribute("aria-expanded", String(shown));
  if (!shown && document.activeElement?.closest("#export-forms") !== null) $("export").focus();
}

$("export").addEventListener("click", () => forms($("export-forms").hidden));
document.addEventListener("click", (event) => {
  if (!event.target.closest(".menu") && !$("export-forms").hidden) forms(false);
});
for (const button of document.querySelectorAll("[data-form]")) {
  button.addEventListener("click", () => { forms(false); side.exported(open.id, button.dataset.form); });
}

$("rename").addEventListener("click", async () => {
  const title = await ask({
    title: "Rename this conversation", yes: "Rename", field: { label: "Title", value: open.title },
  });
  if (!title?.trim()) return;
  try {
    open.title = (await call("PATCH", `conversations/${open.id}`, { title: title.trim() })).title;
    showHead();
    side.refresh();
  } catch (error) {
    alertUser(error.message);
  }
});

$("delete").addEventListener("click", async () => {
  const sure = await ask({
    title: "Delete this conversation?",
    text: `“${open.title || "Untitled"}” is deleted for good, with its ratings.`,
    yes: "Delete", danger: true,
  });
  if (sure === null) return;
  try {
    const { notes } = await call("DELETE", `conversations/${open.id}`);
    sessionStorage.removeItem(draftOf());
    left("Deleted", notes);
  } catch (error) {
    alertUser(error.message);
  }
});

function left(said, notes) {
  goTo(null);
  show(null);
  side.refresh(null);
  announce(said);
  alertUser(notes.join(" "));
  $("message").focus();
}

$("skip").addEventListener("click", (event) => { event.preventDefault(); $("message").focus(); });
$("new").addEventListener("click", () => { if (!open) $("message").focus(); });
start.connect(controls);
side.connect((notes) => left("All conversations are deleted", notes));
window.addEventListener("hashchange", () => go(true));
await go(false);
if (!$("ask").open) $("message").focus();

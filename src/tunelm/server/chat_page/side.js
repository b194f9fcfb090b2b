// The list of past conversations, searched by title and by what was said.

import { GONE, call, text } from "./api.js";
import { $, alertUser, ask, el, save } from "./dom.js";

const PAGE = 40;
const TYPES = { markdown: ["md", "text/markdown"], json: ["json", "application/json"], jsonl: ["jsonl", "application/jsonl"] };
let shown = 0;
let asked = 0;
let current = null;

/** Fill the list anew. `id` is the conversation that is open. */
export async function refresh(id = current) {
  current = id;
  await load(0);
}

async function load(offset) {
  const query = $("search").value.trim(), turn = ++asked;
  let found;
  try {
    found = await call("GET", `conversations?${new URLSearchParams({ q: query, offset, limit: PAGE })}`);
  } catch (error) {
    if (turn === asked) $("found").textContent = error.status ? error.message : GONE;
    return;
  }
  if (turn !== asked) return; // a later search has been sent
  const items = found.conversations.map(item);
  if (offset) $("list").append(...items); else $("list").replaceChildren(...items);
  shown = offset + items.length;
  $("more").hidden = !found.more;
  const count = `${shown}${found.more ? " or more" : ""}`;
  $("found").textContent = query ? (shown ? `${count} found` : "Nothing found")
    : (shown ? "" : "No conversations yet");
}

function item(one) {
  const kind = one.other ? "two, blind" : one.tutor ? "tutor" : one.model;
  return el("li", {}, el("a", { href: `#${one.id}`, "aria-current": one.id === current ? "page" : null },
    el("b", { dir: "auto" }, one.title || "Untitled"), el("small", {}, `${when(one.updated)} · ${kind}`)));
}

function when(seconds) {
  const then = new Date(seconds * 1000), now = new Date();
  if (then.toDateString() === now.toDateString()) {
    return then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  }
  const year = then.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return then.toLocaleDateString([], { day: "numeric", month: "short", year });
}

/** Save one conversation, or all of them (null), as a file. */
export async function exported(id, form) {
  const [ending, type] = TYPES[form];
  try {
    const whole = await text(`${id ? `conversations/${id}/` : ""}export?form=${form}`);
    save(`${id ? "conversation" : "conversations"}.${ending}`, whole, type);
  } catch (error) {
    alertUser(error.message);
  }
}

/** The side opens over the page where the window is narrow. */
export function openSide(open) {
  const was = document.body.classList.contains("with-side");
  document.body.classList.toggle("with-side", open);
  $("main").inert = open;
  $("side-open").setAttribute("aria-expanded", String(open));
  if (open) $("side-close").focus(); else if (was) $("side-open").focus();
}

/** Connect the side's controls. `cleared` is called with notes when all has been deleted. */
export function connect(cleared) {
  let timer = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => load(0), 200);
  });
  $("more").addEventListener("click", async () => {
    const before = shown;
    await load(shown);
    $("list").children[before]?.querySelector("a").focus();
  });
  $("side-open").addEventListener("click", () => openSide(true));
  $("side-close").addEventListener("click", () => openSide(false));
  $("side").addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.body.classList.contains("with-side")) openSide(false);
  });
  $("side").addEventListener("click", (event) => {
    if (event.target.closest("a") && document.body.classList.contains("with-side")) openSide(false);
  });
  matchMedia("(max-width: 52rem)").addEventListener("change", () => openSide(false));
  for (const button of document.querySelectorAll("[data-all]")) {
    button.addEventListener("click", () => exported(null, button.dataset.all));
  }
  $("training").addEventListener("click", async () => {
    try {
      const rows = await text("training-rows");
      if (rows) save("training-rows.jsonl", rows, "application/jsonl");
      else alertUser("There are no training rows yet: give a thumbs up to a good answer first.");
    } catch (error) {
      alertUser(error.message);
    }
  });
  $("delete-all").addEventListener("click", async () => {
    const sure = await ask({
      title: "Delete all conversations?",
      text: "All of them are deleted for good, with their ratings and votes.",
      yes: "Delete all", danger: true,
    });
    if (sure === null) return;
    try {
      const { notes } = await call("DELETE", "conversations");
      $("all").open = false;
      cleared(notes);
    } catch (error) {
      alertUser(error.message);
    }
  });
}

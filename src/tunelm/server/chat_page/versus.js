// Two models side by side. Who they are comes from the server only after the vote.

import { el } from "./dom.js";
import { notes } from "./turns.js";

const CHOICES = [["a", "A is better"], ["=", "Same"], ["b", "B is better"]];

/** A pair of answers; `vote(pair, choice)` resolves to the pair as it is then, or to null. */
export function pairOf(pair, vote) {
  const node = el("article", { class: "pair", "aria-label": "Two answers" });
  show(node, pair, vote);
  return node;
}

/** The place of a pair whose answers are being written. */
export function waitingPair() {
  const dots = () => el("p", { class: "wait", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
  const side = (name) => el("section", { class: "side-of" }, el("h3", {}, el("b", {}, name)), dots());
  return el("article", { class: "pair" }, el("div", { class: "columns" }, side("A"), side("B")));
}

function show(node, pair, vote) {
  const better = pair.vote === "a" || pair.vote === "b" ? pair.vote : null;
  const side = (name) => {
    const answer = pair[name], own = pair.names?.[name];
    return el("section", {
      class: `side-of${better === name ? " better" : ""}`, "aria-label": `Answer ${name.toUpperCase()}`,
    },
      el("h3", {}, el("b", {}, name.toUpperCase()), own ? el("span", {}, own) : null,
        better === name ? el("span", {}, "better") : null),
      el("p", { class: "text", dir: "auto" }, answer.text),
      notes(answer));
  };
  const choices = CHOICES.map(([choice, label]) => el("button", {
    type: "button", class: "choice",
    onclick: async () => {
      const found = await vote(pair, choice);
      if (found) show(node, found, vote);
    },
  }, label));
  node.replaceChildren(
    el("div", { class: "columns turn" }, side("a"), side("b")),
    pair.vote ? el("div", { class: "tally", tabindex: "-1" }, ...said(pair))
      : el("div", { class: "vote", role: "group", "aria-label": "Which answer is better?" }, ...choices));
  // the button that had the focus is gone; what it brought is read out
  if (pair.vote && document.activeElement === document.body) node.querySelector(".tally")?.focus();
}

function said(pair) {
  const chosen = { a: "A was better", b: "B was better", "=": "Both the same", skip: "Skipped" };
  const whose = `${chosen[pair.vote]}. A was ${pair.names.a}, B was ${pair.names.b}.`;
  return [whose, ...pair.tally].map((line) => el("p", { dir: "auto" }, line));
}

// The start of a conversation: with whom, and about what.

import { $, el } from "./dom.js";

const OWN = "own";
const LONG = 60; // characters of a problem that its choice cannot show whole
let offered = null;

const mode = () => document.querySelector("[name=mode]:checked").value;

/** Fill the choices from what the server offers. */
export function offer(found) {
  offered = found;
  const models = () => found.models.map((name) => el("option", { value: name }, name));
  for (const id of ["model", "other"]) $(id).replaceChildren(...models());
  $("model").value = found.model;
  $("other").value = found.models.find((name) => name !== found.model) ?? found.model;
  const alone = found.models.length < 2;
  $("versus").disabled = alone;
  if (alone) $("versus-is").textContent = "Only one model is served here.";
  $("style").replaceChildren(...Object.keys(found.styles).map((name) => el("option", { value: name }, name)));
  $("style").value = found.style;
  const groups = new Map();
  for (const problem of found.problems) {
    const made = el("option", { value: problem.id }, problem.text);
    groups.set(problem.subject, [...(groups.get(problem.subject) ?? []), made]);
  }
  $("problem").replaceChildren(
    el("option", { value: OWN }, "My own problem…"),
    ...[...groups].sort().map(([subject, made]) => el("optgroup", { label: subject.replaceAll("_", " ") }, ...made)));
  if (found.problems.length) $("problem").value = found.problems[0].id;
  update();
}

function update() {
  const now = mode(), own = now === "tutor" && $("problem").value === OWN;
  for (const part of document.querySelectorAll("[data-for]")) {
    const wanted = part.dataset.for;
    part.hidden = !(wanted === now || (wanted === "own" && own));
  }
  $("style-is").textContent = offered?.styles[$("style").value] ?? "";
  const problem = offered?.problems.find((one) => one.id === $("problem").value);
  $("shown").hidden ||= own || !problem || problem.text.length <= LONG;
  $("shown").textContent = problem?.text ?? "";
}

/** What the server is told to begin with; throws an Error in words where something is missing. */
export function chosen() {
  const now = mode(), begin = { model: $("model").value };
  if (now === "versus") begin.other = $("other").value;
  if (now === "tutor") {
    begin.style = $("style").value;
    if ($("problem").value === OWN) {
      if (!$("own").value.trim()) {
        $("own").focus();
        throw new Error("Write the problem first: the tutor needs something to talk about.");
      }
      begin.problem = { text: $("own").value.trim(), solution: $("solution").value.trim() };
    } else {
      begin.problem = { id: $("problem").value };
    }
  }
  return begin;
}

/** Whether a student may be silent: only a tutor has something to say to that. */
export const teaches = () => mode() === "tutor";

/** Connect the form's controls. `changed` is called after each choice. */
export function connect(changed) {
  $("start").addEventListener("change", () => { update(); changed(); });
  $("start").addEventListener("submit", (event) => event.preventDefault());
}

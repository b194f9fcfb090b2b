// Elements, the dialog, and words for screen readers. Whatever a model or a person wrote goes in
// as a text node: nothing here reads HTML.

export const $ = (id) => document.getElementById(id);

/** An element; strings among the children become text. Properties with a dash are attributes. */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** One of the page's own signs. */
export function sign(name) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  made.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  made.append(use);
  return made;
}

/** Say something to a screen reader alone. */
export function announce(text) {
  const place = $("status");
  place.textContent = "";
  setTimeout(() => { place.textContent = text; }, 50);
}

/** Show what went wrong, with buttons [label, what it does]; "" takes it away. */
export function alertUser(text, ...buttons) {
  const place = $("alert");
  place.hidden = !text;
  const made = buttons.map(([label, act]) => el("button", {
    type: "button",
    onclick: () => { alertUser(""); act(); },
  }, label));
  place.replaceChildren(...(text ? [el("span", {}, text), ...made] : []));
}

let asked = Promise.resolve();

/**
 * Ask in the dialog, one question at a time. The answer is null where it was cancelled, else what
 * stands in the field ("" without one).
 */
export function ask(question) {
  const answer = asked.then(() => open(question));
  asked = answer.catch(() => null);
  return answer;
}

function open({ title, text = "", yes = "OK", danger = false, field = null, wrong = "" }) {
  const dialog = $("ask"), input = $("ask-input"), before = document.activeElement;
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-text").hidden = !text;
  $("ask-wrong").textContent = wrong;
  $("ask-wrong").hidden = !wrong;
  $("ask-yes").textContent = yes;
  $("ask-yes").classList.toggle("danger", danger);
  $("ask-field").hidden = !field;
  if (field) {
    $("ask-label").textContent = field.label;
    input.type = field.secret ? "password" : "text";
    input.value = field.value ?? "";
  }
  return new Promise((resolve) => {
    const end = (value) => {
      dialog.close();
      input.value = "";
      $("ask-yes").onclick = $("ask-no").onclick = input.onkeydown = dialog.oncancel = null;
      if (before?.isConnected) before.focus();
      resolve(value);
    };
    $("ask-yes").onclick = () => end(field ? input.value : "");
    $("ask-no").onclick = () => end(null);
    dialog.oncancel = (event) => { event.preventDefault(); end(null); };
    input.onkeydown = (event) => {
      if (event.key === "Enter" && !event.isComposing) { event.preventDefault(); end(input.value); }
    };
    dialog.showModal();
    if (field) { input.focus(); input.select(); } else $("ask-no").focus();
  });
}

/** Save text as a file of the person's. */
export function save(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

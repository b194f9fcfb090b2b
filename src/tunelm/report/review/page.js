"use strict";
(() => {
  const form = document.querySelector("form");
  const heads = JSON.parse(form.dataset.heads);
  const sheet = form.dataset.sheet;
  const rater = document.getElementById("rater");
  const told = document.getElementById("told");
  const items = [...document.querySelectorAll(".item")];
  const kept = `tunelm-review ${sheet}`;
  let saved = true;

  const marked = (name) => form.querySelector(`input[name="${name}"]:checked`);
  const open = (item) =>
    [...item.querySelectorAll("fieldset")].find(
      (field) => !field.querySelector("input:checked"),
    );

  const count = () => {
    const done = items.filter((item) => {
      const all = !open(item);
      item.classList.toggle("done", all);
      return all;
    }).length;
    document.getElementById("done").textContent = `${done} of ${items.length} items filled in`;
  };

  const keep = () => {
    const state = [...new FormData(form)].filter(([, value]) => value !== "");
    try {
      localStorage.setItem(kept, JSON.stringify(state));
    } catch {
      // private windows and some local files have no such place; the file saved is what counts
    }
  };

  const recall = () => {
    let state = [];
    try {
      state = JSON.parse(localStorage.getItem(kept) ?? "[]");
    } catch {
      return;
    }
    for (const [name, value] of state) {
      for (const field of form.elements) {
        if (field.name !== name) continue;
        if (field.type === "radio" || field.type === "checkbox") {
          if (field.value === value) field.checked = true;
        } else field.value = value;
      }
    }
  };

  const safe = (text) => (/^'*[=+\-@\t\r＝＋－＠]/.test(text) ? `'${text}` : text);
  const cell = (text) => `"${safe(text.replace(/\r\n?/g, "\n").trim()).replaceAll('"', '""')}"`;

  const rows = () => {
    const made = [heads];
    for (const item of items) {
      const number = item.dataset.number;
      const best = [...item.querySelectorAll(`input[name="best-${number}"]:checked`)];
      for (const [at, answer] of [...item.querySelectorAll(".answer")].entries()) {
        const letter = answer.dataset.letter;
        const names = [...answer.querySelectorAll("fieldset")].map((f) => f.dataset.name);
        made.push([
          sheet, rater.value, number, letter, "", "", "",
          ...names.map((name) => marked(name)?.value ?? ""),
          at ? "" : best.map((box) => box.value).join("="),
          answer.querySelector("textarea").value,
        ]);
      }
    }
    return "\ufeff" + made.map((row) => row.map(cell).join(",") + "\r\n").join("");
  };

  form.addEventListener("input", () => {
    saved = false;
    told.textContent = "";
    count();
    keep();
  });

  document.getElementById("next").addEventListener("click", () => {
    const item = items.find(open);
    if (!item) {
      told.textContent = "Everything is filled in. Save the ratings now.";
      return;
    }
    const field = open(item).querySelector("input");
    field.focus({ preventScroll: true });
    field.closest("fieldset").scrollIntoView({ block: "center" });
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!rater.value.trim()) {
      told.textContent = "Write your name first, so that your ratings can be told from others'.";
      rater.focus();
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([rows()], { type: "text/csv;charset=utf-8" }));
    link.download = `${rater.value.trim().replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 60)}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
    saved = true;
    told.textContent = `Saved as ${link.download} in your downloads. Send that file back.`;
  });

  window.addEventListener("beforeunload", (event) => {
    if (!saved) event.preventDefault();
  });

  recall();
  count();
})();

// The page shows everything without this script. It adds: what a bar is on pointing at it, a filter, sorted columns.
"use strict";
const told = document.getElementById("told");
document.addEventListener("pointermove", (event) => {
  const mark = event.target.closest?.("svg [aria-label]");
  told.hidden = !mark;
  if (!mark) return;
  told.textContent = mark.getAttribute("aria-label");
  told.style.left = Math.min(event.clientX + 14, innerWidth - told.offsetWidth - 8) + "px";
  told.style.top = Math.min(event.clientY + 16, innerHeight - told.offsetHeight - 8) + "px";
});

// What a large report has packed: the pages of models, and all but the first rows of the longest table.
const packed = document.getElementById("packed");
let unpacked = null;
const unpack = () => unpacked ??= (async () => {
  const bytes = Uint8Array.from(atob(packed.textContent.trim()), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
})();

// The owner, tag, folder and project that are chosen: the rows of other nodes are hidden in every table.
const only = document.getElementById("only");
const choices = only ? [...only.querySelectorAll("select")] : [];
const marks = only ? JSON.parse(document.getElementById("marks").textContent) : [];
const isChosen = (mark) => choices.every((choice, place) => choice.value === "" || mark[place].includes(+choice.value));
const fitting = new Set();
const isOut = (row) => row.dataset.n !== undefined && choices.length > 0 && !fitting.has(+row.dataset.n);
const choose = () => {
  fitting.clear();
  marks.forEach((mark, number) => isChosen(mark) && fitting.add(number));
  const isAny = choices.some((choice) => choice.value !== "");
  only.lastElementChild.textContent = isAny ? fitting.size.toLocaleString("en") + " of " + marks.length.toLocaleString("en")
    + " nodes and tests; figures and charts are of all" : "";
  for (const row of document.querySelectorAll("main > section tr[data-n]")) row.hidden = isOut(row);
  dispatchEvent(new Event("chosen"));
};
if (only) {
  only.hidden = false;
  choices.forEach((choice) => choice.addEventListener("change", choose));
  marks.forEach((_, number) => fitting.add(number));
}

// Laying out thousands of rows takes a second: so many are shown, and the filter looks through all.
const SHOWN = 300;
const number = (count) => count.toLocaleString("en");
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  let rows = [...body.rows];
  let texts = null;
  let left = packed ? Number(table.dataset.packed) : 0;
  const find = document.getElementById(table.id + "-find");
  const count = document.getElementById(table.id + "-count");
  const whole = async () => {
    if (left) {
      const html = (await unpack()).rows;
      if (left) body.insertAdjacentHTML("beforeend", html);
      left = 0;
      rows = [...body.rows];
    }
    texts ??= new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  };
  const show = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const row of rows) {
      const fits = !isOut(row) && (!words.length || words.every((word) => texts.get(row).includes(word)));
      found += fits ? 1 : 0;
      row.hidden = !fits || found > SHOWN;
    }
    found += left;
    count.textContent = number(found) + " of " + number(rows.length + left)
      + (found > SHOWN ? ", the first " + SHOWN + " are shown" : "");
  };
  const heads = [...table.querySelectorAll("th")];
  heads.forEach((head, column) => {
    const isFigure = head.classList.contains("figure");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", async () => {
      await whole();
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : isFigure;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const keys = new Map(rows.map((row) => [row, isFigure ? Number(key(row) || -1) : key(row)]));
      const order = (a, b) => (keys.get(a) < keys.get(b) ? -1 : keys.get(a) > keys.get(b) ? 1 : 0);
      rows = [...rows].sort((a, b) => (down ? -order(a, b) : order(a, b)));
      show();
      body.append(...rows);
    });
  });
  find.closest(".filter").hidden = false;
  const showAll = () => whole().then(show);
  find.addEventListener("input", showAll);
  addEventListener("chosen", showAll);
  show();
}

// In a large report the pages of models are packed: the one that an address names is unpacked and put in its place.
const open = async () => {
  const id = location.hash.slice(1);
  if (!packed || !id.startsWith("node.") || document.getElementById(id)) return;
  const html = (await unpack())[id];
  if (!html || document.getElementById(id)) return;
  document.getElementById("pages").insertAdjacentHTML("beforeend", html);
  // The browser looks for the place that an address names once: ask it again.
  location.replace("#" + id);
};
addEventListener("hashchange", open);
open();

// What is in trouble is looked for first.
for (const box of document.querySelectorAll(".natural")) {
  const first = box.querySelector(".failed, .warned, .path")?.getBoundingClientRect();
  if (first) box.scrollLeft = first.left - box.getBoundingClientRect().left - 300;
}

// On a narrow screen, what happened last is what is looked for.
for (const box of document.querySelectorAll(".newest")) box.scrollLeft = box.scrollWidth;

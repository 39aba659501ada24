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

// Laying out thousands of rows takes a second: so many are shown, and the filter looks through all.
const SHOWN = 300;
const number = (count) => count.toLocaleString("en");
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  let rows = [...body.rows];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const find = document.getElementById(table.id + "-find");
  const count = document.getElementById(table.id + "-count");
  const show = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const row of rows) {
      const fits = words.every((word) => texts.get(row).includes(word));
      found += fits ? 1 : 0;
      row.hidden = !fits || found > SHOWN;
    }
    count.textContent = number(found) + " of " + number(rows.length)
      + (found > SHOWN ? ", the first " + SHOWN + " are shown" : "");
  };
  const heads = [...table.querySelectorAll("th")];
  heads.forEach((head, column) => {
    const isFigure = head.classList.contains("figure");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
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
  find.addEventListener("input", show);
  show();
}

// In a large report the pages of models are packed: the one that an address names is unpacked and put in its place.
const packed = document.getElementById("packed");
let unpacked = null;
const open = async () => {
  const id = location.hash.slice(1);
  if (!packed || !id.startsWith("node.") || document.getElementById(id)) return;
  unpacked ??= (async () => {
    const bytes = Uint8Array.from(atob(packed.textContent.trim()), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  })();
  const html = (await unpacked)[id];
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

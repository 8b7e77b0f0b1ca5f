"use strict";
// Tables with data-sortable: a heading sorts, a star keeps a row on top, a search and a choice filter, CSV is downloaded
const $ = id => document.getElementById(id);
const escape = text => String(text).replace(/[&<>"]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})[c]);

// 1.23 M as 1230000, 1-3 as 1; null where there is no number
function numberOf(text) {
  const found = /^([+−-]?\d[\d,]*\.?\d*(?:e[+-]?\d+)?)\s*([kMGT]?)/.exec(text);
  return found && Number(found[1].replace("−", "-").replaceAll(",", "")) * ({k: 1e3, M: 1e6, G: 1e9, T: 1e12}[found[2]] ?? 1);
}
const textOf = cell => {
  const copy = cell.cloneNode(true);
  copy.querySelectorAll("button, svg, .badge").forEach(e => e.remove());
  return copy.textContent.trim().replace(/\s+/g, " ");
};
const isPinned = row => row.querySelector(".pin")?.getAttribute("aria-pressed") === "true";
const changed = table => table.dispatchEvent(new Event("rows"));

function sortRows(table, column, descending) {
  const keyed = [...table.tBodies[0].rows].map(row => ({row, text: textOf(row.cells[column]), pinned: isPinned(row)}));
  const known = keyed.filter(each => each.text !== "-"), numeric = known.every(each => numberOf(each.text) !== null);
  for (const each of keyed) each.value = each.text === "-" ? null : numeric ? numberOf(each.text) : each.text;
  const order = (a, b) => numeric ? a - b : a.localeCompare(b, "en", {numeric: true});
  keyed.sort((a, b) => b.pinned - a.pinned || (a.value === null) - (b.value === null) || (a.value === null ? 0 : order(a.value, b.value) * (descending ? -1 : 1)));
  table.tBodies[0].append(...keyed.map(each => each.row));
  [...table.tHead.rows[0].cells].forEach((head, k) => {
    if (k === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending"); else head.removeAttribute("aria-sort");
  });
  changed(table);
}

document.querySelectorAll("table[data-sortable]").forEach(table => {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.innerHTML = `<button type="button" class="sort">${head.innerHTML}</button>`;
    head.firstChild.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort"), first = textOf(table.tBodies[0].rows[0].cells[column]);
      sortRows(table, column, before ? before === "ascending" : numberOf(first) !== null && head.textContent !== "rank");
    });
  });
});

// The table of variants, or of experiments
const main = $("variants") || $("experiments");
if (main) {
  for (const row of main.tBodies[0].rows) {
    const name = textOf(row.cells[0]);
    row.cells[0].insertAdjacentHTML("afterbegin", `<button type="button" class="pin" aria-pressed="false" aria-label="Keep ${escape(name)} on top" title="Keep on top">☆</button>`);
    row.cells[0].firstChild.addEventListener("click", event => {
      const button = event.currentTarget, pinned = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(pinned));
      button.textContent = pinned ? "★" : "☆";
      const heads = [...main.tHead.rows[0].cells], sorted = heads.findIndex(head => head.hasAttribute("aria-sort"));
      if (sorted >= 0) sortRows(main, sorted, heads[sorted].getAttribute("aria-sort") === "descending");
      else {
        const rows = [...main.tBodies[0].rows];
        rows.sort((a, b) => isPinned(b) - isPinned(a) || a.dataset.place - b.dataset.place);
        main.tBodies[0].append(...rows);
        changed(main);
      }
      button.focus();
    });
  }
  [...main.tBodies[0].rows].forEach((row, place) => { row.dataset.place = place; });
  const filter = () => {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean), verdict = $("verdict")?.value;
    const rows = [...main.tBodies[0].rows];
    for (const row of rows) {
      const text = `${row.textContent} ${row.dataset.search ?? ""}`.toLowerCase();
      const judged = row.querySelector("[data-kind=verdict]")?.textContent ?? "";
      row.hidden = !isPinned(row) && !(words.every(word => text.includes(word)) && (!verdict || judged.startsWith(verdict)));
    }
    $("count").textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length}`;
    changed(main);
  };
  $("search").addEventListener("input", filter);
  $("verdict")?.addEventListener("change", filter);
  $("count").textContent = `${main.tBodies[0].rows.length} of ${main.tBodies[0].rows.length}`;

  // as it is shown; no text that a spreadsheet takes for a formula
  const field = cell => {
    const text = textOf(cell), safe = /^[=+\-@−]/.test(text) && numberOf(text) === null && text !== "-" ? `'${text}` : text;
    return `"${safe.replaceAll('"', '""')}"`;
  };
  $("download").addEventListener("click", () => {
    const rows = [main.tHead.rows[0], ...main.tBodies[0].rows].filter(row => !row.hidden);
    const content = rows.map(row => [...row.cells].map(field).join(",")).join("\r\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], {type: "text/csv"}));
    link.download = `${document.title.replace(/[^\w.-]+/g, "_")}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

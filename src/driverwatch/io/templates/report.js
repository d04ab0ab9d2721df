"use strict";
// Tables that a click on a head sorts, and everything opened for paper. Without this script the page has all the same.

const number = text => /^[+-]?[\d.,]+/.test(text) ? parseFloat(text.replaceAll(",", "")) : NaN;
const shown = cell => cell.style.getPropertyValue("--shade") || cell.textContent.trim(); // "<1" and an empty cell are numbers, too

function sort(table, column, button) {
  const head = button.closest("th"), up = head.getAttribute("aria-sort") === "ascending";
  for (const each of table.querySelectorAll("th[aria-sort]")) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "descending" : "ascending");
  const keyed = [...table.tBodies[0].rows].map(row => { const text = shown(row.cells[column]); return {row, text, value: number(text)}; });
  const numeric = keyed.some(each => !isNaN(each.value));
  keyed.sort((one, other) => {
    const order = numeric ? one.value - other.value : one.text.localeCompare(other.text, "en", {numeric: true});
    if (numeric && (isNaN(one.value) || isNaN(other.value))) return isNaN(one.value) - isNaN(other.value); // unknown ones last, either way
    return up ? -order : order;
  });
  table.tBodies[0].append(...keyed.map(each => each.row));
}

for (const table of document.querySelectorAll("main table")) {
  if (table.tBodies[0].rows.length < 3) continue;
  [...table.tHead.rows[table.tHead.rows.length - 1].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.onclick = () => sort(table, column, button);
    head.append(button);
  });
}
addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; });

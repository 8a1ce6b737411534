// SPDX-License-Identifier: Apache-2.0
// Tables that can be sorted, and the choice of a metric. Without this script every page shows its default.
"use strict";

(function () {
  function cellValue(row, column) {
    const cell = row.cells[column];
    if (!cell) return null; // a failed row has one wide cell
    if (cell.colSpan > 1) return null;
    const text = cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent.trim();
    if (text === "" || text === "–") return null;
    const number = text === "inf" || text === "identical" ? Infinity : Number(text);
    return Number.isNaN(number) ? text.toLowerCase() : number;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a === b ? 0 : a < b ? -1 : 1;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function sortBy(table, head, direction) {
    const column = head.cellIndex;
    for (const other of table.tHead.querySelectorAll("th[data-sort]")) {
      if (other === head) other.setAttribute("aria-sort", direction);
      else other.removeAttribute("aria-sort");
    }
    const sign = direction === "ascending" ? 1 : -1;
    for (const body of table.tBodies) { // the reference has its own body and stays last
      const rows = Array.from(body.rows, (row) => [row, cellValue(row, column)]);
      rows.sort(([, a], [, b]) => {
        if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last
        return sign * compare(a, b);
      });
      body.append(...rows.map(([row]) => row));
    }
  }

  function makeSortable(table) {
    for (const head of table.tHead.querySelectorAll("th[data-sort]")) {
      const button = document.createElement("button");
      button.type = "button";
      const [text, ...rest] = head.childNodes; // a note below the heading is not underlined
      const span = document.createElement("span");
      span.append(text);
      button.append(span, ...rest);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const next = now === null ? head.dataset.sort : now === "ascending" ? "descending" : "ascending";
        sortBy(table, head, next);
      });
    }
  }

  function labelled(text, element) {
    const label = document.createElement("label");
    label.append(text, element);
    return label;
  }

  function chooser(options, chosen) {
    const select = document.createElement("select");
    for (const [value, text] of options) select.add(new Option(text, value, false, value === chosen));
    return select;
  }

  function shownNumber(value, digits) {
    if (value === null) return "–";
    if (value === "inf") return "identical";
    const text = value.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text; // zero has no sign
  }

  // The list of clips: one metric at a time, of all methods.
  function clipList(section) {
    const data = JSON.parse(section.querySelector(".list-data").textContent);
    if (!data.metrics.length) return;
    const controls = section.querySelector(".controls");
    const table = section.querySelector("table.values");
    const select = chooser(data.metrics.map((m) => [m.name, m.heading]), data.metrics[0].name);
    controls.append(labelled("Metric", select));
    controls.hidden = false;
    function show() {
      const metric = data.metrics.find((m) => m.name === select.value);
      for (const name of section.querySelectorAll(".metric-name")) name.textContent = metric.heading;
      for (const row of table.tBodies[0].rows) {
        data.values[metric.name][Number(row.dataset.i)].forEach((value, j) => {
          const cell = row.cells[j + 1];
          cell.textContent = shownNumber(value, metric.digits);
          cell.dataset.value = value === null ? "" : value;
        });
      }
      for (const head of table.tHead.querySelectorAll("th.num")) head.dataset.sort = metric.higher ? "descending" : "ascending";
      const sorted = table.tHead.querySelector("th[aria-sort]");
      if (sorted) sortBy(table, sorted, sorted.cellIndex ? sorted.dataset.sort : sorted.getAttribute("aria-sort"));
    }
    select.addEventListener("change", show);
    if (select.value !== data.metrics[0].name) show(); // a browser keeps the choice when a page is shown again
  }

  window.report = { labelled, chooser };
  for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
  for (const section of document.querySelectorAll(".clip-list")) clipList(section);
})();

"use strict";
// The page is complete without this: tables can be sorted and filtered, and print with everything unfolded.
(() => {
  const UNITS = { min: 60, h: 3600, kFLOP: 1e3, MFLOP: 1e6, GFLOP: 1e9, TFLOP: 1e12, M: 1e6, "%": 0.01, pp: 0.01 };

  function numberOf(text) {
    const found = text.replaceAll(",", "").replaceAll("\u2212", "-").match(/^[^\d+-]*([+-]?\d[\d.]*(?:e[+-]?\d+)?)\s*([^\s[]*)/);
    return found ? Number(found[1]) * (UNITS[found[2]] ?? 1) : NaN;
  }

  function sort(table, column, button) {
    const head = button.closest("th"), up = head.getAttribute("aria-sort") !== "ascending";
    const rows = [...table.tBodies[0].rows].map((row, place) => {
      const text = row.cells[column].textContent.trim();
      return { row, place, text, number: numberOf(text), empty: text === "" || text === "\u2013" };
    });
    const numeric = head.classList.contains("is-number");
    const order = (a, b) => (numeric ? a.number - b.number || 0 : a.text.localeCompare(b.text, "en", { numeric: true }));
    rows.sort((a, b) => a.empty - b.empty || (up ? order(a, b) : order(b, a)) || a.place - b.place);
    table.tBodies[0].append(...rows.map((one) => one.row));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  }

  function makeSortable(table) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, column, button));
      head.append(button);
    });
  }

  function makeFilterable(table) {
    const label = document.createElement("label"), input = document.createElement("input"), told = document.createElement("output");
    label.className = "filter";
    input.type = "search";
    input.autocomplete = "off";
    label.append("Filter ", input, " ", told);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean), rows = [...table.tBodies[0].rows];
      for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      const shown = rows.filter((row) => !row.hidden).length;
      told.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
    });
    table.closest(".scroll").before(label);
  }

  for (const table of document.querySelectorAll(".scroll > table")) {
    const rows = table.tBodies[0].rows.length;
    if (rows > 2 && !table.classList.contains("plain")) makeSortable(table);
    if (rows > 10) makeFilterable(table);
  }

  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const one of folded) one.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const one of folded) one.open = false;
  });
})();

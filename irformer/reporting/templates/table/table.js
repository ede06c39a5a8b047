// Tables whose rows are sorted by any column and filtered by words.

const FILTERED = 8;  // rows from which a table has a filter

class SortableTable {
  constructor(box) {
    this.box = box;
    this.body = box.querySelector("tbody");
    this.rows = [...this.body.rows];
    this.headers = [...box.querySelectorAll("[data-sort]")];
    this.status = box.querySelector("[role=status]");
    if (this.rows.length < 2) return;
    for (const header of this.headers) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = header.textContent || "\u00a0";
      button.setAttribute("aria-label", `Sort by ${header.dataset.full}`);
      button.addEventListener("click", () => this.sort(header));
      header.replaceChildren(button);
    }
    const bar = box.querySelector(".table-bar");
    const search = bar.querySelector("input");
    bar.hidden = false;
    search.parentElement.hidden = this.rows.length < FILTERED;
    search.addEventListener("input", () => this.filter(search.value));
  }

  /** The usual direction first, then the other, then the original order. */
  sort(header) {
    const first = header.dataset.first;
    const other = first === "ascending" ? "descending" : "ascending";
    const next = { [first]: other, [other]: null }[header.getAttribute("aria-sort")];
    const direction = next === undefined ? first : next;
    for (const each of this.headers) each.removeAttribute("aria-sort");
    if (direction) header.setAttribute("aria-sort", direction);
    const column = Number(header.dataset.sort);
    const sign = direction === "ascending" ? 1 : -1;
    const keyed = this.rows.map((row) => [key(row.cells[column]), row]);
    if (direction) keyed.sort(([a], [b]) => compare(a, b, sign));
    this.body.append(...keyed.map(([, row]) => row));
    this.say(direction ? `Sorted by ${header.dataset.full}, ${direction}.` : "In the original order.");
  }

  filter(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of this.rows) {
      const content = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => content.includes(word));
    }
    this.say(words.length ? `${this.rows.filter((row) => !row.hidden).length} of ${this.rows.length} rows` : "");
  }

  say(text) {
    this.status.textContent = text;
  }
}

/** The number of a cell, its text, or null for a missing value. */
function key(cell) {
  const text = cell.textContent.trim();
  if (cell.dataset.value !== undefined) return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  return text === "-" || text === "" ? null : text;
}

/** Numbers precede texts; missing values are last in both directions. */
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  // Not the difference: that of two infinities is not a number.
  if (typeof a === "number") return sign * ((a > b) - (a < b));
  return sign * a.localeCompare(b, undefined, { numeric: true });
}

for (const box of document.querySelectorAll(".table")) new SortableTable(box);

// Charts of values over steps: lines in SVG, values at a step that the pointer or the keyboard chooses.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 240;  // CSS pixels, as all sizes here
const MARGIN = { top: 10, right: 14, bottom: 30 };
const DIGIT = 7;  // width of a digit of a tick
const MARKED = 40;  // a line of up to this many points shows each of them

function draw(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** A vertical axis: `position(value)` is 0 at the bottom and 1 at the top, NaN for what cannot be shown; `ticks` are values. */
function linearAxis(values) {
  const [low, high] = extent(values, [0, 1]);
  const room = 0.06 * (high - low || Math.abs(high) || 1);
  const [bottom, top] = [low - room, high + room];
  return { position: (value) => (value === null ? NaN : (value - bottom) / (top - bottom)), ticks: roundTicks(bottom, top, 4) };
}

function logarithmicAxis(values) {
  const positive = values.filter((value) => value > 0).map(Math.log10);
  if (!positive.length) return linearAxis(values);
  let [low, high] = extent(positive, [0, 1]);
  const room = Math.max(0.05 * (high - low), 0.02);
  [low, high] = [low - room, high + room];
  const decades = [];
  for (let n = Math.ceil(low); n <= high; n++) decades.push(n);
  const every = Math.ceil(decades.length / 6);
  let ticks = decades.filter((_, i) => i % every === 0).map((n) => 10 ** n);
  if (decades.length < 3) {
    ticks = [];
    for (let n = Math.floor(low); n <= high; n++) ticks.push(...[1, 2, 5].map((factor) => factor * 10 ** n));
    ticks = ticks.filter((tick) => Math.log10(tick) >= low && Math.log10(tick) <= high);
  }
  if (ticks.length < 2) ticks = roundTicks(10 ** low, 10 ** high, 4);
  const position = (value) => (value === null || value <= 0 ? NaN : (Math.log10(value) - low) / (high - low));
  return { position, ticks };
}

class Chart {
  constructor(figure) {
    this.figure = figure;
    Object.assign(this, JSON.parse(figure.querySelector(".chart-data").textContent));
    this.steps = [...new Set(this.series.flatMap(({ steps }) => steps))].sort((a, b) => a - b);
    this.selected = this.steps.length - 1;
    this.pointed = null;  // index of the series under the pointer
    this.hidden = new Set();
    this.box = figure.querySelector(".chart-plot");
    this.tip = figure.querySelector(".chart-tip");
    this.range = figure.querySelector(".chart-step input");
    this.range.max = this.selected;
    this.scale = figure.querySelector(".chart-scale input");
    this.scale.checked = this.logarithmic;
    this.fillLegend();
    this.listen();
    new ResizeObserver(() => this.redraw()).observe(this.box);
    this.redraw();
  }

  /** A button for each series, which hides and shows it, with the value at the chosen step. */
  fillLegend() {
    const legend = this.figure.querySelector(".chart-legend");
    this.entries = this.series.map((series, n) => {
      const value = make("data", {});
      const swatch = draw("svg", { class: "swatch", viewBox: "0 0 22 10", "aria-hidden": "true" }, this.line(n, { d: "M1 5H21" }));
      const single = this.series.length === 1;
      const entry = make(single ? "span" : "button", { className: "chart-entry" }, swatch, make("span", { className: "name" }, series.name), value);
      if (!single) {
        entry.type = "button";
        entry.setAttribute("aria-pressed", "true");
        entry.addEventListener("click", () => {
          if (!this.hidden.delete(n)) this.hidden.add(n);
          entry.setAttribute("aria-pressed", String(!this.hidden.has(n)));
          this.redraw();
        });
        entry.addEventListener("pointerenter", () => this.point(n));
        entry.addEventListener("pointerleave", () => this.point(null));
      }
      legend.append(entry);
      return { entry, value };
    });
  }

  listen() {
    this.range.addEventListener("input", () => this.select(Number(this.range.value)));
    this.scale.addEventListener("change", () => this.redraw());
    const follow = (event) => {
      const { left, top } = this.box.getBoundingClientRect();
      this.follow(event.clientX - left, event.clientY - top);
    };
    this.box.addEventListener("pointermove", follow);
    this.box.addEventListener("pointerdown", follow);
    this.box.addEventListener("pointerleave", () => this.point(null));
    this.box.addEventListener("pointercancel", () => this.point(null));
    const values = this.figure.querySelector("details");
    values.addEventListener("toggle", () => values.open && this.fillTable(values), { once: true });
  }

  line(n, attributes) {
    const { color, dash } = this.series[n];
    return draw("path", { class: "curve", style: `stroke: ${color}`, ...(dash ? { "stroke-dasharray": dash } : {}), ...attributes });
  }

  visible() {
    return this.series.map((_, n) => n).filter((n) => !this.hidden.has(n));
  }

  redraw() {
    const width = Math.max(200, Math.floor(this.box.clientWidth));
    const shown = this.visible();
    const values = shown.flatMap((n) => this.series[n].values).filter((value) => value !== null).concat(this.references.map(({ value }) => value));
    const axis = (this.scale.checked ? logarithmicAxis : linearAxis)(values);
    const texts = axis.ticks.map(formatValue);
    const left = 14 + DIGIT * Math.max(1, ...texts.map((text) => text.length));
    const [first, last] = [this.steps[0], this.steps[this.steps.length - 1]];
    this.x = (step) => left + ((step - first) / (last - first || 1)) * (width - left - MARGIN.right);
    this.y = (value) => HEIGHT - MARGIN.bottom - axis.position(value) * (HEIGHT - MARGIN.top - MARGIN.bottom);
    const drawing = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" });
    axis.ticks.forEach((tick, n) => drawing.append(
      draw("path", { class: "rule", d: `M${left} ${this.y(tick)}H${width - MARGIN.right}` }),
      draw("text", { x: left - 7, y: this.y(tick) + 4, "text-anchor": "end" }, texts[n]),
    ));
    const across = wholeTicks(first, last, Math.max(2, Math.floor((width - left) / 110)));
    for (const tick of across) {
      const anchor = this.x(tick) > width - 24 ? "end" : "middle";
      drawing.append(draw("text", { x: anchor === "end" ? width : this.x(tick), y: HEIGHT - 10, "text-anchor": anchor }, shortStep(tick)));
    }
    for (const { label, value } of this.references) {
      drawing.append(
        draw("path", { class: "reference", d: `M${left} ${this.y(value)}H${width - MARGIN.right}` }),
        draw("text", { x: left + 4, y: this.y(value) - 4 }, label),
      );
    }
    this.curves = new Map(shown.map((n) => [n, this.curve(n)]));
    this.cursor = draw("g", {});
    drawing.append(...this.curves.values(), this.cursor);
    this.box.querySelector("svg")?.remove();
    this.box.prepend(drawing);
    this.width = width;
    this.select(this.selected);
  }

  curve(n) {
    const { steps, values } = this.series[n];
    const parts = [];
    const markers = [];
    let open = false;
    steps.forEach((step, i) => {
      const y = this.y(values[i]);
      if (!Number.isFinite(y)) {
        open = false;
        return;
      }
      const [x, top] = [this.x(step).toFixed(1), y.toFixed(1)];
      parts.push(`${open ? "L" : "M"}${x} ${top}`);
      open = true;
      if (steps.length <= MARKED) markers.push(this.dot(n, x, top, 2.5));
    });
    return draw("g", {}, this.line(n, { d: parts.join("") }), ...markers);
  }

  dot(n, x, y, radius) {
    return draw("circle", { class: "dot", cx: x, cy: y, r: radius, style: `fill: ${this.series[n].color}` });
  }

  /** The recorded step of a series that is closest to the chosen one, and its value. */
  at(n) {
    const { steps, values } = this.series[n];
    const i = nearest(steps, this.steps[this.selected]);
    return { step: steps[i], value: values[i] };
  }

  /** Chooses a step: a line across the plot, a dot on each curve, and the values in the legend and for the screen reader. */
  select(index) {
    this.selected = index;
    const step = this.steps[index];
    this.range.value = index;
    this.cursor.replaceChildren(draw("path", { class: "cursor", d: `M${this.x(step)} ${MARGIN.top}V${HEIGHT - MARGIN.bottom}` }));
    this.series.forEach((_, n) => {
      const found = this.at(n);
      const { value } = this.entries[n];
      value.textContent = this.text(found);
      value.value = found.value ?? "";
      const y = this.y(found.value);
      if (!this.hidden.has(n) && Number.isFinite(y)) this.cursor.append(this.dot(n, this.x(found.step), y, 4));
    });
    this.figure.querySelector(".chart-step output").textContent = formatStep(step);
    const said = this.visible().map((n) => `${this.series[n].name} ${this.text(this.at(n))}`);
    this.range.setAttribute("aria-valuetext", `step ${formatStep(step)}: ${said.join(", ")}`);
  }

  text({ step, value }) {
    const text = value === null || !this.unit ? formatValue(value) : `${formatValue(value)} ${this.unit}`;
    return step === this.steps[this.selected] ? text : `${text} (step ${formatStep(step)})`;
  }

  /** The step and the curve under the pointer. */
  follow(x, y) {
    const ratio = this.width / this.box.clientWidth;
    [x, y] = [x * ratio, y * ratio];
    this.select(nearest(this.steps.map(this.x), x));
    const away = this.visible().map((n) => [Math.abs(this.y(this.at(n).value) - y), n]).filter(([distance]) => Number.isFinite(distance));
    away.sort(([a], [b]) => a - b);
    this.point(away.length ? away[0][1] : null);
    if (!away.length) return;
    const n = away[0][1];
    const found = this.at(n);
    this.tip.hidden = false;
    this.tip.textContent = `${this.series.length > 1 ? `${this.series[n].name}: ` : ""}${this.text(found)} at step ${formatStep(this.steps[this.selected])}`;
    const room = this.box.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(room, this.x(found.step) / ratio + 10))}px`;
    this.tip.style.top = `${Math.max(0, this.y(found.value) / ratio - this.tip.offsetHeight - 8)}px`;
  }

  /** Emphasizes a curve; null emphasizes none. */
  point(n) {
    if (n === null) this.tip.hidden = true;
    this.box.classList.toggle("pointed", n !== null);
    for (const [number, curve] of this.curves) curve.classList.toggle("near", number === n);
    this.entries.forEach(({ entry }, number) => entry.classList.toggle("near", number === n));
  }

  fillTable(values) {
    const known = this.series.map(({ steps, values: recorded }) => new Map(steps.map((step, i) => [step, recorded[i]])));
    const cell = (step, map) => make("td", {}, map.has(step) ? formatValue(map.get(step)) : "");
    const head = make("tr", {}, make("th", { scope: "col" }, "step"), ...this.series.map(({ name }) => make("th", { scope: "col" }, name)));
    const rows = this.steps.map((step) => make("tr", {}, make("th", { scope: "row" }, formatStep(step)), ...known.map((map) => cell(step, map))));
    const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
    values.querySelector(".scroll").append(table);
  }
}

for (const figure of document.querySelectorAll(".chart")) new Chart(figure);

// The page: one view, one training step and one pointed-at value, shared by all panels.

const { arms, quantities } = JSON.parse(document.getElementById("data").textContent);
const HOME = { azimuth: -32, tilt: 27, zoom: 0, x: 0, y: 0 };
const LIMITS = { tilt: [0, 90], zoom: [-1, 3], x: [-4, 4], y: [-4, 4] };
const DETAIL = { fine: { layers: 44, steps: 60 }, coarse: { layers: 15, steps: 30, sparse: true } };
const CELLS_WHILE_MOVING = 6000;  // more of them would make dragging jerky

const find = (selector, root = document) => root.querySelector(selector);
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const darkScheme = matchMedia("(prefers-color-scheme: dark)");

const steps = [...new Set(arms.flatMap((arm) => arm.steps))].sort((a, b) => a - b);
const lastStep = steps[steps.length - 1] || 1;
const depth = Math.max(...arms.map((arm) => arm.values[quantities[0].key].length));
const stepAxis = {
  title: "training step",
  ticks: roundTicks(0, lastStep, 5).filter(Number.isInteger).map((step) => ({ position: step / lastStep, text: shortStep(step) })),
};
const depthAxis = {
  title: "depth (group)",
  ticks: wholeTicks(1, depth, 6).map((group) => ({ position: layerPosition(group - 1, depth), text: String(group) })),
};

const view = { ...HOME };
let goal = { ...HOME };
let stepIndex = steps.length - 1;
let pointed = null;  // step and layer under the pointer
let moving = false;
const panels = [];
const profiles = [];

// ---------------------------------------------------------------- drawing

function themeColors() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  const dark = darkScheme.matches && !document.documentElement.classList.contains("printing");
  return {
    paper: color("paper"), raised: color("raised"), ink: color("ink"), muted: color("muted"), line: color("line"),
    strongLine: color("strong-line"), mark: color("mark"), mesh: dark ? "rgb(255 255 255 / 28%)" : "rgb(0 0 0 / 30%)", dark,
  };
}

let theme = themeColors();
let frame = 0;

function redraw() {
  frame ||= requestAnimationFrame(animate);
}

let lastTime = null;

/** Moves the view towards its goal, then draws. */
function animate(time) {
  frame = 0;
  const share = reducedMotion.matches ? 1 : 1 - Math.exp(-(lastTime === null ? 16 : Math.min(64, time - lastTime)) / 60);
  lastTime = time;
  let arrived = true;
  for (const key of Object.keys(view)) {
    const rest = goal[key] - view[key];
    const close = Math.abs(rest) < (key === "azimuth" || key === "tilt" ? 0.1 : 0.002);
    view[key] = close ? goal[key] : view[key] + rest * share;
    arrived &&= close;
  }
  moving = !arrived || panels.some((panel) => panel.held.size > 0);
  panels.forEach(drawPanel);
  showView();
  if (!arrived) redraw();
  else lastTime = null;
}

function drawPanel(panel) {
  const { canvas, arm, quantity, axes } = panel;
  const { width, height } = panel.size;
  if (!width) return;
  const ratio = document.documentElement.classList.contains("printing") ? 3 : devicePixelRatio;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const { fine, coarse } = panel.grids;
  const many = fine.xs.length * fine.ys.length * panels.length > CELLS_WHILE_MOVING;
  panel.scene = new Scene(context, new Projection(view, width, height), {
    grid: moving && many ? coarse : fine, colors: panel.colors, axes, theme,
  }, panel.size);
  const shown = pointed && pointed.layer < arm.values[quantity.key].length ? pointed : null;
  const values = arm.values[quantity.key];
  const at = nearest(arm.steps, shown ? shown.step : steps[stepIndex]);
  panel.scene.paint({
    step: arm.steps[nearest(arm.steps, steps[stepIndex])] / lastStep,
    point: shown && { x: arm.steps[at] / lastStep, y: layerPosition(shown.layer, depth), z: axes.z.position(values[shown.layer][at]) },
  });
}

/** The value below a panel: the one pointed at in any panel, or that of the last group at the chosen step. */
function showReadouts() {
  for (const { arm, quantity, output } of panels) {
    const values = arm.values[quantity.key];
    const layer = Math.min(pointed ? pointed.layer : depth - 1, values.length - 1);
    const at = nearest(arm.steps, pointed ? pointed.step : steps[stepIndex]);
    const number = document.createElement("data");
    number.value = values[layer][at] ?? "";
    number.textContent = formatValue(values[layer][at]);
    output.replaceChildren(`step ${formatStep(arm.steps[at])}, group ${layer + 1}: `, number);
  }
}

function showStep() {
  const text = formatStep(steps[stepIndex]);
  controls.step.value = stepIndex;
  controls.step.setAttribute("aria-valuetext", `step ${text}`);
  find("output", controls.step.parentElement).textContent = text;
  for (const { quantity, axes, figure } of profiles) {
    const curves = arms.map((arm) => {
      const at = nearest(arm.steps, steps[stepIndex]);
      const values = arm.values[quantity.key];
      return { positions: values.map((_, layer) => layerPosition(layer, depth)), values: values.map((layer) => axes.z.position(layer[at])) };
    });
    find("figcaption", figure).textContent = `Across depth at step ${text}`;
    find("svg", figure)?.remove();
    figure.append(profileChart(curves, axes, `${quantity.name} across depth at step ${text}; the values are in the tables below`));
  }
  showReadouts();
  redraw();
}

function showView() {
  controls.azimuth.value = goal.azimuth;
  controls.tilt.value = goal.tilt;
  controls.zoom.value = goal.zoom;
  controls.azimuth.setAttribute("aria-valuetext", `${Math.round(goal.azimuth)} degrees`);
  controls.tilt.setAttribute("aria-valuetext", `${Math.round(goal.tilt)} degrees`);
  controls.zoom.setAttribute("aria-valuetext", `${(2 ** goal.zoom).toFixed(1)} times`);
}

// ---------------------------------------------------------------- changes of the view

/** Sets some parts of the view; `at once` where a hand leads it, gliding otherwise. */
function look(changes, atOnce = false) {
  goal = { ...goal, ...changes };
  for (const [key, [low, high]] of Object.entries(LIMITS)) goal[key] = Math.max(low, Math.min(high, goal[key]));
  // Turned past the back, both angles move on by a full turn, so that a glide takes the short way.
  const turns = Math.round(goal.azimuth / 360) * 360;
  goal.azimuth -= turns;
  view.azimuth -= turns;
  if (atOnce) Object.assign(view, goal);
  redraw();
}

/** Zooms so that the point of the panel under the hand stays where it is. */
function zoomAt(panel, left, top, change, atOnce) {
  const zoom = Math.max(LIMITS.zoom[0], Math.min(LIMITS.zoom[1], goal.zoom + change));
  const factor = 2 ** (zoom - goal.zoom);
  const { width, height } = panel.size;
  const [x, y] = [left / width - CENTER.x, (top - height * CENTER.y) / width];
  look({ zoom, x: x - (x - goal.x) * factor, y: y - (y - goal.y) * factor }, atOnce);
}

const KEYS = {
  ArrowLeft: () => look({ azimuth: goal.azimuth - 6 }),
  ArrowRight: () => look({ azimuth: goal.azimuth + 6 }),
  ArrowUp: () => look({ tilt: goal.tilt + 5 }),
  ArrowDown: () => look({ tilt: goal.tilt - 5 }),
  "+": () => look({ zoom: goal.zoom + 0.25 }),
  "=": () => look({ zoom: goal.zoom + 0.25 }),
  "-": () => look({ zoom: goal.zoom - 0.25 }),
  0: () => look(HOME),
};

function listen(panel) {
  const { canvas, held } = panel;
  const inside = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, inside(event));
    canvas.classList.add("held");
    point(panel, event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held.has(event.pointerId)) {
      point(panel, event);
      return;
    }
    const before = spread(held);
    const [fromX, fromY] = held.get(event.pointerId);
    const [left, top] = inside(event);
    held.set(event.pointerId, [left, top]);
    if (held.size > 1) {
      const after = spread(held);
      if (before.length && after.length) zoomAt(panel, ...after.middle, Math.log2(after.length / before.length), true);
    } else if (event.shiftKey) {
      look({ x: goal.x + (left - fromX) / panel.size.width, y: goal.y + (top - fromY) / panel.size.width }, true);
    } else {
      look({ azimuth: goal.azimuth + (left - fromX) * 0.45, tilt: goal.tilt + (top - fromY) * 0.35 }, true);
    }
  });
  const release = (event) => {
    held.delete(event.pointerId);
    canvas.classList.toggle("held", held.size > 0);
    redraw();
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") setPointed(null);
  });
  canvas.addEventListener("wheel", (event) => {
    // Without a selected surface the wheel scrolls the page, which surfaces nearly fill. Pinching on a touchpad arrives as Ctrl and wheel.
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? event.deltaY * 20 : event.deltaY;
    zoomAt(panel, ...inside(event), -pixels * (event.ctrlKey ? 0.01 : 0.002), true);
  }, { passive: false });
  canvas.addEventListener("dblclick", () => look(HOME));
}

function spread(held) {
  const [[ax, ay], [bx, by] = [ax, ay]] = [...held.values()];
  return { length: Math.hypot(ax - bx, ay - by), middle: [(ax + bx) / 2, (ay + by) / 2] };
}

function point(panel, event) {
  const box = panel.canvas.getBoundingClientRect();
  const found = panel.scene?.pick(event.clientX - box.left, event.clientY - box.top);
  setPointed(found ? { step: panel.arm.steps[found.step], layer: found.layer } : null);
}

function setPointed(next) {
  if (next?.step === pointed?.step && next?.layer === pointed?.layer) return;
  pointed = next;
  showReadouts();
  redraw();
}

// ---------------------------------------------------------------- building the page

const controls = Object.fromEntries(["step", "azimuth", "tilt", "zoom"].map((id) => [id, document.getElementById(id)]));

function node(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function build(section) {
  const quantity = quantities.find(({ key }) => key === section.dataset.quantity);
  const axes = { x: stepAxis, y: depthAxis, z: valueAxis(quantity, arms) };
  arms.forEach((arm, index) => {
    const canvas = node("canvas", { tabIndex: 0 });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-keyshortcuts", "ArrowLeft ArrowRight ArrowUp ArrowDown + - 0");
    canvas.setAttribute("aria-label", describe(quantity, arm));
    const output = node("output");
    const caption = node("figcaption", {}, element("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, marker(index, 6, 6, 4.5)), arm.title);
    find(".panels", section).append(node("figure", { className: "panel" }, caption, canvas, output));
    const positions = arm.steps.map((step) => step / lastStep);
    const grid = (detail) => surfaceGrid(arm.values[quantity.key], positions, axes.z, depth, detail);
    const grids = { fine: grid(DETAIL.fine), coarse: grid(DETAIL.coarse) };
    const panel = { canvas, arm, quantity, axes, output, grids, held: new Map(), size: { width: 0, height: 0 } };
    panels.push(panel);
    listen(panel);
    sizes.observe(canvas);
  });
  profiles.push({ quantity, axes, figure: find(".profile", section) });
}

/** A surface in a sentence, for people who cannot see it. */
function describe(quantity, arm) {
  const values = arm.values[quantity.key];
  const last = values[values.length - 1];
  const title = arm.title.replace(/\s+/g, " ");
  return `${quantity.name} of ${title} as a surface over depth and training step: in the last of ${values.length} groups, ` +
    `${formatValue(last[0])} at step ${formatStep(arm.steps[0])} and ${formatValue(last[last.length - 1])} at step ` +
    `${formatStep(arm.steps[arm.steps.length - 1])}.`;
}

const sizes = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    panels.find(({ canvas }) => canvas === target).size = { width: contentRect.width, height: contentRect.height };
  }
  redraw();
});

/** The tables are built when they are opened: a long run has many thousand values. */
function fillTables() {
  const tables = find(".tables");
  if (tables.childElementCount) return;
  for (const quantity of quantities) {
    for (const arm of arms) {
      const values = arm.values[quantity.key];
      const head = node("tr", {}, node("th", { scope: "col" }, "step"), ...values.map((_, layer) => node("th", { scope: "col" }, `group ${layer + 1}`)));
      const rows = arm.steps.map((step, at) =>
        node("tr", {}, node("th", { scope: "row" }, formatStep(step)), ...values.map((layer) => node("td", {}, formatValue(layer[at])))));
      const caption = node("caption", {}, `${quantity.name}: ${arm.title.replace(/\s+/g, " ")}`);
      const table = node("table", {}, caption, node("thead", {}, head), node("tbody", {}, ...rows));
      tables.append(node("div", { className: "scroll", tabIndex: 0 }, table));
    }
  }
}

function recolor() {
  theme = themeColors();
  for (const panel of panels) panel.colors = shadedColors(panel.quantity.colors, theme.dark);
}

document.documentElement.style.setProperty("--arms", arms.length);
document.documentElement.style.setProperty("--title-lines", Math.max(...arms.map(({ title }) => title.split("\n").length)));
document.querySelectorAll(".quantity").forEach(build);
recolor();
controls.step.max = steps.length - 1;
controls.step.addEventListener("input", () => {
  stepIndex = Number(controls.step.value);
  showStep();
});
for (const key of ["azimuth", "tilt", "zoom"]) {
  controls[key].addEventListener("input", () => look({ [key]: Number(controls[key].value) }, true));
}
document.getElementById("reset").addEventListener("click", () => look(HOME));
find(".controls").addEventListener("submit", (event) => event.preventDefault());
find(".data").addEventListener("toggle", fillTables);
darkScheme.addEventListener("change", () => {
  recolor();
  redraw();
});
for (const [moment, printing] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(moment, () => {
    document.documentElement.classList.toggle("printing", printing);
    recolor();
    panels.forEach(drawPanel);
  });
}
showStep();

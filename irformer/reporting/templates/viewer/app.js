// The viewer: what is shown, the controls that change it, and the address that restores it.

const viewer = document.querySelector(".viewer");
const find = (selector) => viewer.querySelector(selector);
const { images, error } = JSON.parse(find(".viewer-data").textContent);
const stage = new Stage(find(".viewer-stage"));
const controls = {
  image: find('[data-choose="image"]'), left: find('[data-choose="left"]'), right: find('[data-choose="right"]'), error: find('[data-choose="error"]'),
  split: find(".viewer-split"), zoom: find(".viewer-zoom output"), versions: find(".viewer-versions"), handle: find(".viewer-handle"),
};
const LENS = 22;  // pixels of the image that a lens shows on each side
const KEY_PAN = 60;  // CSS pixels

// `shown` is the version that fills the view; null compares left and right. `zoom` null fits the image. x and y are in pixels of the image.
const state = { image: 0, left: 0, right: 0, shown: null, split: 50, error: false, zoom: null, x: 0, y: 0 };
let pointer = null;  // pixel of the image under the pointer
let frame = 0;
let filled = null;  // the image whose controls the page has

// ---------------------------------------------------------------- showing

const current = () => images[state.image];

function redraw() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    if (filled === current()) show();
  });
}

function view() {
  const image = current();
  const fit = stage.fit(image);
  if (state.zoom === null || state.zoom <= fit) return { zoom: fit, x: image.width / 2, y: image.height / 2 };
  return state;
}

function picture(version) {
  return (state.error && errorMap(current(), version, error)) || version.bitmap;
}

function show() {
  stage.resize();
  const image = current();
  const { versions } = image;
  const seen = view();
  const comparing = state.shown === null;
  const right = versions[comparing ? state.right : state.shown];
  const split = (state.split / 100) * stage.width;
  stage.paint(image, seen, picture(right), comparing ? picture(versions[state.left]) : null, split);
  stage.box.classList.toggle("zoomed", seen === state);
  controls.handle.style.left = `${stage.x + split}px`;
  controls.handle.style.display = comparing ? "" : "none";
  const tag = (selector, version) => {
    find(selector).hidden = !version;
    if (version) find(selector).textContent = state.error && !errorMap(image, version, error) ? `${version.name} (no error map)` : version.name;
  };
  tag(".viewer-left", comparing ? versions[state.left] : right);
  tag(".viewer-right", comparing ? right : null);
  controls.zoom.textContent = `${Math.round(seen.zoom * 100)}%`;
  controls.split.value = state.split;
  controls.split.setAttribute("aria-valuetext", `${Math.round(state.split)}% ${versions[state.left].name}, the rest ${versions[state.right].name}`);
  controls.error.checked = state.error;
  find(".viewer-scale").hidden = !state.error;
  stage.box.setAttribute("aria-label", describe());
  showVersions(image, stage.visible(image, seen));
}

function describe() {
  const { name, versions } = current();
  const text = (version) => [version.name, ...version.metrics.map(([metric, value]) => `${metric} ${value}`)].join(", ");
  const what = state.shown === null ? `left ${text(versions[state.left])}; right ${text(versions[state.right])}` : text(versions[state.shown]);
  return `${name}${state.error ? ", error map" : ""}: ${what}`;
}

/** For each version its lens, and PSNR of what is visible and of the lens. */
function showVersions(image, seen) {
  const center = pointer || { x: (seen.left + seen.right) / 2, y: (seen.top + seen.bottom) / 2 };
  const side = Math.min(LENS, image.width, image.height);
  const left = Math.max(0, Math.min(image.width - side, Math.round(center.x - side / 2)));
  const top = Math.max(0, Math.min(image.height - side, Math.round(center.y - side / 2)));
  const lens = { left, top, right: left + side, bottom: top + side };
  image.versions.forEach((version, n) => {
    const button = controls.versions.children[n];
    button.setAttribute("aria-pressed", state.shown === n);
    const canvas = button.querySelector("canvas");
    const size = Math.round(88 * devicePixelRatio);
    if (canvas.width !== size) canvas.width = canvas.height = size;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    const source = picture(version);
    const scale = source.width / image.width;
    context.drawImage(source, left * scale, top * scale, side * scale, side * scale, 0, 0, size, size);
    if (!isMeasured(image, n)) return;
    button.querySelector(".in-view").textContent = formatPsnr(psnr(image, version, seen));
    button.querySelector(".in-lens").textContent = formatPsnr(psnr(image, version, lens));
  });
  find(".viewer-place .text").textContent =
    `In view: ${seen.right - seen.left} × ${seen.bottom - seen.top} pixels from (${seen.left + (image.crop?.left ?? 0)}, ${seen.top + (image.crop?.top ?? 0)})` +
    `${image.crop ? ` of ${image.crop.width} × ${image.crop.height}; the page holds the part in which the versions differ most` : ""}. ` +
    `Lens: ${side} × ${side} pixels around ${pointer ? "the pointer" : "the center"}. PSNR over R, G and B.`;
}

/** Whether a version can be compared with the reference: it is another image of the same size. */
function isMeasured(image, n) {
  return n !== image.reference && referenceFor(image, image.versions[n]) !== null;
}

function announce(text) {
  find(".viewer-live").textContent = text;
}

// ---------------------------------------------------------------- changing

/** Changes the state, draws, and writes the address. */
function change(changes) {
  Object.assign(state, changes);
  redraw();
  remember();
}

async function openImage(index, changes = {}) {
  const names = current().versions.map(({ name }) => name);
  const next = images[index];
  // Versions keep their names from image to image, if the image has them.
  const kept = (version, otherwise) => {
    const found = next.versions.findIndex(({ name }) => name === names[version]);
    return found < 0 ? otherwise : found;
  };
  const usual = defaults(next);
  Object.assign(state, {
    image: index, left: kept(state.left, usual.left), right: kept(state.right, usual.right),
    shown: state.shown === null ? null : kept(state.shown, null), zoom: null, ...changes,
  });
  pointer = null;
  await load(next);
  if (current() !== next) return;
  fillVersions(next);
  redraw();
  load(images[(index + 1) % images.length]);
}

/** Left and right before anything is chosen: the last restored version beside the reference, or the first and the last version. */
function defaults(image) {
  const last = image.versions.length - 1;
  if (image.reference === null) return { left: 0, right: last };
  const others = image.versions.map((_, n) => n).filter((n) => n !== image.reference);
  return { left: others[others.length - 1] ?? last, right: image.reference };
}

function showOne(n) {
  const version = current().versions[n];
  if (!version) return;
  change({ shown: n });
  announce(describe());
}

function zoomTo(zoom, around = null) {
  const seen = view();
  const next = Math.min(MAX_ZOOM, zoom);
  if (next <= stage.fit(current())) {
    change({ zoom: null });
    return;
  }
  // The pixel under the pointer stays under it.
  const [dx, dy] = around ? [around.left - stage.width / 2, around.top - stage.height / 2] : [0, 0];
  move(seen.x + dx / seen.zoom - dx / next, seen.y + dy / seen.zoom - dy / next, next);
}

function move(x, y, zoom = state.zoom) {
  const { width, height } = current();
  change({ zoom, x: Math.max(0, Math.min(width, x)), y: Math.max(0, Math.min(height, y)) });
}

function pan(dx, dy) {
  if (view() === state) move(state.x + dx / state.zoom, state.y + dy / state.zoom);
}

/** The next power of two: 100%, 200%, 400% up to 3200%. */
function zoomStep(direction) {
  const exponent = Math.log2(view().zoom);
  zoomTo(2 ** (direction > 0 ? Math.floor(exponent + 1 + 1e-6) : Math.ceil(exponent - 1 - 1e-6)));
}

async function turn(by) {
  await openImage((state.image + by + images.length) % images.length);
  remember();
  announce(`${describe()}, image ${state.image + 1} of ${images.length}`);
}

const ACTIONS = {
  previous: () => turn(-1),
  next: () => turn(1),
  larger: () => zoomStep(1),
  smaller: () => zoomStep(-1),
  fit: () => change({ zoom: null }),
};

const KEYS = {
  ArrowLeft: ACTIONS.previous, ArrowRight: ACTIONS.next, "+": ACTIONS.larger, "=": ACTIONS.larger, "-": ACTIONS.smaller, 0: ACTIONS.fit,
  s: () => change({ shown: null }), e: () => change({ error: !state.error }),
};

const PANS = { ArrowLeft: [-KEY_PAN, 0], ArrowRight: [KEY_PAN, 0], ArrowUp: [0, -KEY_PAN], ArrowDown: [0, KEY_PAN] };

// ---------------------------------------------------------------- the address

let remembering = 0;

/** Writes the view into the address, once changes pause: browsers limit how often it may change. */
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    const { versions } = current();
    const fields = new URLSearchParams({ image: current().name, left: versions[state.left].name, right: versions[state.right].name, split: state.split });
    if (state.shown !== null) fields.set("show", versions[state.shown].name);
    if (state.error) fields.set("error", "1");
    if (state.zoom !== null) {
      fields.set("zoom", Number(state.zoom.toFixed(4)));
      fields.set("x", Number(state.x.toFixed(2)));
      fields.set("y", Number(state.y.toFixed(2)));
    }
    history.replaceState(null, "", `#${fields}`);
  }, 150);
}

/** Restores the view of an address. What it does not name is as before, or as at the start; a wrong name is as at the start. */
async function restore() {
  const fields = new URLSearchParams(location.hash.slice(1));
  if (filled && !fields.has("image") && !fields.has("left")) return;  // the address of another part of the page
  const index = Math.max(0, images.findIndex(({ name }) => name === fields.get("image")));
  const image = images[index];
  const usual = defaults(image);
  const version = (field, otherwise) => {
    const found = image.versions.findIndex(({ name }) => name === fields.get(field));
    return found < 0 ? otherwise : found;
  };
  const number = (field, otherwise, low, high) => {
    const value = parseFloat(fields.get(field));
    return Number.isFinite(value) ? Math.max(low, Math.min(high, value)) : otherwise;
  };
  // The link of a table names an image alone.
  const changes = filled && !fields.has("left") ? {} : {
    left: version("left", usual.left), right: version("right", usual.right), shown: version("show", null),
    split: number("split", 50, 0, 100), error: fields.get("error") === "1", zoom: number("zoom", null, 0, MAX_ZOOM),
    x: number("x", image.width / 2, 0, image.width), y: number("y", image.height / 2, 0, image.height),
  };
  await openImage(index, changes);
  if (!fields.has("image")) return;
  const { top, bottom } = stage.box.getBoundingClientRect();
  if (top < 0 || bottom > innerHeight) viewer.scrollIntoView();
}

// ---------------------------------------------------------------- building and listening

function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** The controls that depend on the image. */
function fillVersions(image) {
  filled = image;
  controls.image.value = state.image;
  for (const side of ["left", "right"]) {
    controls[side].replaceChildren(...image.versions.map(({ name }, n) => make("option", { value: n }, name)));
    controls[side].value = state[side];
  }
  controls.versions.replaceChildren(...image.versions.map((version, n) => {
    const values = [...version.metrics, ...(isMeasured(image, n) ? [["PSNR in view", "", "in-view"], ["PSNR in lens", "", "in-lens"]] : [])];
    const list = make("dl", {}, ...values.flatMap(([name, value, className = ""]) => [make("dt", {}, name), make("dd", { className }, value)]));
    const heading = make("b", {}, ...(n < 9 ? [make("kbd", {}, String(n + 1)), " "] : []), version.name);
    const button = make("button", { type: "button" }, make("canvas"), make("span", {}, heading, list));
    button.addEventListener("click", () => showOne(n));
    return button;
  }));
  const place = find(".viewer-place");
  place.replaceChildren(make("span", { className: "text" }));
  if (image.crop) {
    const { left, top, width, height, source } = image.crop;
    const share = (part, whole) => `${(100 * part) / whole}%`;
    const outline = make("i");
    Object.assign(outline.style, {
      left: share(left, width), top: share(top, height), width: share(image.width, width), height: share(image.height, height),
    });
    place.prepend(make("span", { className: "overview" }, make("img", { src: source, alt: "The whole image, with the part that the page holds outlined" }), outline));
  }
}

images.forEach(({ name }, n) => controls.image.append(make("option", { value: n }, images.length > 1 ? `${name} (${n + 1} of ${images.length})` : name)));
controls.image.addEventListener("change", () => turn(Number(controls.image.value) - state.image));
for (const side of ["left", "right"]) {
  controls[side].addEventListener("change", () => change({ [side]: Number(controls[side].value), shown: null }));
}
controls.error.addEventListener("change", () => change({ error: controls.error.checked }));
controls.split.addEventListener("input", () => change({ split: Number(controls.split.value), shown: null }));
for (const button of viewer.querySelectorAll("[data-do]")) button.addEventListener("click", () => ACTIONS[button.dataset.do]());

const scale = find(".viewer-scale canvas").getContext("2d");
error.colors.forEach((color, n) => {
  scale.fillStyle = color;
  scale.fillRect(n, 0, 1, 1);
});

/** Whether the viewer is on the screen, so that keys can be meant for it without a click. */
function onScreen() {
  const { top, bottom } = stage.box.getBoundingClientRect();
  return bottom > 0 && top < innerHeight;
}

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (!viewer.contains(target) && !(target === document.body && onScreen())) return;
  if (target instanceof HTMLSelectElement) return;
  if (target === controls.split && (key.startsWith("Arrow") || key === "0")) return;
  const action = event.shiftKey && PANS[key] ? () => pan(...PANS[key]) : KEYS[key.length === 1 ? key.toLowerCase() : key];
  if (!action && !/^[1-9]$/.test(key)) return;
  event.preventDefault();
  if (action) action();
  else showOne(Number(key) - 1);
});

const held = new Map();

function inside(event) {
  const box = stage.canvas.getBoundingClientRect();
  return { left: event.clientX - box.left, top: event.clientY - box.top };
}

function spread() {
  const [a, b = a] = [...held.values()];
  return { length: Math.hypot(a.left - b.left, a.top - b.top), left: (a.left + b.left) / 2, top: (a.top + b.top) / 2 };
}

stage.box.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || event.target === controls.handle) return;
  stage.box.setPointerCapture(event.pointerId);
  held.set(event.pointerId, inside(event));
  stage.box.classList.add("held");
});
stage.box.addEventListener("pointermove", (event) => {
  const place = inside(event);
  if (held.has(event.pointerId)) {
    const before = spread();
    held.set(event.pointerId, place);
    const after = spread();
    pan(before.left - after.left, before.top - after.top);
    if (before.length && after.length) zoomTo((view().zoom * after.length) / before.length, after);
  }
  const { left, top, scale: size } = stage.frame(current(), view());
  pointer = { x: (place.left * devicePixelRatio - left) / size, y: (place.top * devicePixelRatio - top) / size };
  redraw();
});
const release = (event) => {
  held.delete(event.pointerId);
  stage.box.classList.toggle("held", held.size > 0);
};
stage.box.addEventListener("pointerup", release);
stage.box.addEventListener("pointercancel", release);
stage.box.addEventListener("pointerleave", () => {
  pointer = null;
  redraw();
});
stage.box.addEventListener("wheel", (event) => {
  // Without a selected image the wheel scrolls the page. Pinching on a touchpad arrives as Ctrl and wheel.
  if (document.activeElement !== stage.box && !event.ctrlKey) return;
  event.preventDefault();
  const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? event.deltaY * 20 : event.deltaY;
  zoomTo(view().zoom * 2 ** (-pixels * (event.ctrlKey ? 0.01 : 0.004)), inside(event));
}, { passive: false });
controls.handle.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  controls.handle.setPointerCapture(event.pointerId);
});
controls.handle.addEventListener("pointermove", (event) => {
  if (!controls.handle.hasPointerCapture(event.pointerId)) return;
  change({ split: Number(Math.max(0, Math.min(100, (100 * inside(event).left) / stage.width)).toFixed(1)) });
});

new ResizeObserver(redraw).observe(stage.box);
addEventListener("hashchange", restore);
restore();

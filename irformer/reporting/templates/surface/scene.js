// Draws one surface on a canvas: a box with axes, the surface in painter's order, and marks.

const SIZE = { x: 1.25, y: 1, z: 0.74 };  // edges of the box
const DISTANCE = 5;  // from the eye to the middle of the box: a mild perspective
const CENTER = { x: 0.51, y: 0.47 };  // of the panel, where the middle of the box stands: labels need most room at the left and below
const FONT = "system-ui, sans-serif";

/** Maps the unit cube to pixels, for a view with azimuth and tilt in degrees, zoom as a power of 2, and a shift in panel widths. */
class Projection {
  constructor(view, width, height) {
    const azimuth = (view.azimuth * Math.PI) / 180;
    const tilt = (view.tilt * Math.PI) / 180;
    [this.sa, this.ca, this.st, this.ct] = [Math.sin(azimuth), Math.cos(azimuth), Math.sin(tilt), Math.cos(tilt)];
    this.scale = Math.min(width / 2.12, height / 1.6) * 2 ** view.zoom;
    this.left = width * (CENTER.x + view.x);
    this.top = height * CENTER.y + width * view.y;
    // The eye in the plane of the floor: of two cells, the one that is closer to it in both directions is never hidden by the other.
    this.eye = { x: (-DISTANCE * this.ct * this.sa) / SIZE.x + 0.5, y: (-DISTANCE * this.ct * this.ca) / SIZE.y + 0.5 };
  }

  point(x, y, z) {
    const [mx, my, mz] = [(x - 0.5) * SIZE.x, (y - 0.5) * SIZE.y, (z - 0.5) * SIZE.z];
    const depth = mx * this.sa + my * this.ca;
    const near = DISTANCE / (DISTANCE + depth * this.ct - mz * this.st);
    return [this.left + (mx * this.ca - my * this.sa) * near * this.scale, this.top - (mz * this.ct + depth * this.st) * near * this.scale];
  }
}

/** Colors by value and by light, as strings, so that none is made while drawing. */
function shadedColors(colors, dark) {
  // The darkest colors would vanish on a dark page, the brightest on a light one.
  const [first, last] = dark ? [Math.round(colors.length * 0.12), colors.length - 1] : [0, Math.round((colors.length - 1) * 0.95)];
  return Array.from({ length: LIGHTS }, (_, light) => {
    const factor = 0.8 + (0.2 * light) / (LIGHTS - 1);
    return Array.from({ length: colors.length }, (_, i) => {
      const color = colors[Math.round(first + ((last - first) * i) / (colors.length - 1))];
      const parts = [1, 3, 5].map((at) => Math.round(parseInt(color.slice(at, at + 2), 16) * factor));
      return `rgb(${parts.join(" ")})`;
    });
  });
}

const LIGHTS = 16;

/** Indices of the cells between some grid lines, those farthest from the eye first. */
function farthestFirst(lines, eye) {
  const distance = (cell) => Math.abs((lines[cell] + lines[cell + 1]) / 2 - eye);
  return Array.from({ length: lines.length - 1 }, (_, cell) => cell).sort((a, b) => distance(b) - distance(a));
}

class Scene {
  /**
   * @param context the canvas's 2D context, scaled so that one unit is one CSS pixel
   * @param what grid, colors (by shadedColors), axes (x, y, z with ticks and title), theme (CSS colors)
   */
  constructor(context, projection, what, size) {
    Object.assign(this, { context, projection, size }, what);
    this.fontSize = Math.max(10, Math.min(12.5, size.width / 32));
    this.drawn = [];  // cells in the order in which they were painted
  }

  paint(marks) {
    this.context.clearRect(0, 0, this.size.width, this.size.height);
    this.context.lineCap = this.context.lineJoin = "round";
    this.paintBox(marks.step);
    this.paintSurface(marks.step);
    this.paintLabels();
    if (marks.point) this.paintPoint(marks.point);
  }

  line(points, color, width, dash = []) {
    const { context } = this;
    context.beginPath();
    points.forEach(([x, y]) => context.lineTo(x, y));
    context.strokeStyle = color;
    context.lineWidth = width;
    context.setLineDash(dash);
    context.stroke();
    context.setLineDash([]);
  }

  dots(points, radius) {
    const { context } = this;
    context.fillStyle = this.theme.ink;
    for (const [x, y] of points) {
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fill();
    }
  }

  /** The floor and the two walls behind the surface, with grid lines at the ticks. */
  paintBox(stepPosition) {
    const { projection: p, axes, theme } = this;
    const farX = p.sa > 0 ? 1 : 0;
    const farY = p.ca > 0 ? 1 : 0;
    const faces = [
      [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]],
      [[farX, 0, 0], [farX, 1, 0], [farX, 1, 1], [farX, 0, 1]],
      [[0, farY, 0], [1, farY, 0], [1, farY, 1], [0, farY, 1]],
    ];
    for (const face of faces) {
      const corners = face.map((corner) => p.point(...corner));
      this.context.beginPath();
      corners.forEach(([x, y]) => this.context.lineTo(x, y));
      this.context.closePath();
      this.context.fillStyle = theme.raised;
      this.context.fill();
      this.line([...corners, corners[0]], theme.line, 1);
    }
    const across = (...corners) => this.line(corners.map((corner) => p.point(...corner)), theme.line, 1);
    for (const { position: x } of axes.x.ticks) across([x, 1 - farY, 0], [x, farY, 0], [x, farY, 1]);
    for (const { position: y } of axes.y.ticks) across([1 - farX, y, 0], [farX, y, 0], [farX, y, 1]);
    for (const { position: z } of axes.z.ticks) across([farX, 1 - farY, z], [farX, farY, z], [1 - farX, farY, z]);
    for (const { position: z } of axes.z.references) {
      this.line([[farX, 1 - farY, z], [farX, farY, z], [1 - farX, farY, z]].map((corner) => p.point(...corner)), theme.muted, 1.2, [5, 4]);
    }
    this.line([[stepPosition, 1 - farY, 0], [stepPosition, farY, 0]].map((corner) => p.point(...corner)), theme.mark, 1.2);
  }

  paintSurface(stepPosition) {
    const { context, projection: p, grid, theme } = this;
    const { xs, ys, zs } = grid;
    const points = ys.map((y, j) => xs.map((x, i) => p.point(x, y, zs[j][i])));
    const marked = nearest(xs, stepPosition);
    if (xs.length === 1 || ys.length === 1) {
      // A single layer or a single step is no surface but a line, or a point.
      const visible = points.flat().filter(([, y]) => Number.isFinite(y));
      this.line(visible, theme.ink, 2);
      this.dots(visible.filter((_, n) => n % Math.max(grid.acrossSteps, grid.acrossLayers) === 0), 3);
      return;
    }
    const meshSteps = meshLines(xs, grid.acrossSteps);
    const columns = farthestFirst(xs, p.eye.x);
    for (const j of farthestFirst(ys, p.eye.y)) {
      for (const i of columns) {
        const height = (zs[j][i] + zs[j][i + 1] + zs[j + 1][i] + zs[j + 1][i + 1]) / 4;
        if (Number.isNaN(height)) continue;
        const [a, b, c, d] = [points[j][i], points[j][i + 1], points[j + 1][i + 1], points[j + 1][i]];
        context.beginPath();
        context.moveTo(a[0], a[1]);
        context.lineTo(b[0], b[1]);
        context.lineTo(c[0], c[1]);
        context.lineTo(d[0], d[1]);
        context.closePath();
        const shade = this.colors[this.light(i, j)];
        context.fillStyle = context.strokeStyle = shade[Math.max(0, Math.min(shade.length - 1, Math.round(height * (shade.length - 1))))];
        context.fill();
        context.lineWidth = 0.7;  // closes the hairline that antialiasing leaves between neighbors
        context.stroke();
        this.drawn.push({ i, j, corners: [a, b, c, d] });
        if (j % grid.acrossLayers === 0) this.line([a, b], theme.mesh, 1);
        if ((j + 1) % grid.acrossLayers === 0) this.line([d, c], theme.mesh, 1);
        if (meshSteps.has(i)) this.line([a, d], theme.mesh, 0.6);
        if (meshSteps.has(i + 1)) this.line([b, c], theme.mesh, 0.6);
        if (i === marked) this.line([a, d], theme.mark, 2.4);
        if (i + 1 === marked) this.line([b, c], theme.mark, 2.4);
      }
    }
  }

  /** How bright a cell is, from 0 to LIGHTS - 1: the flatter, the brighter. */
  light(i, j) {
    const { xs, ys, zs } = this.grid;
    const slopeX = ((zs[j][i + 1] - zs[j][i]) * SIZE.z) / ((xs[i + 1] - xs[i] || 1e-9) * SIZE.x);
    const slopeY = ((zs[j + 1][i] - zs[j][i]) * SIZE.z) / ((ys[j + 1] - ys[j]) * SIZE.y);
    const facing = (1 - 0.35 * slopeX - 0.25 * slopeY) / Math.hypot(1, slopeX, slopeY);
    return Math.round(Math.max(0, Math.min(1, facing)) * (LIGHTS - 1));
  }

  paintLabels() {
    const { projection: p, axes } = this;
    const nearX = p.sa > 0 ? 0 : 1;
    const nearY = p.ca > 0 ? 0 : 1;
    const flat = p.st < 0.1;  // seen from the side, one of the two floor axes is as short as its distance from the eye
    if (!flat || Math.abs(p.ca) > 0.3) this.floorLabels(axes.x, (position) => [position, nearY, 0], [0, nearY ? 1 : -1]);
    if (!flat || Math.abs(p.sa) > 0.3) this.floorLabels(axes.y, (position) => [nearX, position, 0], [nearX ? 1 : -1, 0]);
    if (p.ct < 0.25) return;  // seen from above, the vertical axis has no length
    const edges = [[nearX, 1 - nearY], [1 - nearX, nearY]];
    const [left, right] = edges.sort((a, b) => p.point(...a, 0)[0] - p.point(...b, 0)[0]);
    for (const { position, text, exponent } of axes.z.ticks) {
      const [x, y] = p.point(...left, position);
      this.line([[x, y], [x - 4, y]], this.theme.strongLine, 1);
      if (exponent === undefined) this.text(text, x - 8, y, "right", "middle");
      else this.power(text, exponent, x - 8, y);
    }
    const [x, y] = p.point(...left, 1);
    const half = this.width(axes.z.title) / 2;
    this.text(axes.z.title, Math.max(half + 2, x - 8), y - this.fontSize * 1.1, "center", "bottom", this.theme.ink);
    for (const { position, label } of axes.z.references) {
      const [x, y] = p.point(...right, position);
      this.text(label, Math.min(x + 6, this.size.width - this.width(label) - 1), y, "left", "middle");
    }
  }

  /** Ticks and title along an edge of the floor. */
  floorLabels(axis, at, outwards) {
    const p = this.projection;
    const [from, to] = [p.point(...at(0)), p.point(...at(1))];
    const middle = p.point(...at(0.5));
    const beyond = p.point(at(0.5)[0] + outwards[0] * 0.1, at(0.5)[1] + outwards[1] * 0.1, 0);
    // Labels stand off at a right angle to the edge on the screen, on the side away from the box.
    let [dx, dy] = [-(to[1] - from[1]), to[0] - from[0]];
    const length = Math.hypot(dx, dy) || 1;
    const side = dx * (beyond[0] - middle[0]) + dy * (beyond[1] - middle[1]) < 0 ? -1 : 1;
    [dx, dy] = [(side * dx) / length, (side * dy) / length];
    const align = dx < -0.3 ? "right" : dx > 0.3 ? "left" : "center";
    const baseline = dy > 0.5 ? "top" : dy < -0.5 ? "bottom" : "middle";
    const ticks = axis.ticks.map(({ position, text }) => ({ at: p.point(...at(position)), text, width: this.width(text) }));
    for (const { at: [x, y] } of ticks) this.line([[x, y], [x + dx * 4, y + dy * 4]], this.theme.strongLine, 1);
    const apart = (a, b) => Math.abs(a.at[0] - b.at[0]) > (a.width + b.width) / 2 + 6 || Math.abs(a.at[1] - b.at[1]) > this.fontSize * 1.15;
    let every = 1;  // labels that would run into each other are thinned out evenly
    const labeled = () => ticks.filter((_, n) => n % every === 0);
    while (!labeled().every((tick, n, all) => n === 0 || apart(all[n - 1], tick))) every++;
    // Seen from above, the surface is closer to the eye than the floor, and reaches beyond its edges.
    const off = 8 + Math.max(0, p.st - 0.75) * 0.55 * p.scale;
    for (const { at: [x, y], text } of labeled()) this.text(text, x + dx * off, y + dy * off, align, baseline);
    const widest = Math.max(0, ...labeled().map((tick) => tick.width));
    // The title runs along the edge, beyond the labels, and is never upside down.
    const away = off + 6 + Math.abs(dx) * widest + (0.5 + Math.abs(dy)) * this.fontSize;
    let angle = Math.atan2(to[1] - from[1], to[0] - from[0]);
    if (Math.abs(angle) > Math.PI / 2) angle -= Math.sign(angle) * Math.PI;
    this.context.save();
    this.context.translate(middle[0] + dx * away, middle[1] + dy * away);
    this.context.rotate(angle);
    this.text(axis.title, 0, 0, "center", "middle", this.theme.ink);
    this.context.restore();
  }

  width(text) {
    this.context.font = `${this.fontSize}px ${FONT}`;
    return this.context.measureText(text).width;
  }

  text(text, x, y, align, baseline, color = this.theme.muted) {
    const { context } = this;
    context.font = `${this.fontSize}px ${FONT}`;
    context.fillStyle = color;
    context.textAlign = align;
    context.textBaseline = baseline;
    context.fillText(text, x, y);
  }

  /** A power, right-aligned: the exponent is small and raised. */
  power(base, exponent, x, y) {
    const { context, fontSize } = this;
    context.font = `${fontSize * 0.78}px ${FONT}`;
    const width = context.measureText(exponent).width;
    context.fillStyle = this.theme.muted;
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.fillText(exponent, x - width, y - fontSize * 0.4);
    this.text(base, x - width - 0.5, y, "right", "middle");
  }

  /** A ring around a recorded value. */
  paintPoint({ x, y, z }) {
    if (Number.isNaN(z)) return;
    const { context, theme } = this;
    const [left, top] = this.projection.point(x, y, z);
    context.beginPath();
    context.arc(left, top, 4.5, 0, 2 * Math.PI);
    context.fillStyle = theme.paper;
    context.fill();
    context.lineWidth = 2.2;
    context.strokeStyle = theme.ink;
    context.stroke();
  }

  /** Step index and layer of the recorded value that is closest to a pixel on the surface, or null beside the surface. */
  pick(left, top) {
    for (let n = this.drawn.length - 1; n >= 0; n--) {
      const { i, j, corners } = this.drawn[n];
      if (contains(corners, left, top)) return this.nearestRecorded([i, i + 1], [j, j + 1], left, top);
    }
    const { xs, ys } = this.grid;
    const found = this.nearestRecorded([0, xs.length - 1], [0, ys.length - 1], left, top);
    return found.distance < 14 ? found : null;
  }

  nearestRecorded([firstX, lastX], [firstY, lastY], left, top) {
    const { xs, ys, zs, acrossSteps, acrossLayers, steps, layers } = this.grid;
    let best = { distance: Infinity };
    for (let column = Math.floor(firstX / acrossSteps); column <= Math.ceil(lastX / acrossSteps); column++) {
      for (let row = Math.floor(firstY / acrossLayers); row <= Math.ceil(lastY / acrossLayers); row++) {
        const [i, j] = [column * acrossSteps, row * acrossLayers];
        const [x, y] = this.projection.point(xs[i], ys[j], zs[j][i]);
        const distance = Math.hypot(x - left, y - top);
        if (distance < best.distance) best = { step: steps[column], layer: layers[row], distance };
      }
    }
    return best;
  }
}

/** Grid columns at which a mesh line is drawn: recorded steps, about ten of them at even distances. */
function meshLines(xs, acrossSteps) {
  const lines = new Set([0, xs.length - 1]);
  for (let n = 1; n < 10; n++) lines.add(Math.round(nearest(xs, n / 10) / acrossSteps) * acrossSteps);
  return lines;
}

function contains(corners, left, top) {
  let inside = false;
  for (let a = 0, b = corners.length - 1; a < corners.length; b = a++) {
    const [[xa, ya], [xb, yb]] = [corners[a], corners[b]];
    if (ya > top !== yb > top && left < ((xb - xa) * (top - ya)) / (yb - ya) + xa) inside = !inside;
  }
  return inside;
}

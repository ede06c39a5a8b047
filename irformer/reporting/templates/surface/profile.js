// A chart of one statistic over depth at one training step, with a line for each arm.

const SVG = "http://www.w3.org/2000/svg";
const CHART = { width: 260, height: 222, left: 38, right: 12, top: 18, bottom: 40 };

function element(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** The marker of an arm: color and shape tell the arms apart. */
function marker(arm, x, y, size = 4) {
  const color = `var(--series-${(arm % 6) + 1})`;
  const shapes = [
    () => element("circle", { cx: x, cy: y, r: size }),
    () => element("rect", { x: x - size * 0.9, y: y - size * 0.9, width: size * 1.8, height: size * 1.8 }),
    () => element("path", { d: `M${x} ${y - size * 1.2}l${size * 1.2} ${size * 2.1}h${-size * 2.4}z` }),
    () => element("path", { d: `M${x} ${y - size * 1.3}l${size * 1.3} ${size * 1.3}l${-size * 1.3} ${size * 1.3}l${-size * 1.3} ${-size * 1.3}z` }),
  ];
  const made = shapes[arm % shapes.length]();
  made.setAttribute("fill", color);
  made.setAttribute("class", "halo");
  return made;
}

/**
 * @param curves for each arm, its positions over depth (0 to 1), and values as positions on the axis (0 to 1, NaN for none)
 * @param axes the axis of depth and that of the values
 */
function profileChart(curves, axes, label) {
  const { width, height, left, right, top, bottom } = CHART;
  const x = (position) => left + position * (width - left - right);
  const y = (position) => height - bottom - position * (height - top - bottom);
  const chart = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const { position, text, exponent } of axes.z.ticks) {
    const tick = element("text", { x: left - 6, y: y(position) + 4, "text-anchor": "end" }, text);
    if (exponent !== undefined) tick.append(element("tspan", { dy: "-0.4em", "font-size": "80%" }, exponent));
    chart.append(element("path", { class: "frame", d: `M${left} ${y(position)}H${width - right}` }), tick);
  }
  for (const { position, label: name } of axes.z.references) {
    chart.append(
      element("path", { class: "reference", d: `M${left} ${y(position)}H${width - right}` }),
      element("text", { x: width - right, y: y(position) - 4, "text-anchor": "end" }, name),
    );
  }
  for (const { position, text } of axes.y.ticks) {
    chart.append(element("text", { x: x(position), y: height - bottom + 16, "text-anchor": "middle" }, text));
  }
  chart.append(element("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, axes.y.title));
  curves.forEach(({ positions, values }, arm) => {
    const points = positions.map((position, layer) => [x(position), y(values[layer])]).filter(([, top]) => Number.isFinite(top));
    chart.append(element("polyline", { class: "curve", stroke: `var(--series-${(arm % 6) + 1})`, points: points.map((point) => point.join()).join(" ") }));
    if (points.length <= 16) chart.append(...points.map((point) => marker(arm, ...point)));
  });
  return chart;
}

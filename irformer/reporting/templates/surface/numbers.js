// Numbers as text, and the ticks of axes.

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

function superscript(integer) {
  return String(integer).replace("-", "⁻").replace(/\d/g, (digit) => SUPERSCRIPTS[digit]);
}

/** A value with four significant digits; null, which stands for NaN and infinity, is "not finite". */
function formatValue(value) {
  if (value === null) return "not finite";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) {
    const [mantissa, exponent] = value.toExponential(2).split("e");
    return `${mantissa.replace("-", "−")} × 10${superscript(Number(exponent))}`;
  }
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

function formatStep(step) {
  return step.toLocaleString("en-US");
}

/** A step as a short label of an axis: 500, 2,500, 20k, 1.5M. */
function shortStep(step) {
  if (step >= 1e6) return `${Number((step / 1e6).toPrecision(3))}M`;
  return step >= 1e4 ? `${Number((step / 1e3).toPrecision(4))}k` : formatStep(step);
}

/** Round numbers from low to high, about `count` of them. */
function roundTicks(low, high, count) {
  const rough = (high - low) / count;
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const spacing = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const ticks = [];
  for (let n = Math.ceil(low / spacing - 1e-9); n * spacing <= high + spacing * 1e-9; n++) ticks.push(Number((n * spacing).toPrecision(12)));
  return ticks;
}

function wholeTicks(low, high, count) {
  return [...new Set(roundTicks(low, high, count).map(Math.round))].filter((tick) => tick >= low && tick <= high);
}

/** The least and the greatest of some numbers, or `otherwise` if there are none. */
function extent(numbers, otherwise) {
  if (!numbers.length) return otherwise;
  return numbers.reduce(([low, high], number) => [Math.min(low, number), Math.max(high, number)], [Infinity, -Infinity]);
}

/**
 * The vertical axis of a quantity, common to all arms.
 *
 * `position(value)` maps a value to 0 (bottom) to 1 (top), and null to NaN. `ticks` have a position and a text; on a logarithmic axis
 * the text is 10 with an exponent.
 */
function valueAxis(quantity, arms) {
  const values = arms.flatMap((arm) => arm.values[quantity.key].flat()).filter((value) => value !== null);
  if (quantity.logarithmic) {
    const [least, most] = extent(values.filter((value) => value > 0).map(Math.log10), [0, 1]);
    const low = Math.floor(least + 1e-9);
    const high = Math.max(low + 1, Math.ceil(most - 1e-9));
    const spacing = Math.ceil((high - low) / 6);
    const ticks = [];
    for (let n = low; n <= high; n += spacing) ticks.push({ position: (n - low) / (high - low), text: "10", exponent: String(n).replace("-", "−") });
    // A value of 0 has no logarithm; it stands at the bottom.
    const position = (value) => (value === null ? NaN : value > 0 ? Math.max(0, (Math.log10(value) - low) / (high - low)) : 0);
    return { position, ticks, references: [], title: quantity.axis };
  }
  const [bottom, most] = extent([0, ...values, ...quantity.references.map((reference) => reference.value)], [0, 1]);
  const top = bottom + (most - bottom || 1) * 1.06;
  const position = (value) => (value === null ? NaN : (value - bottom) / (top - bottom));
  return {
    position,
    ticks: roundTicks(bottom, top, 5).map((value) => ({ position: position(value), text: String(value) })),
    references: quantity.references.map(({ value, label }) => ({ position: position(value), label })),
    title: quantity.axis,
  };
}

/** Index of the entry of an ascending list that is closest to a value. */
function nearest(sorted, value) {
  let best = 0;
  for (let i = 1; i < sorted.length; i++) if (Math.abs(sorted[i] - value) < Math.abs(sorted[best] - value)) best = i;
  return best;
}

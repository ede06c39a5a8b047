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

/** Index of the entry of an ascending list that is closest to a value. */
function nearest(sorted, value) {
  let best = 0;
  for (let i = 1; i < sorted.length; i++) if (Math.abs(sorted[i] - value) < Math.abs(sorted[best] - value)) best = i;
  return best;
}

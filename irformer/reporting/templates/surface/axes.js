// The axis of a statistic.

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

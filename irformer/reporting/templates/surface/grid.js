// The surface of one arm as a grid in the unit cube: x is the training step, y the depth, z the value.

/**
 * Resamples an arm's values for drawing, to about `detail.layers` by `detail.steps` cells.
 *
 * Cells between two recorded values are divided so that colors change smoothly. With `detail.sparse`, recorded values are left out
 * where there are more of them. The others stay grid points, at multiples of `acrossSteps` and `acrossLayers`; `steps` and `layers`
 * are their indices.
 */
function surfaceGrid(values, stepPositions, axis, depth, detail) {
  const layers = sparse(values.length, detail.sparse ? detail.layers : Infinity);
  const steps = sparse(stepPositions.length, detail.sparse ? detail.steps : Infinity);
  const acrossLayers = Math.max(1, Math.round(detail.layers / Math.max(1, layers.length - 1)));
  const acrossSteps = Math.max(1, Math.round(detail.steps / Math.max(1, steps.length - 1)));
  const xs = subdivide(steps.map((step) => stepPositions[step]), acrossSteps);
  const ys = subdivide(layers.map((layer) => layerPosition(layer, depth)), acrossLayers);
  const heights = layers.map((layer) => subdivide(steps.map((step) => axis.position(values[layer][step])), acrossSteps));
  const zs = ys.map((_, j) => {
    const below = Math.floor(j / acrossLayers);
    const share = j / acrossLayers - below;
    if (share === 0) return heights[below];
    return xs.map((_, i) => heights[below][i] * (1 - share) + heights[below + 1][i] * share);
  });
  return { xs, ys, zs, acrossSteps, acrossLayers, steps, layers };
}

/** Depth on an axis of 0 to 1: a single layer stands in the middle. */
function layerPosition(layer, depth) {
  return depth > 1 ? layer / (depth - 1) : 0.5;
}

/** At most about `most` of the indices below `count`, the first and the last among them. */
function sparse(count, most) {
  const every = Math.ceil(count / most) || 1;
  return Array.from({ length: count }, (_, index) => index).filter((index) => index % every === 0 || index === count - 1);
}

function subdivide(values, parts) {
  const result = [];
  for (let i = 0; i + 1 < values.length; i++) {
    result.push(values[i]);
    for (let part = 1; part < parts; part++) result.push(values[i] + ((values[i + 1] - values[i]) * part) / parts);
  }
  result.push(values[values.length - 1]);
  return result;
}

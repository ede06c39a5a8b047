// Decoded images: lossless pixels, squared errors and error maps.

/** Decodes all versions of an image; `load` of the same image returns the same promise. */
function load(image) {
  image.loading ||= Promise.all(image.versions.map((version) => decode(version.source))).then((bitmaps) => {
    bitmaps.forEach((bitmap, n) => (image.versions[n].bitmap = bitmap));
    return image;
  });
  return image.loading;
}

async function decode(source) {
  const picture = new Image();
  picture.src = source;
  await picture.decode();
  // A canvas, from which pixels can be read; it draws exactly as the picture would.
  const canvas = Object.assign(document.createElement("canvas"), { width: picture.naturalWidth, height: picture.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  return canvas;
}

function bytes(canvas) {
  return canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, canvas.width, canvas.height).data;
}

/** The version that errors refer to, unless it has another size. */
function referenceFor(image, version) {
  const reference = image.versions[image.reference];
  if (!reference || reference.bitmap.width !== version.bitmap.width || reference.bitmap.height !== version.bitmap.height) return null;
  return reference;
}

/**
 * Sums of squared errors over R, G and B of all rectangles that start at the top left, [(height + 1) * (width + 1)], or null where
 * there is nothing to compare with. The sum of any rectangle follows from four of them.
 */
function errorSums(image, version) {
  if (version.sums !== undefined) return version.sums;
  const reference = referenceFor(image, version);
  if (!reference) return (version.sums = null);
  const [a, b] = [bytes(version.bitmap), bytes(reference.bitmap)];
  const { width, height } = version.bitmap;
  const sums = new Float64Array((height + 1) * (width + 1));
  for (let y = 0; y < height; y++) {
    let row = 0;
    for (let x = 0; x < width; x++) {
      const n = 4 * (y * width + x);
      row += (a[n] - b[n]) ** 2 + (a[n + 1] - b[n + 1]) ** 2 + (a[n + 2] - b[n + 2]) ** 2;
      sums[(y + 1) * (width + 1) + x + 1] = sums[y * (width + 1) + x + 1] + row;
    }
  }
  return (version.sums = sums);
}

/** PSNR in dB over R, G and B of a rectangle of whole pixels; null where there is nothing to compare with. */
function psnr(image, version, { left, top, right, bottom }) {
  const sums = errorSums(image, version);
  if (!sums || right <= left || bottom <= top) return null;
  const at = (x, y) => sums[y * (version.bitmap.width + 1) + x];
  const sum = at(right, bottom) - at(left, bottom) - at(right, top) + at(left, top);
  return 10 * Math.log10(255 ** 2 / (sum / (3 * (right - left) * (bottom - top))));
}

/** PSNR in dB as text. */
function formatPsnr(value) {
  return Number.isFinite(value) ? `${value.toFixed(2)} dB` : "∞ dB";
}

/** The largest error of R, G and B of each pixel, in colors; null where there is nothing to compare with. */
function errorMap(image, version, { limit, colors }) {
  if (version.map !== undefined) return version.map;
  const reference = referenceFor(image, version);
  if (!reference) return (version.map = null);
  const [a, b] = [bytes(version.bitmap), bytes(reference.bitmap)];
  const { width, height } = version.bitmap;
  const map = Object.assign(document.createElement("canvas"), { width, height });
  const context = map.getContext("2d");
  const pixels = context.createImageData(width, height);
  const palette = colors.map((color) => [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16)));
  for (let n = 0; n < a.length; n += 4) {
    const error = Math.max(Math.abs(a[n] - b[n]), Math.abs(a[n + 1] - b[n + 1]), Math.abs(a[n + 2] - b[n + 2]));
    pixels.data.set(palette[Math.min(limit, error)], n);
    pixels.data[n + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
  return (version.map = map);
}

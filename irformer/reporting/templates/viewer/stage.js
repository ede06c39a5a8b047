// The area in which versions are drawn: zoom, position, and the pixels on the screen.

const MAX_ZOOM = 32;

class Stage {
  constructor(box) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.width = this.height = 0;  // CSS pixels
  }

  /** Fits the canvas to whole pixels of the screen: at fractions of them, the browser would blur it. */
  resize() {
    const ratio = devicePixelRatio;
    const place = this.box.getBoundingClientRect();
    const [left, top] = [place.left + scrollX, place.top + scrollY];
    const [x, y] = [Math.ceil(left * ratio - 1e-3) / ratio - left, Math.ceil(top * ratio - 1e-3) / ratio - top];
    const [width, height] = [Math.floor((place.width - x) * ratio), Math.floor((place.height - y) * ratio)];
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    Object.assign(this.canvas.style, { left: `${x}px`, top: `${y}px`, width: `${width / ratio}px`, height: `${height / ratio}px` });
    [this.x, this.y, this.width, this.height] = [x, y, width / ratio, height / ratio];
  }

  /** The zoom at which the whole image is visible. Enlarged, all pixels have the same size on the screen. */
  fit(image) {
    const zoom = Math.min(this.width / image.width, this.height / image.height, MAX_ZOOM);
    const onScreen = zoom * devicePixelRatio;
    return onScreen > 1 ? Math.floor(onScreen) / devicePixelRatio : zoom;
  }

  /** Position and size of the image on the canvas, in pixels of the screen. */
  frame(image, { zoom, x, y }) {
    const scale = zoom * devicePixelRatio;
    return {
      left: Math.round(this.canvas.width / 2 - x * scale), top: Math.round(this.canvas.height / 2 - y * scale),
      width: image.width * scale, height: image.height * scale, scale,
    };
  }

  /** The pixels of the image that are visible at least in part. */
  visible(image, view) {
    const { left, top, scale } = this.frame(image, view);
    const clamp = (value, most) => Math.max(0, Math.min(most, value));
    return {
      left: clamp(Math.floor(-left / scale), image.width), right: clamp(Math.ceil((this.canvas.width - left) / scale), image.width),
      top: clamp(Math.floor(-top / scale), image.height), bottom: clamp(Math.ceil((this.canvas.height - top) / scale), image.height),
    };
  }

  /** Draws one picture over the whole canvas, and another over its left part, `split` CSS pixels wide. */
  paint(image, view, right, left, split) {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const frame = this.frame(image, view);
    this.draw(context, right, frame);
    if (!left) return;
    context.save();
    context.beginPath();
    context.rect(0, 0, Math.round(split * devicePixelRatio), this.canvas.height);  // whole pixels: a clipped edge is not blended
    context.clip();
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.draw(context, left, frame);
    context.restore();
  }

  draw(context, picture, { left, top, width, height }) {
    context.imageSmoothingEnabled = width < picture.width;
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, left, top, width, height);
  }
}

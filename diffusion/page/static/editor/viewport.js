// Which part of an image a canvas shows: pan and zoom by wheel, by two fingers and by keys, and where pointers are in it.

/** @import {Point} from "./mask.js" */

/** The place of an image on a canvas: all lengths of the canvas are in its own pixels, whatever the zoom of the browser. */
export class Viewport {
  /** @param {number} width @param {number} height of the image */
  constructor(width, height) {
    this.image = { width, height };
    this.canvas = { width: 1, height: 1 };
    /** Pixels of the canvas per pixel of the image. */ this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.fitted = true;
  }

  /** Returns the scale at which the whole image is seen. */
  get least() {
    return Math.min(this.canvas.width / this.image.width, this.canvas.height / this.image.height);
  }

  /** Takes the size of the canvas: an image that was seen whole stays so, and another keeps its middle.
   * @param {number} width @param {number} height */
  resize(width, height) {
    const middle = this.toImage({ x: this.canvas.width / 2, y: this.canvas.height / 2 });
    this.canvas = { width, height };
    if (this.fitted) this.fit();
    else this.pan(width / 2 - (middle.x * this.scale + this.x), height / 2 - (middle.y * this.scale + this.y));
  }

  /** Shows the whole image in the middle. */
  fit() {
    this.scale = this.least;
    this.center();
    this.fitted = true;
  }

  /** Moves the image into the middle. */
  center() {
    this.x = (this.canvas.width - this.image.width * this.scale) / 2;
    this.y = (this.canvas.height - this.image.height * this.scale) / 2;
  }

  /** Changes the scale around a point of the canvas, which stays where it is. @param {number} factor @param {Point} [at] */
  zoom(factor, at = { x: this.canvas.width / 2, y: this.canvas.height / 2 }) {
    const { x, y } = this.toImage(at);
    this.scale = Math.max(Math.min(1, this.least), Math.min(Math.max(64, this.least), this.scale * factor));
    [this.x, this.y] = [at.x - x * this.scale, at.y - y * this.scale];
    this.pan(0, 0);
    if (factor < 1 && this.scale <= this.least) this.center();
  }

  /** Moves the image by pixels of the canvas, whose middle it does not leave: so what is zoomed to stays under the pointer.
   * @param {number} dx @param {number} dy */
  pan(dx, dy) {
    const held = (/** @type {number} */ at, /** @type {number} */ image, /** @type {number} */ canvas) => Math.min(canvas / 2, Math.max(canvas / 2 - image, at));
    this.x = held(this.x + dx, this.image.width * this.scale, this.canvas.width);
    this.y = held(this.y + dy, this.image.height * this.scale, this.canvas.height);
    this.fitted = false;
  }

  /** Returns the place in the image of a point of the canvas. @param {Point} p @returns {Point} */
  toImage = (p) => ({ x: (p.x - this.x) / this.scale, y: (p.y - this.y) / this.scale });

  /** Returns the point of the canvas that shows a place in the image. @param {Point} p @returns {Point} */
  toCanvas = (p) => ({ x: p.x * this.scale + this.x, y: p.y * this.scale + this.y });
}

/** Returns where a pointer is on a canvas, in the canvas's own pixels. @param {HTMLCanvasElement} canvas
 * @param {MouseEvent} event @returns {Point} */
export function pointOn(canvas, event) {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  return { x: ((event.clientX - left) * canvas.width) / width, y: ((event.clientY - top) * canvas.height) / height };
}

/** Pans and zooms by wheel, two fingers, the middle button, and any button while Space is held: none of these reaches
 * listeners that are added to the canvas later. @param {HTMLCanvasElement} canvas @param {Viewport} viewport
 * @param {{moved: () => void, interrupted: () => void, holds: () => boolean}} told what happens when the place has changed, when
 * a second finger ends what the first began, and whether Space is held */
export function navigate(canvas, viewport, { moved, interrupted, holds }) {
  /** The pointers that navigate, and fingers. @type {Map<number, Point>} */
  const pointers = new Map();
  let panning = false;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1, delta = event.deltaY * lines;
    if (event.shiftKey || !delta) viewport.pan(-(event.deltaX * lines || delta), 0);
    else viewport.zoom(Math.exp(-delta * (event.ctrlKey ? 0.01 : 0.002)), pointOn(canvas, event));
    moved();
  });
  canvas.addEventListener("pointerdown", (event) => {
    const begins = event.button === 1 || holds();
    if (event.pointerType === "touch" || begins) pointers.set(event.pointerId, pointOn(canvas, event));
    if (begins || pointers.size > 1) {
      if (!panning) interrupted();
      panning = true;
      canvas.setPointerCapture(event.pointerId);
      event.stopImmediatePropagation();
      event.preventDefault();
    }
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = pointOn(canvas, event), others = [...pointers.entries()].filter(([id]) => id !== event.pointerId);
    pointers.set(event.pointerId, now);
    if (!panning) return;
    event.stopImmediatePropagation();
    const [other] = others.map(([, point]) => point);
    if (other) viewport.zoom(apart(now, other) / Math.max(1, apart(before, other)), other);
    const share = other ? 0.5 : 1; // With two fingers, each moves the middle by half.
    viewport.pan((now.x - before.x) * share, (now.y - before.y) * share);
    moved();
  });
  for (const ending of ["pointerup", "pointercancel"])
    canvas.addEventListener(ending, (event) => {
      pointers.delete(/** @type {PointerEvent} */ (event).pointerId);
      if (panning) event.stopImmediatePropagation();
      if (!pointers.size) panning = false;
    });
}

/** @param {Point} p @param {Point} q */
const apart = (p, q) => Math.hypot(p.x - q.x, p.y - q.y);

// What the editor of a mask shows: an image, the mask over it, an outline of what is being made, and the brush.

import { h } from "/parts/dom.js";
import { around, clipped, whole } from "./mask.js";

/** @import {Box, Mask, Point} from "./mask.js" */
/** @import {Viewport} from "./viewport.js" */

/** What is hidden is striped, so that it is seen on an image of any color: bytes A, B, G, R. */
const STRIPES = [0xd05a2bff, 0x905a2bff], STRIPE = 6;

/** Draws in the next frame what was said to have changed, and no more. */
export class Screen {
  /** @param {ImageBitmap} image @param {Mask} mask @param {Viewport} viewport @param {string} label what the mask is called */
  constructor(image, mask, viewport, label) {
    this.image = image;
    this.mask = mask;
    this.viewport = viewport;
    this.under = h("canvas", { "aria-hidden": "true" });
    this.canvas = h("canvas", { tabindex: 0, role: "application", "aria-roledescription": "drawing", "aria-label": label });
    this.ring = h("div", { class: "ring", hidden: true });
    this.node = h("div", { class: "stage" }, this.under, this.canvas, this.ring);
    this.ground = /** @type {CanvasRenderingContext2D} */ (this.under.getContext("2d"));
    this.layer = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    this.frame = 0;
    this.moved = true;
    /** @type {Box | null} */ this.spoiled = null;
    /** The corners of what is being made. @type {Point[]} */ this.outline = [];
    this.outlined = false;
    /** Where the brush is, and its diameter in pixels of the image. @type {{at: Point, size: number} | null} */ this.brush = null;
    this.sized = new ResizeObserver(() => this.resize());
    this.sized.observe(this.canvas);
  }

  /** Takes the size of the node, in pixels of the screen. */
  resize() {
    for (const canvas of [this.under, this.canvas]) {
      canvas.width = Math.max(1, Math.round(this.canvas.clientWidth * devicePixelRatio));
      canvas.height = Math.max(1, Math.round(this.canvas.clientHeight * devicePixelRatio));
    }
    this.viewport.resize(this.canvas.width, this.canvas.height);
    this.move();
  }

  /** Has all drawn again. */
  move() {
    this.moved = true;
    this.ask();
  }

  /** Has a part of the mask drawn again. @param {Box | null} box */
  spoil(box) {
    const corners = [this.spoiled, box].flatMap((each) => (each ? [{ x: each.x0, y: each.y0 }, { x: each.x1, y: each.y1 }] : []));
    if (corners.length) this.spoiled = around(corners);
    this.ask();
  }

  ask() {
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const all = this.moved || this.outlined || this.outline.length > 0;
    if (this.moved) this.drawImage();
    if (all) this.layer.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (all || this.spoiled) this.drawMask(all || !this.spoiled ? whole(this.mask) : this.spoiled);
    [this.moved, this.spoiled, this.outlined] = [false, null, this.outline.length > 0];
    if (this.outlined) this.drawOutline();
    this.placeRing();
  }

  drawImage() {
    const { ground, viewport: { scale, x, y }, mask: { width, height } } = this;
    ground.setTransform(1, 0, 0, 1, 0, 0);
    ground.clearRect(0, 0, this.under.width, this.under.height);
    ground.setTransform(scale, 0, 0, scale, x, y);
    ground.imageSmoothingEnabled = scale * width < 2 * this.image.width;
    ground.drawImage(this.image, 0, 0, width, height);
  }

  /** @param {Box} box of the mask */
  drawMask(box) {
    const { x0, y0, x1, y1 } = clipped(this.mask, box), { width, hidden } = this.mask, { scale, x, y } = this.viewport;
    const left = Math.max(0, Math.floor(x0 * scale + x)), top = Math.max(0, Math.floor(y0 * scale + y));
    const columns = Math.min(this.canvas.width, Math.ceil(x1 * scale + x)) - left;
    const rows = Math.min(this.canvas.height, Math.ceil(y1 * scale + y)) - top;
    if (columns <= 0 || rows <= 0) return;
    const pixels = new ImageData(columns, rows), colors = new Uint32Array(pixels.data.buffer);
    // The pixel of the mask in the middle of each pixel of the screen; at the edge, that of the edge.
    const within = (/** @type {number} */ at, /** @type {number} */ most) => Math.max(0, Math.min(most - 1, Math.floor(at / scale)));
    const across = new Int32Array(columns).map((_, i) => within(left + i + 0.5 - x, width));
    for (let j = 0, at = 0; j < rows; j++) {
      const row = within(top + j + 0.5 - y, this.mask.height) * width;
      for (let i = 0; i < columns; i++, at++)
        if (hidden[row + across[i]]) colors[at] = STRIPES[Math.floor((left + i + top + j) / STRIPE) & 1];
    }
    this.layer.putImageData(pixels, left, top);
  }

  drawOutline() {
    const { layer } = this;
    layer.beginPath();
    for (const { x, y } of this.outline.map(this.viewport.toCanvas)) layer.lineTo(x, y);
    layer.closePath();
    for (const [color, dash] of /** @type {[string, number[]][]} */ ([["#fff", []], ["#000", [6, 6]]])) {
      [layer.strokeStyle, layer.lineWidth] = [color, 2];
      layer.setLineDash(dash);
      layer.stroke();
    }
  }

  placeRing() {
    this.ring.hidden = !this.brush;
    if (!this.brush) return;
    const css = this.canvas.offsetWidth / this.canvas.width, side = this.brush.size * this.viewport.scale * css;
    const { x, y } = this.viewport.toCanvas(this.brush.at);
    this.ring.style.width = this.ring.style.height = `${side}px`;
    this.ring.style.transform = `translate(${x * css - side / 2}px, ${y * css - side / 2}px)`;
  }

  /** Ends what was begun. */
  close() {
    this.sized.disconnect();
    cancelAnimationFrame(this.frame);
  }
}

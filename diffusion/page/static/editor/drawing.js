// What tools do to a mask, by pointers and by a cursor of keys, in steps that can be undone.

import { History, around, lasso, rectangle, spanned, stroke, swept, whole } from "./mask.js";
import { pointOn } from "./viewport.js";

/** @import {Box, Mask, Point} from "./mask.js" */
/** @import {Screen} from "./screen.js" */
/** @import {Viewport} from "./viewport.js" */
/** @typedef {"Brush" | "Eraser" | "Rectangle" | "Lasso"} Tool */

/** @type {Tool[]} */
export const TOOLS = ["Brush", "Eraser", "Rectangle", "Lasso"];

/** A mask with the tool that is chosen, and what is being made with it. */
export class Drawing {
  /** @param {Mask} mask @param {Viewport} viewport @param {Screen} screen @param {() => void} changed hears of every change */
  constructor(mask, viewport, screen, changed) {
    this.mask = mask;
    this.viewport = viewport;
    this.screen = screen;
    this.changed = changed;
    this.history = new History(mask);
    /** @type {Tool} */ this.tool = "Brush";
    /** The diameter of the brush in pixels of the image. */ this.size = 1;
    /** Where the cursor of keys is, and where a mouse or a pen is. @type {Point | null} */ this.cursor = null;
    /** @type {Point | null} */ this.pointed = null;
    /** The corners of the rectangle or the lasso being made. @type {Point[]} */ this.path = [];
    this.drawing = false;
  }

  get brushes() {
    return this.tool === "Brush" || this.tool === "Eraser";
  }

  /** What a tool makes of pixels: hidden, or known. @returns {0 | 1} */
  get value() {
    return this.tool === "Eraser" ? 0 : 1;
  }

  get middle() {
    return { x: Math.floor(this.mask.width / 2) + 0.5, y: Math.floor(this.mask.height / 2) + 0.5 };
  }

  /** Shows the brush and what is being made. */
  show() {
    const at = this.pointed ?? this.cursor;
    this.screen.brush = at && { at, size: this.brushes ? this.size : 9 / this.viewport.scale };
    this.screen.outline = this.path.length ? this.shape() : [];
    this.screen.ask();
  }

  /** The corners of what is being made. @returns {Point[]} */
  shape() {
    if (this.tool === "Lasso") return this.path;
    const { x0, y0, x1, y1 } = spanned(this.path[0], this.path[this.path.length - 1]);
    return [{ x: x0, y: y0 }, { x: x1, y: y0 }, { x: x1, y: y1 }, { x: x0, y: y1 }];
  }

  /** Changes a part of the mask in one step. @param {Box} box @param {() => void} action */
  change(box, action) {
    this.history.keep(box);
    action();
    this.history.end();
    this.said(box);
  }

  /** Changes the whole mask in one step. @param {() => void} action */
  everywhere(action) {
    this.change(whole(this.mask), action);
  }

  /** Shows and says that a part has changed. @param {Box | null} box */
  said(box) {
    this.screen.spoil(box);
    this.changed();
  }

  /** Draws on by the brush, within a step. @param {Point} from @param {Point} to @param {0 | 1} value */
  brush(from, to, value) {
    const box = swept(from, to, this.size);
    this.history.keep(box);
    stroke(this.mask, from, to, this.size, value);
    this.screen.spoil(box);
  }

  /** Ends a stroke, a rectangle or a lasso. @param {0 | 1} value */
  finish(value) {
    const points = this.path.length ? this.shape() : [], box = around(points), { mask } = this;
    [this.drawing, this.path] = [false, []];
    this.history.end();
    if (points.length) this.change(box, () => (this.tool === "Lasso" ? lasso(mask, points, value) : rectangle(mask, box, value)));
    else this.changed();
    this.show();
  }

  /** Takes back what is being made. */
  drop() {
    [this.drawing, this.path] = [false, []];
    this.screen.spoil(this.history.cancel());
    this.show();
  }

  /** Paints where the cursor of keys is, or sets a corner there: the second ends a rectangle, and one set twice a lasso. */
  press() {
    const at = (this.cursor ??= this.middle), before = this.path[this.path.length - 1];
    if (this.brushes) this.brush(at, at, this.value);
    else this.path = [...this.path, at];
    const twice = before?.x === at.x && before.y === at.y;
    if (this.brushes || twice || (before && this.tool === "Rectangle")) this.finish(this.value);
    this.show();
  }

  /** Moves the cursor of keys by a quarter of the brush. @param {[number, number]} way @param {boolean} paints
   * @returns {Point} where it is */
  step([dx, dy], paints) {
    const from = this.cursor ?? this.middle, by = Math.max(1, Math.round(this.size / 4)), { width, height } = this.mask;
    const within = (/** @type {number} */ at, /** @type {number} */ side) => Math.max(0.5, Math.min(side - 0.5, at));
    this.cursor = { x: within(from.x + dx * by, width), y: within(from.y + dy * by, height) };
    this.pointed = null;
    if (paints && this.brushes) {
      this.brush(from, this.cursor, this.value);
      this.finish(this.value);
    }
    this.show();
    return this.cursor;
  }

  /** Draws by the pointers of a canvas. @param {HTMLCanvasElement} canvas */
  listen(canvas) {
    let last = this.middle, /** @type {0 | 1} */ value = this.value;
    const placed = (/** @type {MouseEvent} */ event) => this.viewport.toImage(pointOn(canvas, event));
    canvas.addEventListener("pointerdown", (event) => {
      const erases = event.button === 5; // The other end of a pen.
      if (event.button !== 0 && !erases) return;
      canvas.setPointerCapture(event.pointerId);
      [this.drawing, this.cursor, last, value] = [true, null, placed(event), erases || event.shiftKey ? 0 : this.value];
      if (this.brushes) this.brush(last, last, value);
      this.path = this.brushes ? [] : [last];
      this.show();
    });
    canvas.addEventListener("pointermove", (event) => {
      this.pointed = event.pointerType === "touch" ? null : placed(event);
      const all = event.getCoalescedEvents?.() ?? [];
      for (const each of this.drawing ? (all.length ? all : [event]) : []) {
        const point = placed(each);
        if (this.brushes) this.brush(last, point, value);
        else this.path.push(point);
        last = point;
      }
      this.show();
    });
    canvas.addEventListener("pointerup", () => this.drawing && this.finish(value));
    canvas.addEventListener("pointercancel", () => this.drop());
    canvas.addEventListener("pointerleave", () => {
      this.pointed = null;
      this.show();
    });
  }
}

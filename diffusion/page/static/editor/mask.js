// The mask of an image at the image's own size: which pixels are hidden, drawn exactly and without half tones. No DOM.

/** A box of pixels, from (x0, y0) up to and without (x1, y1). @typedef {{x0: number, y0: number, x1: number, y1: number}} Box */
/** A point in pixels of the image: (0, 0) is its top left corner. @typedef {{x: number, y: number}} Point */
/** One byte per pixel: 1 is hidden, to be filled, and 0 known. @typedef {{width: number, height: number, hidden: Uint8Array}} Mask */

/** Returns a mask that hides nothing. @param {number} width @param {number} height @returns {Mask} */
export const blank = (width, height) => ({ width, height, hidden: new Uint8Array(width * height) });

/** Returns how many pixels are hidden. @param {Mask} mask */
export function count({ hidden }) {
  let n = 0;
  for (let i = 0; i < hidden.length; i++) n += hidden[i];
  return n;
}

/** Returns the box of a whole mask. @param {Mask} mask @returns {Box} */
export const whole = ({ width, height }) => ({ x0: 0, y0: 0, x1: width, y1: height });

/** Returns a box rounded outwards to whole pixels of a mask. @param {Mask} mask @param {Box} box @returns {Box} */
export function clipped({ width, height }, { x0, y0, x1, y1 }) {
  const within = (/** @type {number} */ v, /** @type {number} */ top) => Math.max(0, Math.min(top, v));
  return {
    x0: within(Math.floor(x0), width), y0: within(Math.floor(y0), height),
    x1: within(Math.ceil(x1), width), y1: within(Math.ceil(y1), height),
  };
}

/** Sets the pixels of a row whose centers lie between two places.
 * @param {Mask} mask @param {number} y @param {number} from @param {number} to @param {0 | 1} value */
function span({ width, hidden }, y, from, to, value) {
  const start = Math.max(0, Math.ceil(from - 0.5)), end = Math.min(width - 1, Math.floor(to - 0.5));
  if (start <= end) hidden.fill(value, y * width + start, y * width + end + 1);
}

/** Returns where a brush goes: one of a single pixel keeps to the middle of pixels, so that its line has no gap.
 * @param {Point} p @param {number} size @returns {Point} */
const aimed = (p, size) => (size < 2 ? { x: Math.floor(p.x) + 0.5, y: Math.floor(p.y) + 0.5 } : p);

/** Returns the box that a brush of a diameter touches on its way. @param {Point} p @param {Point} q @param {number} size @returns {Box} */
export function swept(p, q, size) {
  const r = Math.max(1, size / 2);
  return { x0: Math.min(p.x, q.x) - r, y0: Math.min(p.y, q.y) - r, x1: Math.max(p.x, q.x) + r, y1: Math.max(p.y, q.y) + r };
}

/** Sets the pixels whose centers a disc of a diameter covers on its way from one point to another.
 * @param {Mask} mask @param {Point} from @param {Point} to @param {number} size @param {0 | 1} value */
export function stroke(mask, from, to, size, value) {
  const p = aimed(from, size), q = aimed(to, size), r = Math.max(1, size) / 2;
  const box = clipped(mask, swept(p, q, size)), dx = q.x - p.x, dy = q.y - p.y, length = Math.hypot(dx, dy);
  for (let y = box.y0; y < box.y1; y++) {
    // The row meets a disc at either end and the band between them: what is swept is convex, so their union is a span.
    let low = Infinity, high = -Infinity;
    for (const end of [p, q]) {
      const half = Math.sqrt(r * r - (y + 0.5 - end.y) ** 2);
      if (half >= 0) [low, high] = [Math.min(low, end.x - half), Math.max(high, end.x + half)];
    }
    const v = y + 0.5 - p.y, [alongLow, alongHigh] = between(dx, v * dy, 0, length * length);
    const [acrossLow, acrossHigh] = between(dy, -v * dx, -r * length, r * length);
    const [bandLow, bandHigh] = [Math.max(alongLow, acrossLow), Math.min(alongHigh, acrossHigh)];
    if (length > 0 && bandLow <= bandHigh) [low, high] = [Math.min(low, p.x + bandLow), Math.max(high, p.x + bandHigh)];
    span(mask, y, low, high, value);
  }
}

/** Returns the least and the largest u with low <= a u + b <= high. @param {number} a @param {number} b @param {number} low @param {number} high */
function between(a, b, low, high) {
  if (a === 0) return low <= b && b <= high ? [-Infinity, Infinity] : [Infinity, -Infinity];
  const ends = [(low - b) / a, (high - b) / a];
  return a > 0 ? ends : [ends[1], ends[0]];
}

/** Returns the box from the pixel of one point to that of another. @param {Point} p @param {Point} q @returns {Box} */
export const spanned = (p, q) => ({
  x0: Math.floor(Math.min(p.x, q.x)), y0: Math.floor(Math.min(p.y, q.y)),
  x1: Math.floor(Math.max(p.x, q.x)) + 1, y1: Math.floor(Math.max(p.y, q.y)) + 1,
});

/** Sets the pixels of a box. @param {Mask} mask @param {Box} area @param {0 | 1} value */
export function rectangle(mask, area, value) {
  const { x0, y0, x1, y1 } = clipped(mask, area);
  for (let y = y0; y < y1; y++) mask.hidden.fill(value, y * mask.width + x0, y * mask.width + x1);
}

/** Returns the box around points. @param {Point[]} points @returns {Box} */
export function around(points) {
  const box = { x0: Infinity, y0: Infinity, x1: -Infinity, y1: -Infinity };
  for (const { x, y } of points) {
    [box.x0, box.y0] = [Math.min(box.x0, x), Math.min(box.y0, y)];
    [box.x1, box.y1] = [Math.max(box.x1, x), Math.max(box.y1, y)];
  }
  return box;
}

/** Sets the pixels whose centers lie within a polygon by the even-odd rule. @param {Mask} mask @param {Point[]} points @param {0 | 1} value */
export function lasso(mask, points, value) {
  const box = clipped(mask, around(points));
  for (let y = box.y0; y < box.y1; y++) {
    const crossings = [];
    for (let i = 0; i < points.length; i++) {
      const p = points[i], q = points[(i + 1) % points.length], v = y + 0.5;
      if ((p.y <= v) !== (q.y <= v)) crossings.push(p.x + ((v - p.y) / (q.y - p.y)) * (q.x - p.x));
    }
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) span(mask, y, crossings[i], crossings[i + 1], value);
  }
}

/** Hides what is known and shows what is hidden. @param {Mask} mask */
export function invert({ hidden }) {
  for (let i = 0; i < hidden.length; i++) hidden[i] ^= 1;
}

/** Hides all pixels within a distance of hidden ones. @param {Mask} mask @param {number} distance in whole pixels */
export function grow(mask, distance) {
  const { width, height, hidden } = mask, before = hidden.slice();
  const widths = Array.from({ length: 2 * distance + 1 }, (_, i) => Math.floor(Math.sqrt(distance ** 2 - (i - distance) ** 2)));
  for (let y = 0; y < height; y++) {
    const row = before.subarray(y * width, (y + 1) * width);
    for (let start = row.indexOf(1), stop; start >= 0; start = row.indexOf(1, stop)) {
      stop = row.indexOf(0, start);
      if (stop < 0) stop = width;
      for (let dy = Math.max(-distance, -y); dy <= Math.min(distance, height - 1 - y); dy++) {
        const half = widths[dy + distance], at = (y + dy) * width;
        hidden.fill(1, at + Math.max(0, start - half), at + Math.min(width, stop + half));
      }
    }
  }
}

const TILE = 64;

/** What may be undone and done again: the tiles that each step changed, as bits, so that a step of 12 megapixels takes
 * at most 1.5 MB. */
export class History {
  /** @param {Mask} mask @param {number} limit the most steps that are kept */
  constructor(mask, limit = 40) {
    this.mask = mask;
    this.limit = limit;
    this.across = Math.ceil(mask.width / TILE);
    /** @type {Map<number, Uint8Array>[]} */ this.steps = [];
    /** @type {Map<number, Uint8Array>[]} */ this.undone = [];
    /** The step being made. @type {Map<number, Uint8Array>} */ this.open = new Map();
  }

  /** Keeps what a box holds, before it changes. @param {Box} area */
  keep(area) {
    const { x0, y0, x1, y1 } = clipped(this.mask, area);
    for (let row = Math.floor(y0 / TILE); row * TILE < y1; row++)
      for (let column = Math.floor(x0 / TILE); column * TILE < x1; column++) {
        const tile = row * this.across + column;
        if (!this.open.has(tile)) this.open.set(tile, this.packed(tile));
      }
  }

  /** Ends a step, if anything was kept for it. */
  end() {
    if (this.open.size) [this.undone, this.steps] = [[], [...this.steps, this.open].slice(-this.limit)];
    this.open = new Map();
  }

  /** Takes back the step being made. @returns {Box | null} what changed */
  cancel() {
    const box = this.swap(this.open);
    this.open = new Map();
    return box;
  }

  /** Takes back the last step. @returns {Box | null} what changed */
  undo() {
    const step = this.steps.pop();
    if (step) this.undone.push(step);
    return this.swap(step);
  }

  /** Makes the last step that was taken back again. @returns {Box | null} what changed */
  redo() {
    const step = this.undone.pop();
    if (step) this.steps.push(step);
    return this.swap(step);
  }

  /** Returns the box of a tile. @param {number} tile @returns {Box} */
  box(tile) {
    const x = (tile % this.across) * TILE, y = Math.floor(tile / this.across) * TILE;
    return clipped(this.mask, { x0: x, y0: y, x1: x + TILE, y1: y + TILE });
  }

  /** Returns the bits of a tile. @param {number} tile */
  packed(tile) {
    const { x0, y0, x1, y1 } = this.box(tile), { width, hidden } = this.mask, bits = new Uint8Array((TILE * TILE) / 8);
    for (let y = y0, i = 0; y < y1; y++) for (let x = x0; x < x1; x++, i++) bits[i >> 3] |= hidden[y * width + x] << (i & 7);
    return bits;
  }

  /** Exchanges the tiles of the mask for those of a step. @param {Map<number, Uint8Array>} [step] @returns {Box | null} */
  swap(step) {
    const corners = [];
    for (const [tile, bits] of step ?? []) {
      const { x0, y0, x1, y1 } = this.box(tile), { width, hidden } = this.mask;
      step?.set(tile, this.packed(tile));
      for (let y = y0, i = 0; y < y1; y++) for (let x = x0; x < x1; x++, i++) hidden[y * width + x] = (bits[i >> 3] >> (i & 7)) & 1;
      corners.push({ x: x0, y: y0 }, { x: x1, y: y1 });
    }
    return corners.length ? around(corners) : null;
  }
}

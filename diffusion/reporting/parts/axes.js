/** Axes of charts: from values to pixels, linear or by logarithms, with round ticks and their labels. */

import { count, fixed } from "./dom.js";

/** @typedef {{at: (value: number) => number, ticks: number[], low: number, high: number, log: boolean}} Scale */

/** Returns a scale from values to pixels, with about `wanted` ticks. @param {number[]} values those to be seen
 * @param {boolean} log linear nevertheless where a value is not positive @param {[number, number]} pixels
 * @param {number} wanted @param {number} [room] beyond the ends, as a fraction @returns {Scale} */
export function scale(values, log, [from, to], wanted, room = 0) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) if (Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const logs = log && low > 0;
  if (low === high) {
    const around = (/** @type {number} */ end) => Math.max(Math.abs(end) * 0.05, 1e-9);
    [low, high] = logs ? [low / 1.5, high * 1.5] : [low - around(low), high + around(high)];
  }
  const warp = logs ? Math.log10 : (/** @type {number} */ value) => value;
  const margin = (warp(high) - warp(low)) * room;
  const [start, span] = [warp(low) - margin, warp(high) - warp(low) + 2 * margin];
  const at = (/** @type {number} */ value) => from + ((warp(value) - start) / span) * (to - from);
  return { at, ticks: (logs ? logTicks : ticks)(low, high, wanted), low, high, log: logs };
}

/** @param {number} low @param {number} high @param {number} wanted */
function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((of) => of * power >= rough) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => tidy((first + i) * step));
}

/** @param {number} low @param {number} high @param {number} wanted */
function logTicks(low, high, wanted) {
  const decades = Math.log10(high / low);
  if (decades < 1) return ticks(low, high, wanted);
  const parts = decades < wanted / 2 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil(decades / Math.max(2, wanted)));
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1)
    if (power % every === 0) found.push(...parts.map((of) => tidy(of * 10 ** power)));
  return found.filter((value) => value >= low && value <= high);
}

/** Takes off what binary fractions add. @param {number} value */
const tidy = (value) => Number(value.toPrecision(12));

/** Returns the label of a tick. @param {number} tick @param {Scale} of */
export function tickText(tick, { ticks, low, high, log }) {
  const step = ticks.length > 1 && !log ? ticks[1] - ticks[0] : Math.abs(tick);
  const size = Math.max(Math.abs(low), Math.abs(high));
  if (size >= 1e6) return `${Number((tick / 1e6).toPrecision(6))} M`;
  if (size >= 1e4 && step >= 100) return tick === 0 ? "0" : `${Number((tick / 1e3).toPrecision(6))} k`;
  if (tick !== 0 && size < 1e-3) return tick.toExponential(0);
  if (log) return fixed(tick, 0, 6);
  return step > 0 ? fixed(tick, Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)))) : count(tick);
}

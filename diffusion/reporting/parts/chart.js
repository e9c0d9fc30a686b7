/** A line chart in SVG: intervals as bands, axes with titles and units, linear or log, a readout by pointer and keys,
 * several runs with a legend, gaps where nothing was measured. It draws itself anew at every width. */

import { scale, tickText } from "./axes.js";
import { count, h, interval, number, replace, svg } from "./dom.js";

/** null in y is a gap; half is half of an interval. @typedef {{x: number[], y: (number | null)[], half?: (number | null)[]}} Points */
/** It keeps its color by its place. @typedef {{name: string, points: Points}} Series */
/** A log axis is linear where a value is not positive. @typedef {{title: string, unit?: string, log?: boolean}} Axis */
/** A place on the x axis that has a name. @typedef {{name: string, at: number}} Mark */
/** `toggles` says which axes get a button "log": "", "x", "y" (by default) or "xy".
 * @typedef {{title: string, x: Axis, y: Axis, series: Series[], toggles?: string, marks?: Mark[]}} ChartOptions */
/** @typedef {import("./axes.js").Scale} Scale */

const COLORS = 8, HEIGHT = 240;
// Half of the widest label below the last tick has to fit at the right.
const TOP = 12, RIGHT = 24, BOTTOM = 42, FLOOR = HEIGHT - BOTTOM;

/** By how many steps keys move the readout. @type {Record<string, number>} */
const MOVES = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -1e9, End: 1e9 };

/** @param {ChartOptions} options @returns {{element: HTMLElement, update: (changed: {series: Series[]}) => void}} `update`
 * takes the same series anew, and keeps the readout where it is */
export function chart({ title, x: across, y: up, series, toggles = "y", marks = [] }) {
  /** The step that is read, or null for the last. @type {number | null} */
  let picked = null;
  let width = 0;
  /** @type {{x: Scale, y: Scale} | null} */
  let drawn = null;
  const axes = { x: { ...across }, y: { ...up } };
  const label = `${title}: ${named(up)} by ${across.title}. Arrow keys read values.`;
  const plot = h("div", { class: "chart-plot", role: "slider", tabindex: 0, "aria-valuemin": 0, "aria-label": label });
  const legend = h("ul", { class: "chart-legend" });
  const place = h("span", { class: "chart-place" });
  const cursor = svg("g", { class: "chart-cursor" });

  /** A button that makes an axis logarithmic, and linear again. @param {"x" | "y"} side */
  function toggle(side) {
    const pressed = () => button.setAttribute("aria-pressed", String(Boolean(axes[side].log)));
    const click = () => {
      axes[side].log = !axes[side].log;
      pressed();
      draw();
    };
    const button = h("button", { type: "button", class: "quiet small", text: `log ${side}`, on: { click } });
    pressed();
    return button;
  }
  const buttons = (/** @type {("x" | "y")[]} */ (["x", "y"])).filter((side) => toggles.includes(side)).map(toggle);
  const caption = h("figcaption", {}, h("span", { class: "chart-title" }, title), h("span", { class: "chart-toggles" }, buttons));

  const steps = () =>
    [...new Set(series.flatMap(({ points: { x, y } }) => x.filter((_, i) => y[i] !== null)))].sort((a, b) => a - b);

  function draw() {
    if (width <= 0) return;
    const all = steps();
    const values = series.flatMap(({ points: { y, half } }) => y.flatMap((at, i) => ends(at, half?.[i] ?? 0, axes.y.log)));
    drawn = null;
    if (!values.length) return replace(plot, h("p", { class: "chart-none", text: "Nothing was measured yet." }));
    const y = scale(values, axes.y.log ?? false, [FLOOR, TOP], 5, 0.05);
    const labels = y.ticks.map((tick) => tickText(tick, y));
    const left = 32 + 7 * Math.max(...labels.map(({ length }) => length)), right = width - RIGHT;
    const x = scale(all, axes.x.log ?? false, [left, right], width / 110);
    const level = (/** @type {string} */ as, /** @type {number} */ at) =>
      svg("line", { class: `chart-${as}`, x1: left, x2: right, y1: at, y2: at });
    const text = (/** @type {string} */ as, /** @type {string} */ text, /** @type {object} */ where) =>
      svg("text", { class: `chart-${as}`, text, "text-anchor": "middle", ...where });
    const root = svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" },
      y.ticks.map((tick) => level("grid", y.at(tick))),
      y.ticks.map((tick, i) => text("tick", labels[i], { x: left - 8, y: y.at(tick), dy: "0.32em", "text-anchor": "end" })),
      x.ticks.map((tick) => text("tick", tickText(tick, x), { x: x.at(tick), y: FLOOR + 18 })),
      level("axis", FLOOR),
      text("axis-title", named(axes.x), { x: (left + right) / 2, y: HEIGHT - 6 }),
      text("axis-title", named(axes.y), { transform: `translate(12 ${(TOP + FLOOR) / 2}) rotate(-90)` }),
      marked(marks, x, (left + right) / 2),
      series.flatMap(({ points }, i) => lines(points, `series-${i % COLORS}`, x, y)),
      cursor);
    replace(plot, root);
    plot.setAttribute("aria-valuemax", String(all.length - 1));
    drawn = { x, y };
    return read();
  }

  /** Writes the readout: the values of every series at or just before what is picked, at the end where nothing is. */
  function read() {
    if (!drawn) return;
    const { x, y } = drawn, all = steps(), at = picked ?? all[all.length - 1];
    const rule = svg("line", { class: "chart-rule", x1: x.at(at), x2: x.at(at), y1: TOP, y2: FLOOR });
    replace(cursor, picked !== null && rule);
    const texts = series.map(({ points }, color) => {
      const i = points.x.findLastIndex((of, i) => of <= at && points.y[i] !== null), value = points.y[i];
      if (typeof value !== "number") return "—";
      const dot = { class: `chart-dot series-${color % COLORS}`, cx: x.at(points.x[i]), cy: y.at(value), r: 4 };
      if (picked !== null && value >= y.low && value <= y.high) cursor.append(svg("circle", dot));
      return interval({ value, half: points.half?.[i], unit: axes.y.unit });
    });
    const several = series.length > 1;
    replace(legend, series.map(({ name }, i) =>
      h("li", {}, h("span", { class: `chart-swatch series-${i % COLORS}`, "aria-hidden": "true" }),
        several && h("span", { class: "chart-name", text: name }), h("span", { class: "chart-value", text: texts[i] }))));
    place.textContent = `${axes.x.title} ${Number.isInteger(at) ? count(at) : number(at)}${axes.x.unit ? ` ${axes.x.unit}` : ""}`;
    plot.setAttribute("aria-valuenow", String(Math.max(0, all.indexOf(at))));
    const said = several ? series.map(({ name }, i) => `${name} ${texts[i]}`).join(", ") : texts[0];
    plot.setAttribute("aria-valuetext", `${place.textContent}: ${said}`);
  }

  /** @param {number | null} value */
  function pick(value) {
    if (value === picked) return;
    picked = value;
    read();
  }

  plot.addEventListener("pointermove", (event) => {
    const here = event.clientX - plot.getBoundingClientRect().left;
    const away = (/** @type {number} */ value) => Math.abs((drawn?.x.at(value) ?? 0) - here);
    const all = steps();
    if (all.length) pick(all.reduce((best, x) => (away(x) < away(best) ? x : best)));
  });
  plot.addEventListener("pointerleave", () => pick(null));
  plot.addEventListener("keydown", (event) => {
    const all = steps(), from = picked === null ? all.length : all.indexOf(picked);
    const moved = from + (MOVES[event.key] ?? NaN);
    if (!all.length || (Number.isNaN(moved) && event.key !== "Escape")) return;
    event.preventDefault();
    pick(event.key === "Escape" ? null : all[Math.min(all.length - 1, Math.max(0, moved))]);
  });
  new ResizeObserver(() => {
    if (plot.clientWidth === width) return;
    width = plot.clientWidth;
    draw();
  }).observe(plot);

  const element = h("figure", { class: "chart" }, caption, h("div", { class: "chart-key" }, legend, place), plot);
  const update = (/** @type {{series: Series[]}} */ changed) => {
    series = changed.series;
    draw();
  };
  return { element, update };
}

/** Returns the band, the lines and the single points of a series. @param {Points} points @param {string} color
 * @param {Scale} x @param {Scale} y */
function lines(points, color, x, y) {
  /** What is measured without a gap. @type {{x: number, y: number, half: number}[][]} */
  const parts = [[]];
  points.x.forEach((at, i) => {
    const value = points.y[i], last = parts[parts.length - 1];
    if (typeof value === "number" && Number.isFinite(value) && (!y.log || value > 0) && (!x.log || at > 0))
      last.push({ x: at, y: value, half: points.half?.[i] ?? 0 });
    else if (last.length) parts.push([]);
  });
  const floor = y.log ? y.low : -Infinity;
  const point = (/** @type {number} */ at, /** @type {number} */ value) =>
    `${x.at(at).toFixed(1)},${y.at(Math.max(value, floor)).toFixed(1)}`;
  return parts.filter(({ length }) => length).flatMap((part) => {
    const upper = part.map((p) => point(p.x, p.y + p.half)), lower = part.map((p) => point(p.x, p.y - p.half));
    const [first] = part, line = `chart-line ${color}`;
    if (part.length === 1)
      return [svg("circle", { class: `chart-point ${color}`, cx: x.at(first.x), cy: y.at(first.y), r: 2.5 }),
        first.half > 0 && svg("path", { class: line, d: `M${upper[0]}L${lower[0]}` })];
    const band = `M${[...upper, ...lower.reverse()].join("L")}Z`;
    return [part.some((p) => p.half > 0) && svg("path", { class: `chart-band ${color}`, d: band }),
      svg("path", { class: line, d: `M${part.map((p) => point(p.x, p.y)).join("L")}` })];
  });
}

/** Returns the lines of marks and over them their names, each in a row of its own on the side of its line where there is
 * room. @param {Mark[]} marks those on the axis are shown @param {Scale} x @param {number} middle */
function marked(marks, x, middle) {
  const shown = marks.filter(({ at }) => at >= x.low && at <= x.high).map(({ name, at }) => ({ name, place: x.at(at) }));
  const names = shown.map(({ name, place }, row) => {
    const [shift, anchor] = place > middle ? [-4, "end"] : [4, "start"];
    return svg("text", { x: place + shift, y: TOP + 10 + 16 * row, "text-anchor": anchor, text: name });
  });
  return svg("g", { class: "chart-mark" }, shown.map(({ place }) => svg("line", { x1: place, x2: place, y1: TOP, y2: FLOOR })), names);
}

/** Returns the ends of an interval as far as its axis shows them.
 * @param {number | null} y @param {number} half @param {boolean} [log] */
const ends = (y, half, log) => (y === null ? [] : log && y - half <= 0 ? [y, y + half] : [y - half, y + half]);

/** @param {Axis} axis */
const named = ({ title, unit }) => (unit ? `${title} (${unit})` : title);

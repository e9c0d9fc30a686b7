/**
 * The curves of runs, one chart each, for the page and for reports.
 *
 * Exports:
 *   CURVES                     [{key, title, y, beside?}]: what is drawn of a run, by the keys of its curves; beside one
 *                              run's is another of its curves, by its key and name
 *   curveCharts(runs)          [{name, curves}] -> [{key, element, update(runs)}]; `update` takes the same runs anew.
 *                              A curve that no run has is left out.
 *   curvesIn(place)            -> show(runs): draws the charts into an element, and those that are there anew
 */

import { chart } from "./chart.js";

/** @typedef {import("./chart.js").Points & {unit?: string}} Curve */
/** @typedef {{name: string, curves: Record<string, Curve>}} Drawn */

/** @type {{key: string, title: string, y: import("./chart.js").Axis, beside?: [string, string]}[]} */
export const CURVES = [
  { key: "bits", title: "Bound on held-out examples", y: { title: "bound", unit: "bits/dim" }, beside: ["training_bits", "training examples"] },
  { key: "loss", title: "Training loss", y: { title: "weighted loss", log: true } },
  { key: "images_per_s", title: "Speed", y: { title: "speed", unit: "images/s" } },
];

/**
 * @param {Drawn[]} runs
 * @returns {{key: string, element: HTMLElement, update: (runs: Drawn[]) => void}[]}
 */
export function curveCharts(runs) {
  const drawn = CURVES.filter(({ key }) => runs.some(({ curves }) => curves[key]?.x.length));
  return drawn.map(({ key, title, y, beside }) => {
    const [other, what] = beside ?? ["", ""];
    const series = (/** @type {Drawn[]} */ of) => {
      const shown = of.map(({ name, curves }) => ({ name, points: curves[key] ?? { x: [], y: [] } }));
      // Of several runs twice as many lines would hide each other.
      const more = of.length === 1 && of[0].curves[other]?.x.length ? [{ name: what, points: of[0].curves[other] }] : [];
      return more.length ? [{ ...shown[0], name: "held-out examples" }, ...more] : shown;
    };
    const unit = runs.map(({ curves }) => curves[key]?.unit).find(Boolean) ?? y.unit;
    const [first, ...more] = series(runs);
    const whole = more.some(({ name }) => name === what) ? `${title}, and on ${what}` : title;
    const { element, update } = chart({ title: whole, x: { title: "step" }, y: { ...y, unit }, series: [first, ...more], toggles: "xy" });
    return { key, element, update: (now) => update({ series: series(now) }) };
  });
}

/**
 * @param {HTMLElement} place
 * @returns {(runs: Drawn[]) => void}
 */
export function curvesIn(place) {
  /** @type {ReturnType<typeof curveCharts>} */
  let drawn = [];
  let of = "";
  return (runs) => {
    const now = JSON.stringify(runs.map(({ name, curves }) => [name, CURVES.map(({ key }) => Boolean(curves[key]?.x.length))]));
    if (now === of) return drawn.forEach(({ update }) => update(runs));
    [drawn, of] = [curveCharts(runs), now];
    place.replaceChildren(...drawn.map(({ element }) => element));
  };
}

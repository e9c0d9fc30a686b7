/**
 * Brings report.html to life: charts in place of their tables of numbers, scrubbers in place of sheets of pictures, and
 * buttons that copy commands. All of it is in the file; without this script its pictures and numbers are there as well.
 */

import { codeLine } from "./dom.js";
import { chart } from "./chart.js";
import { curveCharts } from "./curves.js";
import { scrubber, together } from "./scrubber.js";

/** @type {{runs: import("./curves.js").Drawn[], levels: import("./chart.js").Series[], marks: import("./chart.js").Mark[]}} */
const { runs, levels, marks } = JSON.parse(document.getElementById("data")?.textContent ?? "{}");

/** @param {string} selector */
const all = (selector) => /** @type {HTMLElement[]} */ ([...document.querySelectorAll(selector)]);

for (const place of all("[data-curves]")) place.replaceChildren(...curveCharts(runs).map(({ element }) => element));

for (const place of all("[data-levels]")) {
  place.replaceChildren(chart({ title: "Loss by noise level", x: { title: "log-SNR" }, y: { title: "weighted loss" }, series: levels, marks }).element);
}

const scrubbers = all("[data-sheet]").map((sheet) => {
  /** @param {string} selector */
  const pictures = (selector) => [...sheet.querySelectorAll(selector)].map((figure) => {
    const img = /** @type {HTMLImageElement} */ (figure.querySelector("img"));
    return { src: img.src, caption: figure.querySelector("figcaption")?.textContent ?? "", step: Number(img.dataset.step) };
  });
  const [frames, [beside]] = [pictures("li figure"), pictures("figure.real")];
  const steps = frames.map(({ step }) => step);
  return { sheet, steps, options: { frames, beside, label: sheet.dataset.sheet ?? "" } };
});
const shown = together(scrubbers.map(({ steps, options }) => ({ steps, make: (onShow) => scrubber({ ...options, onShow }) })));
scrubbers.forEach(({ sheet }, i) => sheet.replaceChildren(shown[i].element));

for (const line of all(".code-line")) line.replaceWith(codeLine(line.textContent ?? ""));

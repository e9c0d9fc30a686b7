/** What was made of an image: its variants, their mean and bounds, where they differ, and how they compare with it. */

import { h, number, quantity } from "/parts/dom.js";
import { button, download, facts, lead, picture, tick } from "../widgets.js";

/** @import {Api, Job, JobFile, View} from "../types.js" */

/** What files are called that are no variants, and what is said of them. @type {Record<string, [string, string]>} */
const OTHERS = {
  mean: ["Mean", "The mean of all variants: nearest in mean square, and smoother than any of them."],
  low: ["Lower 90 %", "Each pixel at the lower end of its 90 % interval."],
  high: ["Upper 90 %", "Each pixel at the upper end of its 90 % interval."],
  damaged: ["Damaged", "What the image looks like after the damage."],
};

/** What a file is called, and what is said of it. @param {JobFile} file */
const words = ({ role, index = 0 }) => OTHERS[role] ?? [`Variant ${index + 1}`, `Variant ${index + 1}: one image that agrees with what is known.`];

/** Says what a residual, in units of the noise, means. @param {number} residual @param {number} noise @param {number} steps */
function meaning(residual, noise, steps) {
  if (!noise) return "Without noise, every variant agrees with what is known exactly.";
  const likely = `the noise is likely about ${number(residual * noise, 2)}`;
  if (residual > 2) return `The variants miss the image by ${number(residual, 2)} times the noise: ${likely}, or ${steps} steps are too few, or the image was damaged in another way.`;
  if (residual < 0.5) return `The variants are nearer to the image than noise of ${number(noise, 2)} would let them be: ${likely} or less.`;
  return "A residual of about 1 is as it should be: damaged again, the variants differ from the image by as much as the noise.";
}

/** The numbers of a job that are known, by name. @param {Record<string, any>} of */
function told({ residual, seconds, steps, method, seed, noise, white, filled, psnr_of_mean, coverage_90 }) {
  const share = (/** @type {number} */ part) => quantity(100 * part, "%", 2);
  const all = {
    Filled: filled && share(filled),
    Residual: noise && quantity(residual, "times the noise", 2),
    "Largest deviation": quantity(white, "of white", 2),
    "PSNR of the mean": quantity(psnr_of_mean, "dB", 3),
    "Within the bounds": share(coverage_90),
    Method: method, Steps: steps, Seed: seed,
    Time: quantity(seconds, "s", 2),
  };
  const given = Object.entries(all).filter(([name, value]) => (value || (name === "Seed" && value === 0)) && value !== "—");
  return Object.fromEntries(given.map(([name, value]) => [name, String(value)]));
}

/** Shows something only while a button or the key C is held. @param {HTMLElement} held @param {AbortSignal} signal */
function hold(held, signal) {
  const turn = (/** @type {boolean} */ on) => () => void (held.hidden = !on);
  const keydown = (/** @type {KeyboardEvent} */ { key }) => ["Enter", " "].includes(key) && turn(true)();
  const off = Object.fromEntries(["pointerup", "pointerleave", "keyup", "blur"].map((end) => [end, turn(false)]));
  /** @param {KeyboardEvent} event */
  function key({ type, key, target, ctrlKey, metaKey }) {
    const typing = target instanceof HTMLSelectElement || (target instanceof HTMLInputElement && /text|number|search/.test(target.type));
    if (key.toLowerCase() === "c" && !ctrlKey && !metaKey && !typing) turn(type === "keydown")();
  }
  for (const type of /** @type {const} */ (["keydown", "keyup"])) document.addEventListener(type, key, { signal });
  turn(false)();
  return h("button", { type: "button", title: "Or hold C", on: { pointerdown: turn(true), keydown, ...off } }, "Hold to compare");
}

/** Shows the results of a job. @param {Api} api @param {Job} job @param {string} before the address of the image as it was
 * @param {(file: File) => void} goOn takes a result as the next image @returns {View} */
export function outcome(api, job, before, goOn) {
  const files = job.files.filter(({ role }) => role === "variant" || role in OTHERS);
  const deviation = job.files.find(({ role }) => role === "deviation");
  const address = (/** @type {JobFile} */ { name }) => api.url.look(job.id, name);
  const image = picture("", ""), original = picture(before, "The image as it was");
  const overlay = h("div", { class: "deviation", hidden: true });
  const caption = h("figcaption", { "aria-live": "polite" }), save = download("Download");
  if (deviation) overlay.style.maskImage = `url("${address(deviation)}")`;
  const thumbs = files.map((file) => button([picture(address(file), ""), words(file)[0]], () => show(file), { class: "thumb" }));
  let chosen = files[0];
  /** @param {JobFile} file */
  function show(file) {
    chosen = file;
    [image.src, image.alt, caption.textContent] = [address(file), ...words(file)];
    [save.href, save.download] = [api.url.file(job.id, file.name), file.name.split("/").pop() ?? ""];
    files.forEach((each, i) => thumbs[i].setAttribute("aria-pressed", String(each === file)));
  }
  async function pick() {
    const blob = await (await fetch(api.url.file(job.id, chosen.name))).blob();
    const name = words(chosen)[0].toLowerCase().replaceAll(" ", "-") + chosen.name.slice(chosen.name.lastIndexOf("."));
    goOn(new File([blob], name, { type: blob.type }));
  }
  const ended = new AbortController();
  const shown = h("div", { class: "shown" }, image, overlay, original);
  image.addEventListener("load", () => {
    shown.style.setProperty("--ratio", String(image.naturalWidth / image.naturalHeight));
    overlay.style.imageRendering = image.naturalWidth < shown.clientWidth ? "pixelated" : "auto";
  });
  if (chosen) show(chosen);
  const numbers = /** @type {Record<string, any>} */ ({ noise: 0, ...job.options, ...job.numbers }), { residual, noise, steps } = numbers;
  const lines = job.lines.map((text) => h("p", { class: "hint", text }));
  const change = (/** @type {Event} */ { target }) => (overlay.hidden = !(/** @type {HTMLInputElement} */ (target).checked));
  const node = h("section", { class: "part outcome" }, h("h2", { text: "What may have been there" }),
    h("figure", {}, caption, shown),
    h("div", { class: "row" }, hold(original, ended.signal), deviation && tick("Show where the variants differ", { on: { change } }),
      button("Go on from this one", pick), save),
    h("div", { class: "thumbs wide" }, thumbs),
    facts(told(numbers), "plain"),
    residual !== undefined && lead(meaning(residual, Number(noise), steps)),
    lines.length > 0 && h("details", {}, h("summary", { text: "What the command said" }), lines));
  return { node, close: () => ended.abort() };
}

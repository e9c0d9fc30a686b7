/** Restore: say how an image was damaged, see what that does, and get several images that would look so after the damage. */

import { h, replace } from "/parts/dom.js";
import { filesOf } from "../jobs.js";
import { fill, numeric, picture, settings, tick, valuesOf } from "../widgets.js";
import { chain } from "./chain.js";
import { drawing, results, withImage } from "./photograph.js";

/** @import {Api, MakeView, Place, View} from "../types.js" */
/** @import {Bench} from "./photograph.js" */

const WORDS = { view: "restore", title: "Restore", what: "Say how an image was damaged. Every result is an image that would look like it after that damage." };
const NOISE = "Standard deviation as a share of white: 13 of 255 is 0.05. Empty: estimated from the image.";
const DEBOUNCE_MS = 400;
/** The side of images that the blur of the default would cover whole. */
const SMALL = 32;

/** @type {MakeView} */
export const view = (place, api) => withImage(place, api, WORDS, (bench) => repairing(place, api, bench));

/** The damage and what it does, the settings, and the results. @param {Place} place @param {Api} api @param {Bench} bench
 * @returns {View} */
function repairing({ run }, api, bench) {
  const { details, upload, asked } = bench, { first, more } = drawing(details), before = api.url.view(run, upload.id);
  const small = Math.min(upload.width, upload.height) < SMALL;
  const damages = chain(details.operators, asked.operator ?? (small ? "blur:sigma=1" : "blur"), later);
  const seen = preview(api, run, before);
  const made = results(api, bench, (job) => {
    const [harmed] = filesOf(job, "damaged");
    return harmed ? api.url.look(job.id, harmed.name) : before;
  });
  const form = settings("Restore", () => made.begin(run, "restore", () => options()), damages.node,
    tick("The image is whole: damage it first", { name: "damage", checked: true }),
    numeric("Noise", "noise", 0.05, { min: 0, max: 1, step: "any" }, NOISE),
    first, h("details", {}, h("summary", { text: "More settings" }), more));
  form.addEventListener("input", later);
  fill(form, asked);
  /** @returns {Record<string, any>} */
  const options = () => ({ upload: upload.id, operator: damages.text(), ...valuesOf(form) });

  let timer = 0;
  function later() {
    clearTimeout(timer);
    timer = setTimeout(show, DEBOUNCE_MS);
  }
  function show() {
    const { operator, damage, noise = 0, seed = 0 } = options();
    void seen.show(operator && damage ? { upload: upload.id, operator, noise, seed } : null);
  }
  show();
  return {
    node: h("div", { class: "bench" }, seen.node, form, h("div", {}, made.node)),
    close: () => (clearTimeout(timer), seen.close(), made.close()),
  };
}

/** Shows an image, and what it is after each operator of a damage. @param {Api} api @param {string} run @param {string} before
 * the address of the image */
function preview(api, run, before) {
  const shown = h("div", { class: "pair" }), doing = h("p", { class: "told", role: "status" });
  let last = "", leave = () => {};
  /** @param {[string, string][]} after names and addresses */
  const look = (after) => {
    const all = [["The image", before], ...after];
    replace(shown, all.map(([name, address]) => h("figure", {}, h("figcaption", { text: name }), picture(address, name))));
  };
  /** Shows what a damage does; what was asked before is left, and where it waits the server drops it for the new one. @param {Record<string, any> | null} wanted */
  async function show(wanted) {
    const mine = JSON.stringify(wanted);
    if (mine === last) return;
    leave();
    [last, leave] = [mine, () => {}];
    doing.textContent = wanted ? "Damaging it ..." : "";
    if (!wanted) return look([]);
    const { operator, noise } = wanted, names = operator.split("+");
    try {
      const id = await api.submit(run, "degrade", wanted);
      if (mine !== last) return;
      leave = api.follow(id, (job) => {
        if (job.state === "failed") doing.textContent = job.error;
        if (job.state === "cancelled") doing.textContent = "Another window shows a damage of this run; change something to see it here.";
        if (job.state !== "done") return;
        doing.textContent = "";
        const noisy = (/** @type {number} */ i) => (noise && i === names.length - 1 ? ` and noise of ${noise}` : "");
        look(filesOf(job, "damaged").map(({ name }, i) => [`After ${names[i]}${noisy(i)}`, api.url.look(id, name)]));
      });
    } catch (error) {
      doing.textContent = error instanceof Error ? error.message : String(error);
    }
  }
  look([]);
  return { node: h("div", {}, shown, doing), show, close: () => leave() };
}

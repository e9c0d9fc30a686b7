/** How likely a model finds an image: bits/dim with their interval, by noise level, and among held-out ones. */

import { chart } from "/parts/chart.js";
import { count, emptyState, h, interval, number, replace } from "/parts/dom.js";
import { making } from "../jobs.js";
import { facts, lead, link, noWeights, part, picture, source, stay, table } from "../widgets.js";

/** @import {Job, MakeView} from "../types.js" */

/** @type {MakeView} */
export async function view({ run, query }, api) {
  const details = await api.run(run);
  if (!details.has_model) return { node: noWeights("Likelihood") };
  const results = h("div", {}, emptyState("No image yet", "Drop one, or take a held-out example. Fewer bits mean that the model finds it more likely."));
  const made = making(api, (job) => stay(link(run, "likelihood", { job })), (job) => {
    replace(results, measured(job, api.url.view(run, job.options.upload, 512)));
  });
  const given = source(api, run, async (upload) => {
    const { id } = await upload;
    await made.begin(run, "likelihood", () => ({ upload: id }));
    results.scrollIntoView({ block: "nearest" });
  }, 12);
  const asked = query.get("job");
  if (asked) made.follow(asked);
  const columns = h("div", { class: "columns" }, given.node, h("div", {}, given.said, made.node, results));
  return { node: h("div", {}, h("h1", { text: "Likelihood" }), columns), close: made.close };
}

/** What was measured. @param {Job} job @param {string} src the address of the image */
function measured({ numbers: { bits, terms, levels, marks, rank, notes } }, src) {
  const { unit } = bits;
  const by = chart({
    title: "Where its bits are", x: { title: "log-SNR" }, y: { title: "density", unit }, toggles: "", marks,
    series: [{ name: "this image", points: levels }],
  });
  const among = rank
    ? `It has fewer bits than ${count(rank.above)} of ${count(rank.of)} held-out images, which have ${number(rank.least, 3)} to ${number(rank.largest, 3)} ${unit}, in the middle ${number(rank.median, 3)}.`
    : "Its rank among held-out images is not known: they were not measured. This does it: diffusion evaluate.";
  const rows = Object.entries(terms).map(([name, term]) => /** @type {[string, string]} */ ([name, interval({ ...term, unit })]));
  return h("div", {},
    h("div", { class: "columns" }, h("figure", { class: "measured" }, picture(src, "The image that was measured")),
      h("div", {}, facts({ "At most, with its 95 % interval": interval(bits) }), h("p", { text: among }))),
    part("By noise level", lead("Bits for each unit of log-SNR: at high log-SNR those of fine detail, at low log-SNR those of what the image is of."), by.element),
    part("Terms of the bound", table("Terms of the bound", rows), notes.map(lead)));
}

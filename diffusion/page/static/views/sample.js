/** Samples of a run, variations of an image, and images between two. */

import { emptyState, h, number, replace } from "/parts/dom.js";
import { scrubber } from "/parts/scrubber.js";
import { filesOf, making, open, stateOf, titleOf } from "../jobs.js";
import { amount, attempt, button, choice, download, facts, field, fill, large, lead, link, noWeights, numeric, part, picture, settings, source, stay, tick, valuesOf } from "../widgets.js";

/** @import {Api, Details, Job, JobFile, MakeView} from "../types.js" */
/** @typedef {{upload: string} | {job: string, file: string}} Source  an image that others are made from */
/** @typedef {(at: 0 | 1, source: Source, src: string) => void} Choose  takes an image as A or B */

/** @type {MakeView} */
export async function view({ run, query }, api) {
  const details = await api.run(run);
  if (!details.has_model) return { node: noWeights("Sample") };
  const title = h("h1", { text: "Sample" });
  const results = h("div", {}, emptyState("No samples here yet", "Press Sample. The same seed gives the same images, here and by diffusion sample."));
  const made = making(api, (job) => stay(link(run, "sample", { job })), (job) => {
    replace(results, h("h2", { text: titleOf(job) }), shown(api, job, ways.choose));
  });
  const begin = (/** @type {Job["kind"]} */ kind, /** @type {Record<string, unknown>} */ options) => {
    void made.begin(run, kind, () => options);
    title.scrollIntoView({ block: "nearest" });
  };
  const ways = starting(api, run, begin);
  const form = settings("Sample", () => begin("sample", valuesOf(form)), ...drawing(details));
  const asked = query.get("job");
  if (asked) made.follow(asked, (job) => job.kind === "sample" && fill(form, job.options));
  const node = h("div", {}, title, h("div", { class: "columns" }, form, h("div", {}, made.node, results)), ways.node);
  return { node, close: made.close };
}

/** The fields of new samples. @param {Details} details */
const drawing = ({ classes, samplers, sampling: { guidance, steps, sampler } }) => [
  amount("Images", 16, 256),
  classes.length > 0 && field("Class", choice("label", [["", "any"], ...classes])),
  classes.length > 0 && numeric("Guidance", "guidance", "", { min: 0, max: 20, step: "any", placeholder: guidance }, "Above 1: closer to the class, less various."),
  h("div", { class: "two" }, numeric("Steps", "steps", "", { min: 1, max: 1000, placeholder: steps }), field("Sampler", choice("sampler", samplers, sampler))),
  tick("Keep the film from noise to image", { name: "film", checked: true }),
];

/** The results of a job: images, all of them as one file, and the film. @param {Api} api @param {Job} job @param {Choose} choose */
function shown(api, job, choose) {
  if (job.kind === "nearest") return near(api, job);
  const images = filesOf(job, "sample", "variant").map((file, i) => {
    const number = file.index ?? i, src = api.url.look(job.id, file.name), alt = `Image ${number + 1}`;
    return button(picture(src, alt), () => atLarge(api, job, file, number, choose), { class: "thumb" });
  });
  const frames = filesOf(job, "frame").sort((a, b) => (a.log_snr ?? 0) - (b.log_snr ?? 0)).map((file) =>
    ({ src: api.url.file(job.id, file.name), caption: `log-SNR ${number(file.log_snr, 3)}` }));
  const archive = filesOf(job, "archive").map(({ name }) => download("Download all", api.url.file(job.id, name), name));
  return h("div", {}, h("div", { class: "thumbs wide" }, images), h("div", { class: "row" }, archive), frames.length > 0 &&
    part("From noise to image", lead("By noise level: at low log-SNR there is only noise, at high log-SNR the image."),
      h("div", { class: "film" }, scrubber({ frames, label: "The film by noise level" }).element)));
}

/** Shows an image of a job with how it was made, and takes it as A or B.
 * @param {Api} api @param {Job} job @param {JobFile} file @param {number} number @param {Choose} choose */
function atLarge(api, job, file, number, choose) {
  const src = api.url.look(job.id, file.name);
  const take = (/** @type {0 | 1} */ at) => button(`Use as ${"AB"[at]}`, () => {
    dialog.close();
    choose(at, { job: job.id, file: file.name }, src);
  });
  const { n: _, film: __, ...options } = job.options;
  const plain = Object.entries(options).filter(([, value]) => value !== null && typeof value !== "object");
  const said = plain.map(([key, value]) => [key[0].toUpperCase() + key.slice(1), String(value)]);
  const found = h("div", { role: "status" });
  const nearest = button("Nearest training images", () => attempt(found, async () => {
    const id = await api.submit(job.run, "nearest", { job: job.id, file: file.name });
    nearest.disabled = true;
    let end = () => {};
    end = api.follow(id, (now) => {
      replace(found, now.state === "done" ? near(api, now) : stateOf(now));
      if (!open(now)) end();
    });
    dialog.addEventListener("close", () => end());
  }));
  const dialog = large(src, `Image ${number + 1}`, facts({ Made: titleOf(job), Number: String(number), ...Object.fromEntries(said) }, "plain"),
    h("div", { class: "row" }, take(0), take(1), download("Download", api.url.file(job.id, file.name), file.name)),
    h("div", { class: "row" }, nearest), found);
}

/** The training images nearest to an image, and whether that is near enough for a copy. @param {Api} api @param {Job} job */
function near(api, job) {
  const { near: both, ratio, threshold, unseen } = job.numbers;
  const figures = filesOf(job, "nearest").map(({ name }, i) => {
    const { name: of, distance } = both[i], what = `${["Nearest", "Second nearest"][i]}: ${of}`;
    return h("figure", {}, picture(api.url.look(job.id, name), what), h("figcaption", { text: `${what}, distance ${number(distance, 3)}` }));
  });
  const rule = threshold ? `${ratio < threshold ? "Flagged as a copy: below" : "Not flagged as a copy: not below"} ${number(threshold, 3)}, as ${number(100 * unseen, 2)} % of unseen images are.`
    : "How small a ratio unseen images have, diffusion evaluate --memorization says.";
  return h("div", {}, h("div", { class: "two" }, figures), lead(`Ratio of the distances ${number(ratio, 3)}. ${rule}`));
}

/** What is made from images A and B. @param {Api} api @param {string} run
 * @param {(kind: Job["kind"], options: Record<string, unknown>) => void} begin */
function starting(api, run, begin) {
  /** @type {(Source | null)[]} */
  const chosen = [null, null];
  const slots = ["A", "B"].map((name) => h("div", { class: "slot" }, name, h("p", { text: "none yet" })));
  /** @type {Choose} */
  function choose(at, source, src) {
    chosen[at] = source;
    replace(slots[at], "AB"[at], picture(src, `Image ${"AB"[at]}`));
    vary.disabled = !chosen[0];
    between.disabled = !chosen[0] || !chosen[1];
    node.scrollIntoView({ block: "nearest" });
  }
  const level = h("input", { type: "range", name: "level", min: 0, max: 1, step: 0.05, value: "0.5" });
  const form = h("form", { class: "settings" }, field("How far variations go", level, "Left: the image itself. Right: new samples."), amount("Images", 8, 64));
  const made = (/** @type {string} */ text, /** @type {() => void} */ click) => button(text, () => form.reportValidity() && click(), { disabled: true });
  const vary = made("Vary A", () => begin("vary", { ...chosen[0], ...valuesOf(form) }));
  const between = made("From A to B", () => begin("interpolate", { a: chosen[0], b: chosen[1], n: valuesOf(form).n }));
  const given = source(api, run, async (upload) => {
    const { id } = await upload;
    choose(chosen[0] ? 1 : 0, { upload: id }, api.url.view(run, id, 512));
  });
  const node = part("Start from images",
    lead("Click a sample and use it as A or B, drop an image, or take a held-out example. A alone can be varied; from A to B there are images between."),
    h("div", { class: "columns" },
      h("div", { class: "settings" }, h("div", { class: "slots" }, slots), form, h("div", { class: "row" }, vary, between)),
      h("div", {}, given.said, given.node)));
  return { node, choose };
}

/** What a run learns from: what `diffusion inspect` says of it, and its held-out examples by page. */

import { count, emptyState, h, replace } from "/parts/dom.js";
import { making } from "../jobs.js";
import { button, examplesOf, facts, large, lead, link, part, stay, table, values } from "../widgets.js";

/** @import {MakeView} from "../types.js" */

// So many findings are shown without asking.
const OPEN = 10;
const MODES = { 1: "black and white", L: "gray", LA: "gray with alpha", "I;16": "gray, 16 bits", P: "palette", RGBA: "RGB with alpha" };

/** @typedef {{count: number, rows: [string, string][]}} Listed  the number of findings, and the first ones */

/** A list of files, each with what is said of it. @param {string} title @param {Listed} listed @param {[string, string]} heads
 * @param {string} none */
function findings(title, { count: all, rows }, heads, none) {
  const more = all > rows.length && lead(`and ${count(all - rows.length)} more`);
  const first = h("summary", { text: `The first ${count(rows.length)}` });
  const list = h("details", { open: all <= OPEN }, first, table(title, rows, heads), more);
  return part(`${title}: ${count(all)}`, all ? list : lead(none));
}

/** Counts as bars, the largest first. @param {string} title @param {[string, number][]} counts */
function bars(title, counts) {
  const most = Math.max(...counts.map(([, n]) => n));
  const bar = (/** @type {string} */ name, /** @type {number} */ value) => h("meter", { max: most, value, "aria-label": name });
  const rows = counts.toSorted((a, b) => b[1] - a[1]);
  return h("div", { class: "bars" }, h("h3", { text: title }), table(title, rows.map(([name, n]) => [name, count(n), bar(name, n)])));
}

/** What a look through the data found. @param {Record<string, any>} of */
function found({ images, sizes, modes, formats, classes, copies, alike, damaged, left_out }) {
  const counted = (/** @type {Record<string, number>} */ of) => Object.entries(of);
  const bySize = sizes.map((/** @type {any} */ { width, height, count }) => [`${width} x ${height} pixels`, count]);
  const byMode = counted(modes).map(([mode, n]) => /** @type {[string, number]} */ ([Reflect.get(MODES, mode) ?? mode, n]));
  const sums = { Damaged: damaged, "Left out": left_out, Copies: copies, "Near duplicates": alike };
  return [
    facts({ Images: count(images), ...Object.fromEntries(Object.entries(sums).map(([name, { count: n }]) => [name, count(n)])) }),
    part("What they are", h("div", { class: "pair" }, counted(classes).length > 0 && bars("Classes", counted(classes)),
      bars("Sizes", bySize), bars("Formats", counted(formats)), bars("Colors", byMode))),
    findings("Damaged files", damaged, ["file", "what is wrong"], "Every file with an intact header can be read."),
    findings("Files left out", left_out, ["file", "why"], "None."),
    findings("Copies", copies, ["file", "repeats"], "No file repeats the bytes of another."),
    findings("Near duplicates", alike, ["file", "looks like"], "No image looks like another that was resized or compressed again."),
  ];
}

/** @type {MakeView} */
export async function view({ run, query }, api) {
  const details = await api.run(run);
  const report = h("div", {});
  const made = making(api, (job) => stay(link(run, "data", { job })), () => void show());
  const inspect = () => made.begin(run, "inspect", () => ({}));

  async function show() {
    const done = (await api.jobs()).some((job) => job.run === run && job.kind === "inspect" && job.state === "done");
    const again = () => h("div", { class: "row part" }, button("Look through the data again", inspect));
    if (done) return replace(report, found(await api.data(run)), again());
    const none = emptyState("Not looked through yet", "This finds damaged files, repeats and near duplicates; it reads every image once.");
    none.append(button("Look through the data", inspect, { class: "primary" }));
    return replace(report, none);
  }

  const job = query.get("job");
  if (job) made.follow(job);
  await show();
  const examples = examplesOf(api, run, ({ id }) => void large(api.url.example(run, id), `Example ${id}`), 60);
  const where = values(details.sources?.data ?? {}, "Where the data are");
  const node = h("div", {}, h("h1", { text: "Data" }), where, made.node, report, part("Held-out examples", examples));
  return { node, close: made.close };
}

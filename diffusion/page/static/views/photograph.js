/** What inpainting and restoring share: an image to begin with, an address that a reload keeps, settings, and results. */

import { h, replace } from "/parts/dom.js";
import { making } from "../jobs.js";
import { amount, button, choice, field, lead, link, noWeights, numeric, source, stay } from "../widgets.js";
import { outcome } from "./outcome.js";

/** @import {Api, Details, Job, Place, Upload, View} from "../types.js" */

/**
 * @typedef {object} Bench  what is done with an image
 * @property {Details} details
 * @property {Upload} upload
 * @property {Record<string, any>} asked the options of the job that the address names
 * @property {Record<string, string>} kept what the address keeps besides the image
 * @property {(more: Record<string, string>) => void} keep keeps more there
 * @property {ImageBitmap | null} glimpse the image as the browser reads its file, until the server shows it as it is
 * @property {(file: File) => Promise<void>} goOn takes another image
 */

/** Makes a view that begins with an image. @param {Place} place @param {Api} api
 * @param {{view: string, title: string, what: string}} words
 * @param {(bench: Bench) => View | Promise<View>} bench shows what is done with an image @returns {Promise<View>} */
export async function withImage({ run, query }, api, { view, title, what }, bench) {
  const details = await api.run(run);
  if (!details.has_model) return { node: noWeights(title) };
  const body = h("div", {}), explained = lead(what);
  /** @type {View | null} */
  let open = null;

  /** @param {Upload} upload @param {Record<string, string>} before @param {Record<string, any>} asked
   * @param {ImageBitmap | null} [glimpse] */
  async function work(upload, before, asked, glimpse = null) {
    open?.close?.();
    const kept = { ...before, upload: upload.id };
    const keep = (/** @type {Record<string, string>} */ more) => stay(link(run, view, Object.assign(kept, more)));
    keep({});
    explained.hidden = true;
    open = await bench({ details, upload, asked, kept, keep, glimpse, goOn: given.given });
    const size = `${upload.name}, ${upload.width} × ${upload.height} pixels`, another = button("Another image", begin, { class: "quiet" });
    replace(body, h("p", { class: "row" }, size, another), upload.notices.map(lead), open.node);
  }
  const given = source(api, run, async (made, file) => {
    const read = file && createImageBitmap(file).catch(() => null);
    const upload = await made, glimpse = await read, same = glimpse?.width === upload.width && glimpse.height === upload.height;
    await work(upload, {}, {}, same ? glimpse : null);
  });
  function begin() {
    open?.close?.();
    open = null;
    explained.hidden = false;
    stay(link(run, view));
    replace(body, given.node);
  }

  const job = query.get("job"), asked = job ? (await api.job(job)).options : {}, upload = query.get("upload") ?? asked.upload;
  if (upload) await work(await api.uploaded(run, upload), { ...(asked.mask && { mask: asked.mask }), ...Object.fromEntries(query) }, asked);
  else begin();
  return { node: h("div", {}, h("h1", { text: title }), explained, given.said, body), close: () => open?.close?.() };
}

/** How many variants are drawn, and how. @param {Details} details */
export const drawing = ({ methods }) => ({
  first: amount("Variants", 4, 64),
  more: [field("Method", choice("method", ["auto", ...methods.filter((name) => name !== "auto")])),
    numeric("Steps", "steps", "", { min: 1, max: 1000 }, "Empty: as many as the method needs.")],
});

/** Begins and follows jobs, and shows what they make of the image of a bench. @param {Api} api @param {Bench} bench
 * @param {(job: Job) => string} before the address of the image as it was */
export function results(api, { kept, keep, goOn }, before) {
  const shown = h("div", {});
  /** @type {View | null} */
  let open = null;
  const made = making(api, (job) => keep({ job }), (job) => {
    open?.close?.();
    open = outcome(api, job, before(job), goOn);
    replace(shown, open.node);
  });
  if (kept.job) made.follow(kept.job);
  return { node: h("div", {}, made.node, shown), begin: made.begin, close: () => (made.close(), open?.close?.()) };
}

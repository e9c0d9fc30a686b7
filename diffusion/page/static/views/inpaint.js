/** Inpaint: brush over what is to be filled, and see several fillings that agree with the rest of the image. */

import { h } from "/parts/dom.js";
import { editor } from "../editor/editor.js";
import { decode, encode } from "../editor/png.js";
import { attempt, button, choice, field, fill, numeric, settings, tick, valuesOf } from "../widgets.js";
import { drawing, results, withImage } from "./photograph.js";

/** @import {Api, MakeView, Place, View} from "../types.js" */
/** @import {Bench} from "./photograph.js" */

const WORDS = { view: "inpaint", title: "Inpaint", what: "Brush over what is missing or should go. Every pixel that you leave alone stays as it is in the file." };
const FEATHER = "Blends the filling into so many pixels around it, which then do not stay as they are.";
const NOISE = "Standard deviation on the known part, as a share of white: 13 of 255 is 0.05. With 0 known pixels stay as they are.";

/** @type {MakeView} */
export const view = (place, api) => withImage(place, api, WORDS, (bench) => painting(place, api, bench));

/** The editor of an image's mask, the settings, and the results. @param {Place} place @param {Api} api @param {Bench} bench
 * @returns {Promise<View>} */
async function painting({ run }, api, bench) {
  const { details, upload, asked, kept, keep } = bench, said = h("div", {});
  const shown = fetch(api.url.view(run, upload.id)).then((answer) => answer.blob()).then((blob) => createImageBitmap(blob));
  const tried = (/** @type {() => unknown} */ action) => attempt(said, action);

  /** Hands the mask over, so that it is there after a reload, and returns its id. */
  async function save() {
    const { mask } = await api.uploadMask(run, upload.id, await encode(edited.mask));
    keep({ mask });
    return mask;
  }
  /** @param {string} address of a mask that the server keeps */
  const load = async (address) => edited.take(await decode(await (await fetch(address)).blob(), upload.width, upload.height));
  const change = () => tried(async () => {
    const [file] = [...(picked.files ?? [])];
    picked.value = "";
    if (!file) return;
    await decode(file, upload.width, upload.height); // One of another size is refused before it is handed over.
    await load(api.url.mask(run, upload.id, (await api.uploadMask(run, upload.id, file)).mask));
  });
  const picked = h("input", { type: "file", accept: "image/*", hidden: true, on: { change } });
  const title = "A file of the image's size: white is known, black is to be filled";
  const ways = [button("Open mask", () => picked.click(), { title }), picked];
  if (upload.has_alpha) ways.push(button("From transparency", () => tried(() => load(api.url.alpha(run, upload.id)))));
  const edited = editor(bench.glimpse ?? (await shown), upload, () => void tried(save), ...ways);
  void tried(async () => edited.show(await shown));
  if (kept.mask) await tried(() => load(api.url.mask(run, upload.id, kept.mask)));

  const made = results(api, bench, () => api.url.view(run, upload.id)), { first, more } = drawing(details);
  const begin = () => made.begin(run, "inpaint", async () => {
    if (!edited.mask.hidden.includes(1)) throw new Error("Nothing is to be filled yet: brush over a part of the image.");
    return { upload: upload.id, mask: await save(), ...valuesOf(form) };
  });
  const form = settings("Fill", begin, first,
    details.classes.length > 0 && field("Class", choice("label", [["", "any"], ...details.classes])),
    h("details", {}, h("summary", { text: "More settings" }), more,
      numeric("Grow the mask, pixels", "grow", 0, { min: 0 }),
      numeric("Feather, pixels", "feather", 0, { min: 0 }, FEATHER),
      numeric("Noise", "noise", 0, { min: 0, max: 1, step: "any" }, NOISE),
      tick("Bring the image to the size of the model first", { name: "resize" })));
  fill(form, asked);
  const node = h("div", { class: "bench" }, edited.node, form, h("div", {}, said, made.node));
  return { node, close: () => (edited.close(), made.close()) };
}

/** What views share beyond /parts/dom.js: links, fields and forms, tables, images to choose, and one at large. */

import { count, crisp, emptyState, h, replace } from "/parts/dom.js";

/** @import {Api, Example, Summary, Upload} from "./types.js" */
/** @typedef {import("/parts/dom.js").Children} Children */

/** The address of a view of a run. @param {string} run @param {string} [view] @param {Record<string, string>} [query] */
export function link(run, view = "", query = {}) {
  const asked = new URLSearchParams(query).toString();
  return `#/run/${encodeURIComponent(run)}${view && `/${view}`}${asked && `?${asked}`}`;
}

/** Has a reload show a view as it is now. @param {string} address */
export const stay = (address) => history.replaceState(null, "", address);

/** What is shown where a view needs weights and there are none. @param {string} title of the view */
export const noWeights = (title) =>
  h("div", {}, h("h1", { text: title }), emptyState("No weights yet", "This needs a checkpoint; training writes the first by itself."));

/** A part of a view under its heading. @param {string} title @param {...Children} children */
export const part = (title, ...children) => h("section", { class: "part" }, h("h2", { text: title }), ...children);

/** A paragraph that explains. @param {string} text */
export const lead = (text) => h("p", { class: "lead", text });

/** An error's line. @param {unknown} error */
export const trouble = (error) =>
  h("p", { class: "trouble", role: "alert", text: error instanceof Error ? error.message : String(error) });

/** Carries out what may fail, and says within a node why it did. @param {HTMLElement} said
 * @param {() => unknown} action */
export async function attempt(said, action) {
  replace(said);
  try {
    await action();
  } catch (error) {
    replace(said, trouble(error));
  }
}

/** Facts as a list of names and values. @param {Record<string, string>} facts @param {string} [as] */
export const facts = (facts, as = "facts") =>
  h("dl", { class: as }, Object.entries(facts).map(([name, text]) => h("div", {}, h("dt", { text: name }), h("dd", { text }))));

/** A table whose rows begin with what they are about, below heads if there are some.
 * @param {string} caption @param {[string, ...Children[]][]} rows @param {string[]} [heads] */
export function table(caption, rows, heads) {
  const top = heads && h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col", text }))));
  const line = (/** @type {[string, ...Children[]]} */ [name, ...cells]) =>
    h("tr", {}, h("th", { scope: "row", text: name }), cells.map((cell) => h("td", {}, cell)));
  return h("div", { class: "scroll", tabindex: 0 }, h("table", { "aria-label": caption }, top, h("tbody", {}, rows.map(line))));
}

/** A value of a configuration as people read it. @param {unknown} value */
export const written = (value) => (value === undefined ? "—" : typeof value === "string" ? value || '""' : JSON.stringify(value));

/** A table of names and values. @param {Record<string, unknown>} values @param {string} caption */
export const values = (values, caption) =>
  table(caption, Object.entries(values).map(([name, value]) => [name, written(value)]));

/** A run's state as a mark. @param {Summary} run */
export const chip = ({ state }) => h("span", { class: `state ${state.split(" ")[0]}`, text: state });

let ids = 0;

/** A control under its label, with a hint. @param {string} label @param {HTMLElement} control @param {string} [hint] */
export function field(label, control, hint) {
  control.id ||= `field-${++ids}`;
  if (hint) control.setAttribute("aria-describedby", `${control.id}-hint`);
  const below = hint && h("small", { id: `${control.id}-hint`, text: hint });
  return h("div", { class: "field" }, h("label", { for: control.id, text: label }), control, below);
}

/** A field for a number. @param {string} label @param {string} name @param {number | ""} value
 * @param {Record<string, unknown>} [limits] @param {string} [hint] */
export const numeric = (label, name, value, limits, hint) =>
  field(label, h("input", { type: "number", name, value: String(value), step: 1, ...limits }), hint);

/** How many are made, and from which seed. @param {string} label @param {number} n @param {number} most */
export const amount = (label, n, most) =>
  h("div", { class: "two" }, numeric(label, "n", n, { min: 1, max: most, required: true }),
    numeric("Seed", "seed", 0, { min: 0, required: true }));

/** A choice of several. @param {string} name @param {(string | [string, string])[]} options texts, or values and texts
 * @param {string} [value] @param {Record<string, unknown>} [props] */
export function choice(name, options, value, props) {
  const pairs = options.map((option) => (typeof option === "string" ? [option, option] : option));
  return h("select", { name, ...props }, pairs.map(([of, text]) => h("option", { value: of, selected: of === value, text })));
}

/** A box to tick. @param {string} text @param {Record<string, unknown>} props */
export const tick = (text, props) => h("label", { class: "choice" }, h("input", { type: "checkbox", ...props }), text);

/** A form of settings, whose button or Enter key does what it is for. @param {string} text of the button
 * @param {() => unknown} submit @param {...Children} children */
export function settings(text, submit, ...children) {
  const sent = (/** @type {Event} */ event) => (event.preventDefault(), submit());
  const button = h("button", { type: "submit", class: "primary", text });
  return h("form", { class: "settings", on: { submit: sent } }, ...children, button);
}

/** A button. @param {Children} text @param {() => unknown} click @param {Record<string, unknown>} [props] */
export const button = (text, click, props) => h("button", { type: "button", ...props, on: { click } }, text);

/** A link that looks like a button and hands a file over. @param {string} text @param {string} [href] @param {string} [name] */
export const download = (text, href, name) => h("a", { class: "button", href, download: name?.split("/").pop(), text });

/** An image whose pixels stay squares where it is enlarged. @param {string} src @param {string} alt @param {string} [as] */
export const picture = (src, alt, as) => crisp(h("img", { src, alt, class: as }));

/** The values of a form that are not empty, numbers as numbers. @param {HTMLFormElement} form */
export function valuesOf(form) {
  /** @type {Record<string, string | number | boolean>} */
  const values = {};
  for (const control of form.elements) {
    if (!(control instanceof HTMLInputElement || control instanceof HTMLSelectElement) || !control.name) continue;
    const { name, type, value } = control;
    if (type === "checkbox") values[name] = /** @type {HTMLInputElement} */ (control).checked;
    else if (value) values[name] = type === "number" || type === "range" ? Number(value) : value;
  }
  return values;
}

/** Shows options in the fields of a form that are called like them. @param {HTMLFormElement} form
 * @param {Record<string, any>} options */
export function fill(form, options) {
  for (const [name, value] of Object.entries(options)) {
    const control = form.elements.namedItem(name);
    if (control instanceof HTMLInputElement && control.type === "checkbox") control.checked = Boolean(value);
    else if (control && value !== null) Object.assign(control, { value: String(value) });
  }
}

/** A place that takes an image: dropped on it, or chosen. The input covers it, and browsers drop on inputs by themselves.
 * @param {string} text @param {(file: File) => void} taken */
export function drop(text, taken) {
  const over = (/** @type {boolean} */ is) => () => node.classList.toggle("over", is);
  const change = () => {
    if (input.files?.[0]) taken(input.files[0]);
    input.value = "";
  };
  const on = { change, dragenter: over(true), dragleave: over(false), drop: over(false) };
  const input = h("input", { type: "file", accept: "image/*,.tif,.tiff,.dcm,.heic", on });
  const node = h("label", { class: "drop" }, h("span", { text }), input);
  return node;
}

/** Held-out examples by page, each a button. @param {Api} api @param {string} run @param {(example: Example) => void} taken
 * @param {number} [page] how many at once */
export function examplesOf(api, run, taken, page = 24) {
  const images = h("div", { class: "thumbs" }, h("p", { text: "Reading the examples ..." }));
  const pager = h("div", { class: "row" });
  /** @param {number} first */
  const show = (first) => api.examples(run, first, page).then(({ total, examples }) => {
    const pictured = (/** @type {Example} */ { id, label }) => [picture(api.url.example(run, id), `Example ${id}`), label];
    replace(images, examples.map((example) => button(pictured(example), () => taken(example), { class: "thumb" })));
    const back = { disabled: first === 0, "aria-label": "Examples before" };
    const on = { disabled: first + page >= total, "aria-label": "Next examples" };
    replace(pager, button("Back", () => show(Math.max(0, first - page)), back),
      h("span", {}, `${count(first + 1)}–${count(Math.min(total, first + page))} of ${count(total)}`),
      button("Next", () => show(first + page), on));
  }, (error) => replace(images, trouble(error)));
  void show(0);
  return h("div", {}, images, pager);
}

/** Ways to an image: one that is dropped or chosen, or a held-out example; `said` tells that it is read, or why it is not.
 * @param {Api} api @param {string} run @param {(upload: Promise<Upload>, file?: File) => unknown} taken
 * @param {number} [page] how many examples at once */
export function source(api, run, taken, page) {
  const said = h("div", {});
  /** @param {Promise<Upload>} upload @param {File} [file] */
  const take = (upload, file) => attempt(said, async () => {
    replace(said, h("p", { role: "status", text: "Reading the image ..." }));
    await taken(upload, file);
    replace(said);
  });
  const given = (/** @type {File} */ file) => take(api.upload(run, file), file);
  const examples = examplesOf(api, run, ({ id }) => take(api.uploadExample(run, id)), page);
  const or = h("h2", { text: "Or one that training has not seen" });
  return { node: h("div", {}, drop("Drop an image here, or choose one", given), or, examples), said, given };
}

/** Shows an image at large, with what belongs to it. @param {string} src @param {string} alt @param {...Children} beside */
export function large(src, alt, ...beside) {
  const close = h("form", { method: "dialog" }, h("button", { text: "Close" }));
  const dialog = h("dialog", { "aria-label": alt }, picture(src, alt), h("div", { class: "beside" }, ...beside, close));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

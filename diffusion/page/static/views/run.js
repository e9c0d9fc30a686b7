/** A run at a glance: its numbers, curves, grids by step, pictures, incidents, configuration, and what can be asked of it. */

import { curvesIn } from "/parts/curves.js";
import { codeLine, count, emptyState, h, replace } from "/parts/dom.js";
import { scrubber } from "/parts/scrubber.js";
import { attempt, button, chip, facts, large, lead, link, part, picture, trouble, values } from "../widgets.js";
import { form, headline } from "./runs.js";

/** @import {Api, Details, MakeView} from "../types.js" */

// Curves and grids are asked for again at most so often.
const EVERY_MS = 500;

const CAPTIONS = {
  "film.png": "From noise to samples",
  "restoration.png": "Restorations of held-out examples",
  "loss_by_log_snr.png": "Loss by noise level",
  "gap_by_log_snr.png": "What the model remembers, by noise level",
};

/** The frames of a scrubber. @param {Api} api @param {string} run @param {number[]} steps */
export const frames = (api, run, steps) => steps.map((step) => ({ src: api.url.grid(run, step), caption: `step ${count(step)}` }));

/** @type {MakeView} */
export async function view({ run: name }, api) {
  let [details, curves] = await Promise.all([api.run(name), api.curves(name)]);
  const [head, numbers, actions, incidents] = [h("h1"), h("div"), h("div", { class: "row" }), h("div")];
  const [charts, pictures] = [h("div", { class: "pair" }), h("div", { class: "pair" })];
  const asked = h("p", { role: "status" });
  const draw = curvesIn(charts), grids = scrubbed(api, name);

  /** @param {"sample" | "stop"} what @param {string} text */
  const ask = (what, text) => () => attempt(asked, async () => {
    await api.request(name, what);
    replace(asked, `Asked for. ${text}`);
  });
  const sample = button("Sample now", ask("sample", "The grid of this step appears below when it is drawn."));
  const stop = button("Stop after saving", ask("stop", "The training saves its state and stops; the command below goes on from there."));

  function show() {
    draw([{ name, curves }]);
    document.title = `${name} · diffusion`;
    replace(head, name, chip(details));
    replace(numbers, lead(form(details)), facts(headline(details)));
    replace(actions, details.state === "training" && [sample, stop],
      details.has_model && h("a", { class: "button", href: link(name, "sample"), text: "Sample from it" }));
    grids.show(details);
    replace(pictures, details.pictures.filter((file) => file in CAPTIONS).map((file) => pictured(api, name, file)));
    const lines = details.incident_lines.map((text) => h("li", { text }));
    replace(incidents, lines.length ? h("ul", {}, lines) : lead("None: no step was skipped, nothing was taken back."));
  }

  let due = 0;
  const refresh = () => Promise.all([api.run(name), api.curves(name)]).then((now) => {
    [details, curves] = now;
    show();
  }).catch((error) => replace(asked, trouble(error))).finally(() => (due = 0));
  const soon = (/** @type {boolean} */ so) => so && (due ||= window.setTimeout(refresh, EVERY_MS));
  const end = api.listen({ run: (run) => soon(run.name === name), gone: (gone) => soon(gone.name === name), line: soon });

  show();
  const section = (/** @type {[string, Record<string, unknown>]} */ [title, of]) =>
    h("details", {}, h("summary", { text: title }), values(of, title));
  const sections = Object.entries({ ...details.config, machine: details.machine }).map(section);
  const node = h("div", {}, head, numbers, actions, asked,
    part("Samples while it trains", grids.node),
    part("Curves", charts),
    part("Pictures", pictures),
    part("Incidents", incidents),
    part("Configuration", h("div", { class: "sections" }, sections)),
    part("From the command line", lead("In the folder of runs:"), commands(details)));
  return { node, close: () => (end(), clearTimeout(due)) };
}

/** The grids of samples by step, beside real images. @param {Api} api @param {string} name */
function scrubbed(api, name) {
  const node = h("div", {});
  /** @type {ReturnType<typeof scrubber> | null} */
  let made = null;
  /** @param {Details} details */
  function show({ grid_steps, pictures }) {
    const steps = frames(api, name, grid_steps);
    if (made) return made.update(steps);
    const real = pictures.includes("real.png") ? { src: api.url.picture(name, "real.png"), caption: "real images" } : null;
    if (steps.length) made = scrubber({ frames: steps, label: "Samples by step", beside: real });
    const none = emptyState("No grid of samples yet", "Training draws one every report.samples steps; it appears here by itself.");
    replace(node, made?.element ?? none);
  }
  return { node, show };
}

/** A picture of a run, which opens at large. @param {Api} api @param {string} run @param {string} file */
function pictured(api, run, file) {
  const caption = Reflect.get(CAPTIONS, file), src = api.url.picture(run, file);
  const open = button(picture(src, ""), () => large(src, caption), { class: "open", "aria-label": `${caption}, at large` });
  return h("figure", {}, h("figcaption", { text: caption }), open);
}

/** The commands that go on from here. @param {Details} details */
const commands = ({ name }) =>
  [`sample ${name} --n 64 --seed 0`, `evaluate ${name}`, `inpaint ${name} PHOTO --mask MASK`].map((line) => codeLine(`diffusion ${line}`));

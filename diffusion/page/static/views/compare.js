/** Several runs beside each other: their curves, where their configurations differ, and their grids at the same step. */

import { curvesIn } from "/parts/curves.js";
import { emptyState, h, replace } from "/parts/dom.js";
import { scrubber, together } from "/parts/scrubber.js";
import { chip, facts, lead, link, part, stay, table, tick, written } from "../widgets.js";
import { frames } from "./run.js";
import { headline } from "./runs.js";

/** @import {Api, Details, MakeView} from "../types.js" */

const ANOTHER = "diffusion train configs/digits.toml training.lr=0.005 --out runs/other";

/** The keys in which configurations differ, each with the values of the runs. @param {Details[]} runs */
export function differences(runs) {
  const named = (/** @type {Details} */ { config }) =>
    Object.entries(config).flatMap(([section, of]) => Object.keys(of).map((key) => `${section}.${key}`));
  const keys = runs.flatMap(named);
  const rows = [...new Set(keys)].map((name) => {
    const [section, key] = name.split(".");
    return /** @type {[string, ...string[]]} */ ([name, ...runs.map(({ config }) => written(config[section]?.[key]))]);
  });
  return rows.filter(([, ...values]) => new Set(values).size > 1);
}

/** Scrubbers that go to the same step. @param {Api} api @param {Details[]} runs */
function grids(api, runs) {
  const all = runs.filter(({ grid_steps }) => grid_steps.length);
  const made = together(all.map(({ name, grid_steps: steps }) => ({
    steps,
    make: (onShow) => scrubber({ frames: frames(api, name, steps), label: `Samples of ${name}`, onShow }),
  })));
  return all.map(({ name }, i) => h("div", {}, h("h3", { text: name }), made[i].element));
}

/** What stands where there is nothing to compare. @param {number} known how many runs there are */
const none = (known) => known < 2
  ? emptyState("Choose two runs or more", "There is only one so far. Train another with other values, such as:", ANOTHER)
  : emptyState("Choose two runs or more", "Their curves, configurations and samples are shown beside each other.");

/** @type {MakeView} */
export async function view({ query }, api) {
  const known = (await api.runs()).map(({ name }) => name);
  const names = (query.get("runs") ?? "").split(",").map(decodeURIComponent).filter((name) => known.includes(name));
  const boxes = known.map((name) => tick(name, { checked: names.includes(name), on: { change: () => choose(name) } }));
  const shown = h("div", {});
  const charts = h("div", { class: "pair" });
  const draw = curvesIn(charts);
  const curves = () => Promise.all(names.map(async (name) => ({ name, curves: await api.curves(name) }))).then(draw);

  /** Adds a run, or takes it out. @param {string} name */
  function choose(name) {
    if (names.includes(name)) names.splice(names.indexOf(name), 1);
    else names.push(name);
    stay(`#/compare?${new URLSearchParams({ runs: names.map(encodeURIComponent).join(",") })}`);
    void show();
  }

  async function show() {
    if (names.length < 2) return replace(shown, none(known.length));
    const [runs] = await Promise.all([Promise.all(names.map(api.run)), curves()]);
    const rows = differences(runs);
    const title = (/** @type {Details} */ run) => h("h2", { class: "row" }, h("a", { href: link(run.name), text: run.name }), chip(run));
    const cards = runs.map((run) => h("div", {}, title(run), facts(headline(run))));
    const differ = "Where configurations differ", same = lead("They are the same.");
    return replace(shown, h("div", { class: "pair" }, cards), part("Curves", charts),
      part(differ, rows.length ? table(differ, rows, ["key", ...names]) : same),
      part("Samples", h("div", { class: "pair" }, grids(api, runs))));
  }

  const end = api.listen({ run: ({ name }) => names.length > 1 && names.includes(name) && void curves() });
  await show();
  const chosen = h("fieldset", { class: "row" }, h("legend", { text: "Runs" }), boxes);
  return { node: h("div", {}, h("h1", { text: "Compare runs" }), chosen, shown), close: end };
}

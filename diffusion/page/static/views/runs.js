/** The runs, newest first, as they are now. */

import { codeLine, count, duration, emptyState, h, interval, number, replace } from "/parts/dom.js";
import { chip, facts, link } from "../widgets.js";

/** @import {MakeView, Summary} from "../types.js" */

/** The headline numbers of a run with their units, by name. @param {Summary} run @returns {Record<string, string>} */
export function headline(run) {
  const trains = run.state === "training";
  return {
    Step: run.step === null ? "none yet" : `${count(run.step)} of ${count(run.steps)}`,
    Loss: run.loss === null ? "none yet" : number(run.loss),
    "Held-out bound": run.bits ? interval(run.bits) : "none yet",
    ...(trains && run.images_per_s !== null ? { Speed: `${number(run.images_per_s, 3)} images/s` } : {}),
    ...(trains && run.left_s !== null ? { "Time left": duration(run.left_s) } : {}),
    ...(run.incidents ? { Incidents: count(run.incidents) } : {}),
  };
}

/** What the examples of a run are. @param {Summary} run */
export function form({ shape, classes }) {
  if (!shape.length) return "";
  const [channels, ...sides] = shape, colors = channels === 1 ? "gray" : `${channels} channels`;
  const size = sides.length ? `${sides.reverse().join(" × ")} pixels, ${colors}` : `${channels} numbers each`;
  return size + (classes.length ? `, ${classes.length} classes` : "");
}

/** @type {MakeView} */
export async function view(_place, api) {
  /** @type {Map<string, Summary>} */
  const runs = new Map((await api.runs()).map((run) => [run.name, run]));
  /** The cards of runs, each made once so that its focus stays. @type {Map<string, ReturnType<typeof made>>} */
  const cards = new Map();
  const list = h("ul", { class: "runs" });
  const compare = h("a", { class: "button", text: "Compare" });
  const node = h("div", {});

  /** @param {string} name */
  function made(name) {
    const cover = h("img", { class: "cover", alt: "", hidden: true });
    const box = h("input", { type: "checkbox", on: { change: choose } });
    const [head, values, small] = [h("span"), h("div"), h("small")];
    const title = h("h2", {}, h("a", { href: link(name), text: name }), head);
    const below = h("div", { class: "row" }, h("label", {}, box, `Compare ${name}`), small);
    const node = h("li", { data: { run: name } }, h("div", {}, cover), h("div", {}, title, values, below));
    return { node, cover, box, head, values, small, grids: 0 };
  }

  function choose() {
    const names = [...cards].filter(([, { box }]) => box.checked).map(([name]) => encodeURIComponent(name));
    compare.href = `#/compare?${new URLSearchParams({ runs: names.join(",") })}`;
  }

  /** @param {Summary} run */
  function card(run) {
    const parts = cards.get(run.name) ?? made(run.name);
    cards.set(run.name, parts);
    replace(parts.head, chip(run));
    replace(parts.values, facts(headline(run), "plain"));
    parts.small.textContent = form(run);
    if (run.grids > parts.grids) {
      parts.grids = run.grids;
      api.run(run.name).then(({ grid_steps }) => {
        parts.cover.hidden = false;
        parts.cover.src = api.url.grid(run.name, grid_steps[grid_steps.length - 1]);
      }, () => {});
    }
    return parts.node;
  }

  function show() {
    const nodes = [...runs.values()].sort((a, b) => (b.updated ?? 0) - (a.updated ?? 0)).map(card);
    const none = emptyState("No run yet", "This trains one on handwritten digits in two minutes; it appears here by itself.", "diffusion demo");
    none.append(h("p", { text: "Or on a folder of images:" }), codeLine("diffusion train configs/folder64.toml data.path=FOLDER"));
    compare.hidden = nodes.length < 2;
    if (!nodes.length || !list.isConnected || nodes.length !== list.children.length)
      replace(node, h("div", { class: "row spread" }, h("h1", { text: "Runs" }), compare), nodes.length ? list : none);
    if (nodes.length !== list.children.length) replace(list, nodes);
  }

  const close = api.listen({
    run: (run) => {
      runs.set(run.name, run);
      show();
    },
    gone: ({ name }) => {
      runs.delete(name);
      show();
    },
  });
  choose();
  show();
  return { node, close };
}

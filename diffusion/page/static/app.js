/**
 * The shell: a view by the hash of the address, navigation, the theme, and the jobs below every view.
 *
 * A view is a file of views/ that exports `view` (`MakeView` in types.d.ts): it is given its place and the API, and returns its
 * node and what ends it.
 */

import { h, replace } from "/parts/dom.js";
import * as api from "./api.js";
import { tray } from "./tray.js";
import { choice, link, trouble } from "./widgets.js";

/** @import {Place, Summary, View} from "./types.js" */

/** The views of a run with their names in the navigation; the first is that of #/run/NAME. */
const OF_A_RUN = { run: "Overview", sample: "Sample", inpaint: "Inpaint", restore: "Restore", likelihood: "Likelihood", data: "Data" };
const VIEWS = ["runs", "compare", ...Object.keys(OF_A_RUN)];

/** What an address asks for: #/, #/compare?runs=A,B, #/run/NAME, #/run/NAME/VIEW?QUERY. @param {string} hash
 * @returns {Place & {view: string}} */
function parse(hash) {
  const [path, query = ""] = hash.replace(/^#?\/?/, "").split("?");
  const [first, run = "", view = ""] = path.split("/"), of = first === "run";
  return { view: (of && view) || first || "runs", run: of ? decodeURIComponent(run) : "", query: new URLSearchParams(query) };
}

const header = /** @type {HTMLElement} */ (document.querySelector("header"));
const main = /** @type {HTMLElement} */ (document.querySelector("main"));
/** @type {View | null} */
let shown = null;
let turns = 0;

/** Shows what the address asks for. */
async function turn() {
  // The skip link points into this page, not to a view.
  if (location.hash === "#main") return;
  const place = parse(location.hash);
  const mine = ++turns;
  navigate(place);
  shown?.close?.();
  shown = null;
  /** @type {View} */
  let view;
  try {
    if (!VIEWS.includes(place.view)) throw new Error(`There is no view called ${place.view}; the runs are at the left above`);
    main.setAttribute("aria-busy", "true");
    view = await (await import(`./views/${place.view}.js`)).view(place, api);
  } catch (error) {
    view = { node: h("div", {}, h("h1", { text: "This does not work" }), trouble(error), h("a", { href: "#/", text: "All runs" })) };
  }
  if (mine !== turns) return view.close?.();
  shown = view;
  main.removeAttribute("aria-busy");
  main.replaceChildren(view.node);
  document.title = `${main.querySelector("h1")?.textContent ?? "Runs"} · diffusion`;
  // A reader begins with the new view, but not when the page has just been opened.
  if (mine > 1) main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

/** @type {Summary[]} */
let runs = [];

/** Shows in the header where one is. @param {Place & {view: string}} place */
function navigate({ view, run }) {
  const to = (/** @type {string} */ run, /** @type {string} */ view) => link(run, view === "run" ? "" : view);
  const change = () => (location.hash = picker.value ? to(picker.value, view in OF_A_RUN ? view : "") : "#/");
  const names = runs.map(({ name }) => name);
  const picker = choice("run", [["", "Choose a run"], ...names], run, { "aria-label": "Run", on: { change } });
  /** @param {string} at @param {string} href @param {string} text @param {Node} [icon] */
  const tab = (at, href, text, icon) =>
    h("a", { href, class: icon && "brand", "aria-current": view === at ? "page" : null }, icon, text);
  const brand = tab("runs", "#/", "diffusion", h("img", { src: "/static/icon.svg", alt: "" }));
  const tabs = h("nav", { "aria-label": "Views of the run", class: "tabs" },
    Object.entries(OF_A_RUN).map(([at, name]) => tab(at, to(run, at), name)));
  const compare = tab("compare", "#/compare", "Compare");
  replace(header, h("nav", { "aria-label": "Runs", class: "above" }, brand, picker, compare, theme), run && tabs);
  // Scrolling to an element would have the Tab key begin there rather than at the skip link.
  const here = /** @type {HTMLElement | null} */ (tabs.querySelector("[aria-current]"));
  if (here) tabs.scrollLeft = here.offsetLeft - (tabs.clientWidth - here.clientWidth) / 2;
}

/** Shows the page in the colors that are chosen. */
function paint() {
  localStorage.setItem("theme", theme.value);
  if (theme.value) document.documentElement.dataset.theme = theme.value;
  else delete document.documentElement.dataset.theme;
}
const themes = /** @type {[string, string][]} */ ([["", "Auto"], ["light", "Light"], ["dark", "Dark"]]);
const theme = choice("theme", themes, localStorage.getItem("theme") ?? "", { "aria-label": "Colors", on: { change: paint } });

/** Asks for the runs, for the picker. */
async function refresh() {
  runs = await api.runs().catch(() => runs);
  if (!header.contains(document.activeElement)) navigate(parse(location.hash));
}

paint();
tray(/** @type {HTMLElement} */ (document.querySelector(".tray")), api);
api.listen({
  run: ({ name }) => runs.some((run) => run.name === name) || void refresh(),
  gone: () => void refresh(),
  line: (heard) => heard && void refresh(),
});
addEventListener("hashchange", () => void turn());
void turn();

/** The jobs of all runs at the bottom of every view: what is made now, what waits, what was made. */

import { h, replace } from "/parts/dom.js";
import { linkOfJob, measure, open, stateOf, titleOf } from "./jobs.js";
import { button } from "./widgets.js";

/** @import {Api, Job} from "./types.js" */

const SHOWN = 12;

/** Shows the queue within a node, and keeps it current. @param {HTMLElement} node @param {Api} api */
export function tray(node, api) {
  /** @type {Map<string, Job>} */
  const jobs = new Map();
  /** The lines of jobs, each made once so that its focus stays. @type {Map<string, ReturnType<typeof made>>} */
  const lines = new Map();
  const now = h("span", {});
  const bar = h("progress", { "aria-label": "Progress of the running job" });
  const list = h("ul", {});
  const offline = h("p", { class: "trouble", role: "alert", hidden: true, text: "The page's server does not answer; it is asked again." });
  replace(node, offline, h("details", {}, h("summary", {}, h("strong", { text: "Jobs" }), now, bar), list));

  function show() {
    const all = [...jobs.values()].filter(({ kind }) => kind !== "degrade").sort((a, b) => b.made - a.made);
    const running = all.find(({ state }) => state === "running");
    const waiting = all.filter(({ state }) => state === "waiting").length;
    const first = running ? `${titleOf(running)}: ${stateOf(running)}` : all.length ? "none running" : "none yet";
    now.textContent = first + (waiting ? `, ${waiting} waiting` : "");
    bar.hidden = !running;
    measure(bar, running);
    const recent = all.slice(0, SHOWN).map(line);
    // Putting in the nodes that are there already would take the focus from them.
    if (recent.length !== list.children.length || recent.some((one, i) => one !== list.children[i])) replace(list, recent);
  }

  /** @param {Job} job */
  function line(job) {
    const { node, state, stop } = lines.get(job.id) ?? made(job);
    lines.set(job.id, { node, state, stop });
    node.className = job.state;
    state.textContent = stateOf(job);
    stop.hidden = !open(job);
    return node;
  }

  /** @param {Job} job */
  function made(job) {
    const name = `${titleOf(job)}, ${job.run}`;
    const state = h("span", {});
    const cancel = () => api.cancel(job.id).catch((error) => (state.textContent = error.message));
    const stop = button("Cancel", cancel, { class: "quiet small", "aria-label": `Cancel: ${name}` });
    return { node: h("li", {}, h("a", { href: linkOfJob(job), text: name }), state, stop), state, stop };
  }

  /** @param {Job[]} changed */
  function heard(changed) {
    for (const job of changed) jobs.set(job.id, job);
    show();
  }
  api.listen({
    job: (job) => heard([job]),
    line: (open) => {
      offline.hidden = open;
      if (open) void api.jobs().then(heard, () => {});
    },
  });
  show();
}

/** Jobs as people see them: what they are called, what they are at, where their results are, and one followed to its end. */

import { count, crisp, h } from "/parts/dom.js";
import { attempt, button, link } from "./widgets.js";

/** @import {Api, Job} from "./types.js" */

/** Where the results of a job are shown. @param {Job} job */
export function linkOfJob(job) {
  const views = { vary: "sample", interpolate: "sample", nearest: "sample", degrade: "restore", inspect: "data" };
  return link(job.run, Reflect.get(views, job.kind) ?? job.kind, { job: job.id });
}

/** What a job is called. @param {Job} job */
export function titleOf({ kind, options: { n = 1 } }) {
  return {
    sample: `${n} samples`,
    vary: `${n} variations`,
    interpolate: `${n} images between two`,
    inpaint: `Inpainting in ${n} variants`,
    restore: `Restoration in ${n} variants`,
    degrade: "Preview",
    likelihood: "Likelihood of an image",
    nearest: "Nearest training images",
    inspect: "Report on the data",
  }[kind];
}

/** What a job is at. @param {Job} job */
export function stateOf({ state, error, done, total, unit, title }) {
  if (state !== "running") return state === "failed" ? (error ?? state) : state;
  if (total) return `${title}, ${count(done ?? 0)} of ${count(total)} ${unit}`;
  return done ? `${title}, ${count(done)} ${unit} so far` : title || "starting";
}

/** Whether a job has not ended. @param {Job} job */
export const open = ({ state }) => state === "running" || state === "waiting";

/** The files of a job in some roles, in their order. @param {Job} job @param {...Job["files"][0]["role"]} roles */
export const filesOf = (job, ...roles) =>
  job.files.filter(({ role }) => roles.includes(role)).sort((a, b) => (a.index ?? 0) - (b.index ?? 0));

/** Fills a bar as far as a job is. @param {HTMLProgressElement} bar @param {Job | undefined} job */
export function measure(bar, job) {
  bar.max = job?.total || 1;
  if (job?.total && job.state === "running") bar.value = job.done ?? 0;
  else bar.removeAttribute("value");
}

/** Begins and follows jobs of a view: shows the progress of one, its preview and a button that cancels it.
 * @param {Api} api @param {(job: string) => void} keep has a reload come back to a job
 * @param {(job: Job) => void} done shows the results of a job */
export function making(api, keep, done) {
  const text = h("span", { role: "status" });
  const bar = h("progress", { "aria-label": "Progress of the job" });
  const image = crisp(h("img", { class: "preview", alt: "What is being made, as it is now", hidden: true }));
  const said = h("div", {});
  let id = "", end = () => {};
  const stop = button("Cancel", () => attempt(said, () => api.cancel(id)));
  const shown = h("div", { class: "making", hidden: true }, h("div", {}, text, bar, stop), image);
  /** @param {Job} job */
  function update(job) {
    shown.hidden = job.state === "done";
    text.textContent = stateOf(job);
    text.classList.toggle("trouble", job.state === "failed");
    bar.hidden = stop.hidden = !open(job);
    image.hidden = !open(job) || !job.preview;
    if (!image.hidden) image.src = api.url.preview(job);
    measure(bar, job);
    if (open(job)) return;
    end();
    if (job.state === "done") done(job);
  }
  /** Follows another job from now on; `first` is told what it is before anything is shown. @param {string} job
   * @param {(job: Job) => unknown} [first] */
  function follow(job, first) {
    end();
    id = job;
    end = api.follow(job, (now) => {
      first?.(now);
      first = undefined;
      update(now);
    });
  }
  /** Puts a job into the queue and follows it. @param {string} run @param {Job["kind"]} kind
   * @param {() => Record<string, unknown> | Promise<Record<string, unknown>>} options throws where there are none yet */
  const begin = (run, kind, options) => attempt(said, async () => {
    const job = await api.submit(run, kind, await options());
    keep(job);
    follow(job);
  });
  return { node: h("div", {}, said, shown), begin, follow, close: () => end() };
}

/** The API of the server, a function for each call, and its events. Errors are `Failure`s with the server's one line. */

/** @import {Summary, Details, Curves, Example, Upload, Job} from "./types.js" */

const ROOT = "/api/v1/";

/** What the server refused or could not do: a line for a person, and the HTTP status (0: no answer at all). */
export class Failure extends Error {
  /** @param {string} line @param {number} status */
  constructor(line, status) {
    super(line);
    this.status = status;
  }
}

/** Asks the server. @param {string} path @param {RequestInit} [how] @returns {Promise<Response>} */
async function ask(path, how) {
  const answer = await fetch(ROOT + path, how).catch(() => null);
  if (!answer) throw new Failure("The page's server does not answer. Start it again: diffusion page", 0);
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Failure(told.error ?? `The server answered ${answer.status} ${answer.statusText}`, answer.status);
}

/** @param {string} path @returns {Promise<any>} */
const get = async (path) => (await ask(path)).json();

/** Sends bytes of a kind, or an object as JSON. @param {string} path @param {Blob | object} body
 * @param {Record<string, string>} [headers] @returns {Promise<any>} */
async function post(path, body, headers = { "Content-Type": "application/json" }) {
  const sent = body instanceof Blob ? body : JSON.stringify(body);
  return (await ask(path, { method: "POST", headers, body: sent })).json();
}

/** @param {string} run */
const at = (run) => `runs/${encodeURIComponent(run)}`;

/** @returns {Promise<Summary[]>} */
export const runs = async () => (await get("runs")).runs;
/** @param {string} run @returns {Promise<Details>} */
export const run = (run) => get(at(run));
/** @param {string} run @returns {Promise<Curves>} */
export const curves = (run) => get(`${at(run)}/curves`);
/** Asks a running training to sample, or to stop after saving. @param {string} run @param {"sample" | "stop"} what */
export const request = (run, what) => post(`${at(run)}/requests`, { do: what });
/** @param {string} run @param {number} first @param {number} n @returns {Promise<{total: number, examples: Example[]}>} */
export const examples = (run, first, n) => get(`${at(run)}/examples?first=${first}&n=${n}`);
/** What `diffusion inspect` says of the data. @param {string} run @returns {Promise<Record<string, any>>} */
export const data = (run) => get(`${at(run)}/data`);

/** Hands over the bytes of a file as they are. @param {string} run @param {File} file @returns {Promise<Upload>} */
export const upload = (run, file) =>
  post(`${at(run)}/uploads`, file, { "Content-Type": "application/octet-stream", "X-Name": encodeURIComponent(file.name) });
/** Makes an upload of a held-out example. @param {string} run @param {string} id @returns {Promise<Upload>} */
export const uploadExample = (run, id) => post(`${at(run)}/uploads`, { example: id });
/** What is known of an image that the server keeps. @param {string} run @param {string} upload @returns {Promise<Upload>} */
export const uploaded = (run, upload) => get(`${at(run)}/uploads/${upload}`);
/** Hands over a mask, white where known. @param {string} run @param {string} upload @param {Blob} png
 * @returns {Promise<{mask: string, hidden: number}>} */
export const uploadMask = (run, upload, png) =>
  post(`${at(run)}/uploads/${upload}/masks`, png, { "Content-Type": "image/png" });

/** @returns {Promise<Job[]>} newest first */
export const jobs = async () => (await get("jobs")).jobs;
/** @param {string} id @returns {Promise<Job>} */
export const job = (id) => get(`jobs/${id}`);
/** Puts a job into the queue. @param {string} run @param {Job["kind"]} kind @param {Record<string, unknown>} options
 * @returns {Promise<string>} its id */
export const submit = async (run, kind, options) => (await post(`${at(run)}/jobs`, { kind, ...options })).id;
/** @param {string} id */
export const cancel = (id) => ask(`jobs/${id}`, { method: "DELETE" });

/** Addresses of images and files. */
export const url = {
  /** @param {string} run @param {number} step */
  grid: (run, step) => `${ROOT}${at(run)}/grids/${step}`,
  /** @param {string} run @param {string} file */
  picture: (run, file) => `${ROOT}${at(run)}/pictures/${encodeURIComponent(file)}`,
  /** @param {string} run @param {string} id */
  example: (run, id) => `${ROOT}${at(run)}/examples/${encodeURIComponent(id)}`,
  /** @param {string} run @param {string} upload @param {number} [side] */
  view: (run, upload, side = 2048) => `${ROOT}${at(run)}/uploads/${upload}/view?side=${side}`,
  /** @param {string} run @param {string} upload */
  alpha: (run, upload) => `${ROOT}${at(run)}/uploads/${upload}/alpha`,
  /** @param {string} run @param {string} upload @param {string} mask */
  mask: (run, upload, mask) => `${ROOT}${at(run)}/uploads/${upload}/masks/${mask}`,
  /** @param {string} job @param {string} name */
  file: (job, name) => `${ROOT}jobs/${job}/files/${name.split("/").map(encodeURIComponent).join("/")}`,
  /** A file as a browser shows it, which TIFF is not. @param {string} job @param {string} name */
  look: (job, name) => url.file(job, name) + (name.endsWith(".tif") ? "?side=2048" : ""),
  /** @param {Job} job */
  preview: (job) => `${ROOT}jobs/${job.id}/preview?${job.preview}`,
};

/** What is heard: `run` a run that has changed, `job` a job that has changed, `gone` a run that is no longer there, `line`
 * whether the server is heard again (what was missed can be asked for), or not any more.
 * @typedef {{run: Summary, job: Job, gone: {name: string}, line: boolean}} Heard */
/** @typedef {{[K in keyof Heard]?: (what: Heard[K]) => void}} Listener */

/** @type {Set<Listener>} */
const listeners = new Set();
const RETRY_MS = 2000;
let opened = false;

/** @template {keyof Heard} K @param {K} kind @param {Heard[K]} what */
const tell = (kind, what) => [...listeners].forEach((listener) => listener[kind]?.(what));

/** Opens the one stream of events, and again whenever it is closed for good. */
function open() {
  opened = true;
  const stream = new EventSource(`${ROOT}events`);
  for (const kind of /** @type {const} */ (["run", "job", "gone"]))
    stream.addEventListener(kind, (event) => tell(kind, JSON.parse(event.data)));
  stream.onopen = () => tell("line", true);
  stream.onerror = () => {
    tell("line", false);
    // A browser goes on trying after a lost connection, but not after an answer that is none of events.
    if (stream.readyState === EventSource.CLOSED) setTimeout(open, RETRY_MS);
  };
}

/** Hears events until the function that is returned is called. @param {Listener} listener @returns {() => void} */
export function listen(listener) {
  if (!opened) open();
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

/** Follows a job from what it is now to its end. @param {string} id @param {(job: Job) => void} told
 * @returns {() => void} ends it */
export function follow(id, told) {
  const fetched = () => void job(id).then(told, () => {});
  fetched();
  return listen({ job: (changed) => changed.id === id && told(changed), line: (heard) => heard && fetched() });
}

/** A scrubber: images over steps, or over noise levels, by slider, mouse drag, arrow keys, Home and End, with a picture
 * beside them that stays (real images). */

import { crisp, h } from "./dom.js";

/** @typedef {{src: string, caption: string}} Frame */
/** `label` is for people who cannot see it: "Samples by step"; `onShow` is told the index of a frame.
 * @typedef {{frames: Frame[], label: string, beside?: Frame | null, onShow?: (index: number) => void}} ScrubberOptions */

// Frames on either side that are loaded ahead, and how many are kept: a long run has thousands of them.
const AHEAD = 3, KEPT = 40;

/** @param {ScrubberOptions} options the last frame is shown first
 * @returns {{element: HTMLElement, show: (index: number) => void, update: (frames: Frame[]) => void}} `update` takes new
 * frames; the last one stays shown if it was, else the frame with the same caption */
export function scrubber({ frames, label, beside, onShow }) {
  let index = frames.length - 1;
  /** @type {Map<string, HTMLImageElement>} */
  const loaded = new Map();
  const image = crisp(h("img", { alt: "", draggable: "false" }));
  const caption = h("figcaption", { "aria-live": "off" });
  const slider = h("input", { type: "range", min: 0, max: 0, "aria-label": label });
  const place = h("output", { class: "scrubber-place" });
  const stage = h("figure", { class: "scrubber-stage", title: "Drag sideways to go through the steps" }, image, caption);
  const still = beside && h("figure", { class: "scrubber-beside" },
    crisp(h("img", { src: beside.src, alt: beside.caption })), h("figcaption", { text: beside.caption }));
  const element = h("div", { class: "scrubber" },
    h("div", { class: beside ? "scrubber-pictures two" : "scrubber-pictures" }, stage, still),
    h("div", { class: "scrubber-controls" }, slider, place));

  /** Loads what may be shown next; those that were shown longest ago make place. */
  function ahead() {
    for (const { src } of frames.slice(Math.max(0, index - AHEAD), index + AHEAD + 1)) {
      if (!loaded.has(src)) loaded.set(src, Object.assign(new Image(), { src }));
      if (loaded.size > KEPT) loaded.delete([...loaded.keys()][0]);
    }
  }

  /** @param {number} to */
  function show(to) {
    if (!frames.length) return;
    const last = frames.length - 1;
    index = Math.max(0, Math.min(Math.round(to), last));
    const { src, caption: text } = frames[index];
    [slider.max, slider.value, slider.disabled] = [String(last), String(index), !last];
    slider.setAttribute("aria-valuetext", text);
    slider.style.setProperty("--filled", `${last ? (100 * index) / last : 100}%`);
    if (image.getAttribute("src") !== src) image.src = src;
    image.alt = `${label}, ${text}`;
    caption.textContent = text;
    place.textContent = `${index + 1} of ${frames.length}`;
    ahead();
    onShow?.(index);
  }

  slider.addEventListener("input", () => show(Number(slider.value)));
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    const [from, at] = [event.clientX, index];
    // The width of the picture is the whole of a short film, and never less than 3 pixels a frame.
    const pixels = Math.max(3, image.clientWidth / Math.max(frames.length - 1, 1));
    stage.onpointermove = (next) => show(at + (next.clientX - from) / pixels);
    stage.onpointerup = stage.onpointercancel = () => {
      stage.onpointermove = null;
      slider.focus({ preventScroll: true });
    };
  });
  show(index);

  const update = (/** @type {Frame[]} */ changed) => {
    const last = index >= frames.length - 1, here = frames[index]?.caption;
    frames = changed;
    const same = frames.findIndex((frame) => frame.caption === here);
    show(last || same < 0 ? frames.length - 1 : same);
  };
  return { element, show, update };
}

/** Makes scrubbers that go to the same step: one that is moved takes the others to their last frame up to its step.
 * @typedef {{element: HTMLElement, show: (index: number) => void}} Shown
 * @param {{steps: number[], make: (onShow: (index: number) => void) => Shown}[]} several @returns {Shown[]} what is made */
export function together(several) {
  let moving = true;
  const made = several.map(({ steps, make }, mover) => make((index) => {
    if (moving) return;
    moving = true;
    several.forEach((other, i) => {
      if (i !== mover) made[i].show(other.steps.filter((step) => step <= steps[index]).length - 1);
    });
    moving = false;
  }));
  moving = false;
  return made;
}

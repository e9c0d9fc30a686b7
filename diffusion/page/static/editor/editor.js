// The widget in which a mask is drawn, by a mouse, a pen, fingers or keys: its buttons, its keys, and what it says.

import { h } from "/parts/dom.js";
import { Drawing, TOOLS } from "./drawing.js";
import { blank, count, grow, invert } from "./mask.js";
import { download } from "./png.js";
import { Screen } from "./screen.js";
import { Viewport, navigate } from "./viewport.js";

/** @import {Tool} from "./drawing.js" */
/** @import {Mask} from "./mask.js" */
/** What can be done: its group, its name, what it does, and what is said of it. @typedef {[string, string, () => void, string]} Action */

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const SLIDES = 60, TOLD_MS = 250;
const HELP = "Arrows move a cursor, Enter or Space paints there, Shift with an arrow paints a line. "
  + "Wheel or two fingers zoom; hold Space to pan.";

/** Makes an editor of the mask of an image.
 * @param {ImageBitmap} image as it is shown @param {{name: string, width: number, height: number}} of the image itself
 * @param {() => void} changed hears of changes of the mask, shortly after the last @param {...Node} more buttons
 * @returns {{node: HTMLElement, mask: Mask, take: (hidden: Uint8Array) => void, show: (image: ImageBitmap) => void, close: () => void}}
 * `take` takes another mask, in a step that can be undone; `show` shows the image better */
export function editor(image, { name, width, height }, changed, ...more) {
  const mask = blank(width, height), viewport = new Viewport(width, height);
  const screen = new Screen(image, mask, viewport, `Mask of ${name}. ${HELP}`), { canvas } = screen;
  const told = h("p", { class: "told", role: "status" }), say = () => (told.textContent = share(mask));
  let timer = 0;
  const drawing = new Drawing(mask, viewport, screen, () => {
    clearTimeout(timer);
    timer = setTimeout(() => (say(), changed()), TOLD_MS);
  });
  const moved = () => {
    drawing.show();
    screen.move();
  };
  const sized = sizing(drawing);
  const actions = actionsOf(drawing, name, moved);
  /** A button, after which a mouse leaves the keys to the canvas. @param {Action} action */
  const button = ([, text, action, title]) => {
    const click = (/** @type {MouseEvent} */ { detail }) => {
      action();
      if (detail) canvas.focus({ preventScroll: true });
    };
    return h("button", { type: "button", title, "aria-label": /^\w/.test(text) ? null : title, on: { click } }, text);
  };
  const tools = TOOLS.map((tool) => button(["Tool", tool, () => choose(tool), `${tool} (${tool[0]})`]));
  /** @param {Tool} tool */
  function choose(tool) {
    drawing.drop();
    drawing.tool = tool;
    tools.forEach((each, i) => each.setAttribute("aria-pressed", String(TOOLS[i] === tool)));
    drawing.show();
  }
  /** @param {string} label @param {...Node} others */
  const group = (label, ...others) => {
    const buttons = Object.values(actions).filter(([at]) => at === label).map(button);
    return h("div", { role: "group", "aria-label": label }, buttons, others);
  };
  const bar = h("div", { class: "tools" }, group("Tool", ...tools), sized.node,
    group("Steps"), group("Whole mask"), group("View"), group("Files", ...more));
  const node = h("div", { class: "editor" }, bar, screen.node, told);
  const keys = listening(drawing, node, canvas, { choose, told, actions, resize: sized.resize });
  navigate(canvas, viewport, { moved: () => (keys.panned(), moved()), interrupted: () => drawing.drop(), holds: keys.holds });
  drawing.listen(canvas);
  choose("Brush");
  sized.resize(Math.max(width, height) / 24);
  say();
  const close = () => {
    screen.close();
    clearTimeout(timer);
    keys.close();
  };
  const show = (/** @type {ImageBitmap} */ better) => {
    screen.image = better;
    screen.move();
  };
  return { node, mask, take: (hidden) => drawing.everywhere(() => mask.hidden.set(hidden)), show, close };
}

/** Says how much is hidden. @param {Mask} mask */
function share(mask) {
  const hidden = count(mask), all = mask.hidden.length, part = (100 * hidden) / all;
  const written = part >= 1 || !hidden ? part.toFixed(0) : part.toPrecision(1);
  return `${hidden.toLocaleString("en-US")} of ${all.toLocaleString("en-US")} pixels are to be filled (${written} %)`;
}

/** What can be done, by its key. @param {Drawing} drawing @param {string} name of the image @param {() => void} moved
 * @returns {Record<string, Action>} */
function actionsOf(drawing, name, moved) {
  const { mask, viewport, history } = drawing, reach = Math.max(1, Math.round(Math.max(mask.width, mask.height) / 256));
  const zoom = (/** @type {number} */ factor) => (viewport.zoom(factor), moved());
  const all = (/** @type {() => void} */ action) => () => drawing.everywhere(action);
  const file = `${name.replace(/\.[^.]*$/, "")}_mask.png`;
  return {
    z: ["Steps", "Undo", () => drawing.said(history.undo()), "Take back the last step (Z)"],
    y: ["Steps", "Redo", () => drawing.said(history.redo()), "Make it again (Y or Shift+Z)"],
    i: ["Whole mask", "Invert", all(() => invert(mask)), "Hide what is known and show what is hidden (I)"],
    g: ["Whole mask", "Grow", all(() => grow(mask, reach)), `Hide ${reach} more pixel${reach > 1 ? "s" : ""} all around (G)`],
    x: ["Whole mask", "Clear", all(() => mask.hidden.fill(0)), "Hide nothing (X)"],
    "-": ["View", "−", () => zoom(1 / 1.5), "Zoom out (-)"],
    "+": ["View", "+", () => zoom(1.5), "Zoom in (+)"],
    0: ["View", "Fit", () => (viewport.fit(), moved()), "See the whole image (0)"],
    1: ["View", "1:1", () => zoom(1 / viewport.scale), "A pixel of the image on one of the screen (1)"],
    m: ["Files", "Save mask", () => void download(mask, file), "Download the mask: white is known, black is to be filled (M)"],
  };
}

/** The slider of the size of the brush, by its logarithm. @param {Drawing} drawing */
function sizing(drawing) {
  const most = Math.max(8, Math.round(Math.max(drawing.mask.width, drawing.mask.height) / 2));
  const title = "Size of the brush", input = () => resize(most ** (Number(slider.value) / SLIDES));
  const slider = h("input", { type: "range", min: 0, max: SLIDES, "aria-label": title, title: `${title} ([ and ])`, on: { input } });
  const amount = h("output", {});
  /** @param {number} wanted in pixels of the image */
  function resize(wanted) {
    const size = (drawing.size = Math.max(1, Math.min(most, Math.round(wanted))));
    slider.value = String((SLIDES * Math.log(size)) / Math.log(most));
    slider.style.setProperty("--filled", `${(100 * Number(slider.value)) / SLIDES}%`);
    slider.setAttribute("aria-valuetext", `${size} pixels`);
    amount.textContent = `${size} px`;
    drawing.show();
  }
  return { node: h("div", { role: "group", "aria-label": "Size" }, slider, amount), resize };
}

/** Hears the keys of an editor: those of the cursor where its canvas has the focus, others there and where nothing has.
 * @param {Drawing} drawing @param {HTMLElement} node @param {HTMLCanvasElement} canvas
 * @param {{choose: (tool: Tool) => void, told: HTMLElement, actions: Record<string, Action>, resize: (size: number) => void}} to */
function listening(drawing, node, canvas, { choose, told, actions, resize }) {
  let spaced = false, panned = false;
  /** @param {KeyboardEvent} event */
  function down(event) {
    const target = /** @type {HTMLElement} */ (event.target), on = target === canvas, held = event.ctrlKey || event.metaKey;
    const typed = event.key.toLowerCase(), name = typed === "z" && event.shiftKey ? "y" : typed === "=" ? "+" : typed;
    if (event.altKey || (held && typed !== "z" && typed !== "y") || !(target === document.body || node.contains(target))) return;
    const tool = TOOLS.find((each) => each[0].toLowerCase() === typed), { size } = drawing;
    if (event.key in ARROWS && on) {
      const { x, y } = drawing.step(ARROWS[event.key], event.shiftKey);
      told.textContent = `Column ${Math.ceil(x)}, row ${Math.ceil(y)}`;
    } else if (event.key === "Enter" && on) drawing.press();
    else if (event.key === " " && (on || target === document.body)) [panned, spaced] = [spaced && panned, true];
    else if (event.key === "Escape" && (drawing.drawing || drawing.path.length)) drawing.drop();
    else if (event.key === "[") resize(Math.min(size - 1, size / 1.25));
    else if (event.key === "]") resize(Math.max(size + 1, size * 1.25));
    else if (tool) choose(tool);
    else if (name in actions) actions[name][2]();
    else return;
    event.preventDefault();
  }
  /** Space paints when it is let go, unless the image was moved meanwhile. @param {KeyboardEvent} event */
  function up(event) {
    if (event.key !== " " || !spaced) return;
    spaced = false;
    if (!panned && event.target === canvas) drawing.press();
  }
  const ended = new AbortController(), { signal } = ended;
  document.addEventListener("keydown", down, { signal });
  document.addEventListener("keyup", up, { signal });
  return { holds: () => spaced, panned: () => (panned = true), close: () => ended.abort() };
}

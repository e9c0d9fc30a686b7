/** Elements and numbers, as the page and the report make them. Text is always text: nothing here reads markup. */

/** What is null, undefined or false is left out. @typedef {Node | string | number | null | undefined | false} Child */
/** @typedef {Child | Child[]} Children */
/** Text, style ({name: value}), on ({event: listener}) and data ({name: value}); others are attributes, of which true is
 * an empty one, and false, null and undefined none, or the properties below.
 * @typedef {Record<string, unknown> & {class?: string, text?: string, style?: Record<string, string>,
 *   on?: Record<string, (event: any) => void>, data?: Record<string, string | number>}} Props */

const PROPERTIES = new Set(["value", "checked", "hidden", "disabled", "selected"]);
const MISSING = "—";

/** Returns an HTML element. @template {keyof HTMLElementTagNameMap} T @param {T} tag @param {Props} [props]
 * @param {...Children} children @returns {HTMLElementTagNameMap[T]} */
export const h = (tag, props = {}, ...children) => dressed(document.createElement(tag), props, children);

/** Returns an element of SVG. @template {keyof SVGElementTagNameMap} T @param {T} tag @param {Props} [props]
 * @param {...Children} children @returns {SVGElementTagNameMap[T]} */
export const svg = (tag, props = {}, ...children) =>
  dressed(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);

/** @template {HTMLElement | SVGElement} E @param {E} element @param {Props} props @param {Children[]} children @returns {E} */
function dressed(element, { text, style = {}, on = {}, data = {}, ...rest }, children) {
  if (text !== undefined) element.textContent = String(text);
  // By the object model: a strict content security policy refuses the attribute.
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value);
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  for (const [name, value] of Object.entries(data)) element.dataset[name] = String(value);
  for (const [name, value] of Object.entries(rest)) {
    if (value === null || value === undefined || value === false) continue;
    if (PROPERTIES.has(name)) Reflect.set(element, name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...nodes(children));
  return element;
}

/** @param {Children[]} children @returns {(Node | string)[]} */
const nodes = (children) =>
  /** @type {Child[]} */ (children.flat()).flatMap((child) =>
    child === null || child === undefined || child === false ? [] : [child instanceof Node ? child : String(child)]);

/** Puts children in the place of those of an element, and returns it.
 * @template {Element} E @param {E} parent @param {...Children} children @returns {E} */
export function replace(parent, ...children) {
  parent.replaceChildren(...nodes(children));
  return parent;
}

/** @param {number | null | undefined} value @returns {value is number} */
const known = (value) => Number.isFinite(value);

/** Writes so many significant digits, thousands apart: "3.142", "12,345", "1.2e-7".
 * @param {number | null | undefined} value @param {number} [digits] */
export function number(value, digits = 4) {
  if (!known(value)) return MISSING;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) return value.toExponential(Math.max(0, digits - 1)).replace("e+", "e");
  if (size >= 10 ** (digits - 1)) return count(value);
  return value.toLocaleString("en-US", { maximumSignificantDigits: digits, minimumSignificantDigits: size ? digits : 1 });
}

/** Writes a whole number, "25,000". @param {number | null | undefined} value */
export const count = (value) => (known(value) ? Math.round(value).toLocaleString("en-US") : MISSING);

/** Writes "3.142 bits/dim". @param {number | null | undefined} value @param {string} unit @param {number} [digits] */
export const quantity = (value, unit, digits) => (known(value) ? `${number(value, digits)} ${unit}` : MISSING);

/** Writes "3.142 ± 0.021 bits/dim", with the digits that the interval warrants.
 * @param {{value: number, half?: number | null, unit?: string} | null | undefined} measured */
export function interval(measured) {
  if (!measured || !known(measured.value)) return MISSING;
  const { value, half, unit } = measured;
  const tail = unit ? ` ${unit}` : "";
  if (!half || !known(half)) return number(value) + tail;
  const decimals = Math.min(6, Math.max(0, 1 - Math.floor(Math.log10(half))));
  return `${fixed(value, decimals)} ± ${fixed(half, decimals)}${tail}`;
}

/** Writes so many decimals, or from as few to as many. @param {number} value @param {number} least @param {number} [most] */
export const fixed = (value, least, most = least) =>
  value.toLocaleString("en-US", { minimumFractionDigits: least, maximumFractionDigits: most });

/** Writes "4 h 12 min". @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (!known(seconds)) return MISSING;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min${whole < 600 && whole % 60 ? ` ${whole % 60} s` : ""}`;
}

/** A command on a line, with a button that copies it. @param {string} command */
export function codeLine(command) {
  // Without a secure context there is no clipboard at all.
  const copied = async () => navigator.clipboard.writeText(command);
  const click = async () => {
    button.textContent = await copied().then(() => "Copied", () => "Select it");
    setTimeout(() => (button.textContent = "Copy"), 1600);
  };
  const button = h("button", { type: "button", class: "quiet small", "aria-label": `Copy: ${command}`, on: { click } }, "Copy");
  return h("div", { class: "code-line" }, h("code", { text: command, tabindex: 0 }), button);
}

/** What is missing, and what to do next. @param {string} title @param {string} text @param {string} [command] */
export const emptyState = (title, text, command) =>
  h("div", { class: "empty" }, h("p", { class: "empty-title", text: title }), h("p", { text }), command && codeLine(command));

/** Shows the pixels of an image as squares wherever it is enlarged, now and after it was loaded or resized.
 * @param {HTMLImageElement} img @returns {HTMLImageElement} the same */
export function crisp(img) {
  const look = () => img.classList.toggle("pixelated", img.naturalWidth > 0 && img.clientWidth >= img.naturalWidth);
  img.addEventListener("load", look);
  new ResizeObserver(look).observe(img);
  return img;
}

/** A chain of operators to edit, in the order in which they damaged an image. */

import { h, replace } from "/parts/dom.js";
import { button, choice, field } from "../widgets.js";

/** @import {Operator} from "../types.js" */
/** An operator of the chain, and the options that are not its defaults.
 * @typedef {{operator: Operator, values: Record<string, string>}} Link */

const plain = (/** @type {unknown} */ value) => (value === null || value === undefined ? "" : String(value));

/** Returns the text of a link, such as blur:sigma=2. @param {Link} link */
function written({ operator: { name, options }, values }) {
  const pairs = options.map((option) => [option.name, values[option.name] ?? plain(option.default)]);
  const given = pairs.filter(([, value]) => value !== "").map((pair) => pair.join("="));
  return given.length ? `${name}:${given.join(",")}` : name;
}

/** Makes an editor of a chain; `text` is what the command takes, such as blur:sigma=2+downsample:factor=2.
 * @param {Operator[]} operators @param {string} begun @param {() => void} changed
 * @returns {{node: HTMLElement, text: () => string}} */
export function chain(operators, begun, changed) {
  /** Returns the links of a text, without those whose operator is not known. @param {string} text @returns {Link[]} */
  const parsed = (text) => text.split("+").flatMap((part) => {
    const [name, given = ""] = part.split(":"), operator = operators.find((each) => each.name === name);
    const pairs = given.split(",").filter(Boolean).map((pair) => pair.split("="));
    return operator ? [{ operator, values: Object.fromEntries(pairs) }] : [];
  });
  let links = parsed(begun);
  const list = h("ol", { class: "chain" });
  /** @param {Link[]} next */
  function change(next) {
    links = next;
    show();
    changed();
  }
  /** @param {Link} link @param {number} i */
  function line(link, i) {
    const { operator: { name, what, options }, values } = link, others = links.filter((other) => other !== link);
    const move = (/** @type {string} */ sign, /** @type {string} */ way, /** @type {number} */ to) =>
      button(sign, () => change(others.toSpliced(to, 0, link)), { "aria-label": `${name} ${way}`, disabled: to < 0 || to > others.length });
    const fields = options.map((option) => {
      const type = typeof option.default === "number" ? "number" : "text", value = values[option.name] ?? plain(option.default);
      const input = h("input", { type, step: "any", value, on: { input: () => (values[option.name] = input.value) } });
      return field(option.name, input, option.what);
    });
    const remove = button("✕", () => change(others), { "aria-label": `Remove ${name}` });
    const row = h("div", { class: "row" }, h("strong", { text: name }), move("↑", "earlier", i - 1), move("↓", "later", i + 1), remove);
    return h("li", {}, row, h("small", { text: what }), fields);
  }
  const show = () => replace(list, links.map(line), !links.length && h("li", { text: "No damage yet: add one." }));
  const add = () => {
    const next = parsed(added.value);
    added.value = "";
    change([...links, ...next]);
  };
  const names = operators.map(({ name }) => name);
  const added = choice("", [["", "Add a damage"], ...names], "", { "aria-label": "Add a damage", on: { change: add } });
  show();
  const node = h("fieldset", { class: "field" }, h("legend", { text: "Damage, in the order it happened" }), list, added);
  return { node, text: () => links.map(written).join("+") };
}

// Making elements, and changing only what has changed.

/** An element: properties by name, `class`, `data-*` and `aria-*` as attributes, `on*` as listeners. */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name in node && !name.includes("-") && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** `node` says `text`; nothing is laid out anew if it does already. */
export function write(node, text) {
  const said = String(text ?? "");
  if (node.textContent !== said) node.textContent = said;
}

/** An attribute that is set only where it changes; `null` takes it away. */
export function mark(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

/** `make(items)` fills `node`, again only when `items` have changed. */
export function fill(node, items, make) {
  const key = JSON.stringify(items);
  if (node.filledWith === key) return;
  node.filledWith = key;
  node.replaceChildren(...make(items));
}

export const $ = (id) => document.getElementById(id);

/** A card of a view, with a heading. */
export function card(word, ...children) {
  return h("section", {class: `card ${word}`}, h("h2", {"data-word": word}), ...children);
}

export const fixed = (value, digits = 1) => (Number.isFinite(value) ? value.toFixed(digits) : "–");

export const microseconds = (value) =>
  !Number.isFinite(value) ? "–" : value >= 1000 ? `${(value / 1000).toFixed(1)} ms` : `${value.toFixed(0)} µs`;

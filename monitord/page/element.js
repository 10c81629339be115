// Making elements. Text is always text, never markup, so nothing that comes over the wire can become any.

/** Make an element: h("td", { class: "number", onclick }, "text", child, null). A function is a listener, true an empty attribute. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for what stands in an SVG. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A drawing of 24 by 24, of strokes. */
export function icon(path) {
  return s("svg", { viewBox: "0 0 24 24", fill: "none", stroke: "currentColor", "stroke-width": "1.8", "stroke-linecap": "round",
    "stroke-linejoin": "round", "aria-hidden": "true" }, s("path", { d: path }));
}

/** Buttons of which one is pressed. options: [value, text] each; chosen is called with a value. */
export function pick(label, options, value, chosen) {
  const group = h("div", { class: "pick", role: "group", "aria-label": label });
  const press = (next) => {
    for (const button of group.children) button.setAttribute("aria-pressed", String(button.value === next));
  };
  for (const [each, text] of options) {
    group.append(h("button", { type: "button", value: each, onclick: () => { press(each); chosen(each); } }, text));
  }
  press(value);
  return group;
}

/** A list of choices with a label that only readers of the screen hear. */
export function choices(label, options, value, chosen) {
  const select = h("select", { "aria-label": label, onchange: () => chosen(select.value) },
    options.map(([each, text]) => h("option", { value: each, selected: each === value }, text)));
  return select;
}

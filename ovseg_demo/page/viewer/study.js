// Below the picture: what takes a closer look at a result. Each part is a panel that is filled when it is opened.

const study = find(".ov-study");

function studyPanel(name, title, fill) {
  const body = make("div", { class: "ov-study-body" });
  const panel = make("details", { class: name }, make("summary", {}, title), body);
  panel.addEventListener("toggle", () => { if (panel.open && result) fill(body); });
  study.append(panel);
  return {
    body,
    clear() {
      panel.open = false;
      body.replaceChildren();
    },
  };
}

onForgotten.push(() => { study.hidden = true; });
onShown.push(() => { study.hidden = !result.key || !result.bits; });

const SVG = "http://www.w3.org/2000/svg";

function svgNode(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function table(caption, heads, rows) {
  const cell = (tag, content, attributes = {}) => make(tag, attributes, ...(Array.isArray(content) ? content : [content]));
  return make("table", {},
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...heads.map((head) => cell("th", head, { scope: "col" })))),
    make("tbody", {}, ...rows.map(([first, ...others]) =>
      make("tr", {}, cell("th", first, { scope: "row" }), ...others.map((other) => cell("td", other))))));
}

// A table may be wider than a phone: it scrolls by itself, with the keyboard too.
const scrolling = (label, content) => make("div", { class: "ov-scrolling", role: "region", tabindex: "0", "aria-label": label }, content);
const called = (c) => make("span", { class: "ov-called" }, swatch(c), make("span", { class: "ov-name" }, c.name));

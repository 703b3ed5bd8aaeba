// The viewer: one result in, everything about it shown, without asking the server again.
// Runs inside Gradio's HTML component, which provides `element`, `props` and `watch`.

const find = (selector) => element.querySelector(selector);
const stage = find(".ov-stage"), canvas = find(".ov-canvas"), tip = find(".ov-tip"), status = find(".ov-status");
const splitter = find(".ov-split"), legend = find(".ov-legend"), missing = find(".ov-missing");
const timing = find(".ov-timing"), none = find(".ov-none"), more = find(".ov-more");
const card = find(".ov-region"), changes = find(".ov-changes"), modes = [...element.querySelectorAll("[data-mode]")];

const view = {
  allChanges: false,
  mode: "adapted", opacity: 0.55, outlines: true, names: true, split: 0.5,
  hidden: new Set(), current: null, pinned: null, focus: 0,
};
let result = null, photo = null, layers = {}, request = 0;
// While an answer is worked on: the outlines found so far, and the result that comes back if there is none.
let preview = null, before = null;
// What else is to be done when a result comes into the picture and leaves it, and when the picture is drawn.
const onShown = [], onForgotten = [], onDrawn = [];
// What else stands in the card of a region: functions from its facts to an element.
const cardParts = [];

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  // Strings become text nodes: a name is never markup, whatever it holds.
  node.append(...children);
  return node;
}

// --- what is shown -------------------------------------------------------------------------------------

// What people read for an arm.
const titleOf = (arm) => arm.title || { vanilla: "plain" }[arm.name] || arm.name;
// The arm that names the regions and the one it is compared with, whichever they are: the modes "adapted" and
// "vanilla" stand for them.
const firstArm = () => Object.values(result.arms)[0], secondArm = () => Object.values(result.arms)[1];
const bothArms = () => Boolean(result && secondArm());
const mainArm = () => (view.mode === "vanilla" && bothArms() ? secondArm() : firstArm());
const otherArm = () => (mainArm() === firstArm() ? secondArm() : firstArm());

function layersOf(arm) {
  return (layers[arm.name] ||= armLayers(result, arm, view.hidden));
}

function draw() {
  const image = result ? result.image : photo;
  if (!image) return;
  const scale = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(stage.clientWidth * scale)), height = Math.max(1, Math.round(stage.clientHeight * scale));
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.globalAlpha = 1;
  context.imageSmoothingQuality = "high";
  applyZoom(context, width, height);
  context.drawImage(image, 0, 0, width, height);
  paint(context, width, height, scale / zoom.scale);
  context.setTransform(1, 0, 0, 1, 0, 0);
}

// Everything on the photo; lines and letters keep their size on the screen.
function paint(context, width, height, scale) {
  if (!result) return preview ? drawPreview(context, preview, width, height, scale) : undefined;
  if (view.mode === "split") {
    const at = Math.round(view.split * width);
    within(context, 0, 0, at, height, () => drawArm(context, secondArm(), width, height, scale));
    within(context, at, 0, width - at, height, () => drawArm(context, firstArm(), width, height, scale));
  } else if (view.mode === "difference") drawDifference(context, width, height, scale);
  else drawArm(context, mainArm(), width, height, scale);
  drawHighlight(context, width, height);
  for (const work of onDrawn) work(context, width, height, scale);
}

function within(context, left, top, width, height, work) {
  context.save();
  const shown = context.getTransform();
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  context.setTransform(shown);
  work();
  context.restore();
}

function place(context, picture, alpha, width, height) {
  context.globalAlpha = alpha;
  context.drawImage(picture, 0, 0, width, height);
  context.globalAlpha = 1;
}

function drawArm(context, arm, width, height, scale) {
  const { colour, dim, outline } = layersOf(arm);
  place(context, dim, 0.22 * Math.min(1, view.opacity / 0.5), width, height);
  place(context, colour, view.opacity, width, height);
  if (view.focus) place(context, focusLayer(arm), 0.6, width, height);
  if (view.outlines) place(context, outline, 1, width, height);
  if (view.names) drawNames(context, arm, view.hidden, width, height, scale);
}

function focusLayer(arm) {
  const key = `focus ${arm.name} ${view.focus}`;
  return (layers[key] ||= allButClassLayer(result, arm, view.focus));
}

function drawDifference(context, width, height, scale) {
  layers.agreement ||= agreementLayer(result);
  layers.difference ||= differenceLayer(result);
  layers.changed ||= outlineLayer(result, (i) => Number(firstArm().labels[i] !== secondArm().labels[i]));
  place(context, layers.agreement, 0.55, width, height);
  place(context, layers.difference, Math.max(view.opacity, 0.35), width, height);
  if (view.outlines) place(context, layers.changed, 1, width, height);
  if (view.names) drawChanges(context, result, width, height, scale);
}

function drawHighlight(context, width, height) {
  for (const id of new Set([view.pinned, view.current])) {
    const fact = id && mainArm().byId.get(id);
    if (!fact) continue;
    const arm = mainArm();
    layers[`region ${id}`] ||= outlineLayer(result, (i) => Number(inRegion(result, fact, i) || arm.regions[i] === id));
    context.filter = "drop-shadow(0 0 3px #fff)";
    place(context, layers[`region ${id}`], 1, width, height);
    context.filter = "none";
  }
}

// --- legend, words that were not found, regions -----------------------------------------------------------

// The chips of the words wear the colours of the picture.
function tellChips() {
  const classes = result ? mainArm().classes : [];
  const detail = classes.map((c) => ({ ...c, hidden: view.hidden.has(c.index) }));
  document.dispatchEvent(new CustomEvent("ovseg-shown", { detail }));
}

function fillLegend() {
  const arm = mainArm();
  tellChips();
  const found = arm.classes.filter((c) => c.found).sort((a, b) => b.area_fraction - a.area_fraction);
  legend.hidden = found.length === 0;
  none.hidden = found.length > 0;
  legend.tBodies[0].replaceChildren(...found.map(legendRow));
  legend.tFoot.hidden = arm.unassigned_fraction === 0;
  legend.tFoot.rows[0].cells[1].textContent = percent(arm.unassigned_fraction);
  const absent = arm.classes.filter((c) => !c.found);
  missing.hidden = absent.length === 0;
  missing.replaceChildren("not found: ");
  absent.slice(0, 60).forEach((c, i) => missing.append(i ? ", " : "", make("s", {}, c.name)));
  if (absent.length > 60) missing.append(` and ${absent.length - 60} more`);
}

function legendRow(c) {
  const toggle = make("input", { type: "checkbox" });
  toggle.checked = !view.hidden.has(c.index);
  toggle.addEventListener("change", () => setHidden(c.index, !toggle.checked));
  const name = make("span", { class: "ov-name" }, c.name);
  if (c.synonyms.length > 1) name.title = c.synonyms.join(" | ");
  const row = make("tr", {},
    make("th", { scope: "row" }, make("label", {}, toggle, swatch(c), name)),
    make("td", { class: "ov-number" }, percent(c.area_fraction)),
    make("td", {}, ...(c.corrected && c.found ? ["corrected by you"] : [meter(c.confidence), confidenceText(c.confidence)])));
  row.addEventListener("pointerenter", () => setFocus(c.index));
  row.addEventListener("pointerleave", () => setFocus(0));
  return row;
}

function meter(share) {
  return make("span", { class: "ov-meter", "aria-hidden": "true" }, make("span", { style: `width:${Math.round(share * 100)}%` }));
}

// Largest first, the first few of them unless all are asked for.
function fillChanges() {
  const [first, second] = Object.values(result.arms);
  const renamed = (result.comparison ? result.comparison.renamed : []).map(({ id }) => id);
  renamed.sort((one, other) => first.byId.get(other).area_fraction - first.byId.get(one).area_fraction);
  const few = 6, shown = view.allChanges ? renamed : renamed.slice(0, few);
  changes.hidden = renamed.length === 0;
  find(".ov-changes tbody").replaceChildren(...shown.map((id) => {
    const button = make("button", { type: "button", "aria-label": `Pin region ${id}` }, `#${id}`);
    button.addEventListener("click", () => pin(id));
    const area = make("td", { class: "ov-number" }, percent(first.byId.get(id).area_fraction));
    const row = make("tr", {}, make("th", { scope: "row" }, button), area, says(second, id), says(first, id));
    // A row that moves under the pointer, as rows do when the card opens, is neither pointed at nor left.
    const moved = ({ movementX, movementY }) => movementX !== 0 || movementY !== 0;
    row.addEventListener("pointerenter", (event) => {
      if (!moved(event)) return;
      view.current = id;
      draw();
    });
    row.addEventListener("pointerleave", (event) => moved(event) && leave());
    return row;
  }));
  more.hidden = renamed.length <= few;
  more.textContent = view.allChanges ? "Show fewer" : `Show all ${renamed.length}`;
}

// What an arm calls a region and how sure it is; where it calls it nothing, what came closest.
function says(arm, id) {
  const fact = arm.byId.get(id), c = fact.class_index && arm.classes[fact.class_index - 1];
  if (c) {
    const sure = make("span", { class: "ov-number ov-faint" }, confidenceText(fact.confidence));
    return make("td", {}, make("span", { class: "ov-called" }, swatch(c), make("span", { class: "ov-name" }, c.name), sure));
  }
  const [best] = fact.top;
  const closest = best ? make("span", { class: "ov-faint" }, ", closest: ", make("span", { class: "ov-name" }, best.name)) : "";
  return make("td", {}, "unassigned", closest);
}

function swatch(c) {
  return make("span", { class: "ov-swatch", style: `background:rgb(${c.colour.join(",")})` });
}

function pin(id) {
  view.pinned = view.pinned === id ? null : id;
  view.current = view.pinned;
  fillCard();
  draw();
  // On a phone the card lies over the lower half of the screen.
  if (view.pinned && window.innerWidth < 1000) stage.scrollIntoView({ block: "start" });
}

function fillCard() {
  const fact = view.pinned && mainArm().byId.get(view.pinned);
  card.hidden = !fact;
  if (!fact) return card.replaceChildren();
  const close = make("button", { type: "button", "aria-label": "Unpin the region" }, "×");
  close.addEventListener("click", () => pin(view.pinned));
  const title = `Region #${fact.id}: ${className(mainArm(), fact.class_index)}`;
  const seen = make("figure", {});
  if (result.bits) {
    const crop = clipCrop(result, fact);
    crop.setAttribute("role", "img");
    crop.setAttribute("aria-label", "The region cut out, its background blanked, stretched to a square");
    seen.append(crop, make("figcaption", {}, "what CLIP saw"));
  }
  const columns = fact.corrected ? [] : Object.values(result.arms).map((arm) => topFive(arm, arm.byId.get(fact.id)));
  card.replaceChildren(
    make("header", {}, make("h2", {}, title), close),
    make("p", { class: "ov-verdict" }, ...verdict(mainArm(), fact)),
    make("p", {}, `${percent(fact.area_fraction)} of the photo${fact.corrected ? "" : `; mask quality ${Math.round(fact.quality * 100)} %`}`),
    make("div", { class: "ov-region-body" }, seen, ...columns), ...cardParts.map((part) => part(fact)));
}

// How sure the name of a region is, or why it has none.
function verdict(arm, fact) {
  const [best] = fact.top;
  if (fact.corrected) return ["Corrected by you"];
  if (fact.class_index) return [`This region: ${confidenceText(fact.confidence)}`];
  if (fact.closest_hidden) return ["No typed word fits; ", make("span", { class: "ov-name" }, fact.closest_hidden), ", which nobody typed, fits better"];
  return best ? ["No typed word fits well enough; closest: ", make("span", { class: "ov-name" }, best.name), `, ${confidencePercent(best.score)} %`] : ["No typed word fits"];
}

function topFive(arm, fact) {
  const items = (fact ? fact.top : []).map(({ name, score }) =>
    make("li", {}, make("span", { class: "ov-name" }, name), meter(score), make("span", { class: "ov-number" }, `${confidencePercent(score)} %`)));
  return make("div", { class: "ov-top" }, make("h3", {}, titleOf(arm)), make("ol", {}, ...items));
}

// --- changing the view ------------------------------------------------------------------------------------

function setMode(mode) {
  if (!result || (mode !== "adapted" && !bothArms())) return;
  view.mode = mode;
  for (const button of modes) {
    const chosen = button.dataset.mode === mode;
    button.setAttribute("aria-checked", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
  }
  const split = mode === "split";
  splitter.hidden = !split;
  find(".ov-sides").hidden = !split;
  fillLegend();
  fillCard();
  draw();
}

function setHidden(index, hide) {
  view.hidden[hide ? "add" : "delete"](index);
  layers = {};
  fillLegend();
  draw();
}

function setFocus(index) {
  if (view.focus === index) return;
  view.focus = index;
  draw();
}

function setOpacity(value) {
  view.opacity = Math.min(1, Math.max(0, value));
  find(".ov-opacity input").value = Math.round(view.opacity * 100);
  draw();
}

function setSplit(share) {
  view.split = Math.min(1, Math.max(0, share));
  splitter.style.left = `${view.split * 100}%`;
  splitter.setAttribute("aria-valuenow", String(Math.round(view.split * 100)));
  draw();
}

function walk(step) {
  const ids = [...mainArm().byId.values()].filter((f) => f.class_index).map((f) => f.id);
  if (!ids.length) return;
  const at = ids.indexOf(view.current);
  view.current = ids[(at + step + ids.length) % ids.length] ?? ids[0];
  const fact = mainArm().byId.get(view.current);
  find(".ov-walked").textContent = `Region #${fact.id}: ${className(mainArm(), fact.class_index)}, ${howSure(fact)}; ${percent(fact.area_fraction)} of the photo`;
  draw();
}

const howSure = (fact) => (fact.corrected ? "corrected by you" : confidenceText(fact.confidence));

function cycleMode() {
  const order = ["adapted", "vanilla", "split", "difference"];
  setMode(order[(order.indexOf(view.mode) + 1) % order.length]);
}

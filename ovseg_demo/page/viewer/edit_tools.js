// The tools at the picture: add, select, cut, brush, erase, with pointer, touch and keys.

const TOOLS = {
  add: ["Add", "Press on a thing to add it, or drag a box around it. Alt and press: not this."],
  select: ["Select", "Press on a region; then accept, rename, remove or merge it."],
  cut: ["Cut", "Press on a part of a region to make it a region of its own."],
  brush: ["Brush", "Draw over what belongs to the region that is selected; on a free place, a new region begins."],
  erase: ["Erase", "Draw over what does not belong to the region that is selected."],
};
const edit = { on: false, tool: "add", size: 24, selected: [], merging: false, busy: false, notThis: false, cursor: null };
// The mask that waits for a name: what it is for, the masks to choose from, and what was pressed.
let candidate = null;
let gesture = null, calling = null;

const button = (text, attributes = {}) => make("button", { type: "button", ...attributes }, text);
const startEdit = button("Correct regions", { class: "ed-start", "aria-pressed": "false", title: "Add, rename, cut, merge and draw regions (e)" });
const toolButtons = Object.entries(TOOLS).map(([name, [text]]) => button(text, { role: "radio", "data-tool": name, "aria-checked": "false" }));
const actions = {
  accept: button("Accept", { title: "It is right: its mask and its name are yours from now on (y)" }),
  rename: button("Rename", { title: "Another name (r)" }), remove: button("Remove", { title: "Its pixels belong to no word (Delete)" }),
  merge: button("Merge", { title: "One region out of two or more (m)" }), like: button("More like this", { title: "Regions that look like it (l)" }),
};
const undoButton = button("Undo", { title: "Ctrl and Z" }), redoButton = button("Redo", { title: "Ctrl, Shift and Z" });
const brushSize = make("input", { type: "range", min: "2", max: "120", value: String(edit.size), "aria-label": "Size of the brush" });
const brushLabel = make("label", { class: "ed-size" }, "Size ", brushSize);
const editHint = make("p", { class: "ed-hint", role: "status", "aria-live": "polite" });
const editTools = make("div", { class: "ed-tools" },
  make("div", { class: "ed-choice", role: "radiogroup", "aria-label": "Tool" }, ...toolButtons), brushLabel,
  make("div", { class: "ed-actions" }, ...Object.values(actions)));
const editBar = make("div", { class: "ed-bar", role: "group", "aria-label": "Correct regions" },
  make("div", { class: "ed-row" }, startEdit, undoButton, redoButton, editState), editTools, editHint);
find(".ov-sides").before(editBar);

// --- the panel that asks for a name ---------------------------------------------------------------------

const nameTitle = make("h2", {}), nameList = make("div", { class: "ed-names", role: "group", "aria-label": "Names that fit" });
const nameInput = make("input", { type: "text", "aria-label": "Name of the region", autocomplete: "off", autocapitalize: "off", spellcheck: "false", placeholder: "or type a name" });
const nameOk = make("button", { type: "submit" }, "OK"), nameOther = button("Other mask", { title: "Tab" });
const nameNot = button("Not this", { "aria-pressed": "false", title: "What is pressed next does not belong to it; or hold Alt" });
const nameDrop = button("Drop", { title: "Esc" });
const nameWrong = make("p", { class: "ed-wrong", role: "alert" });
const namePanel = make("form", { class: "ed-name", "aria-label": "Name the region", hidden: "" }, nameTitle, nameList,
  make("div", { class: "ed-row" }, nameInput, nameOk, nameOther, nameNot, nameDrop), nameWrong);
namePanel.noValidate = true;
stage.append(namePanel);

const hint = (text, level = "") => { editHint.textContent = text; editHint.dataset.level = level; };

function showTools() {
  editBar.hidden = !result;
  editBar.dataset.on = String(edit.on);
  startEdit.setAttribute("aria-pressed", String(edit.on));
  startEdit.textContent = edit.on ? "Done" : "Correct regions";
  editTools.hidden = editHint.hidden = !edit.on;
  stage.dataset.edit = edit.on ? edit.tool : "";
  for (const one of toolButtons) {
    const chosenTool = one.dataset.tool === edit.tool;
    one.setAttribute("aria-checked", String(chosenTool));
    one.tabIndex = chosenTool ? 0 : -1;
  }
  brushLabel.hidden = !["brush", "erase"].includes(edit.tool);
  const facts = selectedFacts();
  actions.accept.disabled = !facts.some(isAcceptable);
  actions.rename.disabled = actions.remove.disabled = actions.merge.disabled = facts.length === 0;
  actions.like.disabled = facts.length !== 1;
  actions.merge.setAttribute("aria-pressed", String(edit.merging));
  undoButton.hidden = redoButton.hidden = !edit.on && edits.history.length === 1;
  undoButton.disabled = !edits.base || edits.at === 0;
  redoButton.disabled = !edits.base || edits.at === edits.history.length - 1;
}

function setEditing(on) {
  if (on && !result) return;
  edit.on = on;
  if (on && ["split", "difference"].includes(view.mode)) setMode("adapted");
  if (on && view.pinned) pin(view.pinned);
  drop();
  select([]);
  if (on) {
    setTool(edit.tool);
    tip.hidden = true;
  }
}

function setTool(name) {
  edit.tool = name;
  edit.merging = false;
  drop();
  hint(TOOLS[name][1]);
  showTools();
}

const selectedFacts = () => (result && edits.base ? edit.selected.map((key) => regionByKey(mainArm(), key)).filter(Boolean) : []);

function select(keys) {
  edit.selected = keys;
  delete layers["ed selected"];
  const [fact] = selectedFacts();
  if (fact) find(".ov-walked").textContent = `Selected: region #${fact.id}, ${className(mainArm(), fact.class_index)}`;
  showTools();
  draw();
}

// --- the mask that waits for a name -----------------------------------------------------------------------

function propose(next) {
  candidate = { at: 0, points: [], box: null, names: [], ...next };
  delete layers["ed candidate"];
  nameInput.value = "";
  nameWrong.textContent = "";
  showNames();
  draw();
  if (!matchMedia("(hover: none)").matches) nameInput.focus({ preventScroll: true });
  // There the panel lies over the lower half of the screen.
  if (window.innerWidth < 1000) stage.scrollIntoView({ block: "start" });
}

function drop() {
  calling?.abort();
  calling = gesture = candidate = null;
  edit.notThis = false;
  namePanel.hidden = true;
  stage.dataset.asking = "false";
  draw();
}

const namesShown = () => candidate.masks?.[candidate.at]?.names || candidate.names;

function showNames() {
  const many = candidate.masks?.length || 0;
  namePanel.hidden = false;
  // On the other side of what was pressed.
  const y = candidate.points[0]?.[1] ?? candidate.box?.[1] ?? 0;
  namePanel.dataset.side = y > 0.5 * result.photo.height ? "top" : "bottom";
  nameTitle.textContent = candidate.title || (many > 1 ? `What is this? Mask ${candidate.at + 1} of ${many}` : "What is this?");
  nameOther.hidden = many < 2;
  nameNot.hidden = candidate.kind !== "add";
  nameNot.setAttribute("aria-pressed", String(edit.notThis));
  nameList.replaceChildren(...namesShown().map(({ name, score }, i) => {
    const text = make("span", { class: "ov-name" }, name);
    const one = button("", { class: "ed-best" });
    one.append(text, score == null ? "" : make("span", { class: "ov-number" }, ` ${confidencePercent(score)} %`));
    if (i === 0) one.dataset.first = "true";
    one.addEventListener("click", () => accept(name));
    return one;
  }));
}

async function otherMask(step = 1) {
  const many = candidate?.masks?.length || 0;
  if (many < 2) return;
  candidate.at = (candidate.at + step + many) % many;
  delete layers["ed candidate"];
  showNames();
  draw();
  const mine = candidate, one = candidate.masks[candidate.at];
  if (one.names) return;
  const { names } = await callAboutPhoto("names", { masks: [one.counts], ...asked() }).catch((error) => ({ names: [[]], error }));
  one.names = names[0];
  if (mine === candidate && candidate.masks[candidate.at] === one) showNames();
}

const wordsNow = () => document.querySelector("#words textarea")?.value ?? result.asked?.words ?? "";
const asked = () => ({ words: wordsNow(), arm: mainArm().name });

// Asks what the presses and the box mean.
async function askForRegion(kind, points, box, target = null) {
  calling?.abort();
  const control = calling = new AbortController();
  candidate = { kind, points, box, target, masks: null, names: [], at: 0 };
  stage.dataset.asking = "true";
  hint("Looking …");
  draw();
  setTimeout(() => { if (calling === control) hint("Looking; a photo that is new to the server takes some seconds …"); }, 1500);
  try {
    const began = performance.now();
    const { masks } = await callAboutPhoto("regions", { points, box, ...asked() }, control.signal);
    if (calling !== control) return;
    let found = masks.map((one) => ({ ...one, mask: decodeMask(one.counts, result.width, result.height) }));
    if (target) found = partsOf(target, found);
    if (!found.length) throw new CallError("This press means the whole region; press on a smaller part of it.");
    unkept = null;
    propose({ kind, points, box, target, masks: found });
    stage.dataset.took = String(Math.round(performance.now() - began));
    hint(kind === "add" ? "Choose a name or type one. Press again for more of it, Alt and press: not this." : "Choose a name for the part or type one.");
  } catch (error) {
    if (calling !== control || error.name === "AbortError") return;
    drop();
    hint(error.message, "error");
  } finally {
    if (calling === control) {
      calling = null;
      stage.dataset.asking = "false";
    }
  }
}

// What lies in a region of each mask, where that is neither nothing nor everything.
function partsOf(fact, masks) {
  const whole = meantMask(result, mainArm(), fact), area = maskArea(whole);
  return masks.map((one) => {
    const mask = combined(one.mask, whole, (a, b) => a && b);
    return { ...one, mask, counts: encodeMask(mask, result.width, result.height), full: null };
  }).filter(({ mask }) => maskArea(mask) > 0 && maskArea(mask) < area);
}

function accept(name) {
  if (!candidate) return;
  const text = (name ?? nameInput.value).trim().replace(/\s+/g, " ") || (name === undefined ? namesShown()[0]?.name : "") || "";
  const wrong = wrongName(text);
  nameWrong.textContent = wrong;
  if (wrong) return;
  const arm = mainArm(), list = corrections(), { kind, target, targets } = candidate;
  const known = classNamed(arm.classes, text);
  const label = known ? known.name : text, colour = known ? known.colour : freeColour(arm, text);
  const one = candidate.masks?.[candidate.at];
  const next = {
    add: () => [...list, newRegion(result, one.mask, label, colour, true, one.full)],
    cut: () => cutRegion(result, arm, list, target, one.mask, label, colour),
    rename: () => targets.reduce((made, fact) => changedRegion(result, arm, made, fact, { name: label, colour }), list),
    merge: () => mergedRegions(result, arm, list, targets, label, colour),
    brush: () => brushedRegion(result, arm, list, target, one.mask, label, colour),
  }[kind]();
  drop();
  commit(next);
  select(kind === "add" || kind === "cut" ? [next.at(-1).uid] : []);
  hint(`Named ${label}. ${TOOLS[edit.tool][1]}`);
  joinWords(label);
  stage.focus({ preventScroll: true });
}

// A name as it is typed among words: in quotes if it holds what would part it.
const asWord = (name) => (/[,;\n\t，、；،؛"]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name);

// A new word stands among the chips, so that the next run looks for it everywhere.
function joinWords(name) {
  const field = document.querySelector("#words textarea");
  if (!field || result.asked == null || classNamed(edits.base[mainArm().name].classes, name)) return;
  const words = field.value.split(",").map(foldName);
  if (words.includes(foldName(name))) return;
  field.value = [field.value.trim().replace(/,$/, ""), asWord(name)].filter(Boolean).join(", ");
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

// --- what is done with the regions that are selected ---------------------------------------------------------

function rename() {
  const facts = selectedFacts();
  if (!facts.length) return;
  const names = facts[0].corrected ? [] : facts[0].top.map(({ name, score }) => ({ name, score }));
  propose({ kind: "rename", targets: facts, names, title: facts.length > 1 ? `A name for ${facts.length} regions` : `Instead of ${className(mainArm(), facts[0].class_index)}` });
  if (facts[0].corrected) offerNames(facts[0]);
}

async function offerNames(fact) {
  const mine = candidate, mask = encodeMask(meantMask(result, mainArm(), fact), result.width, result.height);
  // Without the server a name can be typed all the same.
  const answer = await callAboutPhoto("names", { masks: [mask], ...asked() }).catch(() => null);
  if (!answer || mine !== candidate) return;
  candidate.names = answer.names[0];
  showNames();
}

// What the result says and nobody has corrected.
const isAcceptable = (fact) => Boolean(fact.class_index) && !fact.corrected;

function acceptSelected() {
  const arm = mainArm(), list = corrections(), facts = selectedFacts().filter(isAcceptable);
  if (!facts.length) return;
  const next = facts.reduce((made, fact) => changedRegion(result, arm, made, fact, { name: regionName(arm, fact), colour: colourOf(arm, fact) }), list);
  commit(next);
  select(next.slice(list.length).map(({ uid }) => uid));
  hint(`${howMany(facts.length, "region")} accepted as ${facts.length > 1 ? "they are" : "it is"}.`);
}

function removeSelected() {
  const facts = selectedFacts();
  if (!facts.length) return;
  commit(facts.reduce((list, fact) => withoutRegion(result, mainArm(), list, fact), corrections()));
  select([]);
  hint(`${howMany(facts.length, "region")} removed. Undo brings ${facts.length > 1 ? "them" : "it"} back.`);
}

function merge() {
  const facts = selectedFacts();
  if (facts.length === 1) {
    edit.merging = !edit.merging;
    hint(edit.merging ? "Press on the region to merge it with." : TOOLS[edit.tool][1]);
    return showTools();
  }
  edit.merging = false;
  const named = facts.find((fact) => fact.class_index);
  if (!named) return propose({ kind: "merge", targets: facts, title: `A name for ${facts.length} regions as one` });
  const arm = mainArm(), next = mergedRegions(result, arm, corrections(), facts, regionName(arm, named), colourOf(arm, named));
  commit(next);
  select([next.at(-1).uid]);
  hint(`${facts.length} regions are one now.`);
}

async function likeThis() {
  const [fact] = selectedFacts();
  if (!fact) return;
  hint("Looking for its like …");
  try {
    const mask = encodeMask(meantMask(result, mainArm(), fact), result.width, result.height);
    const { alike } = await callAboutPhoto("like", { masks: [mask], ...asked() });
    const own = meantMask(result, mainArm(), fact), arm = mainArm();
    const found = alike.map((id) => arm.byId.get(id)).filter((one) => one && one.id !== fact.id && arm.regions.includes(one.id));
    const others = found.filter((one) => {
      const other = meantMask(result, arm, one), both = maskArea(combined(own, other, (a, b) => a && b));
      return both < 0.5 * maskArea(other);
    });
    if (!others.length) return hint("Nothing else in this photo is alike.");
    select([regionKey(fact), ...others.map(regionKey)]);
    const name = regionName(arm, fact);
    propose({ kind: "rename", targets: selectedFacts(), names: name ? [{ name }] : [], title: `${howMany(others.length, "region")} more like this; one name for all` });
    hint("They are outlined. Choose a name for all of them, or drop.");
  } catch (error) {
    hint(error.message, "error");
  }
}

// --- presses -----------------------------------------------------------------------------------------------

const photoPoint = ([x, y]) => [x * result.photo.width, y * result.photo.height];
const mapPoint = ([x, y]) => [x * result.width, y * result.height];
const inPicture = ([x, y]) => x >= 0 && y >= 0 && x < 1 && y < 1;

function factAt(point) {
  const [x, y] = mapPoint(point).map(Math.floor);
  return regionAt(result, mainArm(), y * result.width + x);
}

function press(point, { alt = false, shift = false } = {}) {
  if (!inPicture(point)) return hint("That is outside the photo; press on it.", "error");
  const at = [...photoPoint(point), alt || edit.notThis ? 0 : 1];
  if (edit.merging || edit.tool === "select") return pressRegion(point, shift);
  if (edit.tool === "add") {
    const open = candidate?.kind === "add" ? candidate : null;
    if (!open && !at[2]) return hint("Press on the thing first; then, with Alt, on what does not belong to it.", "error");
    return askForRegion("add", [...(open?.points || []), at], open?.box || null);
  }
  if (edit.tool === "cut") {
    const fact = factAt(point);
    if (!fact) return hint("There is no region here to cut; add one first.", "error");
    select([regionKey(fact)]);
    return askForRegion("cut", [at], null, fact);
  }
}

function pressRegion(point, several) {
  const fact = factAt(point);
  if (!fact) return hint("There is no region here; the tool Add makes one.", "error");
  const key = regionKey(fact), already = edit.selected.includes(key);
  drop();
  if (edit.merging || several) {
    select(already ? edit.selected.filter((one) => one !== key) : [...edit.selected, key]);
    if (edit.merging && edit.selected.length > 1) merge();
    return;
  }
  select([key]);
  hint(`${className(mainArm(), fact.class_index)}: accept, rename, remove or merge it. Shift and press selects several.`);
}

function dragBox(from, to) {
  const [x0, y0] = photoPoint(from.map((v) => Math.min(1, Math.max(0, v)))), [x1, y1] = photoPoint(to.map((v) => Math.min(1, Math.max(0, v))));
  const box = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
  if (box[2] - box[0] < 1 || box[3] - box[1] < 1) return hint("This box has no area; drag one around the thing.", "error");
  return askForRegion("add", [], box);
}

function beginStroke(point) {
  const value = edit.tool === "brush" ? 1 : 0;
  let [fact] = selectedFacts();
  if (!fact) {
    fact = inPicture(point) ? factAt(point) : null;
    if (fact && !(mainArm().regions.includes(fact.id))) fact = null;
    if (fact) select([regionKey(fact)]);
    else if (!value) return void hint("There is nothing here to erase; select a region first.", "error");
  }
  const mask = fact ? meantMask(result, mainArm(), fact).slice() : new Uint8Array(result.width * result.height);
  return { fact, mask, value, last: mapPoint(point), before: fact ? maskArea(mask) : 0 };
}

// However thin it is, it meets the pixel that it is over.
const brushRadius = () => Math.max(0.75, (edit.size / 2 / zoom.scale) * (result.width / Math.max(1, stage.clientWidth)));

function goStroke(line, point) {
  const next = mapPoint(point);
  stroke(line.mask, result.width, result.height, line.last, next, brushRadius(), line.value);
  line.last = next;
  candidate = { kind: "brush", points: [], box: null, names: [], at: 0, masks: [{ mask: line.mask }], target: line.fact, drawing: true };
  delete layers["ed candidate"];
  draw();
}

function endStroke({ fact, mask }) {
  candidate = null;
  delete layers["ed candidate"];
  const arm = mainArm();
  if (fact && fact.class_index) {
    const before = meantMask(result, arm, fact);
    if (mask.every((value, i) => value === before[i])) return hint("Nothing has changed: the brush was where the region already is.", "error"), draw();
    const next = brushedRegion(result, arm, corrections(), fact, mask, regionName(arm, fact), colourOf(arm, fact));
    commit(next);
    const made = fact.uid ? next.find(({ uid }) => uid === fact.uid) : next.findLast(({ name }) => name !== null);
    return select(maskArea(mask) && made ? [made.uid] : []);
  }
  if (!maskArea(mask)) return hint("Nothing of it is left to name; draw where it should be.", "error"), draw();
  const kept = { kind: fact ? "brush" : "add", target: fact, masks: [{ mask, counts: encodeMask(mask, result.width, result.height), full: null, names: [] }] };
  propose(kept);
  const mine = candidate;
  callAboutPhoto("names", { masks: [kept.masks[0].counts], ...asked() }).then(({ names }) => {
    kept.masks[0].names = names[0];
    if (mine === candidate) showNames();
  }, () => { /* A name can be typed. */ });
}

// --- what is drawn over the picture ------------------------------------------------------------------------

function drawEdits(context, width, height, scale) {
  if (!edit.on || !result) return;
  const facts = selectedFacts();
  if (facts.length) {
    layers["ed selected"] ||= outlineLayer(result, (() => {
      const masks = facts.map((fact) => meantMask(result, mainArm(), fact));
      return (i) => masks.reduce((sum, mask) => sum || mask[i], 0);
    })());
    context.filter = "drop-shadow(0 0 3px #fff)";
    place(context, layers["ed selected"], 1, width, height);
    context.filter = "none";
  }
  const mask = candidate?.masks?.[candidate.at]?.mask;
  if (mask) {
    const tint = packed([255, 255, 255], 150);
    const made = (layers["ed candidate"] ||= [layer(result, (i) => (mask[i] ? tint : NOTHING)), candidate.drawing ? null : outlineLayer(result, (i) => mask[i])]);
    for (const one of made) if (one) place(context, one, 1, width, height);
  }
  const unit = (v, of, size) => (v / of) * size;
  for (const [x, y, inside] of candidate?.points || []) {
    drawDot(context, unit(x, result.photo.width, width), unit(y, result.photo.height, height), scale, inside ? "#1f9d55" : "#c8372d", inside ? "+" : "-");
  }
  const box = gesture?.box || (candidate?.box && [candidate.box.slice(0, 2), candidate.box.slice(2)].map(([x, y]) => [x / result.photo.width, y / result.photo.height]));
  if (box) drawBox(context, box, width, height, scale);
  if (edit.cursor) drawDot(context, edit.cursor[0] * width, edit.cursor[1] * height, scale, "#101216", "");
}

function drawDot(context, x, y, scale, colour, sign) {
  context.beginPath();
  context.arc(x, y, 8 * scale, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
  context.lineWidth = 2 * scale;
  context.strokeStyle = "#fff";
  context.stroke();
  if (!sign) return;
  context.beginPath();
  context.moveTo(x - 4 * scale, y);
  context.lineTo(x + 4 * scale, y);
  if (sign === "+") {
    context.moveTo(x, y - 4 * scale);
    context.lineTo(x, y + 4 * scale);
  }
  context.stroke();
}

function drawBox(context, [[x0, y0], [x1, y1]], width, height, scale) {
  for (const [colour, thick, dash] of [["rgb(16 18 22 / 0.9)", 4, []], ["#fff", 2, [8, 6]]]) {
    context.setLineDash(dash.map((part) => part * scale));
    context.lineWidth = thick * scale;
    context.strokeStyle = colour;
    context.strokeRect(x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height);
  }
  context.setLineDash([]);
}

onDrawn.push(drawEdits);
onEdited.push(() => { edit.selected = edit.selected.filter((key) => regionByKey(mainArm(), key)); showTools(); });

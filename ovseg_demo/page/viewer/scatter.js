// Where the words and the regions of the photo lie in the space that they share, on a map of two directions.

const scatter = { answer: null, asking: false, focus: null, points: new Map() };
const scatterPanel = studyPanel("ov-space", "Where words and regions lie", fillScatter);

onForgotten.push(() => {
  Object.assign(scatter, { answer: null, asking: false, focus: null, points: new Map() });
  scatterPanel.clear();
});
// A region that is pointed at in the picture is marked on the map.
onDrawn.push(() => {
  for (const [id, point] of scatter.points) point.classList.toggle("ov-at", id === view.current || id === view.pinned);
});

async function fillScatter(body) {
  if (scatter.answer || scatter.asking) return;
  scatter.asking = true;
  body.replaceChildren(make("p", { role: "status" }, "Looking at every region again …"));
  const shown = result, facts = shown.sent.arms[mainArm().name].facts;
  try {
    const bits = shown.bits.subarray(0, facts.length * shown.bytesPerMask);
    const file = await uploaded(new File([await deflated(bits)], "masks.bin"));
    scatter.answer = await ask("space", { count: facts.length }, [file]);
    if (shown === result) body.replaceChildren(...scatterParts(scatter.answer, facts.map(({ id }) => id)));
  } catch (error) {
    if (shown === result) body.replaceChildren(make("p", { class: "ov-wrong", role: "status" }, error instanceof OvertakenError ? "" : error.message));
  } finally {
    if (shown === result) scatter.asking = false;
  }
}

function scatterParts(answer, ids) {
  const names = Object.keys(answer.regions);
  const rows = ids.map((id, i) => ({ id, at: names.map((name) => answer.regions[name][i]) }));
  const moves = names.length > 1;
  const kept = (share) => `${Math.round(100 * share)} %`;
  const told = `Each dot is a region${moves ? `, with an arrow from where ${nameOfArm(names[0])} CLIP sees it to where ${nameOfArm(names[1])} CLIP does` : ""}; each diamond is a word. ` +
    `The two directions are the principal ones of regions and words together. They keep ${kept(answer.regions_kept)} of what sets regions apart and ${kept(answer.words_kept)} of what sets words apart, ` +
    "so what is near here may differ in what is left out. Regions are drawn from their own mean and words from theirs, as CLIP keeps pictures and words apart." +
    (answer.words_moved ? ` The two read words differently; they stand where ${nameOfArm(names.at(-1))} CLIP has them.` : "");
  const parts = [make("p", {}, told), scatterMap(answer, rows), make("p", { class: "ov-space-told", role: "status" })];
  const list = rows.map(({ id, at }) => {
    const says_ = names.map((name) => className(result.arms[name], result.arms[name].byId.get(id)?.class_index || 0));
    const moved = Math.hypot(at.at(-1)[0] - at[0][0], at.at(-1)[1] - at[0][1]);
    return { moved, cells: [`#${id}`, ...says_.map((name) => make("span", { class: "ov-name" }, name)), ...(moves ? [moved.toFixed(2)] : []), ...at.map(([x, y]) => `${x.toFixed(2)}, ${y.toFixed(2)}`)] };
  }).sort((a, b) => b.moved - a.moved);
  const titles = names.map(nameOfArm), capital = (text) => text[0].toUpperCase() + text.slice(1);
  const heads = ["Region", ...titles.map((title) => `${capital(title)} says`), ...(moves ? ["Moved by"] : []), ...titles.map((title) => `Place, ${title}`)];
  const words = askedClasses().map((c, i) => [called(c), answer.words[i].map((v) => v.toFixed(2)).join(", ")]);
  return [...parts, make("details", { class: "ov-space-table" }, make("summary", {}, "The same as tables"),
    scrolling("Places of the regions", table("Regions, the one that moved farthest first", heads, list.map(({ cells }) => cells))),
    scrolling("Places of the words", table("Words", ["Word", "Place"], words)))];
}

function scatterMap(answer, rows) {
  const width = 720, height = 480, edge = 44;
  const every = [...rows.flatMap(({ at }) => at), ...answer.words];
  const [low, high] = [0, 1].map((axis) => every.map((point) => point[axis])).reduce(([lows, highs], values) => [[...lows, Math.min(...values)], [...highs, Math.max(...values)]], [[], []]);
  // One scale for both directions, so that distances are what they look like.
  const scale = Math.min((width - 2 * edge) / Math.max(1e-6, high[0] - low[0]), (height - 2 * edge) / Math.max(1e-6, high[1] - low[1]));
  const place = ([x, y]) => [width / 2 + (x - (low[0] + high[0]) / 2) * scale, height / 2 - (y - (low[1] + high[1]) / 2) * scale];
  scatter.points = new Map(rows.map((row) => [row.id, regionPoint(row.id, row.at.map(place))]));
  scatter.focus = rows[0].id;
  scatter.points.get(scatter.focus).setAttribute("tabindex", "0");
  const words = askedClasses().map((c, i) => wordPoint(c, place(answer.words[i]), width));
  const marker = svgNode("marker", { id: "ov-arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, svgNode("path", { d: "M0 0L8 4L0 8z", class: "ov-arrow-head" }));
  const map = svgNode("svg", { viewBox: `0 0 ${width} ${height}`, class: "ov-space-map", role: "group", "aria-label": "Map of regions and words. Arrow keys walk from region to region, Enter pins one." },
    svgNode("defs", {}, marker), ...scatter.points.values(), ...words);
  map.addEventListener("keydown", walkScatter);
  return map;
}

function regionPoint(id, at) {
  const facts = Object.values(result.arms).map((arm) => [arm, arm.byId.get(id)]).filter(([, fact]) => fact);
  const own = mainArm().byId.get(id), c = own?.class_index && mainArm().classes[own.class_index - 1];
  const label = `Region #${id}: ${facts.map(([arm, fact]) => `${titleOf(arm)} says ${className(arm, fact.class_index)}`).join(", ")}`;
  const [from, to] = [at[0], at.at(-1)];
  const point = svgNode("g", { class: "ov-point", role: "button", tabindex: "-1", "aria-label": label });
  if (at.length > 1) {
    point.append(svgNode("line", { x1: from[0], y1: from[1], x2: to[0], y2: to[1], "marker-end": "url(#ov-arrow)" }), svgNode("circle", { cx: from[0], cy: from[1], r: 3, class: "ov-from" }));
  }
  point.append(svgNode("circle", { cx: to[0], cy: to[1], r: 5, class: "ov-to", fill: c ? `rgb(${c.colour.join(",")})` : "#8a8f98" }), svgNode("circle", { cx: to[0], cy: to[1], r: 11, class: "ov-reach" }));
  const enter = () => {
    view.current = id;
    find(".ov-space-told").textContent = label;
    draw();
  };
  point.addEventListener("pointerenter", enter);
  point.addEventListener("focus", enter);
  point.addEventListener("pointerleave", leave);
  point.addEventListener("blur", leave);
  point.addEventListener("click", () => pin(id));
  return point;
}

function wordPoint(c, [x, y], width) {
  const right = x > width - 120;
  return svgNode("g", { class: "ov-word" },
    svgNode("path", { d: `M${x - 8} ${y}L${x} ${y - 8}L${x + 8} ${y}L${x} ${y + 8}z`, fill: `rgb(${c.colour.join(",")})` }),
    svgNode("text", { x: right ? x - 12 : x + 12, y: y + 5, "text-anchor": right ? "end" : "start" }, shortened(c.name, 24)));
}

function walkScatter(event) {
  const ids = [...scatter.points.keys()], at = ids.indexOf(scatter.focus);
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    return pin(scatter.focus);
  }
  if (!step) return;
  event.preventDefault();
  scatter.points.get(scatter.focus).setAttribute("tabindex", "-1");
  scatter.focus = ids[(at + step + ids.length) % ids.length];
  scatter.points.get(scatter.focus).setAttribute("tabindex", "0");
  scatter.points.get(scatter.focus).focus();
}

// In the card of a region: what mattered in its crop for a word, in every arm that is shown, on one scale.

const why = { open: false, region: null, word: 0, answers: new Map(), asked: new Set() };
// Orange speaks for the word, purple against it: apart for every kind of colour vision.
const FOR_WORD = [230, 97, 1], AGAINST_WORD = [94, 60, 153];

onForgotten.push(() => {
  why.region = null;
  why.answers.clear();
  why.asked.clear();
});

cardParts.push((fact) => {
  if (!result.key || !result.bits) return "";
  if (why.region !== fact.id) {
    const classes = askedClasses();
    const own = fact.class_index <= classes.length && fact.class_index;
    why.word = own || (classes.find((c) => c.name === fact.top[0]?.name) || classes[0]).index;
  }
  why.region = fact.id;
  const body = make("div", { class: "ov-why-body", "aria-live": "polite" });
  const panel = make("details", { class: "ov-why" }, make("summary", {}, "What mattered in the crop"), wordChoice(fact, () => fillWhy(fact, body)), body);
  panel.open = why.open;
  panel.addEventListener("toggle", () => {
    why.open = panel.open;
    if (panel.open) fillWhy(fact, body);
  });
  return panel;
});

// The words that come closest first.
function wordChoice(fact, changed) {
  const classes = askedClasses(), best = fact.top.map(({ name }) => name);
  const place = (c) => (best.includes(c.name) ? best.indexOf(c.name) : best.length);
  const choice = make("select", {}, ...[...classes].sort((a, b) => place(a) - place(b)).map((c) => make("option", { value: c.index }, c.name)));
  choice.value = why.word;
  choice.addEventListener("change", () => {
    why.word = Number(choice.value);
    changed();
  });
  return make("label", { class: "ov-why-word" }, "for the word ", choice);
}

async function fillWhy(fact, body) {
  const key = `${fact.id} ${why.word}`, word = why.word;
  const answer = why.answers.get(key);
  body.setAttribute("aria-busy", String(!answer));
  if (answer) return void body.replaceChildren(...whyParts(answer, mainArm().classes[word - 1].name));
  body.replaceChildren(make("p", {}, "Hiding one part of the crop after the other …"));
  if (why.asked.has(key)) return;
  why.asked.add(key);
  try {
    const mask = btoa(Array.from(await deflated(bitsOf(fact)), (byte) => String.fromCharCode(byte)).join(""));
    const found = await ask("importance", { word, mask });
    found.pictures = await Promise.all(found.maps.map((map) => loadPhoto({ url: map.crop })));
    why.answers.set(key, found);
    // The card may have been filled anew meanwhile.
    const here = find(".ov-why-body");
    if (here && why.region === fact.id && why.word === word) fillWhy(fact, here);
  } catch (error) {
    if (error instanceof OvertakenError || why.region !== fact.id || why.word !== word) return;
    const here = find(".ov-why-body");
    here?.replaceChildren(make("p", { class: "ov-wrong" }, error.message));
    here?.setAttribute("aria-busy", "false");
  } finally {
    why.asked.delete(key);
  }
}

// One bit a pixel of the map, row by row.
function bitsOf(fact) {
  const bits = new Uint8Array(result.bytesPerMask);
  for (let i = 0; i < result.width * result.height; i++) if (inRegion(result, fact, i)) bits[i >> 3] |= 128 >> (i & 7);
  return bits;
}

function whyParts({ maps, pictures }, word) {
  const most = Math.max(0.05, ...maps.flatMap((map) => map.effect.flat().map(Math.abs)));
  const figures = maps.map((map, i) => {
    const picture = heatMap(map, pictures[i], most);
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", `${nameOfArm(map.arm)}: ${strongest(map)}`);
    return make("figure", {}, picture, make("figcaption", {}, ...lead(map, word)));
  });
  const told = "Each part of the crop is hidden in turn. Its colour says how much of the lead over the strongest rival goes with it: " +
    "orange parts speak for the word, purple ones against it. The maps have one scale. Leads are taken before the softmax: there, a lead of 1 makes a word 2.7 times as probable as its rival.";
  const context = maps.some((map) => map.pools_photo)
    ? " The context arm looks at the photo under the region: a hidden part is left out there, and the photo itself stays whole." : "";
  return [make("div", { class: "ov-why-maps" }, ...figures), scaleOf(most), make("p", {}, told + context)];
}

const nameOfArm = (name) => titleOf(result.arms[name] || { name });

function lead(map, word) {
  const ahead = map.margin >= 0, by = Math.abs(map.margin);
  const typed = askedClasses().some((c) => c.name === map.rival);
  return [
    make("b", {}, nameOfArm(map.arm)), ": ", make("span", { class: "ov-name" }, word), ahead ? " leads " : " trails ",
    make("span", { class: "ov-name" }, map.rival), typed ? "" : ", which nobody typed,",
    ` by ${by.toFixed(1)}`,
  ];
}

// For those who do not see the colours.
function strongest({ effect, shown }) {
  let best = null, worst = null;
  effect.forEach((row, y) => row.forEach((value, x) => {
    if (!shown[y][x]) return;
    if (!best || value > best.value) best = { value, x, y };
    if (!worst || value < worst.value) worst = { value, x, y };
  }));
  const size = `${effect.length} by ${effect.length}`, at = ({ x, y, value }) => `row ${y + 1}, column ${x + 1} of ${size} (${value.toFixed(2)})`;
  if (!best) return "nothing of the region is shown";
  return `the part that speaks most for the word is ${at(best)}` + (worst.value < 0 ? `, most against it ${at(worst)}` : ", none speaks against it");
}

function heatMap({ effect, shown }, picture, most) {
  const size = 224, canvas = make("canvas", { width: size, height: size });
  const context = canvas.getContext("2d");
  context.filter = "grayscale(1)";
  context.drawImage(picture, 0, 0, size, size);
  context.filter = "none";
  const cell = size / effect.length;
  effect.forEach((row, y) => row.forEach((value, x) => {
    if (!shown[y][x]) return;
    context.fillStyle = heat(value / most);
    context.fillRect(Math.round(x * cell), Math.round(y * cell), Math.ceil(cell), Math.ceil(cell));
  }));
  return canvas;
}

const heat = (share) => `rgb(${(share < 0 ? AGAINST_WORD : FOR_WORD).join(" ")} / ${(0.85 * Math.min(1, Math.abs(share))).toFixed(3)})`;

function scaleOf(most) {
  const steps = [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1];
  const bar = make("span", { class: "ov-scale-bar", "aria-hidden": "true" }, ...steps.map((share) => make("i", { style: `background:${heat(share)}` })));
  const number = most.toFixed(most < 1 ? 2 : 1);
  return make("div", { class: "ov-scale" }, bar, make("span", {}, `against it −${number}`), make("span", {}, `for it +${number}`));
}

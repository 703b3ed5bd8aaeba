// The result against the truth of its photo, a label map or what the visitor corrected: how right each arm is.

const truthPanel = studyPanel("ov-truth", "Against truth", fillTruth);
// `of`: what is taken as truth, "files" or "corrections"; null while nothing is.
const truth = { arm: null, of: null, soon: 0 };
const truthButton = button("Use my corrections as truth", { class: "ov-truth-own" });
const truthOwn = make("p", { class: "ov-truth-count" });

onForgotten.push(() => {
  Object.assign(truth, { arm: null, of: null });
  truthPanel.clear();
});

function fillTruth(body) {
  if (!body.children.length) {
    const input = make("input", { type: "file", accept: ".png,.json", multiple: "" });
    input.addEventListener("change", () => { if (input.files.length) judgeBy([...input.files]); });
    body.append(
      make("p", {}, "A label map of this photo says how right the result is: a palette or grey PNG of class numbers, and its classes.json if it has one, as this page exports them. Without names, number 1 is the first word. 0 and 255 count nowhere."),
      make("label", { class: "ov-truth-drop" }, make("span", {}, "Drop the files here, or choose them"), input),
      make("p", {}, "Or say yourself what is there: with Correct regions above the picture, accept what is right, name, add, merge or draw the rest. Only what you corrected or accepted counts; the rest of the photo is not labelled."),
      make("div", { class: "ov-truth-by-hand" }, truthButton, truthOwn),
      make("div", { class: "ov-truth-found", "aria-live": "polite" }));
  }
  tellOwnTruth();
}

function tellOwnTruth() {
  const named = corrections().filter(({ name }) => name !== null);
  truthButton.disabled = !named.length;
  truthOwn.textContent = named.length ? `${howMany(named.length, "region")} with a name from you.` : "Nothing is corrected or accepted yet.";
}

truthButton.addEventListener("click", judgeByCorrections);
// The figures follow the corrections that they are made of.
onEdited.push((before) => {
  tellOwnTruth();
  if (truth.of !== "corrections" || before === corrections()) return;
  clearTimeout(truth.soon);
  truth.soon = setTimeout(() => { if (truth.of === "corrections" && edits.base) judgeByCorrections(); }, 400);
});

for (const kind of ["dragover", "drop"]) {
  truthPanel.body.addEventListener(kind, (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    if (kind === "drop" && event.dataTransfer.files.length) judgeBy([...event.dataTransfer.files]);
  });
}

function judgeBy(files) {
  truth.of = "files";
  return judge(() => Promise.all(files.map(uploaded)), "truth");
}

function judgeByCorrections() {
  truth.of = "corrections";
  const sent = JSON.stringify(sentCorrections(result, corrections()));
  return judge(async () => [await uploaded(new File([sent], "corrections.json", { type: "application/json" }))], "corrected");
}

async function judge(files, kind) {
  const shown = result, found = find(".ov-truth-found"), of = truth.of;
  const stale = () => shown !== result || of !== truth.of;
  // While figures are brought up to date, the last ones stay.
  if (!found.querySelector("table")) found.replaceChildren(make("p", {}, "Comparing …"));
  found.setAttribute("aria-busy", "true");
  try {
    const answer = await ask(kind, {}, await files());
    if (!stale()) showTruth(answer, found);
  } catch (error) {
    if (stale() || error instanceof OvertakenError) return;
    found.replaceChildren(make("p", { class: "ov-wrong" }, error.message));
  }
  found.setAttribute("aria-busy", "false");
}

const outOf100 = (value) => (value === null ? "–" : `${value.toFixed(1)} %`);
const capitalised = (text) => text[0].toUpperCase() + text.slice(1);

function showTruth(answer, found) {
  // The plainer arm first, as everywhere.
  const names = Object.keys(answer.arms).reverse(), classes = askedClasses();
  if (!names.includes(truth.arm)) truth.arm = names.at(-1);
  const each = (what) => names.map((name) => `${nameOfArm(name)} ${outOf100(answer.arms[name][what])}`).join(", ");
  const left = Object.entries(answer.left_out), own = truth.of === "corrections";
  const why = own ? "because this result was not asked for them; press Run" : "because nobody typed them";
  const leftTold = left.length ? `Left out, ${why}: ${left.slice(0, 6).map(([name, share]) => `${name} (${percent(share)})`).join(", ")}${left.length > 6 ? ` and ${left.length - 6} more` : ""}. ` : "";
  const heads = ["Class", ...names.map((name) => `Right, ${nameOfArm(name)}`), ...names.map((name) => `IoU, ${nameOfArm(name)}`)];
  const rows = classes.filter((c, i) => answer.shown.includes(c.index) || names.some((name) => answer.arms[name].iou[i] !== null)).map((c) => [
    called(c), ...names.map((name) => outOf100(answer.arms[name].accuracy[c.index - 1])), ...names.map((name) => outOf100(answer.arms[name].iou[c.index - 1])),
  ]);
  const confusion = make("div", {});
  const choice = make("select", {}, ...names.map((name) => make("option", { value: name }, nameOfArm(name))));
  choice.value = truth.arm;
  choice.addEventListener("change", () => {
    truth.arm = choice.value;
    confusion.replaceChildren(confusionTable(answer, truth.arm));
  });
  confusion.append(confusionTable(answer, truth.arm));
  found.replaceChildren(
    make("p", { class: "ov-truth-told" }, `Pixels right: ${each("pixel_accuracy")}. mIoU: ${each("miou")}. Mean over classes: ${each("mean_class_accuracy")}.`),
    make("p", {}, `${leftTold}${truthTold(answer, own)}`),
    scrolling("Accuracy of each class", table("Each class", heads, rows)),
    ...(names.length > 1 ? [make("label", { class: "ov-why-word" }, "What became of each class, by ", choice)] : []), confusion,
    ...reliabilityParts(answer, names));
}

function truthTold(answer, own) {
  const corrected = corrections().length > 0, known = percent(answer.known);
  const parts = own
    ? [`The truth is what you corrected or accepted, ${known} of the photo; the result is judged as it was before. Who corrects only what is wrong finds how wrong that was, not how right the whole is.`]
    : [`The truth is known for ${known} of the photo.`, corrected ? "Your corrections take no part." : ""];
  if (own && answer.examples) parts.push(`${howMany(answer.examples, "example")} of your memory took part in this result; those of this photo make it look better than it is.`);
  return [...parts, "One photo says little of a model."].filter(Boolean).join(" ");
}

// In percent of the pixels of each true class.
function confusionTable(answer, name) {
  const classes = askedClasses(), { confusion } = answer.arms[name];
  const used = [0, ...classes.map((c) => c.index)].filter((column) => confusion.some((row) => row[column]));
  const rows = confusion.map((row, i) => {
    const total = row.reduce((sum, n) => sum + n, 0);
    return [called(classes[answer.shown[i] - 1]), ...used.map((column) => {
      const share = row[column] / Math.max(1, total);
      return make("span", { class: "ov-share", style: `--ov-share:${(40 * share).toFixed(0)}%` }, percent(share));
    })];
  });
  const heads = ["True class", ...used.map((column) => (column ? make("span", { class: "ov-name" }, classes[column - 1].name) : "unassigned"))];
  return scrolling("Confusion of classes", table(`Confusion, ${nameOfArm(name)}: what the pixels of each true class were called`, heads, rows));
}

// Confidence against the share that is right, each pixel with the confidence of its region.
function reliabilityParts(answer, names) {
  const size = 220, edge = 28, at = (x, y) => [edge + x * (size - edge - 8), size - edge - y * (size - edge - 8)];
  const line = (points, attributes) => svgNode("polyline", { points: points.map((point) => at(...point).join(",")).join(" "), ...attributes });
  const chart = svgNode("svg", { viewBox: `0 0 ${size} ${size}`, class: "ov-reliability", role: "img", "aria-label": "Confidence against the share that is right; the table beside it has the numbers" },
    line([[0, 1], [0, 0], [1, 0]], { class: "ov-axis" }), line([[0, 0], [1, 1]], { class: "ov-ideal" }),
    svgNode("text", { x: size / 2 + 8, y: size - 6, "text-anchor": "middle" }, "confidence"),
    svgNode("text", { x: 12, y: size / 2 - 8, "text-anchor": "middle", transform: `rotate(-90 12 ${size / 2 - 8})` }, "share right"));
  const bins = new Map();
  names.forEach((name, i) => {
    const { confidence, right, count } = answer.arms[name].reliability;
    const points = confidence.map((value, k) => [value, right[k]]);
    chart.append(line(points, { class: `ov-curve ov-curve-${names.length - 1 - i}` }), ...points.map((point) => svgNode("circle", { cx: at(...point)[0], cy: at(...point)[1], r: 3.5, class: `ov-dot-${names.length - 1 - i}` })));
    confidence.forEach((value, k) => {
      const bin = Math.min(9, Math.floor(10 * value));
      bins.set(bin, { ...bins.get(bin), [name]: `${percent(right[k])} of ${count[k].toLocaleString("en")}` });
    });
  });
  const rows = [...bins].sort(([a], [b]) => a - b).map(([bin, told]) => [`${10 * bin} to ${10 * bin + 10} %`, ...names.map((name) => told[name] || "–")]);
  const errors = names.map((name) => `${nameOfArm(name)} ${(100 * answer.arms[name].reliability.error).toFixed(1)} %`).join(", ");
  const key = names.length > 1 ? ` The solid line is ${nameOfArm(names.at(-1))}, the dashed one ${nameOfArm(names[0])}.` : "";
  return [
    make("p", {}, `Reliability: a confidence is honest where its line lies on the diagonal. Mean distance from it: ${errors}.${key}`),
    make("div", { class: "ov-reliability-body" }, chart, scrolling("Reliability", table("Pixels that are right, by confidence", ["Confidence", ...names.map((name) => capitalised(nameOfArm(name)))], rows))),
  ];
}

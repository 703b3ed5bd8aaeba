// Corrections on their way out, into files, and on their way in, from files.

async function deflatedText(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return base64Of(new Uint8Array(await new Response(stream).arrayBuffer()));
}

function base64Of(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}

// What the server sent, with the corrections in it: for the page that is saved.
async function correctedPayload(shown) {
  if (!edits.base || !corrections().length) return shown.sent;
  const arms = {};
  let added = [];
  for (const [name, arm] of Object.entries(shown.arms)) {
    added = [...arm.byId.values()].filter((fact) => fact.corrected);
    const facts = [...arm.byId.values()].map(({ mask, place, ...fact }) => fact);
    const classes = arm.classes.map(({ corrected, ...c }) => c), spots = arm.spots;
    const [labels, regions] = await Promise.all([arm.labels, arm.regions].map((map) => deflatedText(new Uint8Array(map.buffer))));
    arms[name] = { ...shown.sent.arms[name], labels, regions, facts, classes, spots, unassigned_fraction: arm.unassigned_fraction };
  }
  const bits = new Uint8Array((shown.bits?.length || 0) + added.length * shown.bytesPerMask);
  if (shown.bits) bits.set(shown.bits);
  added.forEach((fact, number) => {
    const from = (shown.bits?.length || 0) + number * shown.bytesPerMask;
    fact.mask.forEach((value, i) => { if (value) bits[from + (i >> 3)] |= 128 >> (i & 7); });
  });
  return { ...shown.sent, arms, masks: shown.bits ? await deflatedText(bits) : null };
}

// Where the corrections of the photo lie on the server for the next file; null if there are none.
async function correctionsPath() {
  if (!result || !edits.base || !corrections().length) return null;
  const text = JSON.stringify(sentCorrections(result, corrections()));
  return (await upload(new File([text], "corrections.json", { type: "application/json" }))).path;
}

// --- opening labels of a photo ------------------------------------------------------------------------------

const labelFiles = make("input", { type: "file", multiple: "", accept: ".json,.png,application/json,image/png", "aria-label": "Label files", hidden: "" });
const openLabels = button("Open labels", { class: "ed-open", title: "COCO JSON, or a label map as PNG with its classes.json, of this photo" });
redoButton.after(openLabels, labelFiles);

async function openLabelFiles(files) {
  hint("Reading the labels …");
  try {
    const sent = [];
    for (const file of files) sent.push((await upload(file)).path);
    const { regions } = await callAboutPhoto("open", { files: sent, photo_name: result.photo_name, ...asked() });
    if (!regions.length) return hint("There are no labels of this photo in the file.", "error");
    const arm = mainArm(), classes = arm.classes.slice();
    const made = regions.map(({ counts, full, name }) => {
      const known = name === null ? null : classNamed(classes, name);
      const colour = name === null ? null : known ? known.colour : freeColour({ classes }, name);
      if (name !== null && !known) classes.push({ name, synonyms: [name], colour });
      return { uid: newUid(), counts, full, name: known ? known.name : name, colour, added: true };
    });
    commit([...corrections(), ...made]);
    for (const name of new Set(made.map((one) => one.name).filter(Boolean))) joinWords(name);
    hint(`${howMany(made.length, "region")} opened. Undo takes them away again.`);
  } catch (error) {
    hint(error.message, "error");
  }
}

openLabels.addEventListener("click", () => labelFiles.click());
labelFiles.addEventListener("change", async () => {
  const files = [...labelFiles.files];
  labelFiles.value = "";
  if (files.length) await openLabelFiles(files);
});

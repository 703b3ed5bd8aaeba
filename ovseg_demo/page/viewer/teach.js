// Teaching: mask prompts tuned on the visitor's corrections. They are kept in this browser and sent along with a
// run, as the arm "yours"; nobody else's run has them.

const LEAST_TO_TEACH = 20, MOST_LESSONS = 100;
// { prompts, facts, message, model }, or null; in the database of the memory, under a name of its own.
let taught = null, teaching = null, promptsSent = { text: null, path: null, time: 0 };
let stoppedAt = 0;
let lessonsHere = { regions: 0, photos: [] };

const teachStart = button("Teach"), teachStop = button("Stop", { hidden: "" });
const teachBar = make("progress", { max: "1", value: "0", "aria-label": "Progress of teaching", hidden: "" });
const teachCount = make("span", {}), teachTold = make("p", { class: "ed-hint", role: "status" });
const teachUse = make("input", { type: "checkbox" });
const teachShow = button("Compare adapted with yours"), teachSave = button("Download"), teachDrop = button("Forget it");
const teachOwn = make("div", { class: "ed-row" }, make("label", {}, teachUse, " Use what was taught"), teachShow, teachSave, teachDrop);
const teachPanel = make("section", { class: "mem-teach", "aria-label": "Teach" },
  make("p", {}, "With twenty corrected regions and more, the mask prompts of the adapted CLIP can be tuned on them: up to two minutes on two cores. What is learned is checked on corrections that are kept out, and dropped where it does not help."),
  make("div", { class: "ed-row" }, teachStart, teachStop, teachBar, teachCount), teachTold, teachOwn);
memoryPanel.append(teachPanel);

const teachTell = (text, level = "") => { teachTold.textContent = text; teachTold.dataset.level = level; };
const promptsOn = () => Boolean(taught) && !taught.off && taught.model === modelNow();

function showTeaching() {
  const { regions, photos } = lessonsHere;
  teachCount.textContent = regions < LEAST_TO_TEACH ? `${howMany(regions, "named region")} of ${LEAST_TO_TEACH}` : `${howMany(regions, "named region")} in ${howMany(photos.length, "photo")}`;
  teachStart.disabled = Boolean(teaching) || regions < LEAST_TO_TEACH;
  teachStop.hidden = teachBar.hidden = !teaching;
  teachOwn.hidden = !taught;
  if (!taught) return;
  teachUse.checked = promptsOn();
  teachUse.disabled = teachShow.disabled = taught.model !== modelNow();
}

// Every photo of this browser with corrections, the newest first.
async function countLessons() {
  const kept = await photosNewestFirst().catch(() => []);
  const named = ({ edits: { history, at } }) => history[at].filter(({ name }) => name !== null).length;
  const photos = kept.filter((one) => one.edits && named(one)).slice(0, MOST_LESSONS);
  lessonsHere = { photos, regions: photos.reduce((sum, one) => sum + named(one), 0) };
  showTeaching();
}

async function sendLessons() {
  await saving;
  await countLessons();
  const photos = [];
  for (const { photo: bytes, name, edits: { history, at, width, height } } of lessonsHere.photos) {
    if (!teaching) return null;
    const { path } = await upload(new File([bytes], name || "photo", { type: bytes.type }));
    const regions = history[at].map(({ counts, full, name: called }) => ({ counts, full: full || null, name: called }));
    photos.push({ path, map: [height, width], regions });
  }
  const content = JSON.stringify({ models: result?.asked ? modelsOf(result) : {}, photos });
  return (await upload(new File([content], "lessons.json", { type: "application/json" }))).path;
}

function endTeaching(text, level = "") {
  teaching = null;
  teachTell(text, level);
  showTeaching();
}

teachStart.addEventListener("click", async () => {
  teaching = { model: modelNow(), path: null };
  teachBar.value = 0;
  teachTell("Sending the photos …");
  showTeaching();
  try {
    const path = await sendLessons();
    if (!path || !teaching) return;
    teaching.path = path;
    document.querySelector("#teach")?.click();
  } catch {
    endTeaching("The photos could not be sent; what you have corrected stays. Try again in a moment.", "error");
  }
});
teachStop.addEventListener("click", () => {
  document.querySelector("#teach-stop")?.click();
  if (teaching?.path) stoppedAt = Date.now();
  endTeaching("Stopped; nothing was learned.");
});

async function takeTeaching({ kind, to, message, fraction, error, prompts, facts }) {
  if (!teaching || teaching.path !== to) return;
  if (kind === "teaching") {
    teachBar.value = fraction;
    return teachTell(`${message} …`);
  }
  if (error) return endTeaching(error, "error");
  taught = { id: "prompts", prompts, facts, message, model: teaching.model, off: false };
  endTeaching(message);
  await keepTaught().catch(() => teachTell(`${message} This browser keeps nothing for pages: download it.`));
}

Object.assign(globalThis.ovseg, {
  lessonsPath: () => [teaching?.path ?? null],
  teachingStopped: () => {},
  async teachingFailed() {
    // What was stopped is called failed by Gradio some time later.
    const quiet = Date.now() - stoppedAt < 60_000;
    stoppedAt = 0;
    if (teaching && !quiet) endTeaching("Teaching was cut off: the connection was lost, or the waiting line is full. Try again in a minute.", "error");
  },
});

// --- kept, sent, taken away --------------------------------------------------------------------------------------

const inTaught = browserStore("ovseg-taught", "taught");

const keepTaught = () => inTaught("readwrite", (store) => (taught ? store.put(taught) : store.delete("prompts")));

// Where the prompts lie on the server; null if there are none or they are not used.
async function promptsPath() {
  if (!promptsOn()) return null;
  if (promptsSent.text !== taught.prompts || Date.now() - promptsSent.time > 600_000) {
    const { path } = await upload(new File([bytesOf(taught.prompts)], "prompts.safetensors"));
    promptsSent = { text: taught.prompts, path, time: Date.now() };
  }
  return promptsSent.path;
}

function useTaught(on) {
  taught = { ...taught, off: !on };
  showTeaching();
  return keepTaught().catch(() => {});
}

teachUse.addEventListener("change", () => {
  useTaught(teachUse.checked);
  teachTell(teachUse.checked ? "From the next run on, the arm yours stands beside adapted." : "The next run is without it.");
});
teachShow.addEventListener("click", async () => {
  await useTaught(true);
  document.querySelector("#run")?.click();
});
teachSave.addEventListener("click", () => download(new Blob([bytesOf(taught.prompts)]), "prompts.safetensors"));
teachDrop.addEventListener("click", async () => {
  taught = null;
  showTeaching();
  teachTell("What was taught is gone.");
  await keepTaught().catch(() => {});
});

// The change is saved after it is shown.
onEdited.push(() => setTimeout(() => saving.then(countLessons)));
onShown.push(countLessons);
onForgotten.push(showTeaching);
inTaught("readonly", (store) => store.get("prompts")).then((kept) => {
  taught = kept || null;
  if (taught) teachTell(taught.message);
  showTeaching();
}, () => {});
countLessons();

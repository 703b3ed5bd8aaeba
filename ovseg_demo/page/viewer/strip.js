// The strip of the last photos, and the way back to them: by a press, after a reload, after the server was away.

const strip = find(".ov-strip");
// Of the photo that is being worked on, or was last: its id once it is kept.
let keeping = Promise.resolve(null);
const RUNNING = "ovseg-running", SHOWN = "ovseg-shown";

function note(name, id) {
  try {
    if (id) sessionStorage.setItem(name, id);
    else sessionStorage.removeItem(name);
  } catch { /* A browser that keeps nothing for pages goes without. */ }
}
const noted = (name) => { try { return sessionStorage.getItem(name); } catch { return null; } };
// What was worked on when the page was left; the example that a fresh page shows takes its note away.
const leftRunning = noted(RUNNING);

// The bytes of the chosen photo, fetched when it is chosen: when Run is pressed, the server may be away.
let chosen = { key: null, bytes: null };
const fetchPhoto = async (file) => (await fetch(file.url)).blob();

function fetchChosen(file) {
  chosen = { key: photoKey(file), bytes: fetchPhoto(file) };
  chosen.bytes.catch(() => { /* Told where they are used. */ });
}

// Called when Run is pressed, so that a reload or a lost connection can go on from there.
async function keepRequest(file, asked) {
  const photoFile = await (chosen.key === photoKey(file) ? chosen.bytes : fetchPhoto(file));
  const id = await photoId(photoFile), before = await findPhoto(id);
  await keepPhoto({ ...before, id, photo: photoFile, name: file.orig_name || "photo", asked, time: Date.now() });
  note(RUNNING, id);
  return id;
}

async function keepResult(value) {
  note(RUNNING, null);
  const id = await keeping;
  if (!(await changePhoto(id, { payload: value, asked: value.asked, thumb: thumbnail(result.image), time: Date.now() }))) return;
  note(SHOWN, id);
  await fillStrip();
}

function thumbnail(image) {
  const small = document.createElement("canvas"), size = 128;
  const scale = size / Math.min(image.naturalWidth, image.naturalHeight);
  small.width = small.height = size;
  const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
  small.getContext("2d").drawImage(image, (size - width) / 2, (size - height) / 2, width, height);
  return small.toDataURL("image/jpeg", 0.8);
}

async function fillStrip() {
  const entries = (await photosNewestFirst()).filter((entry) => entry.payload && (entry.edits || !entry.batch));
  strip.hidden = entries.length === 0;
  strip.querySelector("ul").replaceChildren(...entries.map((entry) => {
    const told = `${entry.name}: ${entry.payload.message}`;
    const picture = make("img", { src: entry.thumb, alt: "" });
    const button = make("button", { type: "button", title: told, "aria-label": told }, picture);
    button.addEventListener("click", () => openPhoto(entry));
    return make("li", {}, button);
  }));
}

// What the hidden button `#restore` puts into the fields: the photo, uploaded again, words and settings.
let restoring = null;
async function restoreFields(entry) {
  const file = new File([entry.photo], entry.name, { type: entry.photo.type });
  const { path, url } = await upload(file);
  const sent = { path, url, orig_name: entry.name, mime_type: entry.photo.type, size: file.size, meta: { _type: "gradio.FileData" } };
  await new Promise((done) => {
    restoring = { values: [sent, ...SHARED_FIELDS.map((name) => entry.asked[name] ?? DEFAULTS[name])], done };
    document.querySelector("#restore").click();
  });
  return photoKey(sent);
}

// A kept photo with its result; the fields follow as soon as the server has the photo again.
async function openPhoto(entry) {
  choose(null);
  keeping = Promise.resolve(entry.id);
  note(SHOWN, entry.id);
  await showResult({ ...entry.payload, opens: true });
  const mine = request;
  const key = await restoreFields(entry);
  if (mine !== request) return;
  [current, keeping] = [key, Promise.resolve(entry.id)];
  if (result) result.of = key;
}

// Goes on with what was being worked on.
async function resume() {
  const entry = await findPhoto(noted(RUNNING) || "");
  if (!entry) return false;
  current = await restoreFields(entry);
  // Until Gradio has the new values: the words are the last that it shows.
  const field = document.querySelector("#words textarea");
  for (let i = 0; i < 50 && field?.value !== entry.asked.words; i++) await new Promise((done) => setTimeout(done, 100));
  await new Promise((done) => setTimeout(done, 300));
  document.querySelector("#run")?.click();
  return true;
}

async function comeBack() {
  await fillStrip();
  // A link says itself what is to be seen.
  if (new URLSearchParams(location.search).size) return;
  if (leftRunning) {
    note(RUNNING, leftRunning);
    tell("This page was loaded anew; going on with your photo …");
    if (await resume()) return;
  }
  const entry = await findPhoto(noted(SHOWN) || "");
  if (entry?.payload) await openPhoto(entry);
}

strip.querySelector(".ov-forget").addEventListener("click", async () => {
  await removePhotos();
  note(RUNNING, null);
  note(SHOWN, null);
  await fillStrip();
});

// The visitor's memory: an example for each region that was given a name, in this browser only (IndexedDB), sent
// along with a request.

const MOST_EXAMPLES = 2000;
// { id, photo, sign, name, thumbnail, features, model, weights, on, declined, time }, in the order of their making.
let examples = [], memoryLoaded = false;
let memorySent = { text: null, path: null, time: 0 };
const onMemory = [];

const inMemory = browserStore("ovseg-memory", "examples");

async function loadMemory() {
  examples = (await inMemory("readonly", (store) => store.getAll()).catch(() => [])).sort((one, other) => one.time - other.time);
  memoryLoaded = true;
  for (const work of onMemory) work();
}

async function changeMemory(put, remove = []) {
  const gone = new Set(remove), changed = new Map(put.map((one) => [one.id, one]));
  examples = [...examples.filter(({ id }) => !gone.has(id)).map((one) => changed.get(one.id) || one), ...put.filter(({ id }) => !examples.some((one) => one.id === id))];
  // The oldest make room.
  const over = examples.filter((one) => !one.declined).slice(0, -MOST_EXAMPLES);
  if (over.length) examples = examples.filter((one) => !over.includes(one));
  for (const work of onMemory) work();
  await inMemory("readwrite", (store) => {
    for (const one of put) store.put(one);
    for (const id of [...remove, ...over.map((one) => one.id)]) store.delete(id);
  });
}

const shownExamples = () => examples.filter((one) => !one.declined);
const modelNow = () => result?.asked?.model ?? DEFAULTS.model;
const usedExamples = () => shownExamples().filter((one) => one.on && one.model === modelNow());

const memoryOn = () => { try { return localStorage.getItem("ovseg-memory-off") === null; } catch { return true; } };
function setMemoryOn(on) {
  try {
    if (on) localStorage.removeItem("ovseg-memory-off");
    else localStorage.setItem("ovseg-memory-off", "1");
  } catch { /* A browser that keeps nothing for pages: it stays on. */ }
  for (const work of onMemory) work();
}

function memoryText(list, withPictures) {
  const told = list.map(({ name, thumbnail, features }) => ({ name, thumbnail: withPictures ? thumbnail : "", features }));
  return JSON.stringify({ version: 1, model: list[0].model, weights: list[0].weights, examples: told });
}

// Where the memory lies on the server; uploaded when it has changed. Null if it is empty or switched off.
async function memoryPath() {
  if (!memoryLoaded) await loadMemory();
  const used = memoryOn() ? usedExamples() : [];
  if (!used.length) return null;
  const text = memoryText(used, false);
  if (memorySent.text !== text || Date.now() - memorySent.time > 600_000) {
    const { path } = await upload(new File([text], "memory.json", { type: "application/json" }));
    memorySent = { text, path, time: Date.now() };
  }
  return memorySent.path;
}
const forgetSent = () => { memorySent = { text: null, path: null, time: 0 }; };

// --- examples follow the corrections --------------------------------------------------------------------------

const signOf = (one) => `${one.name}\n${one.counts}`;
let remembering = Promise.resolve(), rememberSoon = 0;

function rememberLater() {
  clearTimeout(rememberSoon);
  rememberSoon = setTimeout(() => { remembering = remembering.then(rememberAll).catch(() => {}); }, 400);
}

// Every named correction of the photo has its example, and no other has one.
async function rememberAll() {
  const shown = result, list = corrections().filter(({ name }) => name !== null);
  if (!shown || !edits.base) return;
  const photo = await photoIdentity(shown);
  if (!photo || shown !== result) return;
  const own = examples.filter((one) => one.photo === photo), wanted = new Map(list.map((one) => [one.uid, one]));
  const stale = own.filter((one) => !wanted.has(one.id) || (!one.declined && one.sign !== signOf(wanted.get(one.id)))).map(({ id }) => id);
  const missing = list.filter((one) => !own.some(({ id }) => id === one.uid) || stale.includes(one.uid));
  if (stale.length) await changeMemory([], stale);
  // So many as one call takes; whole labels of a data set come in several.
  for (let at = 0; at < missing.length; at += 32) {
    const some = missing.slice(at, at + 32);
    const content = { masks: some.map(({ counts }) => counts), names: some.map(({ name }) => name), arm: mainArm().name, words: "" };
    const memory = await callAboutPhoto("remember", content);
    if (shown !== result) return;
    const { model, weights } = memory, now = Date.now();
    await changeMemory(memory.examples.map(({ name, thumbnail, features }, i) => ({
      id: some[i].uid, photo, sign: signOf(some[i]), name, thumbnail, features, model, weights, on: true, time: now + at + i,
    })));
  }
}

onEdited.push((before) => { if (before !== corrections()) rememberLater(); });

// --- memory.safetensors: the length of the head, the head as JSON, one table of 16-bit numbers an arm ----------

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

function memoryFile(list) {
  const arms = Object.keys(list[0].weights), parts = [], head = {};
  let at = 0;
  for (const arm of arms) {
    const rows = list.map(({ features }) => bytesOf(features[arm])), size = rows.reduce((sum, row) => sum + row.length, 0);
    head[arm] = { dtype: "F16", shape: [list.length, rows[0].length / 2], data_offsets: [at, at + size] };
    at += size;
    parts.push(...rows);
  }
  head.__metadata__ = {
    format: "ovseg-demo memory", version: "1", model: list[0].model, weights: JSON.stringify(list[0].weights),
    names: JSON.stringify(list.map(({ name }) => name)), thumbnails: JSON.stringify(list.map(({ thumbnail }) => thumbnail)),
  };
  let text = new TextEncoder().encode(JSON.stringify(head));
  // Tables begin at a multiple of eight bytes.
  const padded = new Uint8Array(Math.ceil(text.length / 8) * 8).fill(32);
  padded.set(text);
  const length = new DataView(new ArrayBuffer(8));
  length.setBigUint64(0, BigInt(padded.length), true);
  return new Blob([length.buffer, padded, ...parts], { type: "application/octet-stream" });
}

async function importMemory(file) {
  const { path } = await upload(file);
  const memory = await call("memory", { file: path, models: result ? modelsOf(result) : {} });
  const here = new Set(examples.map((one) => `${one.name}\n${JSON.stringify(one.features)}`)), now = Date.now();
  const made = memory.examples.filter((one) => !here.has(`${one.name}\n${JSON.stringify(one.features)}`)).map((one, i) => ({
    ...one, id: newUid(), photo: null, sign: "", model: memory.model, weights: memory.weights, on: true, time: now + i,
  }));
  await changeMemory(made);
  return [made.length, memory.examples.length];
}

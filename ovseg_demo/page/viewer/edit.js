// What is corrected in the photo that is shown: the list with all its earlier states, kept in this browser.

// `history` holds lists that share their regions; `at` is the one that is shown.
const edits = { history: [[]], at: 0, of: null, base: null };
const corrections = () => edits.history[edits.at];
// Called after each change, with the list before it.
const onEdited = [];
let attached = 0;

// Which of the photos in this browser a result belongs to; null for a result that came without its photo.
async function photoIdentity(shown) {
  const id = await keeping;
  if (id) return id;
  if (!shown.of) return null;
  if (!(photoFile && photoKey(photoFile) === shown.of)) return null;
  if (chosen.key !== shown.of) fetchChosen(photoFile);
  return photoId(await chosen.bytes);
}

// A result came into the picture: its photo's corrections lie over it.
async function attachEdits(shown) {
  const mine = ++attached, same = edits.of && edits.of === shown.of;
  edits.base = { ...shown.arms };
  if (same) return layOver([]);
  Object.assign(edits, { history: [[]], at: 0, of: shown.of });
  told(edits, "");
  for (const work of onEdited) work([]);
  // The photo field of an example is filled a moment later.
  for (let i = 0; i < 30 && !photoFile && mine === attached; i++) await new Promise((done) => setTimeout(done, 100));
  const entry = await findPhoto((await photoIdentity(shown)) || "");
  const kept = entry?.edits;
  if (mine !== attached || edits.history.length > 1 || !kept) return;
  if (kept.width !== shown.width || kept.height !== shown.height) return;
  Object.assign(edits, { history: kept.history, at: kept.at });
  layOver([]);
  told(edits, "saved");
}

function detachEdits() {
  attached++;
  edits.base = null;
}

// Puts the corrections over the arms of the result and draws it anew.
function layOver(before) {
  const pinned = view.pinned && mainArm().byId.get(view.pinned)?.uid;
  for (const [name, arm] of Object.entries(edits.base)) result.arms[name] = correctedArm(result, arm, corrections());
  layers = {};
  const again = pinned && [...mainArm().byId.values()].find((fact) => fact.uid === pinned);
  if (pinned || !mainArm().byId.has(view.pinned)) view.pinned = view.current = again?.id ?? null;
  fillLegend();
  fillCard();
  draw();
  for (const work of onEdited) work(before);
}

function commit(next) {
  const before = corrections();
  edits.history.length = edits.at + 1;
  edits.history.push(next);
  edits.at++;
  layOver(before);
  saveEdits();
}

function goTo(at) {
  if (at < 0 || at >= edits.history.length || !edits.base) return false;
  const before = corrections();
  edits.at = at;
  layOver(before);
  saveEdits();
  return true;
}
const undo = () => goTo(edits.at - 1);
const redo = () => goTo(edits.at + 1);

// One save after the other; the last state wins.
let saving = Promise.resolve();
function saveEdits() {
  told(edits, "saving");
  const mine = attached, shown = result, identity = photoIdentity(shown);
  const state = { history: [...edits.history], at: edits.at, width: shown.width, height: shown.height };
  saving = saving.then(async () => {
    const id = await identity;
    if (!id) throw new Error("This result came without its photo.");
    await keepCorrected(id, shown, state);
    if (mine === attached && state.at === edits.at) told(edits, "saved");
  }).catch(() => { if (mine === attached) told(edits, "unsaved"); });
}

async function keepCorrected(id, shown, state) {
  // The names of corrections have joined the words, which come back with the photo.
  const words = shown === result ? { words: wordsNow() } : {};
  const entry = await findPhoto(id), own = { payload: shown.sent, thumb: thumbnail(shown.image) };
  if (entry) await changePhoto(id, { edits: state, asked: { ...entry.asked, ...words }, ...(entry.payload ? {} : own) });
  else {
    await keepPhoto({ id, photo: await chosen.bytes, name: shown.photo_name, asked: { ...shown.asked, ...words }, time: Date.now(), edits: state, ...own });
  }
  note(SHOWN, id);
  await fillStrip();
}

const editState = make("p", { class: "ed-state", role: "status" });
const howMany = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

function told({ history, at }, state) {
  const count = history[at].length;
  const kept = { saving: "saving …", saved: "saved in this browser", unsaved: "not saved: this browser keeps nothing for pages" }[state];
  editState.dataset.state = state;
  editState.textContent = [count || state ? howMany(count, "correction") : "", kept].filter(Boolean).join(", ");
}

onShown.push(attachEdits);
onForgotten.push(detachEdits);

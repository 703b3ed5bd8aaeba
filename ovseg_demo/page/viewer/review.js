// Review of a batch: its doubtful regions one after the other, the most doubtful first. Photos, results and how far
// a visitor is are kept in this browser.

const REVIEW = "ovseg-review";
// { batch, items: [{ photo, file, region, called, doubt, reasons, state }] }; state is "" while nothing was decided.
let review = null, reviewed = null, correcting = false;
let arrived = Promise.resolve();

const reviewTitle = make("h2", {}), reviewTold = make("p", { role: "status" });
const reviewAccept = button("Accept", { title: "It is right (y)" }), reviewCorrect = button("Correct", { title: "Another name (r)" });
const reviewSkip = button("Skip", { title: "Decide later (n)" }), reviewClose = button("Close");
const reviewStart = button("Review the doubtful regions", { class: "rv-start", hidden: "" });
const reviewBar = make("section", { class: "rv", "aria-label": "Review", hidden: "" }, reviewTitle, reviewTold,
  make("div", { class: "ed-row" }, reviewAccept, reviewCorrect, reviewSkip, reviewClose));
editBar.before(reviewStart, reviewBar);

const open_ = () => (review ? review.items.filter((one) => one.state === "") : []);

function showReview() {
  const left = open_().length;
  reviewStart.hidden = !left || Boolean(reviewed);
  reviewStart.textContent = `Review ${howMany(left, "doubtful region")}`;
  reviewBar.hidden = !reviewed;
  if (!reviewed) return;
  reviewTitle.textContent = `Review: ${review.items.length - left + 1} of ${review.items.length}`;
  reviewTold.replaceChildren(make("span", { class: "ov-name" }, reviewed.file), ", ",
    make("b", { class: "ov-name" }, reviewed.called || "no word"), ": ", make("span", { class: "ov-name" }, reviewed.reasons.join(" ")));
}

function keepReview() {
  try { localStorage.setItem(REVIEW, JSON.stringify(review)); } catch { /* It lasts as long as the page. */ }
  showReview();
}

// One photo of a batch, as soon as it is done.
async function takeBatchPhoto({ batch, result: sent, photo: url, doubts }) {
  const bytes = await (await fetch(url)).blob(), id = await photoId(bytes), before = await findPhoto(id);
  const entry = { ...before, id, photo: bytes, name: sent.photo_name, asked: sent.asked, payload: sent, time: Date.now(), batch };
  // Another result: corrections of the one before lie over it, too.
  await keepPhoto({ ...entry, thumb: thumbnail(await loadPhoto(sent.photo)) });
  if (review?.batch !== batch) review = { batch, items: [] };
  const items = doubts.map(({ region_id, name, doubt, reasons }) => ({ photo: id, file: sent.photo_name, region: region_id, called: name, doubt, reasons, state: "" }));
  review.items = [...review.items, ...items].sort((one, other) => (one.state === "") - (other.state === "") || other.doubt - one.doubt);
  keepReview();
}

function decide(state) {
  if (!reviewed) return;
  reviewed.state = state;
  correcting = false;
  keepReview();
  nextReview();
}

async function nextReview() {
  correcting = false;
  for (;;) {
    const item = reviewed = open_()[0] || null;
    if (!item) return endReview(review ? "All doubtful regions were looked at." : "");
    showReview();
    const entry = await findPhoto(item.photo);
    if (item !== reviewed) return;
    if (entry?.payload && (await showItem(entry, item))) return;
    // Its photo was deleted, or a correction lies over it already.
    item.state = "gone";
    keepReview();
  }
}

async function showItem(entry, item) {
  if ((await keeping) !== entry.id || !result) {
    await openPhoto(entry);
    if (item !== reviewed) return true;
  }
  // Corrections that are kept with the photo are laid over it a moment later.
  const wanted = entry.edits ? entry.edits.history[entry.edits.at].length : 0;
  for (let i = 0; i < 50 && !(edits.base && corrections().length >= wanted); i++) await new Promise((done) => setTimeout(done, 100));
  const fact = result && mainArm().byId.get(item.region);
  if (!fact || !mainArm().regions.includes(item.region) && fact.class_index) return false;
  setEditing(true);
  setTool("select");
  select([item.region]);
  hint("y accepts the name, r asks for another one, n decides later.");
  stage.focus({ preventScroll: true });
  return true;
}

function endReview(text) {
  reviewed = null;
  correcting = false;
  showReview();
  if (text) hint(text);
}

function acceptReviewed() {
  if (!reviewed) return;
  // Where no word fits and that is right, there is nothing to correct.
  if (selectedFacts().some(isAcceptable)) acceptSelected();
  decide("accepted");
}

function correctReviewed() {
  if (!reviewed) return;
  if (!edit.selected.length) select([reviewed.region]);
  correcting = true;
  rename();
}

reviewStart.addEventListener("click", () => arrived.then(nextReview));
reviewAccept.addEventListener("click", acceptReviewed);
reviewCorrect.addEventListener("click", correctReviewed);
reviewSkip.addEventListener("click", () => decide("skipped"));
reviewClose.addEventListener("click", () => endReview(""));
document.addEventListener("keydown", (event) => {
  if (!reviewed || event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input:not([type=checkbox], [type=range]), textarea, [contenteditable]")) return;
  const does = { y: acceptReviewed, r: correctReviewed, n: () => decide("skipped") }[event.key];
  if (does) take(event, does);
}, { capture: true });
// A correction that was asked for ends with its name.
onEdited.push((before) => { if (reviewed && correcting && before !== corrections() && corrections().length) decide("corrected"); });

try { review = JSON.parse(localStorage.getItem(REVIEW) || "null"); } catch { review = null; }
setTimeout(showReview, 500);

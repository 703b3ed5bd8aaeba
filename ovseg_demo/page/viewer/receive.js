// What the server sends: progress, results, and sentences about what went wrong.

// On a phone the picture is below the fields.
function bringIntoView() {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (window.innerWidth >= 1000) return;
  // With the line below the picture, which says how far it is.
  find(".ov").scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
}

async function showWorking({ photo: sent, message, fraction, preview: found }) {
  stage.dataset.state = "working";
  find(".ov-working").hidden = false;
  tell(message);
  const bar = find(".ov-progress");
  bar.setAttribute("aria-valuenow", String(Math.round(fraction * 100)));
  bar.firstElementChild.style.width = `${fraction * 100}%`;
  if (!sent) {
    preview = found || null;
    if (!result) draw();
    return;
  }
  bringIntoView();
  const mine = request;
  const image = await loadPhoto(sent);
  // A result may have come while the photo was being decoded.
  if (mine !== request || stage.dataset.state !== "working") return;
  const shown = result || before;
  forget();
  [photo, before] = [image, shown];
  shape(sent.width, sent.height);
  find(".ov-empty").hidden = true;
  draw();
}

async function showResult(value) {
  const mine = ++request;
  const next = await decodeResult(value);
  if (mine !== request) return;
  if (!value.opens) bringIntoView();
  show(next);
  tellResult(next);
  tellPending([]);
  if (!value.opens) keepResult(value).catch(() => {});
}

function showNote({ message, level }) {
  request++;
  find(".ov-working").hidden = true;
  preview = null;
  if (before) show(before);
  else if (!result) draw();
  stage.dataset.state = result ? "result" : photo ? "chosen" : level;
  tell(message, level);
}

// A photo that was just chosen; nothing is known of it yet.
async function showChosen({ url }) {
  const mine = ++request;
  // Browsers show fewer kinds of pictures than the server reads: TIFF is one.
  const image = await loadPhoto({ url }).catch(() => null);
  if (mine !== request) return;
  forget();
  [photo, preview] = [image, null];
  stage.dataset.state = "chosen";
  find(".ov-empty").hidden = find(".ov-working").hidden = true;
  tell(image ? "Type some words and press Run." : "The browser cannot show this file; Run may read it all the same.");
  if (image) shape(image.naturalWidth, image.naturalHeight);
  else canvas.width = canvas.height = 0;
  draw();
}

function showEmpty(message = "") {
  request++;
  forget();
  [photo, preview] = [null, null];
  stage.dataset.state = "empty";
  canvas.width = canvas.height = 0;
  find(".ov-empty").hidden = false;
  find(".ov-working").hidden = true;
  tell(message);
}

function update() {
  const value = props.value;
  if (!value || !value.kind || isLate(value)) return;
  if (value.kind === "working") showWorking(value);
  else if (value.kind === "result") showResult(value);
  else if (value.kind === "photo") showChosen(value);
  else if (value.kind === "empty") showEmpty(value.message);
  else if (value.kind === "aside") showAside(value);
  else if (value.kind === "answer") takeAnswer(value);
  else if (value.kind === "batch") arrived = arrived.then(() => takeBatchPhoto(value)).catch(() => {});
  else if (value.kind === "teaching" || value.kind === "taught") takeTeaching(value);
  else showNote(value);
}

watch("value", update);
update();
comeBack().catch(() => {});

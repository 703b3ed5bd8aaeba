// What the server sends: progress, results, and sentences about what went wrong.

function shape(width, height) {
  stage.style.aspectRatio = `${width} / ${height}`;
  stage.style.width = `min(100%, calc(70vh * ${width / height}))`;
}

// On a phone the picture is below the fields.
function bringIntoView() {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (window.innerWidth >= 1000) return;
  // With the line below the picture, which says how far it is.
  find(".ov-left").scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
}

async function showWorking({ photo: sent, message, fraction, preview: found }) {
  stage.dataset.state = "working";
  find(".ov-working").hidden = false;
  status.dataset.level = "";
  status.textContent = message;
  showTiming("", false);
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

function forget() {
  Object.assign(view, { current: null, pinned: null, focus: 0, hidden: new Set() });
  [result, before, layers] = [null, null, {}];
  view.allChanges = false;
  legend.hidden = missing.hidden = changes.hidden = card.hidden = tip.hidden = none.hidden = true;
}

async function showResult(value) {
  const mine = ++request;
  const next = await decodeResult(value);
  if (mine !== request) return;
  if (mine > 1) bringIntoView();
  show(next);
  status.textContent = value.message;
  showTiming(value.timing, value.again);
}

// A decoded result, in the place of whatever is there.
function show(next) {
  forget();
  [result, preview] = [next, null];
  stage.dataset.state = "result";
  find(".ov-empty").hidden = find(".ov-working").hidden = true;
  shape(next.photo.width, next.photo.height);
  for (const button of modes) button.disabled = !(next.arms[button.dataset.mode] || bothArms());
  const shared = bothArms() && ["split", "difference"].includes(view.mode);
  setMode(next.arms[view.mode] || shared ? view.mode : Object.keys(next.arms)[0]);
  fillChanges();
}

// How long it took; "instant" where the photo was not looked at again.
function showTiming(text, again) {
  timing.firstElementChild.hidden = !again;
  timing.lastElementChild.textContent = text || "";
}

function showNote({ message, level }) {
  request++;
  find(".ov-working").hidden = true;
  preview = null;
  if (before) show(before);
  else if (!result) draw();
  stage.dataset.state = result ? "result" : photo ? "chosen" : level;
  status.dataset.level = level;
  status.textContent = message;
  showTiming("", false);
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
  status.dataset.level = "";
  status.textContent = image ? "Type some words and press Run." : "The browser cannot show this file; Run may read it all the same.";
  showTiming("", false);
  if (image) shape(image.naturalWidth, image.naturalHeight);
  else canvas.width = canvas.height = 0;
  draw();
}

function showEmpty() {
  request++;
  forget();
  [photo, preview] = [null, null];
  stage.dataset.state = "empty";
  canvas.width = canvas.height = 0;
  find(".ov-empty").hidden = false;
  find(".ov-working").hidden = true;
  status.textContent = "";
  showTiming("", false);
}

function update() {
  const value = props.value;
  if (!value || !value.kind) return;
  // What was on its way when Stop was pressed comes too late; the next request begins with one of these.
  stopped = value.kind === "working" ? stopped && !value.begins && !value.photo : value.level === "stopped";
  if (stopped && value.kind === "working") return;
  status.dataset.level = "";
  if (value.kind === "working") showWorking(value);
  else if (value.kind === "result") showResult(value);
  else if (value.kind === "photo") showChosen(value);
  else if (value.kind === "empty") showEmpty();
  else showNote(value);
}

watch("value", update);
update();

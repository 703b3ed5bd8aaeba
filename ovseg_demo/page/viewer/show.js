// A decoded result in the picture, and what is told of it.

function shape(width, height) {
  find(".ov-left").style.setProperty("--ov-ratio", width / height);
}

function forget() {
  Object.assign(zoom, { scale: 1, x: 0, y: 0 });
  Object.assign(view, { current: null, pinned: null, focus: 0, hidden: new Set() });
  [result, before, layers] = [null, null, {}];
  view.allChanges = false;
  tellChips();
  for (const work of onForgotten) work();
  legend.hidden = missing.hidden = changes.hidden = card.hidden = tip.hidden = none.hidden = true;
}

// What was found, what another way of naming says, what was done.
function tellResult(told) {
  tell(told.message, "", [told.difference, told.notice].filter(Boolean).join(" "));
  showTiming(told.timing, told.again);
  showBadge(told.made_by);
}

// A line above the picture, and a smaller one below it.
function tell(message, level = "", second = "") {
  status.dataset.level = level;
  status.textContent = message;
  find(".ov-second").textContent = second;
  showTiming("", false);
}

// The models that made what is shown, and what one may do with them.
function showBadge(made) {
  const badge = document.querySelector("#badge p");
  if (!badge || !made) return;
  badge.className = made.restricted ? "restricted" : "";
  badge.title = made.details;
  badge.replaceChildren(make("b", {}, made.names), " ", make("span", {}, made.use));
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
  for (const work of onShown) work(next);
}

// What was done and how long it took; "instant" where nobody had to wait.
function showTiming(text, again) {
  timing.firstElementChild.hidden = !again;
  timing.lastElementChild.textContent = text || "";
}

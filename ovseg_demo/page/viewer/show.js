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

// The buttons of the two arms, the ends of the split and the table of changes have the names of the arms.
function nameModes() {
  const title = (arm, plain) => (arm ? titleOf(arm)[0].toUpperCase() + titleOf(arm).slice(1) : plain);
  const [first, second] = [title(firstArm(), "Adapted"), title(secondArm(), "Plain")];
  for (const button of modes) {
    button.disabled = button.dataset.mode !== "adapted" && !bothArms();
    if (button.dataset.mode === "adapted") button.textContent = first;
    if (button.dataset.mode === "vanilla") button.textContent = second;
  }
  find(".ov-sides").replaceChildren(...[second, first].map((name) => make("span", {}, name[0].toLowerCase() + name.slice(1))));
  const heads = find(".ov-changes").querySelectorAll("thead th");
  [heads[2].textContent, heads[3].textContent] = [`${second} says`, `${first} says`];
}

// A decoded result, in the place of whatever is there.
function show(next) {
  forget();
  [result, preview] = [next, null];
  stage.dataset.state = "result";
  find(".ov-empty").hidden = find(".ov-working").hidden = true;
  shape(next.photo.width, next.photo.height);
  nameModes();
  setMode(bothArms() ? view.mode : "adapted");
  fillChanges();
  for (const work of onShown) work(next);
}

// What was done and how long it took; "instant" where nobody had to wait.
function showTiming(text, again) {
  timing.firstElementChild.hidden = !again;
  timing.lastElementChild.textContent = text || "";
}

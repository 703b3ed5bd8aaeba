// Pointer, touch and keyboard: what a visitor does to the picture.

function pixelUnder(event) {
  const [shareX, shareY] = pictureShare(...shareOfStage(event));
  const x = Math.floor(shareX * result.width), y = Math.floor(shareY * result.height);
  if (x < 0 || y < 0 || x >= result.width || y >= result.height) return -1;
  return y * result.width + x;
}

function armUnder(event) {
  if (view.mode !== "split") return mainArm();
  const box = canvas.getBoundingClientRect();
  return (event.clientX - box.left) / box.width < view.split ? secondArm() : firstArm();
}

let pressed = null;

function hover(event) {
  if (!result || event.pointerType === "touch") return;
  // Browsers tell of a move, too, where only the page has changed under the pointer.
  if (pressed && event.clientX === pressed.clientX && event.clientY === pressed.clientY) return;
  pressed = null;
  const i = pixelUnder(event);
  if (i < 0) return leave();
  const arm = armUnder(event), fact = regionAt(result, arm, i);
  const id = fact ? fact.id : null;
  if (id !== view.current) {
    view.current = id;
    draw();
  }
  const arms = bothArms() ? [firstArm(), secondArm()] : [arm];
  tip.replaceChildren(...arms.map((a) => tipLine(a, i)));
  placeTip(event);
}

function placeTip(event) {
  tip.hidden = false;
  const box = stage.getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top;
  tip.style.left = `${Math.max(0, Math.min(x + 14, box.width - tip.offsetWidth - 4))}px`;
  tip.style.top = `${y + 22 + tip.offsetHeight > box.height ? y - tip.offsetHeight - 10 : y + 18}px`;
}

function tipLine(arm, i) {
  const index = arm.labels[i], fact = arm.byId.get(arm.regions[i]);
  const line = make("div", {});
  if (bothArms()) line.append(make("span", { class: "ov-tip-arm" }, titleOf(arm)));
  if (index) line.append(swatch(arm.classes[index - 1]));
  line.append(make("b", {}, className(arm, index)));
  if (index && fact) line.append(` ${howSure(fact)}`);
  return line;
}

function leave() {
  tip.hidden = true;
  if (view.current !== view.pinned) {
    view.current = view.pinned;
    draw();
  }
}

const NO_REGION = "No region was found here. Set “How many masks” to “many”, or work at a larger size, and press Run.";

function click(event) {
  if (!result || panned) return;
  const i = pixelUnder(event);
  if (i < 0) return;
  const fact = regionAt(result, armUnder(event), i);
  if (fact) return pin(fact.id);
  if (view.pinned) pin(view.pinned);
  tip.replaceChildren(NO_REGION);
  find(".ov-walked").textContent = NO_REGION;
  pressed = event;
  placeTip(event);
}

function onKey(event) {
  if (!result || event.target !== stage || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.shiftKey && zoom.scale > 1 && event.key.startsWith("Arrow")) {
    event.preventDefault();
    const step = { ArrowRight: [0.2, 0], ArrowLeft: [-0.2, 0], ArrowDown: [0, 0.2], ArrowUp: [0, -0.2] }[event.key];
    return panBy(...step);
  }
  const actions = {
    "+": () => setZoom(zoom.scale * 1.5), "=": () => setZoom(zoom.scale * 1.5), "-": () => setZoom(zoom.scale / 1.5),
    0: () => setZoom(1), f: toggleFullscreen,
    ArrowRight: () => walk(1), ArrowDown: () => walk(1), ArrowLeft: () => walk(-1), ArrowUp: () => walk(-1),
    Enter: () => view.current && pin(view.current),
    " ": () => toggleCurrentClass(),
    "[": () => setOpacity(view.opacity - 0.1), "]": () => setOpacity(view.opacity + 0.1),
    c: () => bothArms() && cycleMode(),
    Escape: () => view.pinned && pin(view.pinned),
  };
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function toggleCurrentClass() {
  const fact = view.current && mainArm().byId.get(view.current);
  if (fact && fact.class_index) setHidden(fact.class_index, !view.hidden.has(fact.class_index));
}

function onModeKey(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const usable = modes.filter((button) => !button.disabled);
  const next = usable[(usable.indexOf(event.target) + step + usable.length) % usable.length];
  setMode(next.dataset.mode);
  next.focus();
}

function dragSplit(event) {
  event.preventDefault();
  splitter.setPointerCapture(event.pointerId);
  const move = (e) => {
    const box = stage.getBoundingClientRect();
    setSplit((e.clientX - box.left) / box.width);
  };
  splitter.addEventListener("pointermove", move);
  splitter.addEventListener("lostpointercapture", () => splitter.removeEventListener("pointermove", move), { once: true });
}

function onSplitKey(event) {
  const to = { ArrowLeft: view.split - 0.05, ArrowRight: view.split + 0.05, Home: 0, End: 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  setSplit(to);
}

stage.addEventListener("pointermove", hover);
stage.addEventListener("pointerleave", leave);
canvas.addEventListener("click", click);
stage.addEventListener("keydown", onKey);
splitter.addEventListener("pointerdown", dragSplit);
splitter.addEventListener("keydown", onSplitKey);
for (const button of modes) {
  button.addEventListener("click", () => setMode(button.dataset.mode));
  button.addEventListener("keydown", onModeKey);
}
find(".ov-opacity input").addEventListener("input", (event) => setOpacity(event.target.value / 100));
find(".ov-outlines").addEventListener("change", (event) => { view.outlines = event.target.checked; draw(); });
find(".ov-names").addEventListener("change", (event) => { view.names = event.target.checked; draw(); });
more.addEventListener("click", () => { view.allChanges = !view.allChanges; fillChanges(); });
find(".ov-none button").addEventListener("click", () => document.querySelector("#what-else")?.click());

new ResizeObserver(() => draw()).observe(stage);
document.addEventListener("ovseg-ask", tellChips);
document.addEventListener("ovseg-toggle", ({ detail }) => { if (result) setHidden(detail, !view.hidden.has(detail)); });

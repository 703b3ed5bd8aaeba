// Pointer, touch and keys for the tools; while they are in use, the picture is not pinned, dragged or scrolled.

const LEAST_DRAG_PX = 6;
const sharesAt = (event) => pictureShare(...shareOfStage(event));

function onEditDown(event) {
  if (!edit.on || event.target !== canvas || !result) return;
  event.stopImmediatePropagation();
  endPreview();
  if (event.button !== 0 || !event.isPrimary) return void (gesture = null);
  // The panel's text field would lose what is typed with the focus, not the press.
  event.preventDefault();
  stage.focus({ preventScroll: true });
  edit.cursor = null;
  const from = sharesAt(event);
  gesture = { from, x: event.clientX, y: event.clientY, moved: false, alt: event.altKey, shift: event.shiftKey };
  canvas.setPointerCapture(event.pointerId);
  if (["brush", "erase"].includes(edit.tool) && !edit.merging) {
    if (candidate) drop();
    const line = beginStroke(from);
    gesture = line ? { ...(gesture || { from }), line } : null;
    if (line) goStroke(line, from);
  }
}

function onEditMove(event) {
  if (!edit.on) return;
  previewLater(event);
  if (event.target.closest?.(".ed-name")) return;
  tip.hidden = true;
  event.stopImmediatePropagation();
  if (!gesture) return;
  const to = sharesAt(event);
  if (gesture.line) return goStroke(gesture.line, to);
  gesture.moved ||= Math.hypot(event.clientX - gesture.x, event.clientY - gesture.y) > LEAST_DRAG_PX;
  if (gesture.moved && edit.tool === "add" && !edit.merging) {
    gesture.box = [gesture.from, to];
    draw();
  }
}

function onEditUp(event) {
  if (!edit.on || !gesture) return;
  event.stopImmediatePropagation();
  const done = gesture, to = sharesAt(event);
  gesture = null;
  if (done.line) endStroke(done.line);
  else if (done.box) dragBox(done.from, to);
  else press(done.from, done);
  draw();
}

const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

function onEditKey(event) {
  if (event.target !== stage) return;
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
  if (plain && event.key === "e" && result) return take(event, () => setEditing(!edit.on));
  if (!edit.on || !plain && event.key !== "Enter") return;
  const draws = edit.tool !== "select" && !edit.merging;
  const does = {
    Escape: () => (candidate ? drop() : edit.merging ? merge() : edit.selected.length ? select([]) : setEditing(false)),
    y: acceptSelected, r: rename, m: merge, l: likeThis, Delete: removeSelected, Backspace: removeSelected,
  };
  if (candidate && event.key === "Tab" && !event.shiftKey) does.Tab = otherMask;
  if (draws && ARROWS[event.key]) does[event.key] = () => moveCursor(ARROWS[event.key], event.shiftKey ? 0.1 : 0.02);
  if (!draws && ARROWS[event.key]) does[event.key] = () => {
    walk(["ArrowRight", "ArrowDown"].includes(event.key) ? 1 : -1);
    const fact = mainArm().byId.get(view.current);
    if (fact) select(edit.merging || event.shiftKey ? [...new Set([...edit.selected, regionKey(fact)])] : [regionKey(fact)]);
    view.current = fact?.id ?? null;
  };
  if (event.key === "Enter" || event.key === " ") does[event.key] = () => pressCursor(event);
  Object.keys(TOOLS).forEach((name, i) => { does[String(i + 1)] = () => setTool(name); });
  if (does[event.key]) take(event, does[event.key]);
}

function take(event, work) {
  event.preventDefault();
  event.stopImmediatePropagation();
  work();
}

function moveCursor([dx, dy], step) {
  const [x, y] = edit.cursor || pictureShare(0.5, 0.5);
  edit.cursor = [x + dx * step, y + dy * step].map((v) => Math.min(0.999, Math.max(0, v)));
  const fact = factAt(edit.cursor);
  find(".ov-walked").textContent = `${Math.round(edit.cursor[0] * 100)} % from the left, ${Math.round(edit.cursor[1] * 100)} % from the top: ${fact ? className(mainArm(), fact.class_index) : "no region"}`;
  draw();
}

function pressCursor(event) {
  if (candidate && !edit.cursor) return accept();
  if (!edit.cursor) return edit.merging ? merge() : edit.tool === "select" ? rename() : moveCursor([0, 0], 0);
  if (candidate && event.key === "Enter" && !event.altKey) return accept();
  if (!["brush", "erase"].includes(edit.tool)) return press(edit.cursor, { alt: event.altKey, shift: event.shiftKey });
  const line = beginStroke(edit.cursor);
  if (!line) return;
  goStroke(line, edit.cursor);
  endStroke(line);
}

function onUndoKey(event) {
  if (!(event.ctrlKey || event.metaKey) || event.altKey || !result) return;
  if (event.target.matches?.("input:not([type=range], [type=checkbox]), textarea") && event.target !== nameInput) return;
  const key = event.key.toLowerCase();
  if (key !== "z" && key !== "y") return;
  if (event.target === nameInput && nameInput.value) return;
  event.preventDefault();
  drop();
  if (key === "y" || event.shiftKey) redo();
  else undo();
}

stage.addEventListener("pointerdown", onEditDown, { capture: true });
stage.addEventListener("pointermove", onEditMove, { capture: true });
stage.addEventListener("pointerup", onEditUp, { capture: true });
stage.addEventListener("pointercancel", () => { gesture = null; draw(); }, { capture: true });
stage.addEventListener("click", (event) => { if (edit.on && event.target === canvas) event.stopImmediatePropagation(); }, { capture: true });
for (const kind of ["touchstart", "touchmove", "touchend"]) {
  // Two fingers zoom and move as ever; one is the tool's.
  stage.addEventListener(kind, (event) => {
    if (!edit.on || event.target !== canvas) return;
    if (event.touches.length > 1) {
      if (gesture?.line) drop();
      gesture = null;
    } else event.stopImmediatePropagation();
  }, { capture: true });
}
stage.addEventListener("keydown", onEditKey, { capture: true });
document.addEventListener("keydown", onUndoKey);

startEdit.addEventListener("click", () => setEditing(!edit.on));
toolButtons.forEach((one, i) => {
  one.addEventListener("click", () => setTool(one.dataset.tool));
  one.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = toolButtons[(i + step + toolButtons.length) % toolButtons.length];
    setTool(next.dataset.tool);
    next.focus();
  });
});
brushSize.addEventListener("input", () => { edit.size = Number(brushSize.value); });
actions.accept.addEventListener("click", acceptSelected);
actions.rename.addEventListener("click", rename);
actions.remove.addEventListener("click", removeSelected);
actions.merge.addEventListener("click", merge);
actions.like.addEventListener("click", likeThis);
undoButton.addEventListener("click", () => { drop(); undo(); });
redoButton.addEventListener("click", () => { drop(); redo(); });

namePanel.addEventListener("submit", (event) => { event.preventDefault(); accept(); });
nameOther.addEventListener("click", () => otherMask());
nameNot.addEventListener("click", () => { edit.notThis = !edit.notThis; showNames(); });
nameDrop.addEventListener("click", () => { drop(); stage.focus({ preventScroll: true }); });
namePanel.addEventListener("keydown", (event) => {
  event.stopPropagation();
  if (event.key === "Escape") take(event, () => { drop(); stage.focus({ preventScroll: true }); });
  else if (event.key === "Tab" && !event.shiftKey && event.target === nameInput && candidate?.masks?.length > 1) take(event, otherMask);
  else if ((event.ctrlKey || event.metaKey) && ["z", "y"].includes(event.key.toLowerCase())) onUndoKey(event);
});
onShown.push(() => { drop(); edit.selected = []; edit.cursor = null; showTools(); });
onForgotten.push(() => { drop(); edit.on = false; showTools(); });
showTools();

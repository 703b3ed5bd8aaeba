// The mask that a press of the tool Add would give where the pointer rests. It is asked for one place at a time, and
// only while the server keeps the encoding of the photo, where it costs a fraction of a second.

const REST_MS = 120;
// The mask that is shown; the place of the pointer, null if nothing is to be shown; the result whose photo is not kept.
let previewed = null, previewAt = null, previewSoon = 0, previewing = false, unkept = null;

const mayPreview = () => edit.on && edit.tool === "add" && !edit.merging && !candidate && !gesture && Boolean(result?.asked);

function previewLater(event) {
  const point = sharesAt(event);
  if (event.target !== canvas || event.pointerType === "touch" || !mayPreview() || !inPicture(point)) return endPreview();
  previewAt = point;
  if (previewed && !underPointer(previewed)) showPreview(null);
  clearTimeout(previewSoon);
  if (unkept !== result) previewSoon = setTimeout(askForPreview, REST_MS);
}

function underPointer(mask) {
  const [x, y] = mapPoint(previewAt).map(Math.floor);
  return Boolean(mask[y * result.width + x]);
}

function endPreview() {
  clearTimeout(previewSoon);
  previewAt = null;
  if (previewed) showPreview(null);
}

function showPreview(mask) {
  previewed = mask;
  delete layers["ed preview"];
  stage.dataset.preview = String(Boolean(mask));
  draw();
}

async function askForPreview() {
  const point = previewAt, shown = result;
  if (previewing || !point || !mayPreview() || !photoFile || photoKey(photoFile) !== shown.of) return;
  previewing = true;
  try {
    const { kept, counts } = await call("preview", {
      photo: photoFile.path, points: [[...photoPoint(point), 1]], arm: mainArm().name, models: modelsOf(shown), map: [shown.height, shown.width],
    });
    if (!kept) unkept = shown;
    if (shown !== result || !previewAt || !mayPreview()) return;
    const mask = counts ? decodeMask(counts, result.width, result.height) : null;
    showPreview(mask && underPointer(mask) ? mask : null);
  } catch {
    // A press tells what is wrong; until one succeeds nothing is asked for.
    unkept = shown;
  } finally {
    previewing = false;
    if (previewAt && previewAt !== point && unkept !== result) askForPreview();
  }
}

onDrawn.push((context, width, height) => {
  if (!previewed || !mayPreview()) return;
  const tint = packed([255, 255, 255], 100), mask = previewed;
  for (const one of (layers["ed preview"] ||= [layer(result, (i) => (mask[i] ? tint : NOTHING)), outlineLayer(result, (i) => mask[i])])) place(context, one, 1, width, height);
});
onShown.push(endPreview);
onForgotten.push(endPreview);
stage.addEventListener("pointerleave", endPreview);

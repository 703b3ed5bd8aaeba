// Zoom, pan and the whole screen: how the picture lies in the stage. Drawing and pointing both go through it.

const MOST_ZOOM = 16;
// `x` and `y`: left and top of the visible part, in shares of the picture.
const zoom = { scale: 1, x: 0, y: 0 };
let lastScroll = 0, panned = false;

function applyZoom(context, width, height) {
  context.setTransform(zoom.scale, 0, 0, zoom.scale, -zoom.x * zoom.scale * width, -zoom.y * zoom.scale * height);
}

// From a share of the stage to the share of the picture that is seen there.
const pictureShare = (x, y) => [zoom.x + x / zoom.scale, zoom.y + y / zoom.scale];

// What lies under (x, y), in shares of the stage, stays there.
function setZoom(scale, x = 0.5, y = 0.5) {
  const next = Math.min(MOST_ZOOM, Math.max(1, scale));
  const [px, py] = pictureShare(x, y);
  zoom.scale = next;
  moveTo(px - x / next, py - y / next);
}

function moveTo(x, y) {
  const most = 1 - 1 / zoom.scale;
  [zoom.x, zoom.y] = [Math.min(most, Math.max(0, x)), Math.min(most, Math.max(0, y))];
  stage.dataset.zoomed = String(zoom.scale > 1);
  tip.hidden = true;
  draw();
}

// By shares of what is seen.
const panBy = (dx, dy) => moveTo(zoom.x + dx / zoom.scale, zoom.y + dy / zoom.scale);

function shareOfStage(point) {
  const box = stage.getBoundingClientRect();
  return [(point.clientX - box.left) / box.width, (point.clientY - box.top) / box.height];
}

function onWheel(event) {
  if (!result && !photo) return;
  const wanted = event.ctrlKey || event.metaKey || zoom.scale > 1;
  // Somebody who scrolls the page does not stop at the picture.
  if (!wanted && (event.deltaY > 0 || Date.now() - lastScroll < 500)) return;
  event.preventDefault();
  const step = Math.max(-60, Math.min(60, event.deltaMode ? event.deltaY * 20 : event.deltaY));
  setZoom(zoom.scale * Math.exp(-step * (event.ctrlKey ? 0.012 : 0.006)), ...shareOfStage(event));
}

// A mouse drags the picture while it is zoomed; the click at the end of it pins nothing.
function onGrab(event) {
  panned = false;
  if (event.pointerType === "touch" || event.button !== 0 || zoom.scale === 1) return;
  let [fromX, fromY] = shareOfStage(event), moved = 0;
  const move = (e) => {
    const [x, y] = shareOfStage(e);
    moved += Math.hypot(x - fromX, y - fromY);
    if (moved > 0.01) panned = true;
    panBy(fromX - x, fromY - y);
    [fromX, fromY] = [x, y];
  };
  const end = () => window.removeEventListener("pointermove", move);
  window.addEventListener("pointermove", move);
  window.addEventListener("pointerup", end, { once: true });
}

// Two fingers zoom and move; one finger moves what is zoomed, and scrolls the page otherwise.
let fingers = [];
function onTouch(event) {
  const now = [...event.touches].map(shareOfStage), before = fingers;
  fingers = now;
  if (now.length > 2 || (now.length < 2 && zoom.scale === 1) || !now.length) return;
  // A second finger that joins a movement may come too late to take it from the browser.
  if (event.cancelable) event.preventDefault();
  if (event.type !== "touchmove" || before.length !== now.length) return;
  panned = true;
  const middle = (points) => [0, 1].map((i) => points.reduce((sum, p) => sum + p[i], 0) / points.length);
  const apart = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  const [from, to] = [middle(before), middle(now)];
  panBy(from[0] - to[0], from[1] - to[1]);
  if (now.length === 2) setZoom((zoom.scale * apart(now)) / Math.max(0.01, apart(before)), ...to);
}

function toggleFullscreen() {
  const frame = find(".ov-left");
  if (document.fullscreenElement) document.exitFullscreen();
  else if (frame.requestFullscreen) frame.requestFullscreen();
  else frame.classList.toggle("ov-whole");  // telephones that do not let a page have the whole screen
}

window.addEventListener("scroll", () => { lastScroll = Date.now(); }, { passive: true });
stage.addEventListener("wheel", onWheel, { passive: false });
canvas.addEventListener("pointerdown", onGrab);
for (const kind of ["touchstart", "touchmove", "touchend", "touchcancel"]) {
  canvas.addEventListener(kind, onTouch, { passive: false });
}
find(".ov-in").addEventListener("click", () => setZoom(zoom.scale * 1.5));
find(".ov-out").addEventListener("click", () => setZoom(zoom.scale / 1.5));
find(".ov-fit").addEventListener("click", () => setZoom(1));
find(".ov-whole-screen").addEventListener("click", toggleFullscreen);

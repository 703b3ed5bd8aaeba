// Which photo is chosen and whether it is being worked on: told by the page's buttons at once, whatever the
// server is in the middle of. What belongs to another photo, or comes after Stop, is late and not shown.

let current = null, running = false, stopped = false, waiting = false;
// When a request is cancelled, Gradio calls it failed some time later: no news then.
let quietUntil = 0;

// Gradio calls a request failed, too, when the page is left or loaded anew; it is gone on with afterwards.
let leaving = false;
window.addEventListener("beforeunload", () => {
  leaving = true;
  setTimeout(() => { leaving = false; }, 5000);
}, { capture: true });
window.addEventListener("pagehide", () => { leaving = true; });
window.addEventListener("pageshow", () => { leaving = false; });

// Gradio keeps an upload in a folder named by its content.
const photoKey = (file) => (file ? file.path.split(/[/\\]/).at(-2) : null);

function choose(key) {
  if (running) quietUntil = Infinity;
  [current, running, stopped, waiting] = [key, false, false, false];
  keeping = Promise.resolve(null);
  note(RUNNING, null);
}

function isLate(value) {
  if (value.opens) choose(value.of);
  else if (value.of && value.of !== current) return true;
  // The next request begins with one of these.
  if (value.begins || value.photo) stopped = false;
  if (stopped && (value.kind === "working" || value.kind === "result")) return true;
  if (value.kind === "result" || value.level === "error") running = false;
  if (value.kind === "working" && !value.begins) waiting = false;
  return false;
}

const WAITS_FOR_RUN = {
  compare: "the comparison", model: "CLIP", proposer: "masks", density: "how many masks", max_side_px: "working size", arm: "arm",
  against: "what it is compared with",
};

function tellPending(names) {
  const line = document.querySelector("#pending .html-container") || document.querySelector("#pending");
  line?.replaceChildren(...(names.length ? [make("p", {}, `Press Run to use: ${names.map((name) => WAITS_FOR_RUN[name]).join(", ")}.`)] : []));
}

// Gradio's own line of the waiting queue is small and elsewhere; its news belong above the picture.
function watchQueue() {
  const line = document.querySelector("#queue");
  if (!line) return void setTimeout(watchQueue, 300);
  new MutationObserver(() => {
    const place = /queue:\s*(\d+)\/(\d+)/.exec(line.textContent);
    if (place && waiting) status.textContent = `Waiting for a free place: number ${place[1]} of ${place[2]} in the line …`;
  }).observe(line, { subtree: true, childList: true, characterData: true });
}
watchQueue();

const WHAT_ELSE = "What else is here?";

// Work that leaves what is shown in its place: its buttons tell of it.
function showAside({ message, fraction }) {
  for (const button of [document.querySelector("#what-else"), find(".ov-none button")]) {
    if (!button) continue;
    button.textContent = message || WHAT_ELSE;
    button.setAttribute("aria-busy", String(Boolean(message)));
    button.style.setProperty("--ov-share", `${Math.round(100 * (message ? fraction : 0))}%`);
  }
}

globalThis.ovseg = {
  // The result in the picture; null while there is none.
  shown: () => result,

  photoPayload(file) {
    choose(photoKey(file));
    if (file) fetchChosen(file);
    return file ? { kind: "photo", url: file.url, of: current } : { kind: "empty" };
  },

  begin([file, ...values]) {
    quietUntil = quietUntil === Infinity ? Date.now() + 5000 : 0;
    [current, running, stopped, waiting] = [photoKey(file), true, false, true];
    const asked = Object.fromEntries(SHARED_FIELDS.map((name, i) => [name, values[i]]));
    if (file) keeping = keepRequest(file, asked).catch(() => null);
    bringIntoView();
    return { kind: "working", message: "Waiting for a free place …", fraction: 0, begins: true, of: current };
  },

  stop() {
    [quietUntil, running, stopped, waiting] = [Infinity, false, true, false];
    note(RUNNING, null);
    return { kind: "note", level: "stopped", message: "Stopped; what was there stays." };
  },

  async failed() {
    if (quietUntil === Infinity || Date.now() < quietUntil) return null;
    const there = await isReachable();
    if (leaving) return null;
    if (!there) {
      showAway();
      return null;
    }
    running = waiting = false;
    note(RUNNING, null);
    const message = "The demo could not take this request: its waiting line is full, or the connection was lost. " +
      "Please try again in a minute.";
    return { kind: "note", level: "error", message };
  },

  withMemory: async (values) => [
    ...values.slice(0, -2), ...(await Promise.all([memoryPath(), promptsPath()].map((path) => path.catch(() => null)))),
  ],
  correctionsPath: () => correctionsPath(),

  // Whatever fills the photo field says so.
  hasPhoto(file) { photoFile = file || null; },

  restored() {
    restoring.done();
    return restoring.values;
  },

  // Settings that a new run is needed for say so beside its button.
  changed(values) {
    const asked = Object.fromEntries(SHARED_FIELDS.map((name, i) => [name, values[i]]));
    tellPending(Object.keys(WAITS_FOR_RUN).filter((name) => result?.asked && asked[name] !== result.asked[name]));
  },

  looking: () => ({ kind: "aside", message: "Waiting for a free place …", fraction: 0 }),

  failedAside() {
    showAside({});
    return { kind: "note", level: "error", message: "The demo could not look for names just now. Please try again in a minute." };
  },
};

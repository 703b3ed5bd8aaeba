// Whether the server still answers while something is worked on: if it does not, the page says so and goes on
// by itself when it is back.

const CHECK_EVERY_MS = 3000;
let away = false;

// A server that is slow is there; one that refuses the connection is not.
async function isReachable() {
  try {
    const answer = await fetch("healthz", { cache: "no-store", signal: AbortSignal.timeout(8000) });
    return ![502, 504].includes(answer.status);
  } catch (error) {
    return error.name === "TimeoutError";
  }
}

function showAway() {
  away = true;
  find(".ov-working").hidden = true;
  tell("The server cannot be reached. This page tries again by itself every few seconds.", "error");
  stage.dataset.state = "away";
}

async function checkConnection() {
  if (!running && !away) return;
  const there = await isReachable();
  if (!there && !away) showAway();
  if (!there || !away) return;
  away = false;
  tell("The server is back; going on with your photo …");
  await resume();
}

// One check at a time, however long it takes.
(async () => {
  for (;;) {
    await new Promise((done) => setTimeout(done, CHECK_EVERY_MS));
    await checkConnection().catch(() => {});
  }
})();

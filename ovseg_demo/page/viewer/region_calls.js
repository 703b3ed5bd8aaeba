// Short calls about single regions of the photo: what a click means, what a mask is called, what is like it.
// They go past the waiting line of the long runs, and hold nothing on the server.

// The photo in the photo field, as Gradio's upload knows it.
let photoFile = null;

class CallError extends Error {}

async function call(name, content, signal) {
  let answer;
  try {
    answer = await fetch(`ovseg/${name}`, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(content), signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new CallError("The server cannot be reached. What you have corrected stays; try this again in a moment.");
  }
  const told = await answer.json().catch(() => ({}));
  if (answer.ok) return told;
  const error = new CallError(told.detail || "The server could not do this just now; please try again.");
  error.status = answer.status;
  throw error;
}

const modelsOf = (shown) => {
  const { model, proposer, density, max_side_px } = shown.asked || {};
  return { model, proposer, density, max_side_px };
};

// A call about the photo of the result that is shown; the photo is sent again if the server no longer has it.
async function callAboutPhoto(name, content, signal) {
  const shown = result;
  if (!shown.asked) throw new CallError("Press Run with this photo first; then its regions can be corrected.");
  const [path, memory] = [await photoPath(shown), await memoryPath().catch(() => null)];
  const about = { ...content, memory, models: modelsOf(shown), map: [shown.height, shown.width] };
  try {
    return await call(name, { ...about, photo: path }, signal);
  } catch (error) {
    if (error.status !== 410) throw error;
    forgetSent();
    return call(name, { ...about, memory: await memoryPath().catch(() => null), photo: await sentAgain() }, signal);
  }
}

async function photoPath(shown) {
  // A photo that was opened from the strip is being uploaded.
  for (let i = 0; i < 50 && shown === result; i++) {
    if (photoFile && shown.of && photoKey(photoFile) === shown.of) return photoFile.path;
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new CallError("The photo of this result is not in the photo field; drop it there and press Run to correct it.");
}

async function sentAgain() {
  const entry = await findPhoto((await photoIdentity(result)) || "");
  const bytes = entry?.photo || (await chosen.bytes);
  if (!bytes) throw new CallError("The server no longer has this photo; choose it again and press Run.");
  const { path } = await upload(new File([bytes], entry?.name || photoFile.orig_name || "photo", { type: bytes.type }));
  photoFile = { ...photoFile, path };
  return path;
}

// Questions about the result that is shown, which the server answers one after the other. One that another of its
// kind has overtaken before it was asked is not asked any more.

let asking = null, questions = 0;
const waitingQuestions = new Map();

// The classes that the server knows; those that corrections brought come after them.
function askedClasses() {
  const arm = mainArm();
  return arm.classes.slice(0, result.sent.arms[arm.name].classes.length);
}

class OvertakenError extends Error {}

function ask(kind, content, files = []) {
  return new Promise((resolve, reject) => {
    waitingQuestions.get(kind)?.reject(new OvertakenError());
    waitingQuestions.set(kind, { kind, content: { ...content, key: result.key }, files, resolve, reject });
    askNext();
  });
}

function askNext() {
  if (asking || !waitingQuestions.size) return;
  const [kind, question] = waitingQuestions.entries().next().value;
  waitingQuestions.delete(kind);
  asking = { ...question, to: ++questions };
  document.querySelector("#ask")?.click();
}

// An answer to a question that was dropped meanwhile says nothing.
function takeAnswer(value) {
  if (value.to !== asking?.to) return;
  const { resolve, reject } = asking;
  asking = null;
  if (value.error) reject(new Error(value.error));
  else resolve(value);
  askNext();
}

// As Gradio's own file fields send it.
async function uploaded(file) {
  const { path, url } = await upload(file);
  return { path, url, orig_name: file.name, meta: { _type: "gradio.FileData" } };
}

async function deflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

onForgotten.push(() => {
  for (const { reject } of [...waitingQuestions.values(), ...(asking ? [asking] : [])]) reject(new OvertakenError());
  waitingQuestions.clear();
  asking = null;
});

Object.assign(globalThis.ovseg, {
  question: () => [
    JSON.stringify({ ...asking?.content, kind: asking?.kind, to: asking?.to }), asking?.files.length ? asking.files : null,
  ],

  questionFailed() {
    const { reject } = asking || {};
    asking = null;
    reject?.(new Error("The demo could not answer just now. Please try again in a minute."));
    askNext();
  },
});

// The visitor's memory as pictures with names: each can be switched off or removed; all can be taken away and
// brought back as a file.

const MOST_SHOWN = 120;
const memoryTitle = make("summary", {}), memoryTold = make("p", { class: "ed-hint", role: "status" });
const memoryList = make("ul", { class: "mem-list" });
const memoryFull = make("p", { class: "ed-hint mem-full", role: "status" });
const memoryUse = make("input", { type: "checkbox" });
const memoryAsk = button("Ask for its names", { title: "Adds the names of the examples to the words" });
const memoryExport = button("Export"), memoryImport = button("Import"), memoryForget = button("Remove all");
const memoryChoice = make("input", { type: "file", accept: ".safetensors", "aria-label": "A memory to import", hidden: "" });
const memoryPanel = make("details", { class: "mem" }, memoryTitle,
  make("p", {}, "Each region that you give a name is an example. Where a region of a photo looks like one, it takes its name, if that is among the words. They are kept in this browser only, sent along with each run, and never shared."),
  make("div", { class: "ed-row" }, make("label", {}, memoryUse, " Use it"), memoryAsk, memoryExport, memoryImport, memoryForget, memoryChoice),
  memoryTold, memoryFull, memoryList);
strip.after(memoryPanel);

const memoryTell = (text, level = "") => { memoryTold.textContent = text; memoryTold.dataset.level = level; };

function showMemory() {
  const all = shownExamples(), own = all.filter((one) => one.model === modelNow());
  memoryTitle.textContent = `Your memory: ${howMany(all.length, "example")}${all.length && !memoryOn() ? ", not used" : ""}`;
  memoryFull.textContent = all.length < MOST_EXAMPLES ? "" : `This browser keeps at most ${MOST_EXAMPLES.toLocaleString("en")} examples: with each new one the oldest goes, so export them first if you need them all.`;
  memoryUse.checked = memoryOn();
  memoryAsk.disabled = memoryExport.disabled = own.length === 0;
  memoryForget.disabled = all.length === 0;
  memoryList.replaceChildren(...all.slice(-MOST_SHOWN).reverse().map((one) => {
    const picture = make("img", { src: one.thumbnail ? `data:image/jpeg;base64,${one.thumbnail}` : "data:,", alt: "" });
    const use = make("input", { type: "checkbox", "aria-label": `Use the example ${one.name}` });
    use.checked = one.on;
    use.addEventListener("change", () => changeMemory([{ ...one, on: use.checked }]));
    const remove = button("×", { "aria-label": `Remove the example ${one.name}`, title: "Remove" });
    remove.addEventListener("click", () => removeExample(one));
    const name = make("span", { class: "ov-name" }, one.name), other = one.model === modelNow() ? "" : make("span", { class: "ov-faint" }, ` of ${one.model}`);
    return make("li", { "data-on": String(one.on) }, picture, make("label", {}, use, name, other), remove);
  }));
  if (all.length > MOST_SHOWN) memoryList.append(make("li", {}, `and ${all.length - MOST_SHOWN} older ones`));
}

// An example of a correction that stays must not come back with the next one.
function removeExample(one) {
  if (!one.photo) return changeMemory([], [one.id]);
  return changeMemory([{ ...one, declined: true, thumbnail: "", features: {} }]);
}

memoryUse.addEventListener("change", () => setMemoryOn(memoryUse.checked));
memoryAsk.addEventListener("click", () => {
  const field = document.querySelector("#words textarea");
  const have = new Set(field.value.split(/[,|]/).map(foldName)), names = [...new Set(usedExamples().map((one) => one.name))];
  const fresh = names.filter((name) => !have.has(foldName(name)));
  if (!fresh.length) return memoryTell("All its names are among the words already.");
  field.value = [field.value.trim().replace(/,$/, ""), ...fresh.map(asWord)].filter(Boolean).join(", ");
  field.dispatchEvent(new Event("input", { bubbles: true }));
  memoryTell(`${howMany(fresh.length, "word")} added. Press Run.`);
});
memoryExport.addEventListener("click", () => {
  download(memoryFile(shownExamples().filter((one) => one.model === modelNow())), "memory.safetensors");
});
memoryImport.addEventListener("click", () => memoryChoice.click());
memoryChoice.addEventListener("change", async () => {
  const [file] = memoryChoice.files;
  memoryChoice.value = "";
  if (!file) return;
  memoryTell("Reading the memory …");
  try {
    const [fresh, all] = await importMemory(file);
    memoryTell(`${howMany(all, "example")} read, ${fresh} of them new.`);
  } catch (error) {
    memoryTell(error.message, "error");
  }
});
memoryForget.addEventListener("click", async () => {
  const all = shownExamples();
  await changeMemory(all.filter((one) => one.photo).map((one) => ({ ...one, declined: true, thumbnail: "", features: {} })), all.filter((one) => !one.photo).map(({ id }) => id));
  memoryTell("The memory is empty.");
});
onMemory.push(showMemory);
onShown.push(showMemory);
showMemory();
loadMemory();

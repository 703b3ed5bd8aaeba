// The words as chips, in the colours of the picture. The text field of Gradio holds them; chips show it and
// write to it. Names become text nodes.

const find = (selector) => element.querySelector(selector);
const list = find(".ch-list"), input = find(".ch-input"), options = find(".ch-options"), hint = find(".ch-hint");
const ENDS = ",;\n\r\t，、；،؛";
const SEPARATOR = new RegExp(`[${ENDS}]`);
// As the server reads it: a name in double quotes keeps what would part it, and two quotes in it stand for one.
const WORD = new RegExp(`\\s*"((?:[^"\n\r|｜]|"")+)"\\s*(?=[${ENDS}|｜]|$)|([^${ENDS}|｜]*)`, "y");
const OPEN_QUOTE = new RegExp(`(^|[${ENDS}|｜])\\s*"[^"]*$`);
const MOST_CHIPS = 60, MOST_OPTIONS = 6;
const nouns = props.nouns || [];

let words = [], known = new Map(), active = -1;

const fold = (name) => name.normalize("NFKC").toLowerCase().trim().replace(/\s+/g, " ");
const isNoun = new Set(nouns.map(fold));

// The first synonym of a class, without its quotes.
function first(word) {
  WORD.lastIndex = 0;
  const [, quoted, plain] = WORD.exec(word);
  return (quoted ? quoted.replaceAll('""', '"') : plain).trim();
}

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// The classes in a text, each as it was typed.
function entries(text) {
  const found = [];
  for (let at = 0, start = 0; ; at++) {
    WORD.lastIndex = at;
    at += WORD.exec(text)[0].length;
    if (text[at] === "|" || text[at] === "｜") continue;
    found.push(text.slice(start, at).trim());
    if (at >= text.length) return found;
    start = at + 1;
  }
}

// Each class once.
function parted(text) {
  const found = new Map();
  for (const word of entries(text)) {
    const key = fold(first(word)) || fold(word);
    if (key && !found.has(key)) found.set(key, word);
  }
  return [...found.values()];
}

function write() {
  const field = document.querySelector("#words textarea");
  if (field) {
    field.value = words.join(", ");
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  render();
}

function add(text) {
  const before = words.length;
  words = parted([...words, ...parted(text)].join(","));
  write();
  tellOf(words.slice(before));
}

function remove(word) {
  words = words.filter((other) => other !== word);
  write();
}

function render() {
  list.replaceChildren(...words.slice(0, MOST_CHIPS).map(chip));
  if (words.length > MOST_CHIPS) list.append(make("li", { class: "ch-more" }, `and ${words.length - MOST_CHIPS} more`));
  input.placeholder = words.length ? "Add a word" : "dog, grass, sofa | couch";
}

function chip(word) {
  const seen = known.get(fold(first(word)));
  const name = make("button", { type: "button", class: "ch-name" }, word);
  if (seen?.found) {
    name.prepend(make("span", { class: "ch-dot", style: `background:rgb(${seen.colour.join(",")})` }));
    name.setAttribute("aria-pressed", String(!seen.hidden));
    name.title = seen.hidden ? "Show it in the picture" : "Hide it in the picture";
  } else name.title = seen ? "Not found; press to edit" : "Press to edit";
  name.addEventListener("click", () => {
    if (seen?.found) return document.dispatchEvent(new CustomEvent("ovseg-toggle", { detail: seen.index }));
    remove(word);
    input.value = word;
    input.focus();
  });
  const cross = make("button", { type: "button", class: "ch-remove", "aria-label": `Remove ${word}` }, "×");
  cross.addEventListener("click", () => { remove(word); input.focus(); });
  return make("li", { class: "ch-chip", "data-state": seen ? (seen.found ? (seen.hidden ? "hidden" : "found") : "absent") : "new" }, name, cross);
}

// --- completion ------------------------------------------------------------------------------------------

const lastPart = () => fold(input.value.split("|").at(-1));

function complete() {
  const typed = lastPart(), have = new Set(words.map((word) => fold(first(word))));
  const fits = typed.length < 2 ? [] : [
    ...nouns.filter((noun) => noun.startsWith(typed)),
    ...nouns.filter((noun) => noun.includes(` ${typed}`)),
  ].filter((noun) => !have.has(noun) && noun !== typed).slice(0, MOST_OPTIONS);
  active = -1;
  options.hidden = fits.length === 0;
  input.setAttribute("aria-expanded", String(fits.length > 0));
  input.removeAttribute("aria-activedescendant");
  options.replaceChildren(...fits.map((noun, i) => {
    const option = make("li", { role: "option", id: `ch-option-${i}`, "aria-selected": "false" }, noun);
    option.addEventListener("pointerdown", (event) => { event.preventDefault(); take(noun); });
    return option;
  }));
}

function choose(step) {
  const all = [...options.children];
  if (!all.length) return;
  active = (active + step + all.length + (active < 0 && step < 0 ? 1 : 0)) % all.length;
  all.forEach((option, i) => option.setAttribute("aria-selected", String(i === active)));
  input.setAttribute("aria-activedescendant", all[active].id);
}

function take(noun) {
  const before = input.value.split("|").slice(0, -1);
  clear();
  add([...before, noun].join(" | "));
  input.focus();
}

function clear() {
  input.value = "";
  complete();
}

function commit() {
  const text = input.value;
  clear();
  if (text.trim()) add(text);
}

// --- what is wrong with a word -----------------------------------------------------------------------------

function tellOf(fresh) {
  hint.replaceChildren();
  const foreign = fresh.filter((word) => /[^\p{Script=Latin}\p{Script=Common}\p{Script=Inherited}]/u.test(word) || (/[^\x00-\x7f]/.test(word) && /\p{L}/u.test(word) && !isNoun.has(fold(first(word)))));
  if (foreign.length) hint.append(`${foreign.slice(0, 3).join(", ")}: English only, for now.`);
  for (const word of fresh.slice(0, 40)) {
    const noun = foreign.includes(word) ? null : nearest(fold(first(word)));
    if (!noun) continue;
    const button = make("button", { type: "button" }, noun);
    button.addEventListener("click", () => {
      words = words.map((other) => (other === word ? noun : other));
      hint.replaceChildren();
      write();
    });
    return hint.append(make("span", {}, `${first(word)}: did you mean `, button, "?"));
  }
}

// A noun that differs from the word by no more than a slip; null if the word is one, or nothing is near.
function nearest(word) {
  const plain = [word, word.replace(/s$/, ""), word.replace(/es$/, "")];
  if (word.length < 4 || plain.some((form) => isNoun.has(form))) return null;
  let best = null, least = word.length < 6 ? 1 : 2;
  for (const noun of nouns) {
    if (Math.abs(noun.length - word.length) > least) continue;
    const slips = distance(word, noun, least);
    if (slips < least || (slips === least && !best)) [best, least] = [noun, slips];
  }
  return best;
}

// Letters that are wrong, missing, too many or swapped; more than `most` counts as most + 1.
function distance(a, b, most) {
  let before = [], row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + Number(a[i - 1] !== b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) next[j] = Math.min(next[j], before[j - 2] + 1);
    }
    if (Math.min(...next) > most) return most + 1;
    [before, row] = [row, next];
  }
  return row[b.length];
}

// --- what a visitor does, and what the page says --------------------------------------------------------------

input.addEventListener("input", () => {
  if (SEPARATOR.test(input.value) && !OPEN_QUOTE.test(input.value)) {
    const parts = entries(input.value), open = parts.pop();
    input.value = open.trimStart();
    add(parts.join(","));
  }
  complete();
});
input.addEventListener("paste", (event) => {
  const text = event.clipboardData.getData("text/plain");
  if (!SEPARATOR.test(text)) return;
  event.preventDefault();
  add(`${input.value}${text}`);
  clear();
});
input.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    choose(event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "Enter") {
    event.preventDefault();
    if (active >= 0) return take(options.children[active].textContent);
    commit();
    // When Gradio has the words.
    setTimeout(() => document.querySelector("#run")?.click(), 100);
  } else if (event.key === "Escape") {
    options.hidden = true;
    active = -1;
  } else if (event.key === "Backspace" && !input.value && words.length) remove(words.at(-1));
});
input.addEventListener("blur", commit);
find(".ch-box").addEventListener("click", (event) => { if (event.target === find(".ch-box")) input.focus(); });
find(".ch-text").addEventListener("click", (event) => {
  const open = document.querySelector("#inputs").classList.toggle("as-text");
  event.target.setAttribute("aria-pressed", String(open));
  if (open) document.querySelector("#words textarea")?.focus();
});

document.addEventListener("ovseg-words", ({ detail }) => {
  const told = parted(detail || "");
  if (told.join() === words.join()) return;
  words = told;
  hint.replaceChildren();
  render();
});
document.addEventListener("ovseg-shown", ({ detail }) => {
  known = new Map(detail.map((c) => [fold(c.name), c]));
  render();
});

words = parted(props.value || "");
render();
document.dispatchEvent(new CustomEvent("ovseg-ask"));

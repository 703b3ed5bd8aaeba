// What can be done with regions, each as the next list of corrections. Nothing in here touches the page.

const newUid = () => crypto.randomUUID?.() ?? `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
// Ids of the result's own regions stay; corrected ones have a name of their own, whatever their number.
const regionKey = (fact) => fact.uid ?? fact.id;
const regionByKey = (arm, key) => [...arm.byId.values()].find((fact) => regionKey(fact) === key);

// The pixels that are meant by a region: of a corrected one its mask, of another what is seen of it.
function meantMask(shown, arm, fact) {
  if (fact.mask) return fact.mask;
  const seen = new Uint8Array(arm.regions.length);
  for (let i = 0; i < seen.length; i++) seen[i] = Number(arm.regions[i] === fact.id);
  if (maskArea(seen)) return seen;
  for (let i = 0; i < seen.length; i++) seen[i] = Number(inRegion(shown, fact, i));
  return seen;
}

const regionName = (arm, fact) => (fact.class_index ? arm.classes[fact.class_index - 1].name : null);

function newRegion(shown, mask, name, colour, added, full = null) {
  return { uid: newUid(), counts: encodeMask(mask, shown.width, shown.height), full, name, colour, added };
}

// A region with another mask or name, or both.
function changedRegion(shown, arm, list, fact, { mask = null, name, colour }) {
  if (fact.uid) {
    return list.map((one) => {
      if (one.uid !== fact.uid) return one;
      const counts = mask ? encodeMask(mask, shown.width, shown.height) : one.counts;
      return { ...one, counts, full: mask ? null : one.full, name, colour };
    });
  }
  return [...list, newRegion(shown, mask || meantMask(shown, arm, fact), name, colour, false)];
}

// A region of the result leaves its pixels unassigned; one that was added leaves what lies below it.
function withoutRegion(shown, arm, list, fact) {
  const one = list.find(({ uid }) => uid === fact.uid);
  if (one?.added) return list.filter(({ uid }) => uid !== fact.uid);
  return changedRegion(shown, arm, list, fact, { name: null, colour: null });
}

function mergedRegions(shown, arm, list, facts, name, colour) {
  const union = facts.map((fact) => meantMask(shown, arm, fact)).reduce((one, other) => combined(one, other, (a, b) => a || b));
  const taken = new Set(facts.map((fact) => fact.uid).filter(Boolean));
  // What was no addition stays below, so that erasing the union does not bring it back.
  const left = list.filter(({ uid, added }) => !(taken.has(uid) && added));
  return [...left, newRegion(shown, union, name, colour, false)];
}

// Two regions out of one: `part` with a name of its own, the rest as it was.
function cutRegion(shown, arm, list, fact, part, name, colour) {
  const rest = combined(meantMask(shown, arm, fact), part, (a, b) => a && !b);
  const own = { name: regionName(arm, fact), colour: colourOf(arm, fact) };
  const next = maskArea(rest) ? changedRegion(shown, arm, list, fact, { mask: rest, ...own }) : withoutRegion(shown, arm, list, fact);
  return [...next, newRegion(shown, part, name, colour, Boolean(list.find(({ uid }) => uid === fact.uid)?.added))];
}

const colourOf = (arm, fact) => (fact.class_index ? arm.classes[fact.class_index - 1].colour : null);

// A region with an edge that a brush has moved; what was taken from a region of the result becomes unassigned.
function brushedRegion(shown, arm, list, fact, mask, name, colour) {
  if (!maskArea(mask)) return withoutRegion(shown, arm, list, fact);
  const before = meantMask(shown, arm, fact), taken = combined(before, mask, (a, b) => a && !b);
  const changed = changedRegion(shown, arm, list, fact, { mask, name, colour });
  const own = fact.uid ? changed.findIndex(({ uid }) => uid === fact.uid) : changed.length - 1;
  if (changed[own].added || !maskArea(taken)) return changed;
  return [...changed.slice(0, own), newRegion(shown, taken, null, null, false), ...changed.slice(own)];
}

// The hue that is farthest from those of the classes; the same name begins at the same hue.
function freeColour(arm, name) {
  const taken = arm.classes.map((c) => c.colour);
  const first = [...foldName(name)].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % HUES.length, 7);
  const far = (hue) => Math.min(1e6, ...taken.map((c) => c.reduce((sum, value, i) => sum + (value - hue[i]) ** 2, 0)));
  return HUES.map((_, i) => HUES[(first + i) % HUES.length]).reduce((best, hue) => (far(hue) > far(best) + 4000 ? hue : best));
}

const MARKUP = /<[^<>]*>|<[A-Za-z!/?]|&#?\w+;/;

// What is wrong with a name, as the server would say it; "" if nothing is.
function wrongName(name) {
  if (!name) return "Type a name, or choose one.";
  if (name.length > 100) return `The name has ${name.length} characters, and at most 100 are allowed; shorten it.`;
  if (MARKUP.test(name)) return "The name holds markup; write it as plain words.";
  return /[|｜]/.test(name) ? "The name holds a bar, which parts synonyms; write one name." : "";
}

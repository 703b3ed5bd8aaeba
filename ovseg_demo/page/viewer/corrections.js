// Corrections: one ordered list of regions that lies over a result; later ones lie on top. Nothing of the
// result is lost: undo is the list before.
//
// Each is { uid, counts, name, colour, added, full }: `counts` at the size of the maps; `name` null where no word
// fits; `added` if it was no region of the result; `full` the same mask at the size of the photo, if known.

const maskCache = new WeakMap();
function maskOf(correction, { width, height }) {
  if (!maskCache.has(correction)) maskCache.set(correction, decodeMask(correction.counts, width, height));
  return maskCache.get(correction);
}

const foldName = (name) => name.normalize("NFKC").toLowerCase().trim().replace(/\s+/g, " ");
const classNamed = (classes, name) => classes.find((c) => [c.name, ...c.synonyms].some((word) => foldName(word) === foldName(name)));

function correctedArm(shown, arm, list) {
  if (!list.length) return arm;
  const { width, height } = shown, size = width * height;
  const labels = arm.labels.slice(), regions = arm.regions.slice(), byId = new Map(arm.byId);
  const classes = arm.classes.map((c) => ({ ...c })), spots = [];
  let id = Math.max(0, ...byId.keys());
  for (const correction of list) {
    const mask = maskOf(correction, shown);
    let c = null;
    if (correction.name !== null) {
      c = classNamed(classes, correction.name);
      if (!c) {
        c = { index: classes.length + 1, name: correction.name, synonyms: [correction.name], colour: correction.colour, found: true, confidence: 1 };
        classes.push(c);
      }
      c.corrected = true;
    }
    id++;
    const index = c ? c.index : 0;
    for (let i = 0; i < size; i++) {
      if (!mask[i]) continue;
      labels[i] = index;
      regions[i] = id;
    }
    const [left, top, right, bottom] = maskBox(mask, width, height);
    const [across, down] = [shown.photo.width / width, shown.photo.height / height];
    byId.set(id, {
      id, mask, uid: correction.uid, corrected: true, class_index: index, confidence: 1, quality: 1,
      box: [left * across, top * down, right * across, bottom * down].map(Math.round), area_fraction: maskArea(mask) / size,
      top: c ? [{ name: c.name, score: 1 }] : [], closest_hidden: "", place: -1,
    });
  }
  const areas = new Uint32Array(classes.length + 1);
  for (let i = 0; i < size; i++) areas[labels[i]]++;
  for (const c of classes) {
    c.area_fraction = areas[c.index] / size;
    c.found = areas[c.index] > 0;
    if (c.corrected && c.found) c.confidence = 1;
  }
  // Names stay where they still stand on their class; a corrected region has its own.
  for (const fact of byId.values()) {
    if (!fact.corrected || !fact.class_index) continue;
    const seen = fact.mask.map((value, i) => Number(value && regions[i] === fact.id));
    if (maskArea(seen)) spots.push({ index: fact.class_index, corrected: true, ...maskSpot(seen, width, height) });
  }
  spots.reverse();
  for (const spot of arm.spots) {
    const i = Math.min(height - 1, Math.floor(spot.y * height)) * width + Math.min(width - 1, Math.floor(spot.x * width));
    const fact = byId.get(regions[i]);
    if (labels[i] === spot.index && !fact?.corrected) spots.push(spot);
  }
  return { ...arm, labels, regions, byId, classes, spots, unassigned_fraction: areas[0] / size };
}

// What is sent to the server: masks at the size of the map or of the photo, and the colours they have here.
function sentCorrections(shown, list) {
  const colours = {};
  for (const { name, colour } of list) if (name !== null && colour) colours[foldName(name)] = colour;
  return { map: [shown.height, shown.width], colours, regions: list.map(({ counts, full, name }) => ({ counts, full: full || null, name })) };
}

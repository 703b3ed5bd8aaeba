// From what the server sends to typed arrays. Nothing in here touches the page.

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

async function numbers(text) {
  // Little-endian 16-bit, as every browser's own arrays are.
  return new Uint16Array(await inflate(text));
}

function loadPhoto(photo) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("The photo could not be shown."));
    image.src = photo.url;
  });
}

async function decodeResult(value) {
  const { width, height } = value.map;
  const result = { ...value, sent: value, width, height, image: await loadPhoto(value.photo), arms: {} };
  for (const [name, arm] of Object.entries(value.arms)) {
    const byId = new Map(arm.facts.map((fact, place) => [fact.id, { ...fact, place }]));
    const [labels, regions] = await Promise.all([numbers(arm.labels), numbers(arm.regions)]);
    result.arms[name] = { ...arm, name, labels, regions, byId };
  }
  result.bits = value.masks ? new Uint8Array(await inflate(value.masks)) : null;
  result.bytesPerMask = Math.ceil((width * height) / 8);
  return result;
}

// Whether pixel number i of the map lies in the whole region, also where another one covers it.
function inRegion(result, fact, i) {
  if (fact.mask) return fact.mask[i] === 1;
  if (!result.bits) return false;
  const byte = result.bits[fact.place * result.bytesPerMask + (i >> 3)];
  return ((byte >> (7 - (i & 7))) & 1) === 1;
}

// The region that decided pixel i; where none did, the smallest one that holds it.
function regionAt(result, arm, i) {
  const decided = arm.byId.get(arm.regions[i]);
  if (decided) return decided;
  let smallest = null;
  for (const fact of arm.byId.values()) {
    if ((!smallest || fact.area_fraction < smallest.area_fraction) && inRegion(result, fact, i)) smallest = fact;
  }
  return smallest;
}

function className(arm, index) {
  return index ? arm.classes[index - 1].name : "unassigned";
}

function percent(fraction) {
  if (fraction > 0 && fraction < 0.01) return "< 1 %";
  return `${Math.round(fraction * 100)} %`;
}

const confidencePercent = (confidence) => Math.round(confidence * 100);

// One word for one number, wherever it is shown; the legend tells the bounds.
function sureness(confidence) {
  const number = confidencePercent(confidence);
  if (number >= 75) return "sure";
  return number >= 45 ? "likely" : "unsure";
}

const confidenceText = (confidence) => `${sureness(confidence)}, ${confidencePercent(confidence)} %`;

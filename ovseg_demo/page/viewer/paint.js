// Layers of the picture. Each is a canvas of the size of the maps, made once and drawn as often as needed.

function layer(result, paintPixel) {
  const canvas = document.createElement("canvas");
  canvas.width = result.width;
  canvas.height = result.height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(result.width, result.height);
  const pixels = new Uint32Array(picture.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = paintPixel(i);
  context.putImageData(picture, 0, 0);
  return canvas;
}

// Canvas pixels in memory: alpha, blue, green, red from the high byte to the low one.
function packed([red, green, blue], alpha = 255) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

const NOTHING = 0;
const BLACK = packed([0, 0, 0]);

function colourLayer(result, arm, hidden) {
  const colours = [NOTHING, ...arm.classes.map((c) => (hidden.has(c.index) ? NOTHING : packed(c.colour)))];
  return layer(result, (i) => colours[arm.labels[i]]);
}

function dimLayer(result, arm) {
  return layer(result, (i) => (arm.labels[i] ? NOTHING : BLACK));
}

function allButClassLayer(result, arm, index) {
  return layer(result, (i) => (arm.labels[i] === index ? NOTHING : BLACK));
}

// Where the arms differ, in the colour of what the first one says; light grey where it says nothing.
function differenceLayer(result) {
  const [first, second] = Object.values(result.arms);
  const colours = [packed([232, 234, 238]), ...first.classes.map((c) => packed(c.colour))];
  return layer(result, (i) => (first.labels[i] === second.labels[i] ? NOTHING : colours[first.labels[i]]));
}

function agreementLayer(result) {
  const [first, second] = Object.values(result.arms);
  return layer(result, (i) => (first.labels[i] === second.labels[i] ? BLACK : NOTHING));
}

// A dark line between pixels whose value differs, with a light one on both sides of it.
function outlineLayer(result, valueAt) {
  const { width, height } = result;
  const reach = Math.max(1, Math.round(Math.max(width, height) / 900));
  const strokes = [];
  for (let dy = -reach - 1; dy <= reach + 1; dy++) {
    for (let dx = -reach - 1; dx <= reach + 1; dx++) {
      const distance = Math.hypot(dx, dy);
      if (distance <= reach + 1) strokes.push([dx, dy, distance < reach ? 2 : 1]);
    }
  }
  const kinds = new Uint8Array(width * height);
  const mark = (x, y) => {
    for (const [dx, dy, kind] of strokes) {
      const px = x + dx, py = y + dy;
      if (px < 0 || py < 0 || px >= width || py >= height) continue;
      const i = py * width + px;
      if (kinds[i] < kind) kinds[i] = kind;
    }
  };
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const here = valueAt(i);
      if ((x + 1 < width && valueAt(i + 1) !== here) || (y + 1 < height && valueAt(i + width) !== here)) mark(x, y);
    }
  }
  const colours = [NOTHING, packed([255, 255, 255], 205), packed([16, 18, 22], 235)];
  return layer(result, (i) => colours[kinds[i]]);
}

// Everything drawn for one arm, kept until other classes are hidden.
function armLayers(result, arm, hidden) {
  return {
    colour: colourLayer(result, arm, hidden),
    dim: dimLayer(result, arm),
    outline: outlineLayer(result, (i) => (hidden.has(arm.labels[i]) ? 0 : arm.labels[i])),
  };
}

// Regions while they are being found: thin lines; those of the last step are filled lightly.
function drawPreview(context, preview, width, height, scale) {
  const size = new DOMMatrix([width / preview.width, 0, 0, height / preview.height, 0, 0]);
  const all = new Path2D(), fresh = new Path2D();
  preview.paths.forEach((path, i) => {
    const line = new Path2D(path);
    all.addPath(line, size);
    if (i >= preview.paths.length - preview.fresh) fresh.addPath(line, size);
  });
  context.fillStyle = "rgba(255, 255, 255, 0.3)";
  context.fill(fresh, "evenodd");
  context.lineJoin = "round";
  // Thinner where the picture is small.
  const unit = scale * Math.min(1, Math.max(0.65, width / scale / 700));
  for (const [thick, colour] of [[3.2, "rgba(255, 255, 255, 0.8)"], [1.4, "rgba(16, 18, 22, 0.92)"]]) {
    context.lineWidth = thick * unit;
    context.strokeStyle = colour;
    context.stroke(all);
  }
}

const NAME_FONT = "system-ui, sans-serif";

// Where there is room for them, largest area first, none upon another.
function drawNames(context, arm, hidden, width, height, scale) {
  const named = arm.spots.filter((spot) => !hidden.has(spot.index)).map((spot) => {
    const c = arm.classes[spot.index - 1];
    return { spot, text: `${shortened(c.name, 28)}${spot.corrected ? " ✓" : ""}`, colour: c.colour };
  });
  drawPills(context, named, width, height, scale, 2.3);
}

// In the difference, what an area was and what it became.
function drawChanges(context, result, width, height, scale) {
  const { classes } = Object.values(result.arms)[0];
  const called = (index) => (index ? shortened(classes[index - 1].name, 18) : "unassigned");
  const named = result.comparison.spots.map((spot) => ({
    spot, text: `${called(spot.from)} → ${called(spot.index)}`,
    colour: spot.index ? classes[spot.index - 1].colour : [232, 234, 238],
  }));
  // Around a change it is dark: its name may stand over the edge.
  drawPills(context, named, width, height, scale, 7);
}

function shortened(name, most) {
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}

// `reach` is how much wider and higher a name may be than half the room of its spot.
function drawPills(context, named, width, height, scale, reach) {
  const buttons = buttonsOver(width, height), taken = [...buttons];
  const largest = 15 * scale, smallest = 11 * scale;
  context.textBaseline = "middle";
  for (const { spot, text, colour } of named) {
    context.font = `500 100px ${NAME_FONT}`;
    const unit = (context.measureText(text).width + 185) / 100;
    const size = Math.min(largest, (reach * spot.w * width) / unit, (reach * spot.h * height) / 1.7);
    if (size < smallest) continue;
    const w = unit * size, h = 1.7 * size;
    let left = Math.min(Math.max(spot.x * width - w / 2, 2), Math.max(2, width - w - 2));
    let top = Math.min(Math.max(spot.y * height - h / 2, 2), Math.max(2, height - h - 2));
    for (const b of buttons) {
      if (left >= b.left + b.w || b.left >= left + w || top >= b.top + b.h || b.top >= top + h) continue;
      // Beside the buttons or above them, as long as the name still stands on its area.
      const aside = b.left - w - 2, above = b.top - h - 2;
      if (Math.abs(aside + w / 2 - spot.x * width) <= spot.w * width && aside > 0) left = aside;
      else if (Math.abs(above + h / 2 - spot.y * height) <= spot.h * height && above > 0) top = above;
    }
    if (taken.some((t) => left < t.left + t.w && t.left < left + w && top < t.top + t.h && t.top < top + h)) continue;
    taken.push({ left, top, w, h });
    drawPill(context, text, colour, { left, top, w, h }, size);
  }
}

// Where the zoom buttons lie over the picture: names keep clear of them.
function buttonsOver(width, height) {
  const box = find(".ov-zoom").getBoundingClientRect();
  if (!box.width) return [];
  const [left, top] = pictureShare(...shareOfStage({ clientX: box.left, clientY: box.top }));
  const [right, bottom] = pictureShare(...shareOfStage({ clientX: box.right, clientY: box.bottom }));
  return [{ left: left * width, top: top * height, w: (right - left) * width, h: (bottom - top) * height }];
}

function drawPill(context, text, colour, { left, top, w, h }, size) {
  context.fillStyle = "rgba(16, 18, 22, 0.8)";
  context.beginPath();
  context.roundRect(left, top, w, h, h / 2);
  context.fill();
  context.beginPath();
  context.arc(left + 0.8 * size, top + h / 2, 0.28 * size, 0, 2 * Math.PI);
  context.fillStyle = `rgb(${colour.join(",")})`;
  context.fill();
  context.lineWidth = size / 11;
  context.strokeStyle = "#fff";
  context.stroke();
  context.font = `500 ${size}px ${NAME_FONT}`;
  context.fillStyle = "#fff";
  context.fillText(text, left + 1.3 * size, top + h / 2 + 0.04 * size);
}

// What the classifier was given: the region's box, its background blanked, stretched to a square.
function clipCrop(result, fact) {
  const size = 224, blank = packed([123, 117, 104]);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  const [left, top, right, bottom] = fact.box;
  const across = result.image.naturalWidth / result.photo.width, down = result.image.naturalHeight / result.photo.height;
  context.drawImage(result.image, left * across, top * down, (right - left) * across, (bottom - top) * down, 0, 0, size, size);
  const cover = document.createElement("canvas");
  cover.width = cover.height = size;
  const picture = cover.getContext("2d").createImageData(size, size);
  const pixels = new Uint32Array(picture.data.buffer);
  for (let y = 0; y < size; y++) {
    const row = Math.min(result.height - 1, Math.floor(((top + ((y + 0.5) / size) * (bottom - top)) / result.photo.height) * result.height));
    for (let x = 0; x < size; x++) {
      const column = Math.min(result.width - 1, Math.floor(((left + ((x + 0.5) / size) * (right - left)) / result.photo.width) * result.width));
      pixels[y * size + x] = inRegion(result, fact, row * result.width + column) ? NOTHING : blank;
    }
  }
  cover.getContext("2d").putImageData(picture, 0, 0);
  context.drawImage(cover, 0, 0);
  return canvas;
}

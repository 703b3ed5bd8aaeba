// Masks at the size of the maps: one byte a pixel, row by row, 0 or 1; kept as COCO's compressed run lengths.

// Lengths of the runs, background first: groups of five bits, low ones first; from the fourth number on, the
// difference to the last but one is written.
function runLengths(code) {
  const runs = [];
  for (let at = 0; at < code.length;) {
    let value = 0, shift = 0, group;
    do {
      group = code.charCodeAt(at++) - 48;
      value |= (group & 31) << shift;
      shift += 5;
    } while (group & 32);
    if (group & 16) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs.at(-2) : value);
  }
  return runs;
}

function decodeMask(code, width, height) {
  const mask = new Uint8Array(width * height);
  let at = 0, inside = 0;
  for (const run of runLengths(code)) {
    if (inside) for (let i = at; i < at + run; i++) mask[(i % height) * width + Math.floor(i / height)] = 1;
    at += run;
    inside ^= 1;
  }
  return mask;
}

function encodeMask(mask, width, height) {
  const runs = [];
  let inside = 0, length = 0;
  for (let x = 0; x < width; x++) {
    for (let i = x; i < mask.length; i += width) {
      if (mask[i] !== inside) {
        runs.push(length);
        [length, inside] = [0, mask[i]];
      }
      length++;
    }
  }
  runs.push(length);
  let code = "";
  runs.forEach((run, i) => {
    let value = i > 2 ? run - runs[i - 2] : run;
    for (let more = true; more;) {
      let group = value & 31;
      value >>= 5;
      more = group & 16 ? value !== -1 : value !== 0;
      if (more) group |= 32;
      code += String.fromCharCode(group + 48);
    }
  });
  return code;
}

const maskArea = (mask) => mask.reduce((sum, value) => sum + value, 0);

function combined(one, other, decide) {
  return one.map((value, i) => Number(decide(value, other[i])));
}

// Left, top, right, bottom in pixels of the map; right and bottom exclusive.
function maskBox(mask, width, height) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!mask[i]) continue;
      if (x < left) left = x;
      if (x >= right) right = x + 1;
      if (y < top) top = y;
      bottom = y + 1;
    }
  }
  return [left, top, right, bottom];
}

// The middle of a mask and its room there, in shares of the picture, as the server gives spots for names.
function maskSpot(mask, width, height) {
  // Distance to the background, by two passes; the border of the picture counts as background.
  const far = new Uint16Array(mask.length);
  const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : far[y * width + x]);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (mask[y * width + x]) far[y * width + x] = 1 + Math.min(at(x - 1, y), at(x, y - 1), at(x - 1, y - 1), at(x + 1, y - 1));
    }
  }
  let best = 0, middle = 0;
  for (let y = height - 1; y >= 0; y--) {
    for (let x = width - 1; x >= 0; x--) {
      const i = y * width + x;
      if (!mask[i]) continue;
      far[i] = Math.min(far[i], 1 + Math.min(at(x + 1, y), at(x, y + 1), at(x + 1, y + 1), at(x - 1, y + 1)));
      if (far[i] > best) [best, middle] = [far[i], i];
    }
  }
  const x = middle % width, y = Math.floor(middle / width);
  let left = x, right = x;
  while (left > 0 && mask[y * width + left - 1]) left--;
  while (right < width - 1 && mask[y * width + right + 1]) right++;
  const reach = Math.max(best, Math.min(x - left, right - x));
  return { x: (x + 0.5) / width, y: (y + 0.5) / height, w: reach / width, h: best / height };
}

// Sets the pixels of a round brush along a line to a value; points are in pixels of the map.
function stroke(mask, width, height, [fromX, fromY], [toX, toY], radius, value) {
  const steps = Math.max(1, Math.ceil(Math.hypot(toX - fromX, toY - fromY) / Math.max(1, radius / 2)));
  for (let step = 0; step <= steps; step++) {
    const cx = fromX + ((toX - fromX) * step) / steps, cy = fromY + ((toY - fromY) * step) / steps;
    const [top, bottom] = [Math.max(0, Math.floor(cy - radius)), Math.min(height - 1, Math.ceil(cy + radius))];
    const [left, right] = [Math.max(0, Math.floor(cx - radius)), Math.min(width - 1, Math.ceil(cx + radius))];
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        if (Math.hypot(x - cx, y - cy) <= radius) mask[y * width + x] = value;
      }
    }
  }
}

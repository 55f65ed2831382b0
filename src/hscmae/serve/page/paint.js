// Draws points fast enough for hundreds of thousands: few as shapes with an edge, many as pixels. Sounds are round,
// pictures are diamonds.

import { DIMMED } from "./points.js";

const FEW = 1500; // more shapes than these take a browser longer than as many pixels
const BACK = 0.15; // opacity of what stands back
const sheet = document.createElement("canvas");
let image = null;

// Onto a canvas, a view {x, y, scale} of `ratio` pixels a unit of scale; returns how many are in view.
// colours: "#rrggbb" by number; ground: what they lie on.
export function paint(canvas, points, view, ratio, colours, ground) {
  const context = canvas.getContext("2d");
  const scale = view.scale * ratio;
  const place = { scale, x: view.x - canvas.width / 2 / scale, y: view.y - canvas.height / 2 / scale };
  const runs = points.runs(place.x, place.y, place.x + canvas.width / scale, place.y + canvas.height / scale);
  let seen = 0;
  for (let r = 0; r < runs.length; r += 2) seen += runs[r + 1] - runs[r];
  context.setTransform(1, 0, 0, 1, 0, 0);
  if (seen <= FEW) shapes(context, points, runs, place, seen, ratio, colours, ground);
  else pixels(context, points, runs, place, seen, ratio, colours, ground);
  return seen;
}

const layers = (points) => (points.dimmed ? [DIMMED, 0] : [0]);

function shapes(context, points, runs, place, seen, ratio, colours, ground) {
  const radius = Math.max(2.5, Math.min(5.5, 150 / Math.sqrt(seen + 1))) * ratio;
  const side = stamped(radius, ratio, colours, ground);
  context.clearRect(0, 0, context.canvas.width, context.canvas.height);
  for (const layer of layers(points)) {
    context.globalAlpha = layer ? BACK : 1;
    for (let r = 0; r < runs.length; r += 2) {
      for (let k = runs[r]; k < runs[r + 1]; k++) {
        const ink = points.ink[k];
        if (!ink || (ink & DIMMED) !== layer) continue;
        const x = Math.round((points.xs[k] - place.x) * place.scale - side / 2);
        const y = Math.round((points.ys[k] - place.y) * place.scale - side / 2);
        const from = points.order[k] < points.clips ? 0 : side;
        context.drawImage(sheet, ((ink & ~DIMMED) - 1) * side, from, side, side, x, y, side, side);
      }
    }
  }
  context.globalAlpha = 1;
}

// Each colour's circle, and below it its diamond, on the sheet; returns the side of a shape.
function stamped(radius, ratio, colours, ground) {
  const side = Math.ceil(2.6 * radius + 2 * ratio);
  sheet.width = side * colours.length;
  sheet.height = 2 * side;
  const context = sheet.getContext("2d");
  context.lineWidth = 0.8 * ratio;
  context.strokeStyle = ground;
  for (const [c, colour] of colours.entries()) {
    const [x, y, r] = [(c + 0.5) * side, side / 2, 1.3 * radius];
    context.fillStyle = colour;
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.fill();
    context.stroke();
    context.beginPath();
    for (const [dx, dy] of [[0, -r], [r, 0], [0, r], [-r, 0]]) context.lineTo(x + dx, y + side + dy);
    context.closePath();
    context.fill();
    context.stroke();
  }
  return side;
}

function pixels(context, points, runs, place, seen, ratio, colours, ground) {
  const { width, height } = context.canvas;
  if (image === null || image.width !== width || image.height !== height) image = context.createImageData(width, height);
  const data = new Uint32Array(image.data.buffer).fill(0);
  const inks = new Uint32Array(256);
  for (const [c, colour] of colours.entries()) {
    inks[c + 1] = mixed(colour, ground, 1);
    inks[(c + 1) | DIMMED] = mixed(colour, ground, BACK);
  }
  const size = Math.max(1, Math.round(ratio * Math.max(1, Math.min(4, Math.sqrt((width * height) / seen) / 6))));
  const round = around(size, width, (dx, dy) => dx * dx + dy * dy <= (size + 0.5) ** 2);
  const diamond = around(size, width, (dx, dy) => Math.abs(dx) + Math.abs(dy) <= size);
  for (const layer of layers(points)) {
    for (let r = 0; r < runs.length; r += 2) {
      for (let k = runs[r]; k < runs[r + 1]; k++) {
        const ink = points.ink[k];
        if (!ink || (ink & DIMMED) !== layer) continue;
        const x = ((points.xs[k] - place.x) * place.scale) | 0;
        const y = ((points.ys[k] - place.y) * place.scale) | 0;
        if (x < size || y < size || x >= width - size || y >= height - size) continue;
        const shape = points.order[k] < points.clips ? round : diamond;
        const [at, colour] = [y * width + x, inks[ink]];
        for (let i = 0; i < shape.length; i++) data[at + shape[i]] = colour;
      }
    }
  }
  context.putImageData(image, 0, 0);
}

// The pixels of a shape as steps from its middle.
function around(size, width, within) {
  const found = [];
  for (let dy = -size; dy <= size; dy++) {
    for (let dx = -size; dx <= size; dx++) if (within(dx, dy)) found.push(dy * width + dx);
  }
  return Int32Array.from(found);
}

const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
function mixed(colour, ground, share) {
  const [red, green, blue] = parts(colour).map((c, k) => Math.round(share * c + (1 - share) * parts(ground)[k]));
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

// The map's points: where they are, what is near, and drawing them fast enough for hundreds of thousands.

const NOWHERE = 65535;
const CELLS = 256;
const FEW = 6000; // points in view that are drawn as shapes; more are set as pixels

export class Points {
  // numbers: what /api/map/points holds; see the API.
  constructor(head, numbers) {
    const n = head.clips;
    const m = head.modalities.length;
    this.clips = n;
    this.count = n * m;
    this.x = new Float32Array(this.count);
    this.y = new Float32Array(this.count);
    for (let p = 0; p < this.count; p++) {
      this.x[p] = numbers[2 * p] === NOWHERE ? NaN : numbers[2 * p] / (NOWHERE - 1);
      this.y[p] = numbers[2 * p + 1] === NOWHERE ? NaN : 1 - numbers[2 * p + 1] / (NOWHERE - 1);
    }
    this.label = numbers.subarray(2 * this.count, 2 * this.count + n);
    this.cluster = numbers.subarray(2 * this.count + n, 2 * this.count + 2 * n);
    this.index();
  }

  // Points by cell of a grid, so that what is near is found without looking at all.
  index() {
    const cell = new Int32Array(this.count).fill(-1);
    const starts = new Int32Array(CELLS * CELLS + 1);
    const place = (v) => Math.min(CELLS - 1, Math.floor(v * CELLS));
    for (let p = 0; p < this.count; p++) {
      if (Number.isNaN(this.x[p])) continue;
      cell[p] = place(this.y[p]) * CELLS + place(this.x[p]);
      starts[cell[p] + 1]++;
    }
    for (let c = 0; c < CELLS * CELLS; c++) starts[c + 1] += starts[c];
    const order = new Int32Array(starts[CELLS * CELLS]);
    const next = starts.slice();
    for (let p = 0; p < this.count; p++) if (cell[p] >= 0) order[next[cell[p]]++] = p;
    this.starts = starts;
    this.order = order;
  }

  // Calls act(p) for each point in a rectangle of cells around [x0, x1] x [y0, y1].
  within(x0, y0, x1, y1, act) {
    const low = (v) => Math.max(0, Math.min(CELLS - 1, Math.floor(v * CELLS)));
    for (let row = low(y0); row <= low(y1); row++) {
      const first = this.starts[row * CELLS + low(x0)];
      const last = this.starts[row * CELLS + low(x1) + 1];
      for (let k = first; k < last; k++) act(this.order[k]);
    }
  }

  // The point nearest to (x, y), no further than `far`, of those that are shown; -1 for none.
  nearest(x, y, far, shown) {
    let best = -1;
    let least = far * far;
    this.within(x - far, y - far, x + far, y + far, (p) => {
      const d = (this.x[p] - x) ** 2 + (this.y[p] - y) ** 2;
      if (d < least && shown(p)) [best, least] = [p, d];
    });
    return best;
  }

  // Clips with a shown point within a polygon of [x, y].
  inside(polygon, shown) {
    const xs = polygon.map((q) => q[0]);
    const ys = polygon.map((q) => q[1]);
    const found = new Set();
    this.within(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys), (p) => {
      if (shown(p) && contains(polygon, this.x[p], this.y[p])) found.add(p % this.clips);
    });
    return [...found].sort((a, b) => a - b);
  }
}

function contains(polygon, x, y) {
  let within = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [xi, yi] = polygon[i];
    const [xj, yj] = polygon[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) within = !within;
  }
  return within;
}

// Draws the points of a view {x, y, scale} (pixels a unit) onto a canvas; returns how many are in view.
// colours: "#rrggbb" by number of colour; of(p): the number; shown(p); lit(p): not dimmed; ground: "#rrggbb".
export function paint(context, width, height, ratio, points, view, { colours, of, shown, lit, ground }) {
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width * ratio, height * ratio);
  const [x0, y0] = [view.x - width / 2 / view.scale, view.y - height / 2 / view.scale];
  const [x1, y1] = [view.x + width / 2 / view.scale, view.y + height / 2 / view.scale];
  let seen = 0;
  points.within(x0, y0, x1, y1, () => { seen++; });
  const scale = view.scale * ratio;
  if (seen <= FEW) {
    const radius = Math.max(2.5, Math.min(5.5, 190 / Math.sqrt(seen + 1))) * ratio;
    context.lineWidth = 0.8 * ratio;
    context.strokeStyle = ground;
    for (const bright of [false, true]) {
      context.globalAlpha = bright ? 1 : 0.14;
      points.within(x0, y0, x1, y1, (p) => {
        if (!shown(p) || lit(p) !== bright) return;
        const [sx, sy] = [(points.x[p] - x0) * scale, (points.y[p] - y0) * scale];
        context.fillStyle = colours[of(p)];
        context.beginPath();
        if (p < points.clips) context.arc(sx, sy, radius, 0, 7);
        else {
          const r = radius * 1.3;
          context.moveTo(sx, sy - r); context.lineTo(sx + r, sy); context.lineTo(sx, sy + r); context.lineTo(sx - r, sy); context.closePath();
        }
        context.fill();
        context.stroke();
      });
    }
    context.globalAlpha = 1;
    return seen;
  }
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  const image = context.createImageData(w, h);
  const pixels = new Uint32Array(image.data.buffer);
  const packed = colours.map((c) => pack(c, ground, 1));
  const faint = colours.map((c) => pack(c, ground, 0.16));
  const size = Math.max(1, Math.round(ratio * Math.max(1, Math.min(3, Math.sqrt((w * h) / seen) / 6))));
  for (const bright of [false, true]) {
    points.within(x0, y0, x1, y1, (p) => {
      if (!shown(p) || lit(p) !== bright) return;
      const sx = ((points.x[p] - x0) * scale) | 0;
      const sy = ((points.y[p] - y0) * scale) | 0;
      if (sx < size || sy < size || sx >= w - size || sy >= h - size) return;
      const colour = (bright ? packed : faint)[of(p)];
      const round = p < points.clips;
      for (let dy = -size; dy <= size; dy++) {
        const reach = round ? size : size - Math.abs(dy);
        const at = (sy + dy) * w + sx;
        for (let dx = -reach; dx <= reach; dx++) pixels[at + dx] = colour;
      }
    });
  }
  context.putImageData(image, 0, 0);
  return seen;
}

const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
function pack(colour, ground, share) {
  const mixed = parts(colour).map((c, k) => Math.round(share * c + (1 - share) * parts(ground)[k]));
  return ((255 << 24) | (mixed[2] << 16) | (mixed[1] << 8) | mixed[0]) >>> 0;
}

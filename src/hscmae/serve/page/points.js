// The map's points: where they are, how they are shown, what is near.

const NOWHERE = 65535;
const CELLS = 256;
export const DIMMED = 128; // this bit of a point's ink says that it stands back

export class Points {
  // numbers: what /api/map/points holds; see the API.
  constructor(head, numbers) {
    const n = head.clips;
    this.clips = n;
    this.count = n * head.modalities.length;
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

  // Points by cell of a grid, so that what is near is found without looking at all. `order` holds their numbers; xs, ys
  // and ink stand in the same order, so that what is drawn together lies together in memory.
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
    this.xs = Float32Array.from(order, (p) => this.x[p]);
    this.ys = Float32Array.from(order, (p) => this.y[p]);
    this.ink = new Uint8Array(order.length);
  }

  // How points are shown from now on. colour(p): the number of its colour, less than 127; -1 hides it. lit(p): it does
  // not stand back.
  dress(colour, lit) {
    this.dimmed = false;
    for (const [k, p] of this.order.entries()) {
      const c = colour(p);
      this.ink[k] = c < 0 ? 0 : lit(p) ? c + 1 : (c + 1) | DIMMED;
      if (this.ink[k] & DIMMED) this.dimmed = true;
    }
  }

  // Where the points of the cells around [x0, x1] x [y0, y1] stand: from, to, from, to, ...
  runs(x0, y0, x1, y1) {
    const low = (v) => Math.max(0, Math.min(CELLS - 1, Math.floor(v * CELLS)));
    const found = [];
    for (let row = low(y0); row <= low(y1); row++) {
      const [from, to] = [this.starts[row * CELLS + low(x0)], this.starts[row * CELLS + low(x1) + 1]];
      if (from < to) found.push(from, to);
    }
    return found;
  }

  // Calls act(k) for each point there that is shown and does not stand back.
  lit(x0, y0, x1, y1, act) {
    const runs = this.runs(x0, y0, x1, y1);
    for (let r = 0; r < runs.length; r += 2) {
      for (let k = runs[r]; k < runs[r + 1]; k++) if (this.ink[k] && !(this.ink[k] & DIMMED)) act(k);
    }
  }

  // The point nearest to (x, y), no further than `far`; -1 for none.
  nearest(x, y, far) {
    let best = -1;
    let least = far * far;
    this.lit(x - far, y - far, x + far, y + far, (k) => {
      const d = (this.xs[k] - x) ** 2 + (this.ys[k] - y) ** 2;
      if (d < least) [best, least] = [this.order[k], d];
    });
    return best;
  }

  // Clips with a point within a polygon of [x, y].
  inside(polygon) {
    const xs = polygon.map((q) => q[0]);
    const ys = polygon.map((q) => q[1]);
    const found = new Set();
    this.lit(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys), (k) => {
      if (contains(polygon, this.xs[k], this.ys[k])) found.add(this.order[k] % this.clips);
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

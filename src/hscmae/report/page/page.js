"use strict";
// The page's only script: fills in media, plays sounds, says what is hovered over, draws the map. Text from the data
// reaches the page as textContent alone.
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const SVG = "http://www.w3.org/2000/svg";

  function make(name, attributes = {}, text = null, space = null) {
    const element = space ? document.createElementNS(space, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    return element;
  }
  const draw = (name, attributes, text = null) => make(name, attributes, text, SVG);

  // Light and dark.
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const now = root.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.style.colorScheme = now === "dark" ? "light" : "dark";
  });

  // Tips.
  const tip = document.getElementById("tip");
  function say(text, x, y) {
    tip.textContent = text;
    tip.hidden = false;
    tip.style.left = Math.max(8, Math.min(x + 14, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = (y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18) + "px";
  }
  const hush = () => { tip.hidden = true; };
  for (const kind of ["pointerover", "pointerdown"]) {
    document.addEventListener(kind, (event) => {
      const marked = event.target.closest("[data-tip]");
      if (marked) say(marked.dataset.tip, event.clientX, event.clientY);
      else if (!event.target.closest("#map-chart")) hush();
    });
  }
  document.addEventListener("focusin", (event) => {
    if (!event.target.dataset || !event.target.dataset.tip) return;
    const box = event.target.getBoundingClientRect();
    say(event.target.dataset.tip, box.left, box.top);
  });
  document.addEventListener("scroll", hush, { passive: true });

  // Sounds: one player, so that a new sound ends the one before.
  const player = document.getElementById("player");
  let playing = null;
  function stop() {
    if (playing) playing.classList.remove("playing");
    playing = null;
  }
  player.addEventListener("ended", stop);
  function toggle(button, clip) {
    const again = playing === button;
    player.pause();
    stop();
    if (again) return;
    player.src = clip.sound;
    playing = button;
    button.classList.add("playing");
    player.play().catch(stop);
  }

  // Pictures and sounds of the clips.
  function fill(place, key, uses) {
    const clip = data.clips[key];
    place.replaceChildren();
    if (clip.image) {
      const image = make("img", { src: clip.image, alt: `picture of ${clip.id}`, decoding: "async" });
      image.classList.toggle("unused", uses === "audio");
      place.append(image);
    }
    if (clip.sound) {
      const button = make("button", { class: "play", type: "button", "aria-label": `play the sound of ${clip.id}` });
      const wave = draw("svg", { viewBox: "0 0 40 2", preserveAspectRatio: "none", "aria-hidden": "true" });
      wave.append(draw("path", { d: clip.wave }));
      button.append(make("span", { "aria-hidden": "true" }, "▶"), wave);
      button.classList.toggle("unused", uses === "visual");
      button.addEventListener("click", () => toggle(button, clip));
      if (uses === "audio") place.prepend(button);
      else place.append(button);
    }
  }
  for (const place of document.querySelectorAll(".media")) fill(place, place.dataset.clip, place.dataset.uses);

  // The map.
  const chart = document.getElementById("map-chart");
  if (!chart || !data.map) return;
  const map = data.map;
  let view = 0;
  let lit = null; // number of the class brought out
  let points = []; // {x, y, i, m, mark}
  let link = null;

  const clipOf = (i) => data.clips["t" + map.rows[i]];
  function carries(i, c) {
    const named = map.names[c];
    return map.colour[i] === c || clipOf(i).classes.includes(named);
  }

  function redraw() {
    const width = Math.max(300, chart.clientWidth);
    const height = Math.max(300, Math.min(560, width * 0.75));
    const [left, bottom, air] = [44, 40, 14];
    const shown = map.maps[view];
    chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
    chart.replaceChildren();
    const all = map.modalities.flatMap((m) => shown.points[m.name].filter((_, i) => map.present[m.name][i]));
    const [xs, ys] = [all.map((p) => p[0]), all.map((p) => p[1])];
    const spread = (v) => [Math.min(...v), Math.max(...v)];
    const [[x0, x1], [y0, y1]] = [spread(xs), spread(ys)];
    const px = (x) => left + air + ((x - x0) / (x1 - x0 || 1)) * (width - left - 2 * air);
    const py = (y) => height - bottom - air - ((y - y0) / (y1 - y0 || 1)) * (height - bottom - 2 * air);
    for (const [low, high, across] of [[x0, x1, true], [y0, y1, false]]) {
      for (const t of ticks(low, high)) {
        const at = across ? px(t) : py(t);
        chart.append(draw("line", across
          ? { class: "grid", x1: at, x2: at, y1: air, y2: height - bottom }
          : { class: "grid", x1: left, x2: width, y1: at, y2: at }));
        chart.append(draw("text", across
          ? { class: "tick", x: at, y: height - bottom + 16, "text-anchor": "middle" }
          : { class: "tick", x: left - 5, y: at + 4, "text-anchor": "end" }, String(t)));
      }
    }
    chart.append(draw("text", { class: "axis", x: left + (width - left) / 2, y: height - 6, "text-anchor": "middle" }, shown.axes[0]));
    chart.append(draw("text", { class: "axis", transform: `translate(12 ${(height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, shown.axes[1]));
    link = draw("line", { class: "link", visibility: "hidden" });
    chart.append(link);
    points = [];
    map.modalities.forEach((m, number) => {
      shown.points[m.name].forEach(([x, y], i) => {
        if (!map.present[m.name][i]) return;
        const colour = map.names.length ? (map.colour[i] < 0 ? "none" : "c" + map.colour[i]) : "c" + number;
        const mark = draw("path", {
          class: "point " + colour,
          d: number ? "M0-5L5 0L0 5L-5 0Z" : "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z",
          transform: `translate(${px(x).toFixed(1)} ${py(y).toFixed(1)})`,
        });
        if (lit !== null && !carries(i, lit)) mark.classList.add("dim");
        chart.append(mark);
        points.push({ x: px(x), y: py(y), i, m: number, mark });
      });
    });
  }

  function ticks(low, high) {
    const least = (high - low) / 6 || 1;
    const power = 10 ** Math.floor(Math.log10(least));
    const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= least * 0.999);
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(Number((k * step).toPrecision(6)));
    return found;
  }

  function nearest(event) {
    const box = chart.getBoundingClientRect();
    const scale = chart.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let best = null;
    let least = (event.pointerType === "touch" ? 26 : 16) ** 2;
    for (const p of points) {
      const far = (p.x - x) ** 2 + (p.y - y) ** 2 + (p.mark.classList.contains("dim") ? 100 : 0);
      if (far < least) [best, least] = [p, far];
    }
    return best;
  }

  function bringOut(point) {
    for (const mark of chart.querySelectorAll(".on")) mark.classList.remove("on");
    link.setAttribute("visibility", "hidden");
    if (!point) return;
    const pair = points.filter((p) => p.i === point.i);
    for (const p of pair) p.mark.classList.add("on");
    if (pair.length === 2) {
      for (const [key, value] of [["x1", pair[0].x], ["y1", pair[0].y], ["x2", pair[1].x], ["y2", pair[1].y]]) link.setAttribute(key, value);
      link.setAttribute("visibility", "visible");
    }
  }

  function describe(i) {
    const clip = clipOf(i);
    const cosine = map.cosine[i];
    return [clip.classes.join(", "), cosine === null ? "its pair is missing" : `cosine of ${map.modalities.map((m) => m.word).join(" and ")} ${cosine.toFixed(2)}`].filter(Boolean);
  }

  let kept = null;
  chart.addEventListener("pointermove", (event) => {
    const point = nearest(event);
    bringOut(point || kept);
    if (!point) return hush();
    say([`${map.modalities[point.m].word} of ${clipOf(point.i).id}`, ...describe(point.i)].join(" · "), event.clientX, event.clientY);
  });
  chart.addEventListener("pointerleave", () => { hush(); bringOut(kept); });
  chart.addEventListener("click", (event) => {
    const point = nearest(event);
    if (!point) return;
    kept = point;
    bringOut(point);
    const key = "t" + map.rows[point.i];
    const panel = document.getElementById("map-clip");
    const media = make("div", { class: "media" });
    panel.replaceChildren(make("div", { class: "name" }, data.clips[key].id), media);
    for (const line of describe(point.i)) panel.append(make("div", { class: "classes" }, line));
    fill(media, key, "all");
  });

  const choices = document.getElementById("map-choices");
  if (map.maps.length > 1) {
    map.maps.forEach((shown, number) => {
      const button = make("button", { type: "button", "aria-pressed": String(number === view) }, shown.name);
      button.addEventListener("click", () => {
        view = number;
        for (const other of choices.children) other.setAttribute("aria-pressed", String(other === button));
        kept = null;
        redraw();
      });
      choices.append(button);
    });
  }
  const legend = document.getElementById("map-legend");
  map.modalities.forEach((m, number) => {
    const key = make("span", { class: "key" });
    const box = draw("svg", { viewBox: "-6 -6 12 12", width: 13, height: 13, "aria-hidden": "true" });
    box.append(draw("path", { class: map.names.length ? "none point" : `c${number} point`, d: number ? "M0-5L5 0L0 5L-5 0Z" : "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z" }));
    key.append(box, make("span", {}, m.word));
    legend.append(key);
  });
  map.names.forEach((name, c) => {
    const button = make("button", { type: "button", "aria-pressed": "false" });
    button.append(make("i", { class: `swatch c${c}` }), make("span", {}, name));
    button.addEventListener("click", () => {
      lit = lit === c ? null : c;
      legend.querySelectorAll("button").forEach((other, k) => other.setAttribute("aria-pressed", String(k === lit)));
      for (const p of points) p.mark.classList.toggle("dim", lit !== null && !carries(p.i, lit));
    });
    legend.append(button);
  });
  redraw();
  let width = chart.clientWidth;
  new ResizeObserver(() => {
    if (Math.abs(chart.clientWidth - width) < 4) return;
    width = chart.clientWidth;
    kept = null;
    redraw();
  }).observe(chart);
})();

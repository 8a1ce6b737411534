// SPDX-License-Identifier: Apache-2.0
// Scatter plots whose axes can be chosen, and drawings of which one is shown. Without this script all are shown.
"use strict";

(function () {
  const COLOURS = ["#2f7fc1", "#c8553d", "#3f9464", "#a8780f", "#8868b5", "#1d9a9a", "#b5527f", "#7a8288"];
  const SHAPES = [
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0", // circle
    "M-4.5-4.5h9v9h-9z", // square
    "M0-5.5L5.5 4.5h-11z", // triangle
    "M0-6L6 0L0 6L-6 0z", // diamond
    "M0 5.5L5.5-4.5h-11z", // triangle, down
    "M-2-5.5h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5v-4h3.5z", // plus
    "M0-2.5L3-5.5L5.5-3L2.5 0L5.5 3L3 5.5L0 2.5L-3 5.5L-5.5 3L-2.5 0L-5.5-3L-3-5.5z", // cross
    "M-5-3L0-5.8L5-3V3L0 5.8L-5 3z", // hexagon
  ];
  const STAR = "M0-7L1.7-2.2L6.7-2.2L2.7.9L4.1 5.7L0 2.8L-4.1 5.7L-2.7.9L-6.7-2.2L-1.7-2.2z";
  const NS = "http://www.w3.org/2000/svg";
  const WIDTH = 660, HEIGHT = 430, LEFT = 82, RIGHT = 24, TOP = 18, BOTTOM = 56;

  function make(name, attributes, text) {
    const element = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function ticks(low, high, log) {
    if (log) {
      const within = (factors) => {
        const out = [];
        for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
          for (const factor of factors) out.push(factor * 10 ** power);
        return out.filter((t) => t >= low && t <= high);
      };
      const choices = [[1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]].map(within);
      return choices.find((marks) => marks.length <= 7) ?? choices.at(-1); // more would overlap
    }
    const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough);
    const out = [];
    for (let k = Math.ceil(low / step); k * step <= high; k++) out.push(k * step);
    return out;
  }

  function scale(values, log, from, to) {
    let low = Math.min(...values), high = Math.max(...values);
    if (log) {
      const margin = Math.max((high / low) ** 0.12, 1.2);
      [low, high] = [low / margin, high * margin];
    } else {
      const margin = (high - low) * 0.12 || Math.abs(high) * 0.1 || 1;
      [low, high] = [low - margin, high + margin];
    }
    const plain = (v) => (log ? Math.log(v) : v);
    const place = (v) => from + ((plain(v) - plain(low)) / (plain(high) - plain(low))) * (to - from);
    return { place, ticks: ticks(low, high, log) };
  }

  const short = (value) => String(Number(value.toPrecision(4)));
  const full = (m) => (m.note ? `${m.heading}, ${m.note}` : m.heading);
  const known = (v) => typeof v === "number";

  function draw(canvas, data, xName, yName) {
    const x = data.metrics.find((m) => m.name === xName), y = data.metrics.find((m) => m.name === yName);
    const entries = data.entries.filter((e) => known(e.values[xName][0]) && known(e.values[yName][0]));
    const missing = data.entries.filter((e) => !entries.includes(e)).map((e) => e.label);
    const title = `${full(y)} against ${full(x)} of ${entries.length} methods`;
    const svg = make("svg", { class: "drawing", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
    canvas.replaceChildren(svg);
    if (entries.length) {
      const all = (name) => entries.flatMap((e) => e.values[name].filter(known));
      const xs = scale(all(xName), x.log, LEFT, WIDTH - RIGHT), ys = scale(all(yName), y.log, HEIGHT - BOTTOM, TOP);
      const text = { fill: "currentColor", "font-size": 13 };
      const rule = { stroke: "currentColor", "stroke-opacity": 0.16 };
      for (const t of xs.ticks) {
        svg.append(make("line", { x1: xs.place(t), x2: xs.place(t), y1: TOP, y2: HEIGHT - BOTTOM, ...rule }));
        svg.append(make("text", { x: xs.place(t), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle", ...text }, short(t)));
      }
      for (const t of ys.ticks) {
        svg.append(make("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: ys.place(t), y2: ys.place(t), ...rule }));
        svg.append(make("text", { x: LEFT - 8, y: ys.place(t) + 4, "text-anchor": "end", ...text }, short(t)));
      }
      for (const entry of entries) svg.append(mark(entry, xs, ys, entry.values[xName], entry.values[yName]));
      name(svg, entries, entries.map((e) => [xs.place(e.values[xName][0]), ys.place(e.values[yName][0])]));
    }
    const label = { fill: "currentColor", "font-size": 13.5, "text-anchor": "middle" };
    const middle = (TOP + HEIGHT - BOTTOM) / 2;
    svg.append(make("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - (x.note ? 24 : 12), ...label }, x.heading));
    svg.append(make("text", { x: 0, y: 0, transform: `translate(15 ${middle}) rotate(-90)`, ...label }, y.heading));
    const small = { ...label, "font-size": 11 };
    if (x.note) svg.append(make("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 8, ...small }, x.note));
    if (y.note) svg.append(make("text", { x: 0, y: 0, transform: `translate(30 ${middle}) rotate(-90)`, ...small }, y.note));
    if (missing.length) {
      const note = document.createElement("p");
      note.textContent = `No finite value: ${missing.join(", ")}.`;
      canvas.append(note);
    }
  }

  function mark(entry, xs, ys, [x, xLow, xHigh], [y, yLow, yHigh]) {
    const colour = entry.reference ? "currentColor" : COLOURS[entry.number % 8];
    const shape = entry.reference ? STAR : SHAPES[(entry.number + Math.floor(entry.number / 8)) % 8];
    const group = make("g", { stroke: colour, fill: colour });
    const px = xs.place(x), py = ys.place(y);
    if (known(xLow) && known(xHigh)) group.append(make("line", { x1: xs.place(xLow), x2: xs.place(xHigh), y1: py, y2: py }));
    if (known(yLow) && known(yHigh)) group.append(make("line", { x1: px, x2: px, y1: ys.place(yLow), y2: ys.place(yHigh) }));
    group.append(make("path", { d: shape, transform: `translate(${px} ${py})` }));
    group.append(make("title", {}, `${entry.label}: ${short(x)}, ${short(y)}`));
    return group;
  }

  // Names beside their marks, from the top down, each at the nearest position without a mark or another name.
  function name(svg, entries, marks) {
    const taken = marks.map(([x, y]) => [x - 6, y - 6, x + 6, y + 6]);
    const apart = (a, b) => a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
    const order = marks.map((_, i) => i).sort((a, b) => marks[a][1] - marks[b][1]);
    for (const i of order) {
      const [px, py] = marks[i];
      const text = make("text", { fill: "currentColor", "font-size": 13 }, entries[i].label);
      svg.append(text);
      const width = text.getComputedTextLength(), places = [];
      for (let k = 0; k <= 2 * entries.length; k++) {
        const y = py - 7 + 15 * Math.ceil(k / 2) * (k % 2 ? 1 : -1);
        for (const x of [px + 9, px - 9 - width]) places.push([x, y - 11, x + width, y + 3]);
      }
      const inside = places.filter((b) => b[0] > LEFT && b[2] < WIDTH && b[1] > 0 && b[3] < HEIGHT - BOTTOM);
      const place = inside.find((b) => taken.every((other) => apart(b, other))) ?? inside[0] ?? places[0];
      taken.push(place);
      text.setAttribute("x", place[0]);
      text.setAttribute("y", place[3] - 3);
      const far = Math.max(place[1] - py, py - place[3]); // where it could belong to another mark as well
      if (far > 6) {
        const end = place[0] > px ? place[0] - 2 : place[2] + 2;
        svg.append(make("line", { x1: px, y1: py, x2: end, y2: place[3] - 7, stroke: "currentColor", "stroke-opacity": 0.4 }));
      }
    }
  }

  function choosable(figure, data) {
    const options = data.metrics.map((m) => [m.name, full(m)]);
    const x = window.report.chooser(options, figure.dataset.x), y = window.report.chooser(options, figure.dataset.y);
    const controls = figure.querySelector(".controls");
    controls.append(window.report.labelled("Across", x), window.report.labelled("Up", y));
    controls.hidden = false;
    const show = () => draw(figure.querySelector(".canvas"), data, x.value, y.value);
    x.addEventListener("change", show);
    y.addEventListener("change", show);
    show();
  }

  function switched(box) {
    const figures = Array.from(box.children);
    const select = window.report.chooser(figures.map((f, i) => [String(i), f.dataset.name]), "0");
    const controls = document.createElement("div");
    controls.className = "controls";
    controls.append(window.report.labelled(box.dataset.label, select));
    box.prepend(controls);
    const show = () => figures.forEach((f, i) => (f.hidden = String(i) !== select.value));
    select.addEventListener("change", show);
    show();
  }

  for (const section of document.querySelectorAll(".charts")) {
    const data = JSON.parse(section.querySelector(".chart-data").textContent);
    for (const figure of section.querySelectorAll(".chooser")) choosable(figure, data);
    for (const box of section.querySelectorAll(".switch")) switched(box);
  }
})();

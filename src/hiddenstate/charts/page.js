"use strict";
// Tells single values of a figure: by pointing at it, by touching it, or with the arrow keys.

const short = (value) =>
  value === null ? "none" : String(Number(value.toPrecision(3))).replace("-", "\u2212");

function nearest(places, place) {
  let best = 0;
  places.forEach((each, k) => {
    if (each !== null && Math.abs(each - place) < Math.abs((places[best] ?? 9) - place)) best = k;
  });
  return best;
}

// Each kind of plot: how many steps there are along x and y, which one lies at a place (from the
// lower left corner, 0 to 1), where its mark is set, and what is told of it.
const KINDS = {
  columns: (data) => ({
    size: [data.at.length, 1],
    find: (x) => [nearest(data.at, x), 0],
    mark: ([k]) => ({ left: data.at[k] }),
    tell: ([k]) =>
      `${data.x} ${data.names[k]}: ` +
      data.series
        .map(([name, values]) => (data.series.length > 1 ? `${name} ` : "") + short(values[k] ?? null))
        .join(", "),
    table: () => [
      [data.x, ...data.series.map(([name]) => name)],
      ...data.names.map((name, k) => [name, ...data.series.map(([, own]) => short(own[k] ?? null))]),
    ],
  }),
  points: (data) => {
    const points = data.series.flatMap(([name, left, up, x, y]) =>
      left.map((_, k) => ({ name, left: left[k], up: up[k], x: x[k], y: y[k] })));
    const away = (p, x, y) => (p.left === null || p.up === null ? 9 : Math.hypot(p.left - x, p.up - y));
    return {
      size: [points.length, 1],
      find: (x, y) => [points.reduce((b, p, k) => (away(p, x, y) < away(points[b], x, y) ? k : b), 0), 0],
      mark: ([k]) => ({ left: points[k].left, top: 1 - points[k].up, kind: "point" }),
      tell: ([k]) =>
        (data.series.length > 1 ? `${points[k].name}: ` : "") +
        `${data.x} ${short(points[k].x)}, ${data.y} ${short(points[k].y)}`,
      table: () => [["", data.x, data.y], ...points.map((p) => [p.name, short(p.x), short(p.y)])],
    };
  },
  cells: (data) => {
    const bytes = Uint8Array.from(atob(data.levels), (letter) => letter.charCodeAt(0));
    const [columns, rows] = [data.names.length, data.rows.length];
    const value = (c, r) => {
      const level = bytes[r * columns + c];
      if (level === 255) return "none";
      // A colour is one of 255: no digit is told that is finer than the step between two of them.
      const step = (data.high - data.low) / 254;
      const digits = Math.min(Math.max(Math.floor(-Math.log10(step)), 0), 12);
      return (data.low + step * level).toFixed(digits).replace("-", "\u2212");
    };
    return {
      size: [columns, rows],
      find: (x, y) => [Math.floor(x * columns), Math.floor((1 - y) * rows)],
      mark: ([c, r]) => ({
        left: c / columns, top: r / rows, width: 1 / columns, height: 1 / rows, kind: "cell",
      }),
      tell: ([c, r]) => `${data.x} ${data.names[c]}, ${data.y} ${data.rows[r]}: ${value(c, r)}`,
    };
  },
};

function table(rows) {
  const made = document.createElement("table");
  made.className = "numbers";
  rows.forEach((row, k) => {
    const line = made.insertRow();
    row.forEach((text) => {
      const cell = document.createElement(k === 0 ? "th" : "td");
      cell.textContent = text;
      line.append(cell);
    });
  });
  return made;
}

for (const plot of document.querySelectorAll(".plot")) {
  const area = plot.querySelector(".area");
  const told = plot.querySelector(".readout");
  const data = JSON.parse(plot.querySelector("script").textContent);
  const shown = KINDS[data.kind](data);
  const cursor = document.createElement("i");
  let at = null;

  const show = (place) => {
    at = place.map((k, axis) => Math.min(Math.max(k, 0), shown.size[axis] - 1));
    if (at.some((k) => k < 0)) return;
    const mark = shown.mark(at);
    cursor.className = `cursor ${mark.kind ?? ""}`;
    for (const side of ["left", "top", "width", "height"])
      cursor.style[side] = mark[side] === undefined ? "" : `${100 * mark[side]}%`;
    area.append(cursor);
    told.textContent = shown.tell(at);
  };
  const point = (event) => {
    const box = area.getBoundingClientRect();
    show(shown.find((event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height));
  };
  area.addEventListener("pointermove", point);
  area.addEventListener("pointerdown", point);
  area.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step || (shown.size[1] === 1 && step[1])) return;
    event.preventDefault();
    show(at === null ? [0, 0] : [at[0] + step[0], at[1] + step[1]]);
  });

  if (shown.table) {
    const more = document.createElement("details");
    more.className = "more";
    more.innerHTML = "<summary>Numbers</summary><div></div>";
    more.addEventListener("toggle", () => {
      if (more.open) more.lastChild.replaceChildren(table(shown.table()));
    });
    plot.append(more);
  }
}

// Draws charts as SVG, with the values of the nearest point and a table of the numbers.

import { element } from "./dom.js";

const WIDTH = 480;
const HEIGHT = 280;
const EDGE = { left: 48, right: 12, top: 12, bottom: 40 };

/**
 * Draws a chart.
 *
 * @param chart `title`, `x`, `y`, `series` (`name`, `kind`, `points` of x, y
 *   and an optional text), `percent` and `reversed`.
 * @param onpick is called with the text of the clicked point.
 * @returns a figure.
 */
export function draw(chart, onpick = null) {
  const scale = scales(chart);
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": chart.title });
  svg.append(...axes(chart, scale));
  for (const series of chart.series) svg.append(mark(series, scale));
  const reading = element("p", { class: "reading" }, "\u00a0");
  svg.addEventListener("pointermove", (event) => {
    const near = nearest(chart, scale, at(svg, event));
    reading.textContent = near ? told(near) : "\u00a0";
  });
  svg.addEventListener("pointerleave", () => (reading.textContent = "\u00a0"));
  if (onpick) {
    svg.classList.add("pickable");
    svg.addEventListener("click", (event) => onpick(nearest(chart, scale, at(svg, event))?.point[2]));
  }
  const caption = chart.title ? element("figcaption", {}, chart.title) : [];
  return element("figure", { class: "chart" }, caption, svg, legend(chart), reading, table(chart));
}

/** Returns the functions from numbers to places in the picture. */
function scales({ series, percent, reversed }) {
  const points = series.flatMap((one) => one.points);
  const grounded = series.some(({ kind }) => ["bars", "outline", "stems"].includes(kind));
  const xs = points.map(([x]) => x);
  const ys = [...points.map(([, y]) => y), ...(percent ? [0, 100] : grounded ? [0] : [])];
  const [low, high] = [Math.min(...xs) - (grounded ? 0.6 : 0), Math.max(...xs) + (grounded ? 0.6 : 0)];
  const [bottom, top] = [Math.min(...ys), Math.max(...ys)];
  const [inner, outer] = [WIDTH - EDGE.left - EDGE.right, HEIGHT - EDGE.top - EDGE.bottom];
  const share = (x) => (high > low ? (x - low) / (high - low) : 0.5);
  return {
    x: (x) => EDGE.left + inner * (reversed ? 1 - share(x) : share(x)),
    y: (y) => EDGE.top + outer * (1 - (y - bottom) / (top - bottom || 1)),
    ticksX: ticks(low, high, points.every(([x]) => Number.isInteger(x))),
    ticksY: ticks(bottom, top),
    bar: (0.8 * inner) / Math.max(high - low, 1),
  };
}

/** Returns about five round numbers between two numbers, or integers only. */
function ticks(low, high, integers = false) {
  const rough = (high - low || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const round = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const step = integers ? Math.max(1, Math.round(round)) : round;
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, k) => Number(((first + k) * step).toPrecision(10)));
}

function axes(chart, scale) {
  const bottom = HEIGHT - EDGE.bottom;
  const middle = (EDGE.left + WIDTH - EDGE.right) / 2;
  return [
    ...scale.ticksY.flatMap((y) => [
      element("line", { class: "grid", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: scale.y(y), y2: scale.y(y) }),
      element("text", { x: EDGE.left - 6, y: scale.y(y) + 4, "text-anchor": "end" }, `${y}`),
    ]),
    ...scale.ticksX.map((x) => element("text", { x: scale.x(x), y: bottom + 16, "text-anchor": "middle" }, `${x}`)),
    element("text", { class: "name", x: middle, y: HEIGHT - 6, "text-anchor": "middle" }, chart.x),
    element("text", { class: "name", transform: `translate(11 ${bottom / 2}) rotate(-90)`, "text-anchor": "middle" }, chart.y),
  ];
}

/** Draws the marks of a series, by its kind. */
function mark({ kind, points }, scale) {
  const { x, y, bar } = scale;
  const group = element("g", { class: kind });
  const dots = (radius) => points.map((p) => element("circle", { cx: x(p[0]), cy: y(p[1]), r: radius }));
  const line = () => element("path", { d: points.map((p, k) => `${k ? "L" : "M"}${x(p[0])} ${y(p[1])}`).join("") });
  if (kind === "dots") group.append(...dots(3));
  if (kind === "line" || kind === "theirs") group.append(line(), ...dots(2.5));
  if (kind === "bars" || kind === "outline") {
    group.append(...points.map((p) => rectangle(x(p[0]) - bar / 2, bar, y(p[1]), y(0))));
  }
  if (kind === "stems") {
    group.append(...points.map((p) => element("line", { x1: x(p[0]), x2: x(p[0]), y1: y(0), y2: y(p[1]) })), ...dots(3.5));
  }
  if (kind === "band") {
    const [from, to] = points.map((p) => x(p[0]));
    group.append(rectangle(from, to - from, EDGE.top, HEIGHT - EDGE.bottom));
  }
  return group;
}

const rectangle = (x, width, top, bottom) =>
  element("rect", { x, width: Math.max(width, 0), y: Math.min(top, bottom), height: Math.abs(bottom - top) });

/** Returns the place of the pointer in the picture. */
function at(svg, { clientX, clientY }) {
  const box = svg.getBoundingClientRect();
  return [((clientX - box.left) * WIDTH) / box.width, ((clientY - box.top) * HEIGHT) / box.height];
}

/** Returns the point nearest to a place, and its series. */
function nearest(chart, scale, [left, top]) {
  let found = null;
  let least = 40; // the largest distance
  for (const series of chart.series) {
    if (series.kind === "band") continue;
    for (const point of series.points) {
      const away = Math.hypot(scale.x(point[0]) - left, (scale.y(point[1]) - top) / 4);
      if (away < least) [found, least] = [{ series, point }, away];
    }
  }
  return found;
}

const told = ({ series, point: [x, y, text] }) => `${text || x}: ${short(y)} (${series.name})`;

const short = (y) => `${Number(y.toPrecision(4))}`;

function legend(chart) {
  const items = chart.series.map(({ name, kind }) => element("li", { class: kind }, name));
  return element("ul", { class: "legend" }, items);
}

function table(chart) {
  const rows = chart.series.flatMap(({ name, points }) =>
    points.map(([x, y, text]) =>
      element("tr", {}, [text || `${Number(x.toPrecision(4))}`, short(y), name].map((cell) => element("td", {}, cell))),
    ),
  );
  const names = [chart.x, chart.y, "what"].map((name) => element("th", { scope: "col" }, name));
  const body = element("table", {}, element("thead", {}, element("tr", {}, names)), element("tbody", {}, rows));
  return element("details", {}, element("summary", {}, "Numbers"), element("div", { class: "scroll" }, body));
}

// A chart in SVG: scales, axes with a grid, lines and markers in the styles of the figures.

const MARGIN = { top: 12, right: 24, bottom: 46, left: 66 };

// Round numbers that cover [low, high] in about `count` steps.
function ticks(low, high, count) {
  const rough = (high - low || Math.abs(high) || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  const last = Math.floor(high / step + 1e-9);
  for (let index = Math.ceil(low / step - 1e-9); index <= last; index += 1) found.push(index * step);
  return found;
}

function padded(values, share) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = (high - low || Math.abs(high) * 0.1 || 1) * share;
  return [low - room, high + room];
}

// An empty chart as wide as `box`; axes: {x, y}, each {range, title, format}. Returns its svg, scales and layer.
function makeChart(box, height, axes, label) {
  const width = Math.max(box.clientWidth, 240);
  const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
  const share = (axis, value) => (value - axis.range[0]) / (axis.range[1] - axis.range[0]);
  const x = (value) => MARGIN.left + share(axes.x, value) * inner.width;
  const y = (value) => MARGIN.top + (1 - share(axes.y, value)) * inner.height;
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
  const bottom = height - MARGIN.bottom;
  for (const value of ticks(...axes.y.range, Math.max(3, inner.height / 55))) {
    root.append(
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, axes.y.format(value)),
    );
  }
  for (const value of ticks(...axes.x.range, Math.max(3, inner.width / 95))) {
    root.append(
      svg("line", { class: "axis", x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4 }),
      svg("text", { class: "tick", x: x(value), y: bottom + 18, "text-anchor": "middle" }, axes.x.format(value)),
    );
  }
  const title = { class: "title", "text-anchor": "middle" };
  const middle = MARGIN.top + inner.height / 2;
  root.append(
    svg("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: bottom, y2: bottom }),
    svg("text", { ...title, x: MARGIN.left + inner.width / 2, y: height - 8 }, axes.x.title),
    svg("text", { ...title, transform: `translate(14 ${middle}) rotate(-90)` }, axes.y.title),
  );
  const layer = svg("g");
  root.append(layer);
  box.replaceChildren(root);
  return { root, layer, x, y, width, height };
}

function polygon(corners, radius, turn = 0, innerShare = 1) {
  const count = innerShare === 1 ? corners : 2 * corners;
  const points = Array.from({ length: count }, (_, index) => {
    const angle = (2 * Math.PI * index) / count - Math.PI / 2 + turn;
    const length = innerShare !== 1 && index % 2 ? radius * innerShare : radius;
    return `${(length * Math.cos(angle)).toFixed(2)} ${(length * Math.sin(angle)).toFixed(2)}`;
  });
  return `M${points.join("L")}Z`;
}

function cross(radius, turn) {
  const arm = radius / 2.6;
  const corners = [[-arm, -radius], [arm, -radius], [arm, -arm], [radius, -arm], [radius, arm], [arm, arm]];
  const all = [...corners, ...corners.map(([a, b]) => [-a, -b])];
  const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
  const turned = all.map(([a, b]) => `${(a * cos - b * sin).toFixed(2)} ${(a * sin + b * cos).toFixed(2)}`);
  return `M${turned.join("L")}Z`;
}

// By Matplotlib's names: paths around 0, 0.
const MARKERS = {
  o: (r) => `M${-r} 0A${r} ${r} 0 1 0 ${r} 0A${r} ${r} 0 1 0 ${-r} 0Z`,
  s: (r) => polygon(4, 1.25 * r, Math.PI / 4),
  D: (r) => polygon(4, 1.25 * r),
  d: (r) => `M0 ${-1.3 * r}L${0.8 * r} 0L0 ${1.3 * r}L${-0.8 * r} 0Z`,
  "^": (r) => polygon(3, 1.25 * r),
  v: (r) => polygon(3, 1.25 * r, Math.PI),
  "<": (r) => polygon(3, 1.25 * r, -Math.PI / 2),
  ">": (r) => polygon(3, 1.25 * r, Math.PI / 2),
  p: (r) => polygon(5, 1.1 * r),
  h: (r) => polygon(6, 1.1 * r),
  "*": (r) => polygon(5, 1.5 * r, 0, 0.42),
  P: (r) => cross(1.15 * r, 0),
  X: (r) => cross(1.15 * r, Math.PI / 4),
  1: (r) => polygon(3, 1.6 * r, Math.PI, 0.25),
  2: (r) => polygon(3, 1.6 * r, 0, 0.25),
};

function marker(style, x, y, radius, isHollow = false) {
  const shape = (MARKERS[style.marker] ?? MARKERS.o)(radius);
  return svg("path", { class: isHollow ? "marker hollow" : "marker", d: shape, transform: `translate(${x} ${y})` });
}

// A line through points (pairs of pixels) in its style; the group around it carries the colour.
function line(style, points) {
  const d = `M${points.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L")}`;
  const dashes = style.dashes || null;
  return svg("path", { class: "line", d, "stroke-width": 1.25 * style.width, "stroke-dasharray": dashes });
}

// The stylesheet lightens the colour on a dark page; black becomes the colour of the text.
function coloured(node, style) {
  node.classList.add("coloured");
  node.style.setProperty("--own", style.color === "#000000" ? "currentColor" : style.color);
  return node;
}

function swatch(style, isHollow) {
  const picture = coloured(svg("svg", { width: 34, height: 14, viewBox: "0 0 34 14", "aria-hidden": "true" }), style);
  if (!isHollow) picture.append(line(style, [[1, 7], [33, 7]]));
  picture.append(marker(style, 17, 7, 4, isHollow));
  return picture;
}

// Draws now, and again whenever the width of `box` changes.
function drawToFit(box, draw) {
  let width = box.clientWidth;
  draw();
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    draw();
  }).observe(box);
}

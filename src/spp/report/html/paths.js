// Solution paths: when each unit entered the support, as a heat map by layer, and the share of units in it.

// Cividis at even steps: equal to the eye for people with and without colour blindness.
const CIVIDIS = "#00224e #123570 #3b496c #575d6d #707173 #8a8678 #a59c74 #c3b369 #e1cc55 #fee838".split(" ");
const NEVER = [127, 127, 127, 70];
const ROW_HEIGHT = 16;

function heatColour(share) {
  const at = Math.min(share, 1) * (CIVIDIS.length - 1);
  const low = Math.min(Math.floor(at), CIVIDIS.length - 2);
  const channels = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  const [a, b] = [channels(CIVIDIS[low]), channels(CIVIDIS[low + 1])];
  return [...a.map((value, index) => Math.round(value + (b[index] - value) * (at - low))), 255];
}

function startPaths(app) {
  const maps = html("div", { class: "heats" });
  const support = html("div", { class: "chart" });
  const legend = html("div", { class: "legend-row" });
  let path = data.paths[0];
  const drawSupport = () => drawSupportOf(support, path);
  const show = (index) => {
    path = data.paths[index];
    maps.replaceChildren(...path.kinds.map((kind) => heatMap(kind, path)));
    legend.replaceChildren(...path.kinds.map(({ style, title }) => html("span", {}, swatch(style), title)));
    drawSupport();
  };
  const ramp = html("span", {}, "first step", html("span", { class: "ramp" }), "last step");
  const never = html("span", {}, html("span", { class: "never" }), "never entered");
  const scale = html("div", { class: "scale" }, ramp, never);
  const controls = html("div", { class: "controls" }, select("search", data.paths.map(({ label }) => label), show));
  app.append(controls, scale, maps, html("h3", {}, "Share of units in the support"), legend, support);
  show(0);
  drawToFit(support, drawSupport);
}

function heatMap(kind, path) {
  const columns = Math.max(...kind.layers.map(({ entry }) => entry.length));
  const rows = kind.layers.length;
  const label = `Entry of ${kind.title} units into the support, ${rows} layers`;
  const canvas = html("canvas", { width: columns, height: rows, tabindex: 0, role: "img", "aria-label": label });
  canvas.style.height = `${rows * ROW_HEIGHT}px`;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  kind.layers.forEach(({ entry }, row) => {
    for (let column = 0; column < columns; column += 1) {
      const step = entry[Math.floor((column * entry.length) / columns)];
      const colour = step === null ? NEVER : heatColour(step / path.num_steps);
      image.data.set(colour, 4 * (row * columns + column));
    }
  });
  context.putImageData(image, 0, 0);
  const readout = html("p", { class: "readout", "aria-live": "polite" }, "units of a layer in the order of entry");
  followCells(canvas, kind, columns, readout);
  const numbers = html("div", { class: "layers" });
  numbers.append(...kind.layers.map((_, index) => html("span", {}, String(index + 1))));
  const entered = kind.layers.reduce((sum, layer) => sum + layer.num_entered, 0);
  const total = kind.layers.reduce((sum, layer) => sum + layer.size, 0);
  return html(
    "figure",
    { class: "heat" },
    html("figcaption", {}, html("strong", {}, kind.title), ` ${entered} of ${total} units entered`),
    html("div", { class: "map" }, numbers, canvas),
    readout,
  );
}

// Lines that tell of a cell: layer, unit, step.
function describeCell(layer, number, column, columns) {
  const index = Math.floor((column * layer.entry.length) / columns);
  const step = layer.entry[index];
  const from = Math.round((index * layer.size) / layer.entry.length) + 1;
  const to = Math.max(from, Math.round(((index + 1) * layer.size) / layer.entry.length));
  const when = step === null ? "never entered" : `entered at step ${step}`;
  const lines = [`layer ${number} (${layer.name})`];
  if (layer.units) lines.push(`unit ${layer.units[index]}, rank ${from} of ${layer.size}`, when);
  else lines.push(`units of rank ${from} to ${to} of ${layer.size}`, step === null ? when : `median: ${when}`);
  return lines;
}

function followCells(canvas, kind, columns, readout) {
  const rows = kind.layers.length;
  let cell = [0, 0];
  const tell = (column, row, x, y) => {
    cell = [column, row];
    const lines = describeCell(kind.layers[row], row + 1, column, columns);
    readout.textContent = lines.join(", ");
    showTip(x, y, lines);
  };
  const clamp = (value, count) => Math.min(Math.max(Math.floor(value), 0), count - 1);
  const point = (event) => {
    const frame = canvas.getBoundingClientRect();
    const column = clamp(((event.clientX - frame.left) / frame.width) * columns, columns);
    tell(column, clamp(((event.clientY - frame.top) / frame.height) * rows, rows), event.clientX, event.clientY);
  };
  const tellCell = (column, row) => {
    const frame = canvas.getBoundingClientRect();
    const x = frame.left + ((column + 0.5) / columns) * frame.width;
    tell(column, row, x, frame.top + ((row + 0.5) / rows) * frame.height);
  };
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("blur", hideTip);
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!move) return;
    event.preventDefault();
    tellCell(clamp(cell[0] + move[0], columns), clamp(cell[1] + move[1], rows));
  });
}

function drawSupportOf(box, path) {
  const every = path.kinds.flatMap(({ support }) => support.map(([, share]) => share));
  if (!every.length) {
    box.replaceChildren(html("p", { class: "empty" }, "This search was not sampled."));
    return;
  }
  const axes = {
    x: { range: [0, path.num_steps], title: "search step", format: plain },
    y: { range: [0, Math.max(...every, 1) * 1.05], title: "units in the support (%)", format: plain },
  };
  const chart = makeChart(box, 260, axes, "Share of units in the support over the search");
  for (const kind of path.kinds) {
    const places = kind.support.map(([step, share]) => [chart.x(step), chart.y(share)]);
    const group = svg("g", { class: "series", "data-series": kind.title }, line(kind.style, places));
    chart.layer.append(coloured(group, kind.style));
  }
  const steps = path.kinds[0].support.map(([step]) => step);
  const ruler = svg("line", { class: "ruler", y1: MARGIN.top, y2: chart.height - MARGIN.bottom, visibility: "hidden" });
  chart.layer.append(ruler);
  chart.root.addEventListener("pointermove", (event) => {
    const x = event.clientX - chart.root.getBoundingClientRect().left;
    const far = (index) => Math.abs(chart.x(steps[index]) - x);
    const best = steps.reduce((found, _, index) => (far(index) < far(found) ? index : found), 0);
    fill(ruler, { x1: chart.x(steps[best]), x2: chart.x(steps[best]), visibility: "visible" }, []);
    const shares = path.kinds.map(({ title, support }) => [title, `${support[best][1].toFixed(1)} %`]);
    showTip(event.clientX, event.clientY, [`step ${steps[best]}`, ...shares]);
  });
  chart.root.addEventListener("pointerleave", () => {
    ruler.setAttribute("visibility", "hidden");
    hideTip();
  });
}

const pathsApp = document.getElementById("paths-app");
if (pathsApp) startPaths(pathsApp);

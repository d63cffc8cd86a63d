// Metrics over size: one panel per model, data set, task and kind of budget; one line per series.

const SIZES = { macs: "FLOPs", params: "params" };
const HIT_RADIUS = 28;

function startPlot(app) {
  const xs = Object.keys(SIZES);
  const [first] = data.panels;
  const state = { panel: first, x: xs[0], metric: first.metrics[0], hidden: new Set(), isSized: false, points: [] };

  const box = html("div", { class: "chart" });
  const legend = html("div", { class: "legend-list" });
  const pinned = html("div", { id: "pinned", "aria-live": "polite" });
  const draw = () => drawPlot(box, state, pinned);
  const redraw = () => {
    hideTip();
    draw();
  };
  const choosePanel = (index) => {
    state.panel = data.panels[index];
    const { metrics } = state.panel;
    state.metric = metrics.find(({ id }) => id === state.metric?.id) ?? metrics[0];
    const choice = chooseMetric();
    yChoice.replaceWith(choice);
    yChoice = choice;
    pinned.replaceChildren();
    fillLegend(legend, state, redraw);
    redraw();
  };
  const sized = html("input", { type: "checkbox", id: "sized" });
  sized.addEventListener("change", () => {
    state.isSized = sized.checked;
    redraw();
  });
  const xChoice = select("horizontal", xs.map((name) => SIZES[name]), (index) => {
    state.x = xs[index];
    redraw();
  });
  // Panels of other tasks have other metrics.
  const chooseMetric = () => {
    const { metrics } = state.panel;
    const show = (index) => {
      state.metric = metrics[index];
      redraw();
    };
    return select("vertical", metrics.map(({ title }) => title), show, metrics.indexOf(state.metric));
  };
  let yChoice = chooseMetric();
  const controls = html(
    "div",
    { class: "controls" },
    select("model, data and budget", data.panels.map((panel) => panel.title), choosePanel),
    xChoice,
    yChoice,
    html("label", { class: "check" }, sized, " marker size: search cost per member"),
  );
  app.append(controls, html("div", { class: "plot" }, box, legend), pinned);
  fillLegend(legend, state, redraw);
  drawToFit(box, draw);
}

// The legend is the filter.
function fillLegend(legend, state, redraw) {
  const boxes = state.panel.series.map((series) => {
    const check = html("input", { type: "checkbox", "data-series": series.label });
    check.checked = !state.hidden.has(series.label);
    check.addEventListener("change", () => {
      if (check.checked) state.hidden.delete(series.label);
      else state.hidden.add(series.label);
      redraw();
    });
    const cost = series.published ? "" : totalCost(state.panel, series);
    const names = html("span", { class: "names" }, html("span", {}, series.label), html("small", {}, cost));
    return [check, html("label", {}, check, swatch(series.style, series.published), names)];
  });
  const setAll = (isShown) => () => {
    for (const [check] of boxes) {
      check.checked = isShown;
      if (isShown) state.hidden.delete(check.dataset.series);
      else state.hidden.add(check.dataset.series);
    }
    redraw();
  };
  const buttons = html("div", { class: "buttons" }, button("all", setAll(true)), button("none", setAll(false)));
  legend.replaceChildren(buttons, ...boxes.map(([, label]) => label));
}

const membersOf = (point) => (point.members ?? []).map((index) => data.members[index]);

// One member for each search with its walk.
function searchesOf(members) {
  return [...new Map(members.map((member) => [`${member.search_key}/${member.family_key}`, member])).values()];
}

function totalCost(panel, series) {
  const searches = searchesOf(series.points.flatMap(membersOf));
  const seconds = searches.reduce((sum, member) => sum + member[panel.cost], 0);
  return `${searches.length} search${searches.length === 1 ? "" : "es"}, ${costText(panel, seconds)}`;
}

const isGpuTime = (panel) => panel.cost === "search_gpu_seconds";
const costText = (panel, seconds) => duration(seconds).replace(" ", isGpuTime(panel) ? " GPU-" : " ");
const costName = (panel) => (isGpuTime(panel) ? "GPU time of search" : "time of search");

const isMeasured = (member, metric) => metric !== undefined && (member.metrics[metric.id] ?? null) !== null;

// Points of a series that have both coordinates: {x, y, wide, point, series}, in pixels later.
function locate(series, state) {
  if (series.published) {
    return series.published
      .filter((point) => state.x in point.size && state.metric?.id in point.metric)
      .map((point) => ({ series, point, x: point.size[state.x], y: point.metric[state.metric.id], wide: null }))
      .sort((a, b) => a.x - b.x);
  }
  return series.points
    .map((point) => {
      const members = membersOf(point).filter((member) => isMeasured(member, state.metric));
      const values = members.map((member) => member.metrics[state.metric.id]);
      const sizes = members.map((member) => member[state.x]);
      return { series, point, members, x: mean(sizes), y: mean(values), wide: deviation(values) };
    })
    .filter((found) => found.members.length)
    .sort((a, b) => a.x - b.x);
}

function drawPlot(box, state, pinned) {
  const { panel, metric } = state;
  const shown = panel.series.filter((series) => !state.hidden.has(series.label)).map((series) => locate(series, state));
  const points = shown.flat();
  if (!points.length) {
    box.replaceChildren(html("p", { class: "empty" }, "Nothing is chosen that has this size and this metric."));
    return;
  }
  const dense = metric.dense === null ? [] : [metric.dense];
  const ys = points.flatMap(({ y, wide }) => [y - (wide ?? 0), y + (wide ?? 0)]);
  const xs = points.map(({ x }) => x);
  const axes = {
    x: { range: padded(xs, 0.06), title: `${SIZES[state.x]} of the member`, format: size },
    y: { range: padded([...ys, ...dense], 0.06), title: metric.title, format: plain },
  };
  const chart = makeChart(box, box.clientWidth < 520 ? 340 : 500, axes, `${metric.name} over size`);
  const largest = Math.max(...points.map((found) => memberCost(panel, found)));
  // The first in the legend is drawn last, so that it lies on top.
  const apart = Math.min(3, 24 / shown.length); // pixels, so that the bars of several do not hide each other
  const shiftOf = (found) => (found[0]?.series.published ? 0 : (shown.indexOf(found) - (shown.length - 1) / 2) * apart);
  for (const found of [...shown].reverse()) drawSeries(chart, state, found, largest, shiftOf(found));
  for (const level of dense) drawDense(chart, metric, level, xs.map(chart.x));
  state.points = points;
  followPointer(chart, state, pinned);
}

// Its words stand in the widest gap between points.
function drawDense(chart, metric, level, places) {
  const [left, right, y] = [MARGIN.left, chart.width - MARGIN.right, chart.y(level)];
  const edges = [left, ...places, right].sort((a, b) => a - b);
  const gaps = edges.slice(1).map((edge, index) => [edge - edges[index], (edge + edges[index]) / 2]);
  const [, middle] = gaps.reduce((widest, gap) => (gap[0] > widest[0] ? gap : widest));
  chart.layer.append(
    svg("line", { class: "dense", x1: left, x2: right, y1: y, y2: y }),
    svg("text", { class: "halo", x: middle, y: y - 5, "text-anchor": "middle" }, `dense ${level.toFixed(metric.digits - 1)}`),
  );
}

// Seconds of search that one member took: a search is shared by all members it yields.
function memberCost(panel, { members }) {
  return members?.length ? mean(members.map((member) => member[panel.cost] / member.num_members_of_search)) : 0;
}

function drawSeries(chart, state, found, largest, shift) {
  if (!found.length) return;
  const { series } = found[0];
  const group = coloured(svg("g", { class: "series", "data-series": series.label }), series.style);
  const places = found.map(({ x, y }) => [chart.x(x) + shift, chart.y(y)]);
  if (!series.published) group.append(line(series.style, places));
  found.forEach((point, index) => {
    const [x, y] = places[index];
    if (point.wide !== null) {
      const [top, bottom] = [chart.y(point.y + point.wide), chart.y(point.y - point.wide)];
      group.append(svg("path", { class: "bar", d: `M${x} ${top}V${bottom}M${x - 3} ${top}h6M${x - 3} ${bottom}h6` }));
    }
    const isSized = state.isSized && !series.published && largest > 0;
    const radius = isSized ? 3 + 9 * Math.sqrt(memberCost(state.panel, point) / largest) : 4.2;
    point.node = marker(series.style, x, y, radius, Boolean(series.published));
    fill(point.node, { tabindex: -1, role: "button", "aria-label": describe(state, point).flat().join(", ") }, []);
    Object.assign(point, { px: x, py: y });
    group.append(point.node);
  });
  chart.layer.append(group);
}

// Lines of the tooltip.
function describe(state, { series, point, members, x, y }) {
  const { panel, metric } = state;
  if (series.published) {
    const lines = [series.label, ["asked", point.asked], [metric.title, String(y)]];
    lines.push([SIZES[state.x], size(x)], point.source);
    return point.note ? [...lines, point.note] : lines;
  }
  const part = (name) => {
    const average = mean(members.map((member) => member[name]));
    return `${size(average)} (${((100 * average) / panel.dense[name]).toFixed(1)} % of dense)`;
  };
  const searches = searchesOf(members);
  const cost = mean(searches.map((member) => member[panel.cost]));
  const shared = mean(searches.map((member) => member.num_members_of_search));
  return [
    series.label,
    ["method", series.method],
    series.preset ? ["preset", series.preset] : null,
    ["asked", point.asked],
    ["FLOPs", part("macs")],
    ["params", part("params")],
    [metric.title, spread(members.map((member) => member.metrics[metric.id]), metric.digits)],
    ["seeds", members.map((member) => member.seed).sort((a, b) => a - b).join(", ")],
    [costName(panel), `${costText(panel, cost)} for ${Number(shared.toFixed(1))} member${shared === 1 ? "" : "s"}`],
  ].filter((row) => row !== null);
}

// Hover, touch and keys: the nearest point is told of, a click or Enter pins it. The whole plot is one stop of Tab.
function followPointer(chart, state, pinned) {
  const { root } = chart;
  let current = null;
  const tell = (point, show) => {
    current?.node.classList.remove("current");
    root.classList.toggle("has-current", point !== null);
    for (const group of root.querySelectorAll(".series.current")) group.classList.remove("current");
    current = point;
    if (point === null) return hideTip();
    point.node.classList.add("current");
    point.node.parentNode.classList.add("current");
    show(describe(state, point));
  };
  const nearest = (event) => {
    const frame = root.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    const far = (point) => Math.hypot(point.px - x, point.py - y);
    const best = state.points.reduce((a, b) => (far(b) < far(a) ? b : a));
    return far(best) <= HIT_RADIUS ? best : null;
  };
  root.addEventListener("pointermove", (event) => {
    tell(nearest(event), (lines) => showTip(event.clientX, event.clientY, lines));
  });
  root.addEventListener("pointerleave", () => tell(null));
  root.addEventListener("click", (event) => {
    const point = nearest(event);
    if (point) pin(pinned, state, point, describe(state, point));
  });

  const nodes = state.points.map((point) => point.node);
  nodes[0].setAttribute("tabindex", 0);
  state.points.forEach((point, index) => {
    point.node.addEventListener("focus", () => tell(point, (lines) => showTipAt(point.node, lines)));
    point.node.addEventListener("blur", () => tell(null));
    point.node.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step) {
        event.preventDefault();
        const next = nodes[(index + step + nodes.length) % nodes.length];
        point.node.setAttribute("tabindex", -1);
        next.setAttribute("tabindex", 0);
        next.focus({ preventScroll: true });
      } else if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        pin(pinned, state, point, describe(state, point));
      }
    });
  });
}

const plotApp = document.getElementById("plot-app");
if (plotApp) startPlot(plotApp);

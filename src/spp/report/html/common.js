// What all parts of the page share: its data, new elements, numbers as people write them, the tooltip, copying.

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

// Children that are strings become text, never markup.
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function select(title, options, onChange, chosen = 0) {
  const box = html("select", {}, ...options.map((name, index) => html("option", { value: index }, name)));
  box.value = chosen;
  box.addEventListener("change", () => onChange(Number(box.value)));
  return html("label", { class: "choice" }, html("span", {}, title), box);
}

function button(title, onClick, attributes = {}) {
  const made = html("button", { type: "button", ...attributes }, title);
  made.addEventListener("click", onClick);
  return made;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// Of a sample, as in the tables; null for a single value.
function deviation(values) {
  if (values.length < 2) return null;
  const centre = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1));
}

function spread(values, digits) {
  const wide = deviation(values);
  return mean(values).toFixed(digits) + (wide === null ? "" : ` ± ${wide.toFixed(digits)}`);
}

function size(count) {
  for (const [suffix, factor] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (Math.abs(count) >= factor) return `${Number((count / factor).toPrecision(4))} ${suffix}`;
  }
  return String(Number(count.toPrecision(4)));
}

const plain = (value) => String(Number(value.toPrecision(6)));

function duration(seconds) {
  if (seconds >= 5400) return `${(seconds / 3600).toFixed(1)} h`;
  return seconds >= 90 ? `${(seconds / 60).toFixed(1)} min` : `${Number(seconds.toPrecision(3))} s`;
}

// The tooltip: lines of text beside a point of the window; the first line is its title.

const tip = html("div", { id: "tip", role: "tooltip", hidden: "" });
document.body.append(tip);

// The element that the tooltip belongs to and moves with; null where it belongs to the pointer.
let tipOwner = null;

function showTip(x, y, lines) {
  tipOwner = null;
  const rows = lines.slice(1).map((line) =>
    Array.isArray(line)
      ? html("div", { class: "row" }, html("span", {}, line[0]), html("span", {}, line[1]))
      : html("div", {}, line),
  );
  tip.replaceChildren(html("strong", {}, lines[0]), ...rows);
  tip.hidden = false;
  placeTip(x, y);
}

function showTipAt(owner, lines) {
  const place = owner.getBoundingClientRect();
  showTip(place.right, place.bottom, lines);
  tipOwner = owner;
}

function placeTip(x, y) {
  // Its width depends on where it stands, as long as it has room on neither side.
  tip.style.left = tip.style.top = "0";
  const { width, height } = tip.getBoundingClientRect();
  const right = document.documentElement.clientWidth - width - 8;
  const left = x + 14 > right && x - width - 14 > 8 ? x - width - 14 : Math.min(x + 14, right);
  const top = y + 14 + height > window.innerHeight ? y - height - 14 : y + 14;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}

function hideTip() {
  tipOwner = null;
  tip.hidden = true;
}

// Copying: a button copies its data-copy; where the browser forbids that, the words beside it are selected.

const copyButton = (text) => html("button", { type: "button", class: "copy", "data-copy": text }, "Copy");

async function copy(source) {
  let word = "Copied";
  try {
    await navigator.clipboard.writeText(source.dataset.copy);
  } catch {
    getSelection().selectAllChildren(source.parentNode.querySelector("code, pre"));
    word = "Selected";
  }
  source.textContent = word;
  setTimeout(() => (source.textContent = "Copy"), 1500);
}

document.addEventListener("click", (event) => {
  const source = event.target.closest("[data-copy]");
  if (source) copy(source);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});
function moveTip() {
  const place = tipOwner?.getBoundingClientRect();
  if (place) placeTip(place.right, place.bottom);
  else hideTip();
}
window.addEventListener("scroll", moveTip, { passive: true, capture: true });

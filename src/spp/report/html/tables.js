// Tables: sorting by the heads, and hints on cells for pointer, finger and keys.

// Up, down, then as it was. Empty cells are last both ways.
const NEXT_ORDER = { none: "ascending", ascending: "descending", descending: "none" };

function sortKey(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  if (cell.classList.contains("number")) return null;
  return cell.textContent || null;
}

function compare(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a < b ? -1 : a > b ? 1 : 0;
}

function sortBy(table, head) {
  const order = NEXT_ORDER[head.getAttribute("aria-sort")];
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", other === head ? order : "none");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => {
    return { row, key: sortKey(row.cells[head.cellIndex]), number: Number(row.dataset.number) };
  });
  const sign = order === "descending" ? -1 : 1;
  rows.sort((a, b) => {
    if (order === "none") return a.number - b.number;
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.number - b.number;
    return sign * compare(a.key, b.key) || a.number - b.number;
  });
  body.append(...rows.map(({ row }) => row));
}

for (const table of document.querySelectorAll(".box table")) {
  [...table.tBodies[0].rows].forEach((row, index) => (row.dataset.number = index));
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (head) sortBy(table, head);
  });
}

// The browser's own titles do not show on touch, so they become hints of ours.
for (const hint of document.querySelectorAll(".hint")) {
  const words = hint.title;
  hint.removeAttribute("title");
  fill(hint, { tabindex: 0, "aria-description": words }, []);
  const show = () => showTipAt(hint, [hint.textContent, words]);
  hint.addEventListener("pointerenter", show);
  hint.addEventListener("focus", show);
  hint.addEventListener("click", show);
  hint.addEventListener("pointerleave", hideTip);
  hint.addEventListener("blur", hideTip);
}

// The link of the section that is being read stands out.
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const link = links.get(target.id);
      link.classList.toggle("here", isIntersecting);
      // On narrow pages the links are a row that scrolls.
      if (isIntersecting) link.closest("nav").scrollLeft = link.offsetLeft - 24;
    }
  },
  { rootMargin: "-20% 0px -79% 0px" },
);
for (const section of document.querySelectorAll("main > section")) watcher.observe(section);

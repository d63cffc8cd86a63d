"""A drawing: a figure with its caption and the tidy data behind it, and how all of them look and are written."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
PNG_DPI = 160
TEXT_WIDTH = 7.0
"""Width in inches over a page's whole text; 9 pt there are 7 pt in a text of 5.5 inches."""
COLUMN_WIDTH = 5.0
"""Width in inches of a figure with one panel."""
TITLE_PT = 10
"""Size of the letters of a figure's title."""

_HANDLE_EM, _GAP_EM = 3.2, 1.4
"""Length of a legend's handle and gap between its columns, in sizes of its letters."""

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    "figure.titlesize": TITLE_PT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "text.parse_math": False,  # names may hold signs that would start a formula
    "pdf.fonttype": 42,  # text that stays text: journals refuse Type 3 fonts
    "svg.fonttype": "none",
    "svg.hashsalt": "spp",  # else names inside an SVG are drawn by chance
}
_NO_TIME = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}

rendered: "WeakKeyDictionary[Figure, dict[str, bytes]]" = WeakKeyDictionary()
"""By figure and format what `picture` has made; a png goes into a file and into the page."""


@dataclass(frozen=True)
class Drawing:
    """One figure, drawn.

    Attributes:
        name: stem of its files: "figure2", "figure2-seed1".
        title: what people call it.
        figure: the drawn figure.
        caption: the legend in a sentence or two, with units.
        data: the tidy rows that were drawn, one observation each.
    """

    name: str
    title: str
    figure: "Figure"
    caption: str
    data: tuple[Mapping[str, Any], ...]


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's defaults with our sizes, whatever the user's own settings; also a decorator."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure in inches that lays itself out and needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05))
    FigureCanvasAgg(figure)
    return figure


def write_beside_bars(axes: Any, words: Iterable[str]) -> None:
    """Write words behind the ends of horizontal bars, the first at the first bar of the axes, which is at 0."""
    for position, text in enumerate(words):
        axes.annotate(
            text,
            (axes.patches[position].get_width(), position),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )


def picture(drawing: Drawing, suffix: str) -> bytes:
    """The figure as png, pdf or svg: the same drawing gives the same bytes.

    Raises:
        ValueError: if there is no such format.
    """
    if suffix not in FORMATS:
        raise ValueError(f"format: {suffix!r} is not a picture's; allowed: {', '.join(FORMATS)}; use png")
    known = rendered.setdefault(drawing.figure, {})
    if suffix not in known:
        known[suffix] = _picture(drawing.figure, suffix)
    return known[suffix]


@house_style()
def _picture(figure: "Figure", suffix: str) -> bytes:
    _lay_out_once(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format=suffix, dpi=PNG_DPI, metadata=_NO_TIME[suffix])
    return stream.getvalue()


def _lay_out_once(figure: "Figure") -> None:
    """Settle where everything is, so that all formats look the same and none but the first takes the time for it."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine()  # none: by our style nothing else is chosen


def save(drawing: Drawing, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write the figure in every format, and its data as csv beside it; returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for suffix in formats:
        files.append(folder / f"{drawing.name}.{suffix}")
        files[-1].write_bytes(picture(drawing, suffix))
    files.append(folder / f"{drawing.name}.csv")
    files[-1].write_text(tidy_csv(drawing.data))
    return files


def tidy_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as csv: every column that any row has, in the order of their first appearance; None is empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def legend_below(figure: "Figure", entries: Mapping[str, Any]) -> None:
    """A legend under all panels, where it can cover no data; the figure grows by it. `entries`: artists by label."""
    if not entries:
        return
    num_columns = next(
        count for count in range(min(len(entries), 6), 0, -1) if count == 1 or _fits(figure, entries, count)
    )
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=num_columns,
        handlelength=_HANDLE_EM,
        columnspacing=_GAP_EM,
    )
    figure.set_figheight(figure.get_figheight() + 0.17 * -(-len(entries) // num_columns) + 0.1)


def _fits(figure: "Figure", labels: Iterable[str], num_columns: int) -> bool:
    widths = [text_width(label, _STYLE["legend.fontsize"]) for label in labels]
    longest, num_long = divmod(len(widths), num_columns)
    sizes = [longest + 1] * num_long + [longest] * (num_columns - num_long)  # as Matplotlib deals them out
    columns = [max(widths[sum(sizes[:place]) :][:size]) for place, size in enumerate(sizes)]
    beside = (_HANDLE_EM + _GAP_EM + 0.8) * _STYLE["legend.fontsize"] / 72
    return bool(sum(columns) + len(columns) * beside <= figure.get_figwidth())


def text_width(text: str, size_pt: float) -> float:
    """Width of a line of text in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(text or " ", FontProperties(size=size_pt), False)
    return float(width) / 72


def file_stem(*parts: object) -> str:
    """A name for files from words that may hold anything."""
    words = [re.sub(r"[^A-Za-z0-9._=]+", "-", str(part)).strip("-.") for part in parts]
    return "-".join(word for word in words if word)

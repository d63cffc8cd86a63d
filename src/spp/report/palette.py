"""One look per method in all figures: colour, line and marker each tell it apart, so that grey print does, too."""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Okabe and Ito's colours, told apart without red-green vision; their yellow is left out, as it fades on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F"

NUM_LETTERS = 34
"""Longest name in a legend."""

_DOTS, _LONG, _MIXED = (0, (1, 1.2)), (0, (6, 1.5)), (0, (4, 1, 1, 1, 1, 1))


@dataclass(frozen=True)
class Style:
    """How a line is drawn; `line` and `marker` in Matplotlib's terms."""

    color: str
    line: Any
    marker: str
    width: float = 1.2

    def artist(self) -> dict[str, Any]:
        """Words for `axes.plot` and `axes.errorbar`."""
        return {"color": self.color, "linestyle": self.line, "marker": self.marker, "linewidth": self.width}


DENSE_STYLE = Style(BLACK, (0, (1, 2)), "")
# Of Tol's muted colours those that no method has.
UNIT_KIND_STYLES = {
    "qk": Style("#332288", "-", "o"),
    "vo": Style("#882255", "--", "s"),
    "mlp": Style("#999933", "-.", "^"),
}

_METHODS = {
    "spp": Style(BLUE, "-", "o", 2.0),
    "spp priced": Style(BLUE, "-", "o", 2.0),
    "spp textbook": Style(SKY, _LONG, "p", 1.6),
    "spp released": Style(SKY, "--", "d", 1.6),
    "lasso": Style(VERMILION, "--", "s"),
    "upop": Style(ORANGE, "-.", "^"),
    "vit_slim": Style(GREEN, "--", "v"),
    "wdpruning": Style(PURPLE, "-.", "D"),
    "dessilbi": Style(GREEN, "-.", "P"),
    "leap": Style(ORANGE, _LONG, "X"),
    "dsp": Style(PURPLE, "--", "*"),
    "taylor": Style(VERMILION, _MIXED, "<"),
    "obs": Style(BLACK, "--", "8"),
    "gn": Style(BLACK, "-.", "H"),
    "snapvit": Style(SKY, "-.", "2"),
    "energy": Style(PURPLE, "-", "1"),
    "magnitude": Style(GREY, "--", ">"),
    "random": Style(GREY, _DOTS, "h"),
}
_LINES = ("-", "--", "-.", _DOTS, _LONG, _MIXED)
_MARKERS = tuple("os^vDP<>")
_COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK, GREY)


@dataclass(frozen=True)
class Series:
    """What one line stands for: a method with its preset and what else sets it apart."""

    method: str
    preset: str | None = None
    variant: str = ""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Series":
        """The series of a row of the record, or of anything else with these columns."""
        return cls(row["method"], row["preset"], row["variant"] or "")

    @property
    def label(self) -> str:
        """The name in a legend."""
        details = ", ".join(detail for detail in (self.preset, self.variant) if detail)
        return shorten(f"{self.method} ({details})" if details else self.method)


def styles(series: Iterable[Series]) -> dict[Series, Style]:
    """One style for each: a method's own, the same in all figures; its variants change line and marker in turn."""
    found: dict[Series, Style] = {}
    num_variants: dict[tuple[str, str | None], int] = {}
    for one in dict.fromkeys(series):
        style = _method_style(one.method, one.preset)
        if one.variant:
            number = num_variants[one.method, one.preset] = num_variants.get((one.method, one.preset), -1) + 1
            first = _LINES.index(style.line) + 1
            line = _LINES[(first + number) % len(_LINES)]
            # The marker stays as long as it can: variants of two methods with one colour differ by it.
            round_ = number // (len(_LINES) - 1)
            markers = [style.marker, *(marker for marker in _MARKERS if marker != style.marker)]
            style = Style(style.color, line, markers[round_ % len(markers)])
        found[one] = style
    return found


def method_order(series: Series) -> tuple[int, str, str, str]:
    """Sorts legends: ours first, the floor last, strangers behind."""
    names = list(_METHODS)
    place = names.index(series.method) if series.method in names else len(names)
    return place, series.method, series.preset or "", series.variant


def shorten(name: str, num_letters: int = NUM_LETTERS) -> str:
    """A name cut in its middle, because variants differ at their end and methods at their beginning."""
    if len(name) <= num_letters:
        return name
    head = (num_letters - 1) // 2
    return f"{name[:head]}…{name[head + 1 - num_letters :]}"


def _method_style(method: str, preset: str | None) -> Style:
    known = _METHODS.get(f"{method} {preset}" if preset else method) or _METHODS.get(method)
    if known is not None:
        return known
    number = zlib.crc32(method.encode())  # the same for the same name in every run
    return Style(
        _COLORS[number % len(_COLORS)],
        _LINES[number // 8 % len(_LINES)],
        _MARKERS[number // 64 % len(_MARKERS)],
    )

"""What `spp benchmark` measured, as a figure: how much of the speed-up that the multiply-adds promise is reached."""

from collections.abc import Mapping, Sequence
from typing import Any

from spp.report.drawing import COLUMN_WIDTH, Drawing, house_style, legend_below, new_figure
from spp.report.palette import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION

_BAR_IN, _GAP_IN = 0.16, 0.16
_COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)


@house_style()
def draw(measured: Mapping[str, Any], name: str) -> Drawing:
    """A bar for each member and setting, beside the line of the ideal.

    Args:
        measured: what `spp benchmark --json` prints.
        name: of the files.
    """
    rows = [row for row in measured["rows"] if row["of_ideal"] is not None]
    members = list(dict.fromkeys(row["network"] for row in rows))
    settings = list(dict.fromkeys(map(_setting, rows)))
    figure = new_figure(COLUMN_WIDTH, 0.9 + len(settings) * (_BAR_IN * max(1, len(members)) + _GAP_IN))
    axes = figure.subplots()
    drawn = {}
    for number, member in enumerate(members):
        values = {_setting(row): row["of_ideal"] for row in rows if row["network"] == member}
        shift = (number - (len(members) - 1) / 2) * 0.8 / len(members)
        places = [settings.index(setting) + shift for setting in values]
        color = _COLORS[number % len(_COLORS)]
        drawn[member] = axes.barh(places, list(values.values()), 0.8 / len(members), color=color)
        for place, value in zip(places, values.values(), strict=True):
            axes.annotate(f"{value:.2f}", (value, place), (2, 0), textcoords="offset points", va="center", fontsize=7)
    axes.axvline(1.0, color=GREY, linewidth=1.0, linestyle="--")
    axes.set_yticks(range(len(settings)), settings)
    axes.invert_yaxis()
    axes.set_xlabel("speed-up over the ratio of multiply-adds")
    legend_below(figure, drawn)
    processor = measured["machine"]["processor"]
    caption = f"Speed-up over the dense network divided by the ratio of multiply-adds; 1 is ideal. {processor}."
    return Drawing(name, "Speed-up beside the ideal", figure, caption, _data(rows))


def _setting(row: Mapping[str, Any]) -> str:
    place = "GPU" if row["device"] == "cuda" else f"{row['num_threads']} thr."
    return f"{row['runtime']}, batch {row['batch_size']}, {place}"


def _data(rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(dict(row) for row in rows)

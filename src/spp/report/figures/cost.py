"""What a search costs: bars of epochs and of time for one member, beside the epochs that were published."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spp.record.record import Record
from spp.record.rows import Row
from spp.report.drawing import TEXT_WIDTH, Drawing, file_stem, house_style, legend_below, new_figure, write_beside_bars
from spp.report.figures.accuracy import MAX_SERIES
from spp.report.figures.curves import by_series
from spp.report.figures.figure1 import HATCH, SearchCost
from spp.report.groups import Workload, by_workload, devices_text, tasks_to_name
from spp.report.palette import BLACK, GREY, Series, styles
from spp.report.published import TASK, Published, PublishedSearch

CAPTION = (
    "Search with its walk: epochs of one search, and its share for one member in epochs and in {unit} on {devices}. "
    "Full bars share one search among all members, hatched ones are of methods that search once for each; the words "
    "tell how many searches and members one seed has. Training of the dense network and finetuning are not "
    "counted.{published}"
)
PUBLISHED = " Hollow diamonds are published epochs, DeiT on ImageNet-1k ({sources}); their GPU-hours are not known."


_DIAMOND: dict[str, Any] = {"color": BLACK, "markerfacecolor": "white", "linestyle": ""}


@house_style()
def draw(record: Record, published: Published) -> list[Drawing]:
    """One drawing for each workload."""
    found, task_words = by_workload(record.rows), tasks_to_name(record.rows)
    drawings = []
    for workload, rows in found.items():
        words = task_words[workload.task]
        name = "cost" if len(found) == 1 else file_stem("cost", *words, workload.model, workload.data)
        title = f"Cost of a search: {', '.join([workload.title, *words])}"
        drawings.append(_drawing(workload, rows, name, title, published))
    return drawings


def _drawing(workload: Workload, rows: Sequence[Row], name: str, title: str, published: Published) -> Drawing:
    series = by_series(rows)
    shown = dict(sorted(series.items(), key=lambda item: bool(item[0].variant))[:MAX_SERIES])
    costs = {one: SearchCost.of(members) for one, members in series.items()}
    quoted = _quoted(published.searches, workload, shown)
    seconds, unit, scale = _unit([costs[one] for one in shown])
    figure = new_figure(TEXT_WIDTH, 1.2 + 0.23 * len(shown))
    panels = figure.subplots(1, 3, sharey=True, width_ratios=[1, 1, 1.5])
    looks = styles(shown)
    for position, one in enumerate(shown):
        cost = costs[one]
        look: dict[str, Any] = {"height": 0.7, "edgecolor": looks[one].color}
        look |= {"color": looks[one].color} if cost.is_shared else {"color": "white", "hatch": HATCH}
        of_one, total = cost.epochs / cost.num_searches, getattr(cost, seconds) / scale
        for axes, length in zip(
            panels, (of_one, cost.epochs / cost.num_members, total / cost.num_members), strict=True
        ):
            axes.barh(position, length, **look)
    _write_counts(panels[2], [costs[one] for one in shown])
    for one, search in quoted.items():
        panels[0].plot(search.search_epochs, list(shown).index(one), "D", **_DIAMOND, zorder=5)
    panels[0].set_yticks(range(len(shown)), [one.label for one in shown])
    panels[0].invert_yaxis()
    for axes, label in zip(panels, ("one search (epochs)", "per member (epochs)", f"per member ({unit})"), strict=True):
        axes.set_xlabel(label)
    panels[2].set_xlim(0, 2.8 * max(panels[2].get_xlim()[1], 1e-9))  # room for the words
    legend_below(figure, _legend(bool(quoted), [costs[one].is_shared for one in shown]))
    figure.suptitle(title)
    sources = "; ".join(dict.fromkeys(search.source for search in quoted.values()))
    note = PUBLISHED.format(sources=sources) if quoted else ""
    caption = CAPTION.format(unit=unit, devices=devices_text(rows), published=note)
    return Drawing(name, title, figure, caption, tuple(_tidy(costs, quoted)))


def _unit(costs: Sequence[SearchCost]) -> tuple[str, str, float]:
    """Field of `SearchCost`, unit and seconds per unit: GPU-hours where every search has used a GPU."""
    if all(cost.gpu_seconds for cost in costs):
        return "gpu_seconds", "GPU-hours", 3600.0
    return "seconds", "seconds", 1.0


def _quoted(
    searches: Sequence[PublishedSearch], workload: Workload, shown: Mapping[Series, Any]
) -> dict[Series, PublishedSearch]:
    """The published epochs of the methods shown; those known are of DeiT on ImageNet-1k."""
    if (workload.task, workload.data) != (TASK, "imagenet") or not workload.model.startswith("deit"):
        return {}
    by_method = {search.method: search for search in searches}
    return {one: by_method[one.method] for one in shown if one.method in by_method and one.preset in (None, "priced")}


def _write_counts(axes: Any, costs: Sequence[SearchCost]) -> None:
    words = []
    for cost in costs:
        searches = f"{cost.num_searches:g} search{'' if cost.num_searches == 1 else 'es'}"
        members = f"{cost.num_members:g} member{'' if cost.num_members == 1 else 's'}"
        words.append(f"{searches}, {members}")
    write_beside_bars(axes, words)


def _legend(has_quoted: bool, is_shared: Sequence[bool]) -> dict[str, Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: dict[str, Any] = {}
    if any(is_shared):
        entries["one search for all budgets"] = Patch(facecolor=GREY, edgecolor=GREY)
    if not all(is_shared):
        entries["one search per budget"] = Patch(facecolor="white", edgecolor=GREY, hatch=HATCH)
    if has_quoted:
        entries["published, one search"] = Line2D([], [], marker="D", **_DIAMOND)
    return entries


def _tidy(costs: Mapping[Series, SearchCost], quoted: Mapping[Series, PublishedSearch]) -> Iterator[Mapping[str, Any]]:
    for one, cost in costs.items():
        yield {
            "source": "measured",
            **vars(one),
            **vars(cost),
            "epochs_per_member": cost.epochs / cost.num_members,
            "seconds_per_member": cost.seconds / cost.num_members,
            "gpu_seconds_per_member": cost.gpu_seconds / cost.num_members,
        }
    for search in quoted.values():
        yield {"source": search.source, "method": search.method, "num_searches": 1, "epochs": search.search_epochs}

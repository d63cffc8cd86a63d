"""Figure 2, the solution path: a picture of each search, and one over the seeds of each setting."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from spp.record.record import PathSource, Record
from spp.report.drawing import Drawing, file_stem
from spp.report.figures.path import draw_path
from spp.report.figures.seeds import draw_seeds
from spp.report.palette import Series, method_order
from spp.report.path_arrays import FILE_NAME, read_path
from spp.report.published import Published

MAX_DRAWINGS = 5
"""Of each sort: a sweep may have hundreds of searches, and nobody looks at so many pictures."""


class Setting(NamedTuple):
    """What searches have in common that differ by their seed alone."""

    model: str
    data: str
    series: Series


def draw(record: Record, published: Published) -> list[Drawing]:
    """Searches first, one of each setting before the second of any; then the settings with several seeds."""
    found = settings(record.paths)
    turns = max((len(sources) for sources in found.values()), default=0)
    singles = [
        (setting, sources[turn]) for turn in range(turns) for setting, sources in found.items() if turn < len(sources)
    ]
    repeated = repeated_settings(found)
    drawings = [
        draw_path(read_path(source.artifacts), _name(found, setting, source, number), _title(setting, source))
        for number, (setting, source) in enumerate(singles[:MAX_DRAWINGS])
    ]
    for setting, by_seed in list(repeated.items())[:MAX_DRAWINGS]:
        paths = {seed: read_path(source.artifacts) for seed, source in by_seed.items()}
        name = file_stem("figure2-seeds", *(_words(found, setting)))
        drawings.append(draw_seeds(paths, name, f"Solution paths of {len(paths)} seeds: {_place(setting)}"))
    num_left_out = max(0, len(singles) - MAX_DRAWINGS) + max(0, len(repeated) - MAX_DRAWINGS)
    num_lost = len(record.paths) - len(singles)
    notes = [
        f" {num_left_out} more pictures were not drawn: name one sweep to see those of its searches."
        * bool(num_left_out),
        f" {num_lost} recorded paths are not on this machine." * bool(num_lost),
    ]
    if drawings and any(notes):
        drawings[0] = replace(drawings[0], caption=drawings[0].caption + "".join(notes))
    return drawings


def settings(paths: Sequence[PathSource]) -> dict[Setting, list[PathSource]]:
    """The searches of each setting whose paths are here, by seed; settings in the order of legends."""
    found: dict[Setting, list[PathSource]] = {}
    here = [path for path in paths if (path.artifacts / FILE_NAME).is_file()]
    for path in sorted(here, key=lambda path: path.seed):
        found.setdefault(Setting(path.model, path.data, Series.of(vars(path))), []).append(path)
    return {setting: found[setting] for setting in sorted(found, key=lambda one: (*one[:2], method_order(one.series)))}


def repeated_settings(found: Mapping[Setting, Sequence[PathSource]]) -> dict[Setting, dict[int, PathSource]]:
    """The searches by seed of the settings with several seeds, one for each seed."""
    by_seed = {setting: {source.seed: source for source in sources} for setting, sources in found.items()}
    return {setting: sources for setting, sources in by_seed.items() if len(sources) > 1}


def _words(found: dict[Setting, list[PathSource]], setting: Setting) -> list[str]:
    """The words that tell a setting from the others found."""
    columns = [(one.model, one.data, one.series.label) for one in found]
    own = (setting.model, setting.data, setting.series.label)
    return [word for word, others in zip(own, zip(*columns, strict=True), strict=True) if len(set(others)) > 1]


def _name(found: dict[Setting, list[PathSource]], setting: Setting, source: PathSource, number: int) -> str:
    if number == 0:
        return "figure2"
    seeds = {source.seed for sources in found.values() for source in sources}
    has_twin = sum(other.seed == source.seed for other in found[setting]) > 1
    words = [f"seed{source.seed}" if len(seeds) > 1 else "", source.key[:8] if has_twin else ""]
    return file_stem("figure2", *_words(found, setting), *words)


def _place(setting: Setting) -> str:
    return f"{setting.series.label}, {setting.model} on {setting.data}"


def _title(setting: Setting, source: PathSource) -> str:
    return f"Solution path of {_place(setting)}, seed {source.seed}"

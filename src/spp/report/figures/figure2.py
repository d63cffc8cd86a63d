"""Figure 2, the solution path: a picture of each search, and one over the seeds of each combination."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from spp.record.record import PathSource, Record
from spp.report.drawing import Drawing, file_stem
from spp.report.figures.path import draw_path
from spp.report.figures.seeds import draw_seeds
from spp.report.groups import Combination
from spp.report.palette import Series, method_order
from spp.report.path_arrays import FILE_NAME, read_path
from spp.report.published import Published

MAX_DRAWINGS = 5
"""Of each sort: a sweep may have hundreds of searches, and nobody looks at so many pictures."""


def draw(record: Record, published: Published) -> list[Drawing]:
    """Searches first, one of each combination before the second of any; then the combinations with several seeds."""
    found = searches_by_combination(record.paths)
    turns = max((len(sources) for sources in found.values()), default=0)
    singles = [
        (combination, sources[turn])
        for turn in range(turns)
        for combination, sources in found.items()
        if turn < len(sources)
    ]
    repeated = repeated_searches(found)
    drawings = [
        draw_path(read_path(source.artifacts), _name(found, combination, source, number), _title(combination, source))
        for number, (combination, source) in enumerate(singles[:MAX_DRAWINGS])
    ]
    for combination, by_seed in list(repeated.items())[:MAX_DRAWINGS]:
        paths = {seed: read_path(source.artifacts) for seed, source in by_seed.items()}
        name = file_stem("figure2-seeds", *(_words(found, combination)))
        drawings.append(
            draw_seeds(paths, name, f"Solution paths of {len(paths)} seeds: {_combination_title(combination)}")
        )
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


def searches_by_combination(paths: Sequence[PathSource]) -> dict[Combination, list[PathSource]]:
    """The searches of each combination whose paths are here, by seed; combinations in the order of legends."""
    found: dict[Combination, list[PathSource]] = {}
    here = [path for path in paths if (path.artifacts / FILE_NAME).is_file()]
    for path in sorted(here, key=lambda path: path.seed):
        found.setdefault(Combination.of_source(path), []).append(path)
    return {combination: found[combination] for combination in sorted(found, key=_order)}


def _order(one: Combination) -> tuple[object, ...]:
    return one.model, one.data, one.task, method_order(_series(one))


def _series(one: Combination) -> Series:
    return Series.of(one._asdict())


def repeated_searches(found: Mapping[Combination, Sequence[PathSource]]) -> dict[Combination, dict[int, PathSource]]:
    """The searches by seed of the combinations with several seeds, one for each seed."""
    by_seed = {combination: {source.seed: source for source in sources} for combination, sources in found.items()}
    return {combination: sources for combination, sources in by_seed.items() if len(sources) > 1}


def _words(found: dict[Combination, list[PathSource]], combination: Combination) -> list[str]:
    """The words that tell a combination from the others found."""
    columns = [(one.task, one.model, one.data, _series(one).label) for one in found]
    own = (combination.task, combination.model, combination.data, _series(combination).label)
    return [word for word, others in zip(own, zip(*columns, strict=True), strict=True) if len(set(others)) > 1]


def _name(found: dict[Combination, list[PathSource]], combination: Combination, source: PathSource, number: int) -> str:
    if number == 0:
        return "figure2"
    seeds = {source.seed for sources in found.values() for source in sources}
    has_twin = sum(other.seed == source.seed for other in found[combination]) > 1
    words = [f"seed{source.seed}" if len(seeds) > 1 else "", source.key[:8] if has_twin else ""]
    return file_stem("figure2", *_words(found, combination), *words)


def _combination_title(combination: Combination) -> str:
    return f"{_series(combination).label}, {combination.model} on {combination.data}"


def _title(combination: Combination, source: PathSource) -> str:
    return f"Solution path of {_combination_title(combination)}, seed {source.seed}"

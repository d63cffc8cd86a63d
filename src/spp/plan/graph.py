"""Points, and the merged graph of a sweep."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from spp.plan.spec import Stage


@dataclass(frozen=True)
class Point:
    """One pipeline with one config; `stages` are the final ones, the rest follows from their inputs.

    `overrides` are the user's words, `meta` is free JSON for the report.
    """

    name: str
    overrides: tuple[str, ...]
    stages: tuple[Stage, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The merged graph of a sweep: `stages` maps key -> stage in topological order, inputs first.

    The order goes point by point and depth first, so that whoever follows it finishes the first point first.
    Make one with `Plan.merge`.
    """

    points: tuple[Point, ...]
    stages: Mapping[str, Stage]

    @classmethod
    def merge(cls, points: Iterable[Point]) -> "Plan":
        """The graph over keys: equal stages are there once (label, runtime and resources of the first win).

        A point given twice counts once. Raises ValueError if two different points share a name.
        """
        by_name: dict[str, Point] = {}
        stages: dict[str, Stage] = {}
        for point in points:
            known = by_name.setdefault(point.name, point)
            if known.stages != point.stages:
                raise ValueError(
                    f"point: {point.name!r} is not allowed twice with different stages; give each point its own name"
                )
            for stage in _inputs_first(point.stages):
                stages.setdefault(stage.key, stage)
        return cls(tuple(by_name.values()), stages)

    @cached_property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """Keys by the length of the longest chain of inputs below them; each level in topological order."""
        level_of: dict[str, int] = {}
        for key in self.stages:
            level_of[key] = 1 + max((level_of[parent] for parent in self.parents(key)), default=-1)
        levels: list[list[str]] = [[] for _ in range(1 + max(level_of.values(), default=-1))]
        for key, level in level_of.items():
            levels[level].append(key)
        return tuple(tuple(level) for level in levels)

    def parents(self, key: str) -> tuple[str, ...]:
        """Keys of the inputs, each once, in the order of their roles."""
        return tuple(dict.fromkeys(stage.key for stage in self.stages[key].inputs.values()))

    def children(self, key: str) -> tuple[str, ...]:
        """Keys of the stages that have this one as an input, in topological order."""
        return tuple(self._children[key])

    def descendants(self, key: str) -> tuple[str, ...]:
        """Keys of all stages that need this one, directly or not, in topological order."""
        found: set[str] = set()
        stack = [key]
        while stack:
            fresh = set(self._children[stack.pop()]) - found
            found |= fresh
            stack.extend(fresh)
        return tuple(sorted(found, key=self.position.__getitem__))

    def points_of(self, key: str) -> tuple[str, ...]:
        """Names of the points that need this stage."""
        return tuple(self._points_of[key])

    def stages_of(self, point: Point) -> tuple[str, ...]:
        """Keys of all stages that a point needs, inputs first."""
        return tuple(dict.fromkeys(stage.key for stage in _inputs_first(point.stages)))

    @cached_property
    def position(self) -> dict[str, int]:
        """Key -> place in the topological order."""
        return {key: index for index, key in enumerate(self.stages)}

    @cached_property
    def _children(self) -> dict[str, list[str]]:
        children: dict[str, list[str]] = {key: [] for key in self.stages}
        for key in self.stages:
            for parent in self.parents(key):
                children[parent].append(key)
        return children

    @cached_property
    def _points_of(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {key: [] for key in self.stages}
        for point in self.points:
            for key in self.stages_of(point):
                names[key].append(point.name)
        return names

    def to_json(self) -> list[dict[str, Any]]:
        """The specs of all stages in topological order (plan.json)."""
        return [stage.to_json() for stage in self.stages.values()]

    def points_to_json(self) -> list[dict[str, Any]]:
        """The points, with the keys of their final stages (points.json)."""
        return [
            {
                "name": point.name,
                "overrides": list(point.overrides),
                "stages": [stage.key for stage in point.stages],
                "meta": point.meta,
            }
            for point in self.points
        ]

    @classmethod
    def from_json(cls, specs: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, Any]]) -> "Plan":
        """The plan whose `to_json` and `points_to_json` were written."""
        stages: dict[str, Stage] = {}
        for spec in specs:
            inputs = {role: stages[ref["key"]] for role, ref in spec["inputs"].items()}
            stages[spec["key"]] = Stage.from_json(spec, inputs)
        rebuilt = tuple(
            Point(p["name"], tuple(p["overrides"]), tuple(stages[key] for key in p["stages"]), p["meta"])
            for p in points
        )
        return cls(rebuilt, stages)


def _inputs_first(finals: Iterable[Stage]) -> Iterator[Stage]:
    """Each stage object below `finals` once, after its inputs (a loop: chains may be long)."""
    seen: set[int] = set()
    stack = [(stage, False) for stage in reversed(list(finals))]
    while stack:
        stage, inputs_done = stack.pop()
        if inputs_done:
            yield stage
        elif id(stage) not in seen:
            seen.add(id(stage))
            stack.append((stage, True))
            stack.extend((parent, False) for parent in reversed(list(stage.inputs.values())))

"""Which stages become one job array, and what each array waits for; pure.

SLURM gives all tasks of an array one dependency, so stages share an array if what they wait for can be said in
one text: `afterok:<jobs>` if they wait for the same jobs, `aftercorr:<array>` if each waits for the task of its own
index. Indices are free to choose, so a child takes the index of its parent. Never is a stage made to wait for a
whole array of which it needs one task: a failure would block it for nothing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from spp.plan.graph import Plan

MAX_ARRAY_TEXT = 4000
"""Characters of a list of indices; SLURM takes 4 KiB."""

Place = tuple[int | str, int | None]
"""A task: its job (a number of this list of batches, or the id of a job that exists) and its index in an array."""


@dataclass(frozen=True)
class Batch:
    """Stages that one sbatch submits: `tasks` maps index -> key; a single one is a plain job.

    All tasks wait for the jobs `after`, and task i for task i of each array in `aligned`. `group` is what the
    caller said the tasks have in common.
    """

    tasks: Mapping[int, str]
    group: str
    after: tuple[Place, ...] = ()
    aligned: tuple[int | str, ...] = ()

    @property
    def is_array(self) -> bool:
        return len(self.tasks) > 1

    def awaited(self, index: int) -> set[Place]:
        """The tasks that the task with this index waits for."""
        return {*self.after, *((array, index) for array in self.aligned)}

    def dependency(self, jobs: Sequence[str]) -> str | None:
        """Text for `sbatch --dependency`; `jobs` are the ids of the earlier batches."""

        def name(job: int | str) -> str:
            return job if isinstance(job, str) else jobs[job]

        parts = [f"aftercorr:{name(array)}" for array in self.aligned]
        tasks = [name(job) if index is None else f"{name(job)}_{index}" for job, index in self.after]
        return ",".join([*parts, *([f"afterok:{':'.join(tasks)}"] if tasks else [])]) or None


def make_batches(plan: Plan, missing: Mapping[str, str], live: Mapping[str, str], max_array_size: int) -> list[Batch]:
    """The fewest batches that submit the stages `missing` (key -> group), each after those that it waits for.

    `live` maps stages that jobs do already to these ("12", or "12_3" for a task of an array). Any other stage
    counts as done. Only stages of one group share a batch. Indices stay below `max_array_size`, except where
    the array of a live job has larger ones.
    """
    awaits = _awaits(plan, missing, live)
    places = {key: _place(job) for key, job in live.items()}
    batches: list[Batch] = []
    for level in _levels(plan, missing):
        by_group: dict[str, dict[frozenset[Place], list[str]]] = {}
        for key in level:
            parents = frozenset(places[parent] for parent in awaits[key])
            by_group.setdefault(missing[key], {}).setdefault(parents, []).append(key)
        for group, families in by_group.items():
            for batch in _batches_of(families, group, max_array_size):
                for index, key in batch.tasks.items():
                    places[key] = (len(batches), index if batch.is_array else None)
                batches.append(batch)
    return batches


def array_text(indices: Iterable[int]) -> str:
    """Indices as sbatch reads them: "0-3,7"."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _place(job: str) -> Place:
    array, _, index = job.partition("_")
    return array, int(index) if index else None


def _awaits(plan: Plan, missing: Mapping[str, str], live: Mapping[str, str]) -> dict[str, list[str]]:
    """The parents that each missing stage has to wait for, without those that another of them waits for."""
    awaits: dict[str, list[str]] = {}
    implied: dict[str, set[str]] = {}
    for key in plan.stages:
        if key not in missing:
            continue
        parents = [parent for parent in plan.parents(key) if parent in missing or parent in live]
        # What a live job waits for is not known here, so only the missing ones imply others.
        behind = set().union(*(implied[parent] for parent in parents if parent in missing))
        awaits[key] = [parent for parent in parents if parent not in behind]
        implied[key] = behind.union(parents)
    return awaits


def _levels(plan: Plan, missing: Mapping[str, str]) -> list[list[str]]:
    level_of: dict[str, int] = {}
    levels: list[list[str]] = []
    for key in plan.stages:
        if key in missing:
            level = 1 + max((level_of.get(parent, -1) for parent in plan.parents(key)), default=-1)
            level_of[key] = level
            levels.extend([] for _ in range(level + 1 - len(levels)))
            levels[level].append(key)
    return levels


def _batches_of(families: Mapping[frozenset[Place], list[str]], group: str, size: int) -> Iterator[Batch]:
    """Batches for stages of one level and group; a family are those that wait for the same jobs."""
    patterns: dict[tuple[frozenset[int | str], frozenset[Place]], dict[int, frozenset[Place]]] = {}
    for parents, children in families.items():
        index = _shared_index(parents)
        if index is None:
            yield from _own(children, parents, group, size)
        else:
            aligned = frozenset(array for array, its in parents if its == index)
            rest = frozenset(place for place in parents if place[1] != index)
            patterns.setdefault((aligned, rest), {})[index] = parents
    for (aligned, rest), by_index in patterns.items():
        lone, together = _split([(index, families[parents]) for index, parents in by_index.items()], size)
        for index, children in lone:
            yield from _own(children, by_index[index], group, size)
        for slot in range(max((len(children) for _, children in together), default=0)):
            tasks = {index: children[slot] for index, children in together if slot < len(children)}
            for part in _cut_by_text(tasks):
                if len(part) == 1:
                    ((index, key),) = part.items()
                    yield Batch({0: key}, group, _sorted(by_index[index]))
                else:
                    yield Batch(part, group, _sorted(rest), tuple(sorted(aligned, key=str)))


def _shared_index(parents: Iterable[Place]) -> int | None:
    """The index that most of the parents have in their arrays."""
    counts = Counter(index for _, index in parents if index is not None)
    return max(counts, key=lambda index: (counts[index], -index), default=None)


Families = list[tuple[int, list[str]]]


def _split(families: Families, size: int) -> tuple[Families, Families]:
    """Families that get arrays of their own, and those that share arrays, one per child: the cheapest split."""
    ordered = sorted(families, key=lambda family: -len(family[1]))
    own_costs = [-(-len(children) // size) for _, children in ordered]
    slots = [*(len(children) for _, children in ordered), 0]
    best, cost, spent = 0, slots[0], 0
    for num_lone, own_cost in enumerate(own_costs, 1):
        spent += own_cost
        if spent + slots[num_lone] < cost:
            best, cost = num_lone, spent + slots[num_lone]
    lone = {index for index, _ in ordered[:best]}
    return [f for f in families if f[0] in lone], [f for f in families if f[0] not in lone]


def _own(children: Sequence[str], parents: Iterable[Place], group: str, size: int) -> Iterator[Batch]:
    for start in range(0, len(children), size):
        yield Batch(dict(enumerate(children[start : start + size])), group, _sorted(parents))


def _cut_by_text(tasks: dict[int, str]) -> list[dict[int, str]]:
    if len(array_text(tasks)) <= MAX_ARRAY_TEXT:
        return [tasks]
    items = sorted(tasks.items())
    middle = len(items) // 2
    return [*_cut_by_text(dict(items[:middle])), *_cut_by_text(dict(items[middle:]))]


def _sorted(places: Iterable[Place]) -> tuple[Place, ...]:
    return tuple(sorted(places, key=lambda place: (str(place[0]), -1 if place[1] is None else place[1])))

"""spp verify: whether what is finished is still what its stages have written."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from spp.cli.sweeps import find_sweep
from spp.cli.table import count
from spp.plan.spec import StageRef
from spp.store.claim import AlreadyClaimed, claim
from spp.store.marker import DONE, restore_summary, set_aside, summary_damage
from spp.store.store import Store

NUM_THREADS = 4
"""Hashing lets go of Python's lock, and disks like a few readers at a time."""


@dataclass(frozen=True)
class _Finding:
    """What is wrong with a stage, and what was done about it."""

    stage: StageRef
    problems: list[str]
    aside: str | None = None
    held_by: str | None = None
    is_restored: bool = False
    """Whether only its summary was damaged, and has been written again from its copy."""

    @property
    def is_left(self) -> bool:
        return self.aside is None and not self.is_restored


def verify(root: Path, sweep: str | None, *, repair: bool, as_json: bool) -> int:
    """Read every artifact of all finished stages, or of those of a sweep, and name what is damaged.

    Args:
        root: folder of the store.
        sweep: name of a sweep, or how it begins; None for all stages of the store.
        repair: write a summary again from its whole copy, and set aside what else is damaged, so that the next run
            makes it again.
        as_json: print one JSON object.

    Returns:
        1 if something is damaged and still in its place, else 0.

    Raises:
        ValueError: one line, if there is no such sweep, or no store.
    """
    store = Store(root)
    if not root.is_dir():
        raise ValueError(f"paths.store: {str(root)!r} is no folder; allowed: a store; check the path")
    stages = list(_finished(store, root, sweep))
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        problems = zip(stages, pool.map(lambda stage: _problems(store, stage), stages), strict=True)
        found = [_Finding(stage, told) for stage, told in problems if told]
    if repair:
        found = [_repaired(store, finding) for finding in found]
    num_left = sum(finding.is_left for finding in found)
    if as_json:
        rows = [
            {
                "stage": f.stage.kind,
                "key": f.stage.key,
                "problems": f.problems,
                "aside": f.aside,
                "held_by": f.held_by,
                "restored": f.is_restored,
            }
            for f in found
        ]
        print(json.dumps({"num_stages": len(stages), "damaged": rows}, indent=1))
        return 1 if num_left else 0
    for finding in found:
        print(f"{finding.stage.kind} {finding.stage.key}: {'; '.join(finding.problems)}")
        if finding.aside is not None:
            print(f"  set aside as {finding.aside}")
        if finding.is_restored:
            print("  written again from its copy")
        if finding.held_by is not None:
            print(f"  left, as it is held by {finding.held_by}")
    print(f"{count(len(stages), 'finished stage')} read, {len(found)} damaged")
    if num_left or any(finding.aside is not None for finding in found):
        say = "spp verify --repair sets them aside" if num_left else "the next spp run or spp retry makes them again"
        print(say)
    return 1 if num_left else 0


def _finished(store: Store, root: Path, sweep: str | None) -> Iterator[StageRef]:
    """The stages that say that they are done."""
    if sweep is None:
        stages = store.find_stages("")
    else:
        stages = [stage.ref for stage in store.read_plan(find_sweep(root, sweep)).stages.values()]
    return (ref for ref in stages if (store.stage_dir(ref.kind, ref.key) / DONE).exists())


def _problems(store: Store, stage: StageRef) -> list[str]:
    problems = [problem.partition(": ")[2] for problem in store.verify(stage.kind, stage.key)]
    of_summary = summary_damage(store.stage_dir(stage.kind, stage.key))
    if of_summary is not None and of_summary not in problems:
        problems.append(of_summary)
    try:
        store.spec(stage.kind, stage.key)
    except FileNotFoundError:
        problems.append("its spec.json is missing")
    except ValueError as error:
        problems.append(f"its spec.json is damaged ({str(error).partition(';')[0]})")
    return problems


def _repaired(store: Store, finding: _Finding) -> _Finding:
    """The finding with what became of the stage; nobody can be at work on it meanwhile."""
    kind, key = finding.stage.kind, finding.stage.key
    try:
        with claim(store, kind, key):
            folder = store.stage_dir(kind, key)
            if restore_summary(folder) and not _problems(store, finding.stage):
                return _Finding(finding.stage, finding.problems, is_restored=True)
            # Somebody else may have repaired it since it was read.
            if not _problems(store, finding.stage):
                return _Finding(finding.stage, finding.problems, aside="made again by somebody else")
            aside = set_aside(folder, "; ".join(finding.problems))
    except AlreadyClaimed as claimed:
        return _Finding(finding.stage, finding.problems, held_by=claimed.detail)
    return _Finding(finding.stage, finding.problems, aside=str(aside))

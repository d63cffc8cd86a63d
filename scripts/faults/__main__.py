"""Runs the attacks, and writes what came of them: python -m faults [--only PART] [--scale 0.1] [--log F] [--out F].

An attack is done in units, each of which is noted in a file of JSON lines when it has ended. Whoever calls again with
the same file goes on with the units that are missing there, also in another hour or at another commit.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

from faults import deaths, storage, words
from faults.chain import artifacts_of, run, words_of

MAX_MEMORY_BYTES = 8 << 30
MAX_TOLD = 12
PARTS = ("plan", "run", "deaths", "signals", "submitters", "storage")

_HOW = {"call": "SIGKILL at a file-system call", "time": "SIGKILL at any time", "signal": "SIGINT, SIGTERM, SIGHUP"}


@dataclass(frozen=True)
class Result:
    """What came of a unit: numbers by what they count, and what was wrong in the end."""

    counts: dict[str, int]
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Unit:
    """A share of an attack, done in one go."""

    attack: str
    number: int
    act: Callable[[], Result]


@dataclass(frozen=True)
class Finished:
    """A small store whose chain is done, made when it is first asked for."""

    folder: Path

    @property
    def store(self) -> Path:
        store = self.folder / "finished"
        if not store.exists():
            code, text = run(words_of(store))
            assert code == 0, text
        return store


def _shares(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


def _word_units(command: str, total: int, size: int) -> Iterator[Unit]:
    for number, count in enumerate(_shares(total, size)):

        def act(count: int = count, seed: int = number) -> Result:
            # A process of its own, so that nothing piles up in one.
            with ProcessPoolExecutor(1, get_context("fork"), initializer=_limit_memory) as pool:
                tally = pool.submit(words.attack, command, count, seed).result()
            codes = {f"exit code {code}": number for code, number in sorted(tally.codes.items())}
            return Result({"words": count, **codes}, [f"`{asked!r}`: {fault}" for asked, fault in tally.faults])

        yield Unit(f"mutated words on `{command}`", number, act)


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))


def _death_units(total: int, size: int, cluster: str, how: str, finished: Finished) -> Iterator[Unit]:
    for number, count in enumerate(_shares(total, size)):

        def act(count: int = count, seed: int = number) -> Result:
            wanted = artifacts_of(finished.store)
            tally = deaths.attack(count, seed, finished.folder, wanted, cluster=cluster, how=how)
            counts = {"deaths": tally.num_deaths, "commands": tally.num_commands, "chains": tally.num_chains}
            return Result(counts, tally.faults)

        yield Unit(f"{_HOW[how]}, cluster={cluster}", number, act)


def _submitter_units(num_submitters: int, finished: Finished) -> Iterator[Unit]:
    def act() -> Result:
        tally = deaths.submit_at_once(num_submitters, finished.folder, finished.store)
        return Result({"commands": tally.num_commands}, tally.faults)

    yield Unit("submitters at once, cluster=local", 0, act)


def _storage_units(total: int, size: int, finished: Finished) -> Iterator[Unit]:
    for number, count in enumerate(_shares(total, size)):

        def act(count: int = count, seed: int = number) -> Result:
            store = finished.store
            tally = storage.attack(count, seed, finished.folder, store, artifacts_of(store))
            return Result({"files": sum(tally.made.values()), **tally.made}, tally.faults)

        yield Unit("storage faults", number, act)


def units_of(part: str, scale: float, finished: Finished) -> Iterator[Unit]:
    """The units of a part, with a share of its attacks."""

    def scaled(count: int) -> int:
        return max(1, round(count * scale))

    match part:
        case "plan":
            yield from _word_units("plan", scaled(10_000), 250)
        case "run":
            yield from _word_units("run", scaled(300), 50)
        case "deaths":
            for cluster, how, count in (
                ("debug", "call", 100), ("debug", "time", 40), ("local", "call", 40), ("local", "time", 20),
            ):  # fmt: skip
                yield from _death_units(scaled(count), 10, cluster, how, finished)
        case "signals":
            for cluster, count in (("debug", 40), ("local", 10)):
                yield from _death_units(scaled(count), 10, cluster, "signal", finished)
        case "submitters":
            yield from _submitter_units(8, finished)
        case "storage":
            yield from _storage_units(scaled(300), 15, finished)


def page(rows: Sequence[dict[str, object]], command: str) -> str:
    """The figures as Markdown."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = ["# Attacks", "", f"`{command}` on {machine}; figures of the units that are done.", ""]
    lines += [
        "| attack | what was done | wall time | commits | wrong in the end |",
        "| --- | --- | ---: | --- | ---: |",
    ]
    by_attack: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        by_attack.setdefault(str(row["attack"]), []).append(row)
    told = []
    for attack, units in by_attack.items():
        counts, faults, seconds = Counter[str](), Counter[str](), 0.0
        for unit in units:
            counts.update(unit["counts"])
            faults.update(unit["faults"])
            seconds += float(str(unit["seconds"]))
        done = ", ".join(f"{number:,} {name}" for name, number in counts.items())
        commits = ", ".join(dict.fromkeys(str(unit["commit"]) for unit in units))
        lines.append(f"| {attack} | {done} | {seconds:.0f} s | {commits} | {sum(faults.values())} |")
        if faults:
            told += ["", f"## {attack}", "", *(f"* {number} x {text}" for text, number in faults.most_common(MAX_TOLD))]
    lines += [
        "",
        "Faults of SLURM (daemons, nodes and jobs that die, lost answers, requeues) have tests of their own on",
    ]
    lines += ["the virtual cluster: tests/slurm/test_mishaps.py."]
    return "\n".join([*lines, *told]) + "\n"


def _noted(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True).stdout.strip()


def _do(unit: Unit) -> dict[str, object]:
    began, commit = time.monotonic(), _commit()
    result = unit.act()
    seconds = round(time.monotonic() - began, 1)
    return {"attack": unit.attack, "unit": unit.number, **asdict(result), "seconds": seconds, "commit": commit}


def main(argv: Sequence[str]) -> int:
    """Exit code 1 if something is wrong in the end."""
    parser = argparse.ArgumentParser(prog="faults", description="Attack spp, and count what is wrong in the end.")
    parser.add_argument("--only", action="append", choices=PARTS, help="all parts, unless some are named")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the attacks; 1: all of them")
    text = "notes of what is done, which is not done again (default: %(default)s)"
    parser.add_argument("--log", type=Path, default=Path("build/faults.jsonl"), help=text)
    parser.add_argument("--out", type=Path, help="file for the figures, in Markdown")
    arguments = parser.parse_args(argv)
    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="spp-faults-") as name:
        finished = Finished(Path(name))
        for part in arguments.only or PARTS:
            for unit in units_of(part, arguments.scale, finished):
                if any((row["attack"], row["unit"]) == (unit.attack, unit.number) for row in _noted(arguments.log)):
                    continue
                row = _do(unit)
                with arguments.log.open("a") as log:
                    log.write(json.dumps(row) + "\n")
                print(
                    unit.attack,
                    unit.number,
                    row["counts"],
                    f"{row['seconds']} s",
                    *row["faults"],
                    sep="\n  ",
                    flush=True,
                )
    rows = _noted(arguments.log)
    if arguments.out is not None:
        arguments.out.write_text(page(rows, "make faults"))
    return 1 if any(row["faults"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

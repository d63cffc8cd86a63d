"""Runs the attacks, and writes what came of them: python -m faults [--part PART] [--scale 0.1] [--out FILE]."""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from faults import deaths, storage, words
from faults.chain import artifacts_of, run, words_of

MAX_MEMORY_BYTES = 8 << 30
BATCH_OF_WORDS = 250
MAX_TOLD = 12

Rows = list[tuple[str, str, list[str]]]


def _ask_words(command: str, count: int) -> Rows:
    """Batches of words in processes of their own, so that nothing piles up in one."""
    began, codes, faults = time.monotonic(), Counter[int](), list[str]()
    sizes = [min(BATCH_OF_WORDS, count - start) for start in range(0, count, BATCH_OF_WORDS)]
    with ProcessPoolExecutor(1, get_context("fork"), initializer=_limit_memory, max_tasks_per_child=None) as pool:
        for tally in pool.map(words.attack, [command] * len(sizes), sizes, range(len(sizes))):
            codes.update(tally.codes)
            faults += [f"`{' '.join(asked)!r}`: {fault}" for asked, fault in tally.faults]
    told = ", ".join(f"{number} x {code}" for code, number in sorted(codes.items()))
    return [(f"{count} mutated words on `{command}`", f"exit codes {told}; {time.monotonic() - began:.0f} s", faults)]


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))


def _deaths(count: int, cluster: str, how: str, folder: Path, finished: Path) -> Rows:
    began = time.monotonic()
    tally = deaths.attack(count, count, folder, artifacts_of(finished), cluster=cluster, how=how)
    names = {
        "call": "SIGKILL at a file-system call",
        "time": "SIGKILL at any time",
        "signal": "SIGINT, SIGTERM, SIGHUP",
    }
    result = f"{tally.num_deaths} of {tally.num_commands} commands over {tally.num_chains} chains"
    return [(f"{names[how]}, cluster={cluster}", f"{result}; {time.monotonic() - began:.0f} s", tally.faults)]


def _at_once(count: int, folder: Path, finished: Path) -> Rows:
    began = time.monotonic()
    tally = deaths.submit_at_once(count, folder, finished)
    seconds = time.monotonic() - began
    return [(f"{count} submitters at once, cluster=local", f"each stage once; {seconds:.0f} s", tally.faults)]


def _storage(count: int, folder: Path, finished: Path) -> Rows:
    began = time.monotonic()
    tally = storage.attack(count, 0, folder, finished, artifacts_of(finished))
    told = ", ".join(f"{number} x {kind}" for kind, number in sorted(tally.made.items()))
    return [(f"{count} storage faults", f"{told}; {time.monotonic() - began:.0f} s", tally.faults)]


def _scaled(count: int, scale: float) -> int:
    return max(1, round(count * scale))


def _parts(scale: float, folder: Path, finished: Path) -> dict[str, list[Callable[[], Rows]]]:
    def die(count: int, cluster: str, how: str) -> Callable[[], Rows]:
        return lambda: _deaths(_scaled(count, scale), cluster, how, folder, finished)

    return {
        "plan": [lambda: _ask_words("plan", _scaled(10_000, scale))],
        "run": [lambda: _ask_words("run", _scaled(300, scale))],
        "deaths": [
            die(100, "debug", "call"), die(40, "debug", "time"), die(40, "local", "call"), die(20, "local", "time"),
        ],
        "signals": [die(40, "debug", "signal"), die(10, "local", "signal")],
        "submitters": [lambda: _at_once(8, folder, finished)],
        "storage": [lambda: _storage(_scaled(300, scale), folder, finished)],
    }  # fmt: skip


def _page(rows: Sequence[tuple[str, str, list[str]]], command: str) -> str:
    """The figures as Markdown."""
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = ["# Attacks", "", f"`{command}` at commit {commit} on {machine}, {time.strftime('%Y-%m-%d')}.", ""]
    lines += ["| attack | what was done | wrong in the end |", "| --- | --- | ---: |"]
    lines += [f"| {name} | {done} | {len(faults)} |" for name, done, faults in rows]
    lines += [
        "",
        "Faults of SLURM (daemons, nodes and jobs that die, lost answers, requeues) have tests of their own on",
    ]
    lines += ["the virtual cluster: tests/slurm/test_mishaps.py."]
    for name, _, faults in rows:
        if faults:
            lines += ["", f"## {name}", ""]
            lines += [f"* {number} x {fault}" for fault, number in Counter(faults).most_common(MAX_TOLD)]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> int:
    """Exit code 1 if something is wrong in the end."""
    parser = argparse.ArgumentParser(prog="faults", description="Attack spp, and count what is wrong in the end.")
    names = list(_parts(1, Path(), Path()))
    parser.add_argument("--part", action="append", choices=names, help="all, unless some are named")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the attacks; 1: all of them")
    parser.add_argument("--out", type=Path, help="file for the figures, in Markdown")
    arguments = parser.parse_args(argv)
    asked = arguments.part or names
    rows: Rows = []
    with tempfile.TemporaryDirectory(prefix="spp-faults-") as name:
        folder = Path(name)
        if set(asked) - {"plan", "run"}:
            code, text = run(words_of(folder / "finished"))
            assert code == 0, text
        for part in asked:
            for attack in _parts(arguments.scale, folder, folder / "finished")[part]:
                rows += attack()
                print(
                    rows[-1][0],
                    rows[-1][1],
                    f"{len(rows[-1][2])} wrong",
                    *rows[-1][2][:MAX_TOLD],
                    sep="\n  ",
                    flush=True,
                )
    page = _page(
        rows, "make faults" if list(argv) == ["--out", "results/faults.md"] else f"python -m faults {' '.join(argv)}"
    )
    if arguments.out is not None:
        arguments.out.write_text(page)
    return 1 if any(faults for _, _, faults in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

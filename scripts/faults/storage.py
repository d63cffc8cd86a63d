"""Storage faults: flipped bits, cut, emptied and removed files of a store, and what the commands then do."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faults.chain import faults_of, run, start, words_of
from spp.store.store import CHECKPOINT, PARTIAL

KINDS = ("flip", "cut", "empty", "remove", "garbage", "folder")
FILES_OF_A_COPY = 3


@dataclass
class Tally:
    """How many faults were made, by kind of fault, and what was wrong afterwards."""

    made: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def attack(count: int, seed: int, folder: Path, finished: Path, wanted: dict[str, str]) -> Tally:
    """Damage copies of a store, a few files of different stages each, and carry out the commands on them.

    No command may raise an error. `spp verify --repair` and `spp run` have to bring back every byte.

    Every fourth copy is of a store that was killed while a stage trained, and the fault is in its checkpoint.

    Args:
        count: faults.
        seed: which files, and where.
        folder: for the copies; each is removed when it has been looked at.
        finished: a store whose chain is done.
        wanted: its artifacts.
    """
    tally, draw, num_made = Tally(), random.Random(seed), 0
    interrupted = _interrupted(folder)
    for number in itertools.count():
        store = folder / f"storage-{number}"
        is_checkpoint = number % 4 == 3
        shutil.copytree(interrupted if is_checkpoint else finished, store, symlinks=True)
        names = []
        for file in _chosen(store, is_checkpoint, min(FILES_OF_A_COPY, count - num_made), draw):
            kind = draw.choice(KINDS)
            _damage(file, kind, draw)
            tally.made[kind] = tally.made.get(kind, 0) + 1
            num_made += 1
            names.append(f"{kind} {_name(file, store)}")
        tally.faults += [f"{' and '.join(names)}: {fault}" for fault in _look(store, wanted)]
        shutil.rmtree(store, ignore_errors=True)
        if num_made >= count:
            break
    return tally


def _chosen(store: Path, is_checkpoint: bool, count: int, draw: random.Random) -> list[Path]:
    """Files to damage: one of a checkpoint, or some of which no two lie in one folder of a stage or a sweep."""
    if is_checkpoint:
        return [draw.choice(sorted(_checkpoints(store)))]
    by_place: dict[tuple[str, ...], list[Path]] = {}
    for file in sorted(_files(store)):
        by_place.setdefault(file.relative_to(store).parts[:3], []).append(file)
    return [draw.choice(by_place[place]) for place in draw.sample(sorted(by_place), min(count, len(by_place)))]


def _interrupted(folder: Path) -> Path:
    """A store whose chain was killed just after a checkpoint."""
    for attempt in range(50):
        store = folder / f"interrupted-{attempt}"
        process = start(words_of(store), folder / "interrupted.log")
        while not list(_checkpoints(store)) and os.waitpid(process, os.WNOHANG) == (0, 0):
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        if list(_checkpoints(store)):
            return store
    raise RuntimeError(f"no checkpoint in {folder}")


def _checkpoints(store: Path) -> Iterator[Path]:
    for place in (*store.glob(f"stages/*/*/{CHECKPOINT}"), *store.glob(f"stages/*/*/{PARTIAL}")):
        yield from (file for file in (place, *place.rglob("*")) if file.is_file())


def _files(store: Path) -> Iterator[Path]:
    for top in ("stages", "sweeps"):
        yield from (file for file in (store / top).rglob("*") if file.is_file() and "logs" not in file.parts)


def _name(file: Path, store: Path) -> str:
    """A file's name without keys and sweeps, so that equal faults are told as one."""
    parts = file.relative_to(store).parts
    return "/".join([*parts[:1], parts[1] if parts[0] == "stages" else "SWEEP", *parts[2:][parts[0] == "stages" :]])


def _damage(file: Path, kind: str, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if kind in ("remove", "folder"):
        file.unlink()
        if kind == "folder":
            file.mkdir()
        return
    if kind == "flip" and content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del content[draw.randrange(len(content) + 1) :]
    elif kind == "empty":
        content.clear()
    else:
        content[:] = draw.choice((b"{}", b"[]", b"null", b"\xff\xfe\x00", b'{"a": NaN}', b"[" * 100_000))
    file.write_bytes(content)


def _look(store: Path, wanted: dict[str, str]) -> Iterator[str]:
    place = f"paths.store={store}"
    commands = (
        ["status", place], ["verify", place], ["report", "family", "--format", "md", place],
        ["verify", "--repair", place], words_of(store),
    )  # fmt: skip
    for words in commands:
        code, text = run(words)
        if code not in (0, 1, 2):
            yield f"{' '.join(words[:2])}: {text.strip().splitlines()[-1][:160]}"
    if code != 0:
        yield f"run after verify --repair: exit code {code}: {text.strip().splitlines()[-1][:160]}"
    yield from faults_of(store, wanted)

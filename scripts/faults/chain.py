"""The chain that is attacked, as small as can be with every kind of stage, and what has to hold of its store."""

import contextlib
import hashlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from spp.store.forms import KEY
from spp.store.store import ARTIFACTS, Store
from spp.temporary import is_temporary

WORDS = (
    "run", "-m", "method=spp,taylor", "debug=fast", "logger=off", "budget.values=[0.5]", "data.num_train=300",
    "model.kwargs={patch_size: 2, embed_dim: 16, depth: 1, num_heads: 2}", "cluster.checkpoint_minutes=0.0001",
)  # fmt: skip


def words_of(store: Path, cluster: str = "debug") -> list[str]:
    """The words that run the chain."""
    return [*WORDS[:2], f"cluster={cluster}", *WORDS[2:], f"paths.store={store}"]


def run(words: list[str]) -> tuple[int, str]:
    """Carry out a command in this process.

    Returns:
        Its exit code (-1: it raised an error), and all that it printed with the traceback of the error.
    """
    from spp.cli.main import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = -1
    return code, printed.getvalue()


def start(words: list[str], log: Path, before: Callable[[], None] = lambda: None) -> int:
    """Carry out a command in a fork of this process, a session of its own; what it prints is added to a file.

    Args:
        words: of the command.
        log: file for its output.
        before: called in the fork first.

    Returns:
        The id of the process.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # What ignores them, as nohup and a shell's & do, would hand that on, and the command would rightly go on.
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        before()
        code, text = run(words)
        sys.stdout.write(text)
        sys.stdout.flush()
    finally:
        os._exit(code % 256)


def artifacts_of(root: Path) -> dict[str, str]:
    """By path below a store, the sha256 of every artifact of every stage, as the files are now."""
    files = root.glob(f"stages/*/*/{ARTIFACTS}/**/*")
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file() and file.suffix == ".safetensors"
    }


def faults_of(root: Path, wanted: dict[str, str]) -> list[str]:
    """What is wrong with a store whose chain is done: stages that are not, other bytes, left-overs."""
    store, found = Store(root), artifacts_of(root)
    faults = [f"{name} differs" for name, digest in wanted.items() if found.get(name) != digest]
    for folder in root.glob("stages/*/*"):
        if KEY.fullmatch(folder.name) and not store.is_done(folder.parent.name, folder.name):
            faults.append(f"{folder.relative_to(root)} is not done")
    return [*faults, *left_overs_of(root)]


def left_overs_of(root: Path) -> list[str]:
    """What dead processes have left behind in a store; the released lock of whoever submits is no such thing."""
    return [
        f"{path.relative_to(root).parent}: {_without_process(path.name)} is left over"
        for path in root.rglob("*")
        if path.parent.name != "submitting"
        and (is_temporary(path.name) or path.name.startswith(("claim-", "ranks-")) or path.suffix == ".partial")
    ]


def _without_process(name: str) -> str:
    return ".tmp-..." if is_temporary(name) else name

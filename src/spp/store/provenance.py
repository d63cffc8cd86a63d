"""What ran, where, and from which code."""

import functools
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from spp.store.process import this_process
from spp.store.store import Store, utc_now

CODE_ROOMS = ("structure", "dynamics", "methods", "data", "stages")
"""The rooms whose code can change a result."""

_PACKAGE = Path(__file__).resolve().parents[1]
_PACKAGES = (
    "spp", "numpy", "torch", "torchvision", "timm", "pytorch-lightning", "torchmetrics", "safetensors",
    "transformers", "hydra-core", "omegaconf", "wandb",
)  # fmt: skip
_GIT_SECONDS = 5.0


def collect(code_rooms: Sequence[str] = CODE_ROOMS) -> dict[str, Any]:
    """What may matter when a result is questioned, as JSON; imports no package and needs no git."""
    process = this_process()
    return {
        "started_at": utc_now(),
        "code_hash": code_hash(tuple(code_rooms)),
        "git": _git(),
        "python": platform.python_version(),
        "packages": _versions(),
        "host": process.host,
        "pid": process.pid,
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "argv": sys.argv,
        "slurm": {name: value for name, value in sorted(os.environ.items()) if _is_slurm_id(name)},
    }


@functools.cache
def code_hash(code_rooms: tuple[str, ...] = CODE_ROOMS) -> str:
    """sha256 over names and contents of the Python sources of the rooms."""
    digest = hashlib.sha256()
    for room in code_rooms:
        for path in sorted((_PACKAGE / room).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(_PACKAGE).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def ran_other_code(store: Store, kind: str, key: str) -> bool:
    """Whether a done stage ran under another `code_hash`; its version is the same, since its key is.

    Raises FileNotFoundError if the stage is not done.
    """
    return is_other_code(store.done(kind, key)["code_hash"])


def is_other_code(recorded: str | None) -> bool:
    """Whether a recorded code hash is not that of the code here; one that is missing does not count."""
    return recorded is not None and recorded != code_hash()


def _git() -> dict[str, Any] | None:
    """Commit, dirty flag and diff hash of the checkout that holds this package; None if there is none."""
    try:
        # A package installed into an environment inside of somebody's checkout is not part of that checkout.
        if Path(_run_git("rev-parse", "--show-toplevel").strip()) != _PACKAGE.parents[1]:
            return None
        commit = _run_git("rev-parse", "HEAD").strip()
        diff = _run_git("diff", "--no-ext-diff", "--no-color", "--binary", "HEAD")
        # Only what is not tracked below the package: results beside it change nothing.
        dirty = bool(diff) or bool(_run_git("ls-files", "--others", "--exclude-standard"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {
        "commit": commit,
        "dirty": dirty,
        "diff_sha256": hashlib.sha256(diff.encode("utf-8", "surrogateescape")).hexdigest() if diff else None,
    }


def _run_git(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # Many workers may look at one checkout at once: none of them may lock its index.
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    done = subprocess.run(
        ["git", "-C", str(_PACKAGE), *arguments],
        check=True,
        capture_output=True,
        timeout=_GIT_SECONDS,
        env=environment,
    )
    return done.stdout.decode("utf-8", "surrogateescape")


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _is_slurm_id(name: str) -> bool:
    return name.startswith("SLURM_") and name.endswith(("_ID", "_COUNT", "_NODELIST", "_PARTITION", "_NAME", "_NTASKS"))

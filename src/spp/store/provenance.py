"""What ran, where, and from which code."""

import functools
import hashlib
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from spp.process import this_process
from spp.store import git
from spp.store.snapshot import running
from spp.store.store import utc_now

CODE_ROOMS = ("structure", "dynamics", "methods", "data", "stages")
"""The rooms whose code can change a result."""

_PACKAGE = Path(__file__).resolve().parents[1]
_PACKAGES = (
    "spp", "numpy", "torch", "torchvision", "timm", "pytorch-lightning", "torchmetrics", "safetensors",
    "transformers", "hydra-core", "omegaconf", "wandb",
)  # fmt: skip


def collect(code_rooms: Sequence[str] = CODE_ROOMS) -> dict[str, Any]:
    """What may matter when a result is questioned, as JSON; imports no package and needs no git."""
    process = this_process()
    snapshot = running()
    return {
        "started_at": utc_now(),
        "code_hash": code_hash(tuple(code_rooms)),
        "git": git.describe() if snapshot is None else snapshot["git"],
        "snapshot": None if snapshot is None else snapshot["hash"],
        "python": platform.python_version(),
        "packages": _versions(),
        "host": process.host,
        "pid": process.pid,
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "gpus": _gpus(),
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


def is_other_code(recorded: str | None) -> bool:
    """Whether a recorded code hash is not that of the code here; one that is missing does not count."""
    return recorded is not None and recorded != code_hash()


def _gpus() -> list[str]:
    """Names of the GPUs of this machine, as NVIDIA's driver lists them."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = (line for file in files for line in file.read_text().splitlines())
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]


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

"""The processes that train one stage together: who is who, and how the first one tells the others what to do."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spp.store.atomic import read_json, write_json
from spp.store.claim import slurm_job
from spp.store.leftovers import RANKS_PREFIX
from spp.store.marker import DONE

if TYPE_CHECKING:
    from lightning_fabric.plugins import ClusterEnvironment

VERDICT_SECONDS = 600.0
"""How long a rank waits for a word of the first one."""
_POLL_SECONDS = 0.1
_VARIABLES = {"torchrun": ("RANK", "WORLD_SIZE"), "srun": ("SLURM_PROCID", "SLURM_NTASKS")}


class NotLeaderError(Exception):
    """Raised on all ranks but the first where the common work has ended; it is no failure."""


@dataclass(frozen=True)
class Ranks:
    """The place of this process; `launcher` is torchrun, srun, or "" for one process alone."""

    rank: int = 0
    world_size: int = 1
    launcher: str = ""

    @property
    def is_leader(self) -> bool:
        """Whether this rank claims the stage, keeps its record and writes its artifacts."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """The same for all ranks of one start, and different from that of any other start."""
        if self.launcher == "srun":
            job, restarts = slurm_job()
            return f"{job}-{restarts}"
        return f"{os.environ.get('MASTER_PORT', '')}-{os.getppid()}"

    def environment(self) -> "ClusterEnvironment":
        """What Lightning must know to find the other ranks; alone it looks for none, whatever variables are set."""
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
        from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

        if self.launcher == "srun":
            return SLURMEnvironment(auto_requeue=False)
        return TorchElasticEnvironment() if self.launcher == "torchrun" else LightningEnvironment()


def find_ranks(num_processes: int) -> Ranks:
    """The place of this process among so many; alone if torchrun or srun did not start that many."""
    if num_processes > 1:
        for launcher, (rank, world_size) in _VARIABLES.items():
            if os.environ.get(world_size) == str(num_processes) and rank in os.environ:
                return Ranks(int(os.environ[rank]), num_processes, launcher)
    return Ranks()


class Meeting:
    """A small file in the stage's folder by which the first rank tells the others whether there is work.

    It needs no port, and the first rank may take its time: as long as it gives word, the others wait.
    """

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self._ranks = ranks
        self._folder = folder
        self._file = folder / f"{RANKS_PREFIX}{ranks.name}.json" if ranks.world_size > 1 else None
        self._num_waits = 0
        self._is_told = False

    @property
    def has_begun(self) -> bool:
        """Whether the other ranks, if there are any, were told to work."""
        return self._file is not None and self._is_told

    def open(self) -> None:
        """First rank, before all else: what stands under this name is of another time."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def wait(self) -> None:
        """First rank: tell the others that it takes longer."""
        self._num_waits += 1
        self._write({"verdict": "wait", "waits": self._num_waits})

    def pin(self, checkpoint: Path) -> Path:
        """First rank: a name for the checkpoint under which all ranks find the same one, whoever writes the next."""
        if self._file is None or not checkpoint.is_file():
            return checkpoint
        pinned = self._file.with_suffix(".ckpt")
        link_or_copy(checkpoint, pinned)
        return pinned

    def go(self, checkpoint: Path | None) -> None:
        """First rank, which holds the claim: work, and go on from `checkpoint`."""
        self._is_told = True
        for left in self._folder.glob(f"{RANKS_PREFIX}*"):
            if self._file is None or left.stem != self._file.stem:
                left.unlink(missing_ok=True)
        self._write({"verdict": "go", "checkpoint": None if checkpoint is None else checkpoint.name})

    def close(self) -> None:
        """First rank, at its end: nothing is left to do for those who still ask."""
        if self._file is None:
            return
        self._file.with_suffix(".ckpt").unlink(missing_ok=True)
        if self._is_told:
            self._file.unlink(missing_ok=True)
        else:
            self._write({"verdict": "stop"})

    def hear(self, seconds: float = VERDICT_SECONDS) -> tuple[bool, Path | None]:
        """Other ranks: whether there is work, and the checkpoint to go on from.

        Raises:
            TimeoutError: if the first rank gave no word for so long.
        """
        assert self._file is not None
        last: dict[str, Any] | None = None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            word = read_json(self._file)
            if word is not None and word["verdict"] != "wait":
                name = word.get("checkpoint")
                return word["verdict"] == "go", None if name is None else self._folder / name
            if word is None and (self._folder / DONE).exists():
                return False, None  # there was nothing to train, and the first rank has ended before this one came
            if word != last:
                last, deadline = word, time.monotonic() + seconds
            time.sleep(_POLL_SECONDS)
        raise TimeoutError(f"rank {self._ranks.rank}: rank 0 gave no word in {seconds:.0f} s; see its log")

    def _write(self, word: dict[str, Any]) -> None:
        if self._file is not None:
            write_json(self._file, word)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file that never changes; a copy where the file system has no hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

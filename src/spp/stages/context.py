"""What a stage may see and touch while it runs."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spp.plan.config import RuntimeConfig
from spp.record.lines import line_of
from spp.record.wandb_mirror import Mirror
from spp.stages.finite import require_finite_numbers
from spp.stages.interruption import Interruptions
from spp.stages.ranks import NotLeaderError, Ranks
from spp.store.provenance import code_hash
from spp.store.store import Store

if TYPE_CHECKING:
    from spp.data.module import DataModule
    from spp.stages.checkpoint import CheckpointFile

PROGRESS_INTERVAL_SECONDS = 0.5

_log = logging.getLogger(__name__)


@dataclass
class StageRun:
    """One run of one stage: its config, its inputs' folders, a private folder for what it writes, its record.

    Attributes:
        artifacts: the private folder; on ranks that are not the first nothing is written there.
        ranks: the place of this process among those that train the stage together.
        interruptions: the signals that ask it to stop.
        checkpoint: where its state goes.
        saved: the state to go on from; None at a fresh start, and again once the training has taken it.
        is_claim_lost: whether another process has taken over the stage; with True it looks, with False it may be late.
        fit_seconds: time of its training, that before interruptions included.
        data: the data that it works on, once it has opened them.
        earlier_code: hashes of other code that has done a part of it, before interruptions.
        tried: the states that it has begun from, by the seconds that they had taken.
    """

    store: Store
    kind: str
    key: str
    spec: Mapping[str, Any]
    artifacts: Path
    mirror: Mirror
    checkpoint: "CheckpointFile"
    ranks: Ranks = field(default_factory=Ranks)
    interruptions: Interruptions = field(default_factory=Interruptions)
    saved: dict[str, Any] | None = None
    is_claim_lost: Callable[[bool], bool] = lambda looks: False
    fit_seconds: float = field(default=0.0, init=False)
    data: "DataModule | None" = field(default=None, init=False)
    earlier_code: list[str] = field(default_factory=list, init=False)
    tried: list[float] = field(default_factory=list, init=False)
    _rows: list[dict[str, Any]] = field(default_factory=list, init=False)
    _started: float = field(default_factory=time.monotonic, init=False)
    _last_progress: float = field(default=0.0, init=False)

    @property
    def config(self) -> Mapping[str, Any]:
        """The part of the stage that its key hashes."""
        config: Mapping[str, Any] = self.spec["config"]
        return config

    @cached_property
    def runtime(self) -> RuntimeConfig:
        """Where and with what the stage runs."""
        return RuntimeConfig.read(self.spec["runtime"], "runtime")

    @property
    def seconds(self) -> float:
        """Time since the start, that before interruptions included."""
        return time.monotonic() - self._started

    def input_artifacts(self, role: str) -> Path:
        """Folder of the finished artifacts of the input in `role`."""
        ref = self.spec["inputs"][role]
        return self.store.stage_dir(ref["kind"], ref["key"]) / "artifacts"

    def input_summary(self, role: str) -> dict[str, Any]:
        """Summary of the input in `role`."""
        ref = self.spec["inputs"][role]
        return self.store.summary(ref["kind"], ref["key"])

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to the record; W&B gets a copy. Where the stage is no longer ours nothing is written.

        Raises:
            NotFiniteError: a number in it is NaN or infinite.
        """
        require_finite_numbers(row, self.kind)
        if self.ranks.is_leader and not self.is_superseded(about_to_write=True):
            self.store.append_metrics(self.kind, self.key, dict(row))
            self.mirror.log(row, step=len(self._rows))
            _log.info("%s: %s", self.kind, line_of(row))
            self._rows.append(dict(row))

    def write_record(self) -> None:
        """Make the record what this process has logged, whatever another copy of the stage has added."""
        self.store.write_metrics(self.kind, self.key, self._rows)

    @property
    def progress_is_due(self) -> bool:
        """Whether the last word on the progress is older than half a second."""
        return time.monotonic() - self._last_progress >= PROGRESS_INTERVAL_SECONDS

    def progress(self, done: int, total: int, unit: str, message: str = "") -> None:
        """Tell how far the stage is, as long as it is ours; written at most twice a second, and at the end."""
        if self.ranks.is_leader and (done >= total or self.progress_is_due):
            self._last_progress = time.monotonic()
            if self.is_superseded(about_to_write=True):
                return
            self.store.write_progress(self.kind, self.key, done=done, total=total, unit=unit, message=message)

    def leave_to_leader(self) -> None:
        """Here ends what the ranks do together. Raises NotLeaderError on all but the first."""
        if not self.ranks.is_leader:
            raise NotLeaderError

    def is_superseded(self, about_to_write: bool) -> bool:
        """Whether the stage is no longer ours: another process has its claim or, asked before writing, finished it.

        A process that was stopped for a while knows of neither until it looks, and what it would write into the stage's
        folder would be taken for its successor's.
        """
        return self.ranks.is_leader and (
            self.is_claim_lost(about_to_write) or (about_to_write and self.store.is_done(self.kind, self.key))
        )

    def restart(self, saved: dict[str, Any] | None) -> None:
        """Begin from a state or, with None, from nothing: the record and the artifacts are those of that moment."""
        from spp.stages.checkpoint import OURS

        self.saved = saved
        ours: Mapping[str, Any] = {"rows": [], "seconds": 0.0} if saved is None else saved[OURS]
        self._started = time.monotonic() - ours["seconds"]
        self.tried.append(ours["seconds"])
        self.earlier_code = [code for code in ours.get("codes", ()) if code != code_hash()]
        if self.ranks.is_leader:
            self._rows = list(ours["rows"])
            self.write_record()
            for step, row in enumerate(self._rows):
                self.mirror.log(row, step=step)
            if saved is not None:
                self.checkpoint.restore_artifacts(saved)

    def save(self, state: dict[str, Any], extra: Mapping[str, Any]) -> None:
        """Replace the checkpoint: Lightning's `state`, and with `extra` what only we know."""
        from spp.stages.checkpoint import OURS

        codes = [*self.earlier_code, code_hash()]
        state[OURS] = {"rows": list(self._rows), "seconds": self.seconds, "codes": codes, **extra}
        self.checkpoint.write(state)

    def save_at_boundary(self, state: dict[str, Any]) -> None:
        """A part that follows on no training is done: keep `state`, and end here where a signal asks for it.

        Raises:
            AlreadyClaimed: the stage is no longer ours.
            SystemExit: a signal asked for the end.
        """
        if self.is_superseded(about_to_write=True):
            from spp.store.claim import AlreadyClaimed

            raise AlreadyClaimed(self.kind, self.key, None)
        self.save(state, {})
        if self.interruptions.pending:
            self.interruptions.obey(self.interruptions.pending)

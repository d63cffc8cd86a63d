"""What a stage may see and touch while it runs."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spp.plan.config import RuntimeConfig
from spp.record.wandb_mirror import Mirror
from spp.store.store import Store

PROGRESS_INTERVAL_SECONDS = 0.5


@dataclass
class StageRun:
    """One run of one stage: its config, its inputs' folders, a private folder for what it writes, its record."""

    store: Store
    kind: str
    key: str
    spec: Mapping[str, Any]
    artifacts: Path
    mirror: Mirror
    _last_progress: float = field(default=0.0, init=False)

    @property
    def config(self) -> Mapping[str, Any]:
        """The part of the stage that its key hashes."""
        config: Mapping[str, Any] = self.spec["config"]
        return config

    @property
    def runtime(self) -> RuntimeConfig:
        """Where and with what the stage runs."""
        return RuntimeConfig.read(self.spec["runtime"], "runtime")

    def input_artifacts(self, role: str) -> Path:
        """Folder of the finished artifacts of the input in `role`."""
        ref = self.spec["inputs"][role]
        return self.store.stage_dir(ref["kind"], ref["key"]) / "artifacts"

    def input_summary(self, role: str) -> dict[str, Any]:
        """Summary of the input in `role`."""
        ref = self.spec["inputs"][role]
        return self.store.summary(ref["kind"], ref["key"])

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to the record; W&B gets a copy."""
        self.store.append_metrics(self.kind, self.key, dict(row))
        self.mirror.log(row)

    @property
    def progress_is_due(self) -> bool:
        """Whether the last word on the progress is older than half a second."""
        return time.monotonic() - self._last_progress >= PROGRESS_INTERVAL_SECONDS

    def progress(self, done: int, total: int, unit: str, message: str = "") -> None:
        """Tell how far the stage is; written at most twice a second, and at the end."""
        if done >= total or self.progress_is_due:
            self._last_progress = time.monotonic()
            self.store.write_progress(self.kind, self.key, done=done, total=total, unit=unit, message=message)

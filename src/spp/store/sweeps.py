"""The sweeps of a store: what was asked for, and which jobs were given what.

sweeps/<sweep>/   points.json plan.json jobs.jsonl jobs/
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spp.plan.graph import Plan
from spp.store.atomic import append_line, damaged, read_lines, require_json, write_json
from spp.store.forms import check_batch, check_sweep, plan_of
from spp.temporary import scan


class Sweeps:
    """The sweeps of the store at `root`; nothing is made before something is written."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def sweep_dir(self, sweep: str) -> Path:
        """The folder of a sweep. Raises ValueError for a name that cannot be a folder's."""
        check_sweep(sweep)
        return self.root / "sweeps" / sweep

    def sweep_places(self, sweep: str) -> tuple[Path, ...]:
        """The folders that files of a sweep are written into."""
        folder = self.sweep_dir(sweep)
        return folder, folder / "jobs"

    def write_plan(self, sweep: str, plan: Plan, cluster: Mapping[str, Any] | None = None) -> None:
        """Write down a sweep and the config of its cluster; points.json comes last and makes it visible to
        `list_sweeps`."""
        folder = self.sweep_dir(sweep)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "plan.json", {"stages": plan.to_json(), "cluster": dict(cluster or {})})
        write_json(folder / "points.json", {"points": plan.points_to_json()})

    def read_plan(self, sweep: str) -> Plan:
        """The plan of a sweep. Raises ValueError, with the newest names, if there is no such sweep."""
        folder = self.sweep_dir(sweep)
        if not (folder / "points.json").exists():
            known = ", ".join(self.list_sweeps()[:5]) or "none here yet"
            raise ValueError(f"sweep: {sweep!r} is not in {self.root}: must be one of {known}; check paths.store")
        points, plan = require_json(folder / "points.json"), require_json(folder / "plan.json")
        return plan_of(plan.get("stages"), points.get("points"), str(folder))

    def read_cluster(self, sweep: str) -> dict[str, Any]:
        """The config of the cluster that a sweep was planned for (`ClusterConfig.plain`).

        Raises FileNotFoundError if there is no such sweep.
        """
        cluster = require_json(self.sweep_dir(sweep) / "plan.json").get("cluster", {})
        if not isinstance(cluster, dict):
            raise damaged(self.sweep_dir(sweep) / "plan.json")
        return cluster

    def list_sweeps(self) -> list[str]:
        """Names of all sweeps, newest first."""
        written: list[tuple[int, str]] = []
        for entry in scan(self.root / "sweeps"):
            try:
                written.append((os.stat(os.path.join(entry.path, "points.json")).st_mtime_ns, entry.name))
            except (FileNotFoundError, NotADirectoryError):
                continue
        return [name for _, name in sorted(written, reverse=True)]

    def latest(self) -> str | None:
        """Name of the newest sweep."""
        return next(iter(self.list_sweeps()), None)

    def append_job(self, sweep: str, row: Mapping[str, Any]) -> None:
        """Append a row to jobs.jsonl; it is on disk when this returns."""
        append_line(self.sweep_dir(sweep) / "jobs.jsonl", row)

    def read_jobs(self, sweep: str) -> list[dict[str, Any]]:
        """The rows of jobs.jsonl in the order of writing; a line torn by a crash is left out."""
        return read_lines(self.sweep_dir(sweep) / "jobs.jsonl")

    def write_batch(self, sweep: str, batch: str, content: Mapping[str, Any]) -> None:
        """Write down the tasks of a job array before it is submitted."""
        check_batch(batch)
        folder = self.sweep_dir(sweep) / "jobs"
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{batch}.json", dict(content))

    def read_batch(self, sweep: str, batch: str) -> dict[str, Any]:
        """What `write_batch` wrote. Raises FileNotFoundError if there is no such batch."""
        check_batch(batch)
        return require_json(self.sweep_dir(sweep) / "jobs" / f"{batch}.json")

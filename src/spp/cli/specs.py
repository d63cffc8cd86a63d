"""Specs of stages by the beginning of their keys, also of those that no worker has seen yet."""

from collections.abc import Mapping
from typing import Any

from spp.cli.stage_names import find_stage
from spp.store.store import Store


class Specs:
    """The specs that a store knows: of stages, and of what its sweeps plan."""

    def __init__(self, store: Store, planned: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """planned: further specs by key, such as those of a sweep that was not written down."""
        self._store = store
        self._planned: dict[str, Mapping[str, Any]] = dict(planned or {})
        self._read: dict[tuple[str, str], Mapping[str, Any] | None] = {}
        self._knows_sweeps = False

    def find(self, prefix: str) -> Mapping[str, Any]:
        """The spec of the stage whose key begins with `prefix`.

        Raises:
            ValueError: one line, if there is none or more than one.
        """
        found = [spec for key, spec in self._planned.items() if key.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        refs = self._store.find_stages(prefix)
        if not refs:
            self._read_sweeps()
            found = [spec for key, spec in self._planned.items() if key.startswith(prefix)]
            if len(found) == 1:
                return found[0]
        ref = find_stage(self._store, prefix)
        spec = self.of(ref.kind, ref.key)
        if spec is None:
            raise ValueError(
                f"STAGE: {ref.kind} {ref.key} has no spec; allowed: a stage that spp run wrote; say its words again"
            )
        return spec

    def of(self, kind: str, key: str) -> Mapping[str, Any] | None:
        """The spec of a stage; None where nobody knows it any more."""
        if key in self._planned:
            return self._planned[key]
        if (kind, key) not in self._read:
            try:
                self._read[kind, key] = self._store.spec(kind, key)
            except FileNotFoundError:
                self._read_sweeps()
                self._read[kind, key] = self._planned.get(key)
        return self._read[kind, key]

    def _read_sweeps(self) -> None:
        if not self._knows_sweeps:
            self._knows_sweeps = True
            for sweep in self._store.list_sweeps():
                for stage in self._store.read_plan(sweep).stages.values():
                    self._planned.setdefault(stage.key, stage.to_json())

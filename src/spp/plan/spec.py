"""A stage: one unit of work with a config, inputs, outputs and resources."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from spp.plan.keys import canonical, stage_key

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class StageRef:
    """The address of a stage in a store."""

    kind: str
    key: str


@dataclass(frozen=True, eq=False)
class Stage:
    """One unit of work; two stages are equal if their keys are, that is, if they are the same work.

    `kind`, `version`, `config` and the inputs' keys by role are hashed. `label` (for people), `runtime`
    (how to run here: data folder, number of workers, accelerator) and `resources` (what to ask of a cluster;
    see plan.cluster.ResourcesConfig) are not. The mappings are copied into plain JSON types
    (`keys.canonical`), so a key determines what the worker reads: an integral float arrives as an int.

    Raises ValueError for a kind or role that is no lower-case name, and for fields that JSON cannot hold.
    """

    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, "Stage"] = field(default_factory=dict)
    version: int = 1
    label: str = ""
    runtime: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name("kind", self.kind)
        for role in self.inputs:
            _check_name(f"{self.kind}.inputs", role)
        for name in ("config", "runtime", "resources"):
            object.__setattr__(self, name, canonical(getattr(self, name), f"{self.kind}.{name}"))
        object.__setattr__(self, "inputs", {role: self.inputs[role] for role in sorted(self.inputs)})

    @cached_property
    def key(self) -> str:
        input_keys = {role: stage.key for role, stage in self.inputs.items()}
        return stage_key(self.kind, self.version, self.config, input_keys)

    @property
    def ref(self) -> StageRef:
        return StageRef(self.kind, self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def to_json(self) -> dict[str, Any]:
        """The spec as a worker reads it: inputs are references, role -> {kind, key}."""
        return {
            "kind": self.kind,
            "key": self.key,
            "version": self.version,
            "label": self.label,
            "config": self.config,
            "inputs": {role: {"kind": s.kind, "key": s.key} for role, s in self.inputs.items()},
            "runtime": self.runtime,
            "resources": self.resources,
        }

    @classmethod
    def from_json(cls, spec: Mapping[str, Any], inputs: Mapping[str, "Stage"]) -> "Stage":
        """The stage of a written spec; `inputs` are its inputs by role.

        The written key is kept, so that a plan stays readable after the way keys are made has changed.
        """
        # What was written has been checked, and checking it again would be most of the time that `status` takes.
        stage = object.__new__(cls)
        names = ("kind", "key", "version", "label", "config", "runtime", "resources")
        stage.__dict__.update({name: spec[name] for name in names}, inputs=dict(inputs))
        return stage


def _check_name(where: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{where}: {name!r} is not allowed: must be a lower-case name such as 'update'; rename it")

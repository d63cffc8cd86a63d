"""Where a member comes from: the stages behind the one that has measured it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spp.plan.spec import Stage

MEASURE, FINETUNE, REPAIR, PATH_SEARCH = "measure", "finetune", "repair", "update"
"""Kinds of stages: what looks at the test set, what trains a member, what re-fits members in closed form, the search
that leaves a solution path."""


def measures_member(kind: str, config: Mapping[str, Any]) -> bool:
    """Whether a stage measures a member; one without a budget measures the dense network."""
    return kind == MEASURE and "budget" in config


@dataclass(frozen=True)
class Lineage:
    """The stages of one member.

    Attributes:
        measure: has measured the member.
        member: has made the network that was measured: finetune, else the repair, else the family itself.
        repair: has re-fitted the members of the family; None where they stay as they were cut.
        family: has cut the members out of the dense network: prune, or a search that hands out its member itself.
        search: has found what to keep; the family where that searched for itself.
        dense: the network before pruning.
        reference: has measured the dense network.
    """

    measure: Stage
    member: Stage
    repair: Stage | None
    family: Stage
    search: Stage
    dense: Stage
    reference: Stage

    @classmethod
    def of(cls, measure: Stage) -> "Lineage":
        """The lineage of the member that a stage measures (`measures_member`)."""
        member = measure.inputs["member"]
        family = member.inputs["family"] if member.kind == FINETUNE else member
        repair = family if family.kind == REPAIR else None
        family = repair.inputs["family"] if repair else family
        search = family.inputs.get("path", family)
        return cls(measure, member, repair, family, search, family.inputs["dense"], measure.inputs["reference"])

    @property
    def finetune(self) -> Stage | None:
        """The stage that has trained the member after the cut, if any."""
        return self.member if self.member.kind == FINETUNE else None

    @property
    def is_walked(self) -> bool:
        """Whether the members were cut out by a stage of their own, along what the search had found."""
        return self.family != self.search

    @property
    def path(self) -> Stage | None:
        """The search whose artifacts hold a solution path with its trace, if it was one."""
        return self.search if self.search.kind == PATH_SEARCH else None

    @property
    def task(self) -> str:
        """Name of the task: the factory's where it is somebody's own."""
        config = self.measure.config["task"]
        return str(config.get("name") or config["factory"])

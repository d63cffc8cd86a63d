"""Distillation: what a network learns from a teacher beside its own targets, whatever the task and the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spp.plan.recipes import PassConfig
from spp.structure.adapters.adapter import HiddenPoint
from spp.structure.hidden import hidden_points, watched
from spp.structure.inputs import Inputs, call
from spp.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a teacher says of one batch, beside what the network itself made of it on the way.

    Attributes:
        outputs: of the teacher.
        own_states: hidden states of the network; empty where they are not compared.
        states: those of the teacher, as many and of the same shapes.
    """

    outputs: Any
    own_states: Sequence[Tensor]
    states: Sequence[Tensor]


class Distillation:
    """Lets a teacher see every batch that a network sees, once, and adds to the loss how far apart they are.

    With w, h = distill_weight, distill_hidden of the recipe, D the task's distance of outputs, and L the loss of the
    targets, all of them sums over the heads that train, the loss is

        (1 - w) L + w (D + h sum over hidden states of mean (state - teacher's)^2)

    That is LEAP's in its released code (w = .9, h = 1, temperature 2; arXiv 2105.14636), attention scores left out.

    Args:
        student: the network that trains; masked, compact or whole.
        teacher: a network that takes the same inputs; it is frozen, and no part of what trains.
        recipe: of the pass.
        task: what the networks are for.

    Raises:
        ValueError: hidden states are to be compared, and one of the networks has none, or the teacher has too few.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, recipe: PassConfig, task: Task) -> None:
        self.teacher = teacher
        self.recipe = recipe
        self.task = task
        self._own_points: list[HiddenPoint] = []
        self._points: list[HiddenPoint] = []
        if recipe.distill_hidden:
            self._own_points, self._points = hidden_points(student), hidden_points(teacher)
            require_states(len(self._own_points), len(self._points))
            self._points = self._points[: len(self._own_points)]

    def to(self, device: torch.device) -> None:
        """Bring the teacher to where the network is."""
        self.teacher.to(device)

    def show(self, student: nn.Module, inputs: Inputs) -> tuple[Any, Lesson]:
        """Outputs of the student for a batch, and what the teacher says of it."""
        with watched(student, self._own_points) as own_states:
            outputs = call(student, inputs)
        with torch.no_grad(), watched(self.teacher, self._points) as states:
            wanted = call(self.teacher, inputs)
        tokens = [point.tokens for point in self._own_points]
        seen = [state if kept is None else state[:, kept] for state, kept in zip(states, tokens, strict=True)]
        return outputs, Lesson(wanted, own_states, seen)

    def mixed(self, loss: Tensor, heads: Sequence[Any], lesson: Lesson) -> Tensor:
        """The loss of the targets together with the distance from the teacher.

        Args:
            loss: of the targets, the sum over the heads.
            heads: outputs of every head for the batch, the network's own first.
            lesson: of that batch.

        Raises:
            ValueError: hidden states of the two networks have different shapes.
        """
        recipe, wanted = self.recipe, lesson.outputs
        temperature, kind = recipe.distill_temperature, recipe.distill_kind
        distance = torch.stack([self.task.distillation_loss(own, wanted, temperature, kind) for own in heads]).sum()
        if recipe.distill_hidden:
            distance = distance + recipe.distill_hidden * hidden_distance(lesson.own_states, lesson.states)
        return (1 - recipe.distill_weight) * loss + recipe.distill_weight * distance


def hidden_distance(states: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Sum over hidden states, (batch, ..., width) each, of the mean square of the difference.

    Raises:
        ValueError: shapes differ.
    """
    for state, other in zip(states, wanted, strict=True):
        if state.shape != other.shape:
            raise ValueError(
                f"distill_hidden: hidden states of shape {tuple(state.shape)} cannot be compared with the teacher's of "
                f"{tuple(other.shape)}; allowed: a teacher of the same blocks and width, such as the dense network; "
                "leave teacher.name out, or use distill_hidden=0"
            )
    distances = [F.mse_loss(state.float(), other.float()) for state, other in zip(states, wanted, strict=True)]
    return torch.stack(distances).sum()


def require_states(num_own: int, num_of_teacher: int) -> None:
    """Refuse a teacher with fewer hidden states than the network has.

    Raises:
        ValueError: one line.
    """
    if num_own > num_of_teacher:
        raise ValueError(
            f"distill_hidden: {num_own} hidden states have no counterpart in the {num_of_teacher} of the teacher; "
            "allowed: a teacher of the same blocks and width, such as the dense network; leave teacher.name out, or "
            "use distill_hidden=0"
        )

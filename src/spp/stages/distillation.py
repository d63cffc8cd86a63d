"""Distillation: what a network learns from a teacher beside its own targets, whatever the task and the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spp.plan.recipes import PassConfig
from spp.structure.adapters.adapter import AttentionPoint, HiddenPoint
from spp.structure.attention_weights import attention_points, compared_weights, watched_attentions
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
        attentions: weights of each attention, (batch, heads, tokens, tokens), the network's and the teacher's; empty
            where they are not compared.
    """

    outputs: Any
    own_states: Sequence[Tensor]
    states: Sequence[Tensor]
    attentions: Sequence[tuple[Tensor, Tensor]]


class Distillation:
    """Lets a teacher see every batch that a network sees, once, and adds to the loss how far apart they are.

    With w, h, a = distill_weight, distill_hidden, distill_attention of the recipe, D the task's distance of outputs,
    and L the loss of the targets, all of them sums over the heads that train, the loss is

        (1 - w) L + w (D + h sum over hidden states of mean (state - teacher's)^2
                         + a sum over attentions of mean (weights - teacher's)^2)

    That is LEAP's in its released code (w = .9, h = a = 1, temperature 2; arXiv 2105.14636), which calls the weights
    scores, but compares them behind the softmax; dropout of the weights, which it leaves in, is left out here.

    Args:
        student: the network that trains; masked, compact or whole.
        teacher: a network that takes the same inputs; it is frozen, and no part of what trains.
        recipe: of the pass.
        task: what the networks are for.

    Raises:
        ValueError: hidden states or attentions are to be compared, and one of the networks has none, or the teacher has
            too few.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, recipe: PassConfig, task: Task) -> None:
        self.teacher = teacher
        self.recipe = recipe
        self.task = task
        self._own_points: list[HiddenPoint] = []
        self._points: list[HiddenPoint] = []
        self._own_attentions: list[AttentionPoint] = []
        self._attentions: list[AttentionPoint] = []
        if recipe.distill_hidden:
            self._own_points, self._points = hidden_points(student), hidden_points(teacher)
            _require_as_many("distill_hidden", "hidden states", len(self._own_points), len(self._points))
            self._points = self._points[: len(self._own_points)]
        if recipe.distill_attention:
            self._own_attentions, self._attentions = attention_points(student), attention_points(teacher)
            _require_as_many("distill_attention", "attentions", len(self._own_attentions), len(self._attentions))
            self._attentions = self._attentions[: len(self._own_attentions)]

    def to(self, device: torch.device) -> None:
        """Bring the teacher to where the network is."""
        self.teacher.to(device)

    def show(self, student: nn.Module, inputs: Inputs) -> tuple[Any, Lesson]:
        """Outputs of the student for a batch, and what the teacher says of it.

        Raises:
            ValueError: hidden states or attentions of the two networks have different shapes.
        """
        own_hidden, own_attentions = self._own_points, self._own_attentions
        with watched(student, own_hidden) as own_states, watched_attentions(student, own_attentions) as own_seen:
            outputs = call(student, inputs)
        teacher, hidden, attentions = self.teacher, self._points, self._attentions
        with torch.no_grad(), watched(teacher, hidden) as states, watched_attentions(teacher, attentions) as seen:
            wanted = call(teacher, inputs)
        tokens = [point.tokens for point in own_hidden]
        kept_states = [state if kept is None else state[:, kept] for state, kept in zip(states, tokens, strict=True)]
        _require_equal_shapes(own_states, kept_states)
        padding = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        is_real = None if padding is None else padding.bool()
        weights = [compared_weights(own, other, is_real) for own, other in zip(own_seen, seen, strict=True)]
        return outputs, Lesson(wanted, own_states, kept_states, weights)

    def mixed(self, loss: Tensor, heads: Sequence[Any], lesson: Lesson) -> Tensor:
        """The loss of the targets together with the distance from the teacher.

        Args:
            loss: of the targets, the sum over the heads.
            heads: outputs of every head for the batch, the network's own first.
            lesson: of that batch.
        """
        recipe, wanted = self.recipe, lesson.outputs
        temperature, kind = recipe.distill_temperature, recipe.distill_kind
        distance = torch.stack([self.task.distillation_loss(own, wanted, temperature, kind) for own in heads]).sum()
        if recipe.distill_hidden:
            pairs = list(zip(lesson.own_states, lesson.states, strict=True))
            distance = distance + recipe.distill_hidden * _squared_distance(pairs)
        if recipe.distill_attention:
            distance = distance + recipe.distill_attention * _squared_distance(lesson.attentions)
        return (1 - recipe.distill_weight) * loss + recipe.distill_weight * distance


def _squared_distance(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Sum over pairs of tensors of the mean square of their difference."""
    return torch.stack([F.mse_loss(own.float(), other.float()) for own, other in pairs]).sum()


def _require_equal_shapes(states: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    for state, other in zip(states, wanted, strict=True):
        if state.shape != other.shape:
            raise ValueError(
                f"distill_hidden: hidden states of shape {tuple(state.shape)} cannot be compared with the teacher's of "
                f"{tuple(other.shape)}; allowed: a teacher of the same blocks and width, such as the dense network; "
                "leave teacher.name out, or use distill_hidden=0"
            )


def _require_as_many(field: str, what: str, num_own: int, num_of_teacher: int) -> None:
    """Refuse a teacher with fewer of them than the network has.

    Raises:
        ValueError: one line.
    """
    if num_own > num_of_teacher:
        raise ValueError(
            f"{field}: {num_own} {what} have no counterpart in the {num_of_teacher} of the teacher; allowed: a teacher "
            f"of the same blocks and width, such as the dense network; leave teacher.name out, or use {field}=0"
        )

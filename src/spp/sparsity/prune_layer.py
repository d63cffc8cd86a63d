"""One-shot pruning of the linears of one decoder layer: order of the inputs, mask, update, as the axes say."""

import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spp.sparsity.config import SparsityConfig
from spp.sparsity.curvature import Curvature
from spp.sparsity.pattern import Pattern
from spp.sparsity.permutation import TiedHeads, find_permutation
from spp.sparsity.problem import LinearProblem, MaskChooser, PreparedInput, check_finite, prepare_input, working_type
from spp.sparsity.statistics import InputStats
from spp.sparsity.update import update_kept

LAYER_TOLERANCE = 1e-2
"""Gradient at which least squares stop in a layer: about 10 iterations; on other text more of them gain nothing."""


@dataclass(frozen=True)
class LinearResult:
    """What became of one linear.

    Attributes:
        mask: (out, in) bool, True where the weight stays, in the order in which the inputs came.
        weight: (out, in) of the type of the weights that came, zeros where not mask; None where no weight moved.
        permutation: (in,) int64: the columns of `mask[:, permutation]` hold N:M in consecutive groups; None: they do
            as they are.
        figures: relative_error of the outputs on the calibration tokens where the Gram matrix is known, that before
            the update as masked_error, damping, seconds, and what the method adds.
    """

    mask: Tensor
    weight: Tensor | None
    permutation: Tensor | None
    figures: dict[str, float] = field(default_factory=dict)


def statistics_needed(method: MaskChooser, axes: SparsityConfig) -> frozenset[str]:
    """What InputStats have to keep: of norms, gram and batches; nothing where the weights alone decide."""
    return method.needs if axes.update in (None, "none") else method.needs | {"gram"}


@torch.no_grad()
def prune_linears(
    weights: Mapping[str, Tensor],
    stats: Mapping[str, InputStats],
    input_of: Mapping[str, str],
    method: MaskChooser,
    axes: SparsityConfig,
    sparsity: float | Mapping[str, float] | None = None,
    heads: Mapping[str, TiedHeads] | None = None,
) -> dict[str, LinearResult]:
    """Choose the masks of all linears, and update their kept weights.

    Args:
        weights: (out, in) by name of the linear, of any floating type; none is changed.
        stats: by name of the input; may be empty where nothing is needed.
        input_of: name of the input by name of the linear; linears of one input share its statistics, factors and order.
        method: chooses the masks.
        axes: without open fields, see `WeightMethodConfig.resolve`.
        sparsity: the share removed, for all or by linear; None: that of the axes.
        heads: of inputs that the values of an attention make, by name of the input.

    Raises:
        ValueError: one line with the name of the linear: weights or statistics that are not finite, a Gram matrix that
            cannot be factorised, inputs that are no whole number of groups.
    """
    shares = sparsity if isinstance(sparsity, Mapping) else dict.fromkeys(weights, sparsity)
    patterns = {name: Pattern.from_config(axes, shares[name]) for name in weights}
    for name, weight in weights.items():
        patterns[name].check(name, weight.shape[1])
        check_finite(name, "its weights", weight, remedy="look at the model's files")
    results: dict[str, LinearResult] = {}
    for names in _linears_pruned_together(weights, input_of, axes):
        source = input_of[names[0]]
        known = prepare_input(
            ", ".join(names), weights[names[0]], stats.get(source), axes.damping, axes.shrinkage or 0.0
        )
        problems = {
            name: LinearProblem(weights[name].to(working_type(weights[name])), known, patterns[name]) for name in names
        }
        order = _find_order(problems, method, axes, (heads or {}).get(source))
        if order is not None:
            known = None if known is None else known.permuted(order)
        for name in names:
            problem = problems.pop(name)
            if order is not None:
                problem = LinearProblem(problem.weight[:, order], known, problem.pattern)
            results[name] = _prune(name, problem, method, axes, order, weights[name].dtype)
    return {name: results[name] for name in weights}


def prune_and_forget(
    weights: Mapping[str, Tensor],
    stats: MutableMapping[str, InputStats],
    input_of: Mapping[str, str],
    method: MaskChooser,
    axes: SparsityConfig,
    sparsity: float,
    heads: Mapping[str, TiedHeads],
) -> dict[str, LinearResult]:
    """What `prune_linears` gives, in less memory: the widest input comes first, and `stats` loses each that is done."""
    results: dict[str, LinearResult] = {}
    widest_first = sorted(_by_input(weights, input_of).items(), key=lambda item: -weights[item[1][0]].shape[1])
    for source, names in widest_first:
        own = {name: weights[name] for name in names}
        known = {source: stats.pop(source)} if source in stats else {}
        results |= prune_linears(own, known, input_of, method, axes, sparsity, heads)
    return {name: results[name] for name in weights}


def _linears_pruned_together(
    weights: Mapping[str, Tensor], input_of: Mapping[str, str], axes: SparsityConfig
) -> list[list[str]]:
    """Those of one input, which share what is computed of it; each alone where each has an order of its own."""
    if axes.permutation != "none" and not axes.shared_permutation:
        return [[name] for name in weights]
    return list(_by_input(weights, input_of).values())


def _by_input(weights: Mapping[str, Tensor], input_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Names of the linears by name of their input, both in the order in which they come."""
    by_input: dict[str, list[str]] = {}
    for name in weights:
        by_input.setdefault(input_of[name], []).append(name)
    return by_input


def _find_order(
    problems: Mapping[str, LinearProblem], method: MaskChooser, axes: SparsityConfig, heads: TiedHeads | None
) -> Tensor | None:
    if axes.permutation == "none" or axes.keep is None or axes.of is None:
        return None
    scores = torch.cat([method.score(problem) for problem in problems.values()])
    return find_permutation(scores, axes.keep, axes.of, axes.permutation, heads)


def _prune(
    name: str,
    problem: LinearProblem,
    method: MaskChooser,
    axes: SparsityConfig,
    order: Tensor | None,
    dtype: torch.dtype,
) -> LinearResult:
    """Prune one linear in the order of its problem, and put the result back into the order that came."""
    began = time.perf_counter()
    choice = method.choose(problem)
    weight = choice.weight if axes.update == "obs" else None
    if weight is None and axes.update in ("obs", "least_squares"):
        weight = update_kept(problem.weight, choice.mask, problem.known_input, axes.update, LAYER_TOLERANCE)
    mask = choice.mask
    dense = problem.weight
    if order is not None:
        back = order.argsort()
        mask, dense, weight = mask[:, back], dense[:, back], None if weight is None else weight[:, back]
    figures = {**(choice.figures or {}), **_errors(dense, mask, weight, problem.input)}
    figures["seconds"] = time.perf_counter() - began
    if weight is not None:
        weight = weight.to(dtype)
        check_finite(name, "its updated weights", weight, remedy="use more damping")
    return LinearResult(mask, weight, order, figures)


def _errors(dense: Tensor, mask: Tensor, weight: Tensor | None, known: PreparedInput | None) -> dict[str, float]:
    """Errors of the outputs on the calibration tokens, whatever was shrunk or damped for the choice."""
    if known is None or "gram" not in known.stats.needs:
        return {}
    seen = Curvature(known.stats.gram.to(dense.device, dense.dtype))
    total = seen.error(dense) or 1.0
    masked = seen.error(dense * ~mask) / total
    if weight is None:
        return {"relative_error": masked}
    return {
        "relative_error": seen.error(weight - dense) / total,
        "masked_error": masked,
        "damping": known.curvature.damping_used,
    }

"""Repair of a compact model in closed form: its weights are re-fitted to what the dense one computes, without labels.

Block after block, from what the compact model itself sees there:

* second maps (the projection of an attention, fc2 of an MLP; their biases, too) by least squares such that the
  *residual stream* behind them comes back to the dense one. That takes in what was lost upstream. Where the stream is
  normed behind the map (`Adapter.stream_point` gives none) the target is the dense output of the map.
* queries, then keys, of every head by least squares on its logits, each row of them up to a constant, which the softmax
  does not see. What may be added to a query are linear combinations of the head's queries by the dense weights. Logits
  of tokens that a shifted window hides from each other count as the others do.

Padding of texts counts nowhere, nor do the logits of tokens behind a query that sees only those before it.

The ridge is on the change of the weights, so the fitted error never grows on the samples that it is fitted to.
For each map the samples go through both networks anew, up to that map: nothing is kept but sums of products, and memory
does not grow with the number of samples. Of networks whose adapter names their blocks (language models) what reaches
the block that is worked on is kept of both for all samples, in host memory, and no block before it is run again.
"""

import copy
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spp.structure.activations import Tap, activations, begun_behind
from spp.structure.adapters.adapter import Adapter, LogitsPoint
from spp.structure.adapters.registry import adapter_for
from spp.structure.cost import evaluation_mode
from spp.structure.inputs import Inputs, moved
from spp.structure.least_squares import MapRefit, ProductRefit
from spp.structure.pair import Pair
from spp.structure.tokens import kept_tokens, token_points
from spp.structure.wrappers import unwrapped

REPAIR_KINDS = ("second", "full")
RIDGE = 0.01
"""Ridge on the change of the weights, as a share of the mean diagonal of the Gram matrix."""


def repair(
    small: nn.Module,
    model: nn.Module,
    batches: Iterable[Inputs],
    *,
    kind: str = "full",
    ridge: float = RIDGE,
    frozen: Collection[str] = (),
) -> nn.Module:
    """A copy of a compact model whose second maps, queries and keys are re-fitted to the dense model.

    Args:
        small: what `compact` made of `model` (with shared or per-head masks), trained on since or not; left unchanged.
        model: the dense model, on the device of `small`; left unchanged.
        batches: what the models are called with: tensors, or mappings of them; no labels. They are gone through several
            times for each block, so a list or a loader in a fixed order, not a generator.
        kind: full, or second (the second maps alone).
        ridge: on the change of the weights, as a share of the mean diagonal of the Gram matrix.
        frozen: names of weights that stay as they are, such as those in which single weights were pruned.

    Raises:
        ValueError: no adapter; batches that are empty, can be gone through only once, or hold no inputs.
    """
    repaired = copy.deepcopy(unwrapped(small))
    repair_in_place(repaired, model, batches, kind=kind, ridge=ridge, frozen=frozen)
    return repaired


def repair_in_place(
    small: nn.Module,
    model: nn.Module,
    batches: Iterable[Inputs],
    *,
    kind: str = "full",
    ridge: float = RIDGE,
    frozen: Collection[str] = (),
) -> None:
    """As `repair`, but of `small` itself.

    It may also be a copy of `model` in which units have zeros in the place of their weights; they stay zeros.
    """
    if kind not in REPAIR_KINDS:
        raise ValueError(f"kind: {kind!r} is not allowed; allowed: {', '.join(REPAIR_KINDS)}; use full")
    if isinstance(batches, Iterator):
        raise ValueError(
            f"batches: a {type(batches).__name__} is not allowed: it can be gone through once; allowed: a list or a "
            "loader; use list(batches)"
        )
    model = unwrapped(model)
    adapter = adapter_for(model)
    modules = dict(small.named_modules())
    with torch.no_grad(), evaluation_mode(small), evaluation_mode(model):
        fit = _Repair(small, model, adapter, batches, ridge, frozen)
        for pair in adapter.pairs(model, per_head=False):
            if pair.module not in modules:  # a network of fewer blocks
                continue
            fit.go_on_to(pair)
            if pair.kind != "qk":
                fit.refit_second_map(pair)
            elif kind == "full":
                fit.refit_logits(pair)


class _Passes:
    """Passes of the batches through a network, which begin behind the blocks that are done.

    Args:
        model: the network.
        blocks: their dotted names; none: passes begin at the beginning.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[str]) -> None:
        self.model, self.blocks = model, blocks
        self._num_done = 0
        self._hidden: list[Tensor] = []

    def see(self, number: int, batch: Inputs, taps: Sequence[Tap]) -> list[Tensor]:
        """What passes the places for batch `number`."""
        if not self._num_done:
            return activations(self.model, batch, taps)
        hidden = self._hidden[number].to(next(self.model.parameters()).device)
        with begun_behind(self.model, self.blocks[: self._num_done], hidden):
            return activations(self.model, batch, taps)

    def go_on_to(self, module: str, batches: Iterable[Inputs]) -> None:
        """Begin from now on in front of the block with this module; the weights before it are final."""
        inside = (number for number, name in enumerate(self.blocks) if module.startswith(f"{name}."))
        number = next(inside, 0)
        if number > self._num_done:
            tap = Tap(self.blocks[number], "input")
            self._hidden = [self.see(place, batch, [tap])[0].cpu() for place, batch in enumerate(batches)]
            self._num_done = number


class _Repair:
    """The steps of one repair."""

    def __init__(
        self,
        small: nn.Module,
        model: nn.Module,
        adapter: Adapter,
        batches: Iterable[Inputs],
        ridge: float,
        frozen: Collection[str],
    ) -> None:
        self.small, self.model, self.adapter = small, model, adapter
        self.batches, self.ridge, self.frozen = batches, ridge, frozen
        self.device = next(small.parameters()).device
        self._tokens = kept_tokens(small), kept_tokens(model)
        blocks = adapter.sequential_blocks(model)
        self._own, self._dense = _Passes(small, blocks), _Passes(model, blocks)

    def go_on_to(self, pair: Pair) -> None:
        """The weights in front of the block of this pair are final."""
        for passes in (self._own, self._dense):
            passes.go_on_to(pair.module, self._inputs())

    def refit_second_map(self, pair: Pair) -> None:
        """The second map of a "vo" or "mlp" pair."""
        name = self.adapter.mask_point(self.model, pair).linear
        linear: Any = self.small.get_submodule(name)
        if f"{name}.weight" in self.frozen:
            return
        stream = self.adapter.stream_point(self.model, pair)
        stream_tap = [] if stream is None else [Tap(stream.module, "input")]
        tokens = self._token_numbers(pair)
        has_bias = linear.bias is not None
        refit = MapRefit(linear.in_features + has_bias, linear.out_features, self.device)
        for number, batch in enumerate(self._inputs()):
            wanted, *dense_stream = self._dense.see(number, batch, [Tap(name, "output"), *stream_tap])
            inputs, *own_stream = self._own.see(number, batch, [Tap(name, "input"), *stream_tap])
            errors = _of_tokens(wanted, tokens) - linear(inputs)
            is_real = None
            if stream is not None:
                lost = _of_tokens(dense_stream[0], tokens) - own_stream[0]
                if stream.arrange is not None:
                    is_real = stream.arrange(torch.ones_like(lost[..., :1])).flatten() > 0
                    lost = stream.arrange(lost)
                errors = errors + (lost if stream.scale is None else _divided(lost, stream.scale))
            if is_real is None:
                tokens_there = self.adapter.real_tokens(self.model, pair.module, batch)
                is_real = None if tokens_there is None else tokens_there.flatten()
            rows, errors = inputs.flatten(0, -2), errors.flatten(0, -2)
            if is_real is not None:
                rows, errors = rows[is_real], errors[is_real]
            refit.add(_with_one(rows) if has_bias else rows, errors)
        change = refit.change(self.ridge)
        linear.weight += change[:, : linear.in_features]
        if has_bias:
            linear.bias += change[:, -1]

    def refit_logits(self, pair: Pair) -> None:
        """Queries, then keys, of a "qk" pair."""
        own = self.adapter.logits_point(self.small, pair)
        dense = self.adapter.logits_point(self.model, pair)
        if own is None or dense is None or not own.num_heads or not own.width:
            return
        if {f"{own.query}.weight", f"{own.key}.weight"} & set(self.frozen):
            return
        for side in ("query", "key"):
            self._refit_factor(side, pair, own, dense)

    def _refit_factor(self, side: str, pair: Pair, own: LogitsPoint, dense: LogitsPoint) -> None:
        places = [dense.heads.index(head) for head in own.heads]
        tokens = self._token_numbers(pair)
        name, first = (own.query, own.first_query) if side == "query" else (own.key, own.first_key)
        linear: Any = self.small.get_submodule(name)
        # A constant in every key moves whole rows of logits.
        has_constant = side == "query" and linear.bias is not None
        refit = ProductRefit(own.num_heads, own.width, dense.width + has_constant, self.device)
        for number, batch in enumerate(self._inputs()):
            (dense_inputs,) = self._dense.see(number, batch, [Tap(dense.query, "input")])
            (inputs,) = self._own.see(number, batch, [Tap(own.query, "input")])
            queries, keys = (each[:, places] for each in _heads(self.model, dense, _of_tokens(dense_inputs, tokens)))
            own_queries, own_keys = _heads(self.small, own, inputs)
            errors = queries @ keys.mT * (dense.scale / own.scale) - own_queries @ own_keys.mT
            features = _heads(self.model, dense, inputs)[side == "key"][:, places]
            if has_constant:
                features = _with_one(features)
            is_real = self.adapter.real_tokens(self.model, pair.module, batch)
            own_queries, own_keys = (features, own_keys) if side == "query" else (own_queries, features)
            if own.is_causal:
                is_seen = _seen_before(inputs, is_real)
                refit.add_seen(own_queries, own_keys, errors, is_seen, features_are_keys=side == "key")
                continue
            own_queries, own_keys = _only(own_queries, is_real), _centred(own_keys, is_real)
            if side == "query":
                refit.add(own_queries, own_keys, errors)
            else:
                refit.add(own_keys, own_queries, errors.mT)
        self._add_features(linear, first, own, dense, side, places, refit.change(self.ridge))

    def _add_features(
        self,
        linear: Any,
        first: int,
        own: LogitsPoint,
        dense: LogitsPoint,
        side: str,
        places: list[int],
        changes: Tensor,
    ) -> None:
        """Add to a head's rows what the change of its channels, (heads, width, features), is in terms of weights."""
        name, first_dense = (dense.query, dense.first_query) if side == "query" else (dense.key, dense.first_key)
        source: Any = self.model.get_submodule(name)
        for number, place in enumerate(places):
            rows = slice(first + number * own.width, first + (number + 1) * own.width)
            dense_rows = slice(first_dense + place * dense.width, first_dense + (place + 1) * dense.width)
            change = changes[number].to(linear.weight.dtype)
            linear.weight[rows] += change[:, : dense.width] @ source.weight[dense_rows]
            if linear.bias is None:
                continue
            if source.bias is not None:
                linear.bias[rows] += change[:, : dense.width] @ source.bias[dense_rows]
            linear.bias[rows] += change[:, dense.width :].sum(1)

    def _inputs(self) -> Iterator[Inputs]:
        is_empty = True
        for batch in self.batches:
            is_empty = False
            yield moved(batch, self.device)
        if is_empty:
            raise ValueError("batches: there is none; allowed: one or more; give some training inputs")

    def _token_numbers(self, pair: Pair) -> Tensor | None:
        """Of the tokens that a block of `model` sees, those that `small` still has there; None: all."""
        own, dense = self._tokens
        if own == dense:
            return None
        point = next(point for point in token_points(self.model) if pair.module.startswith(f"{point.block}."))
        all_tokens = list(range(point.num_prefix + point.num_patches))
        before, after = (kept.get(point.block, all_tokens) for kept in (dense, own))
        return torch.tensor([before.index(token) for token in after], device=self.device)


def _heads(model: nn.Module, point: LogitsPoint, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys for inputs (samples, tokens, channels): (samples, heads, tokens, width)."""

    def of(name: str, first: int) -> Tensor:
        linear: Any = model.get_submodule(name)
        rows = slice(first, first + point.num_heads * point.width)
        bias = None if linear.bias is None else linear.bias[rows]
        out = F.linear(inputs, linear.weight[rows], bias)
        return out.view(*out.shape[:-1], point.num_heads, point.width).transpose(1, 2)

    return of(point.query, point.first_query), of(point.key, point.first_key)


def _of_tokens(values: Tensor, tokens: Tensor | None) -> Tensor:
    return values if tokens is None else values.index_select(1, tokens)


def _centred(keys: Tensor, is_real: Tensor | None) -> Tensor:
    """Without what all tokens of a sample have in common, which moves whole rows of logits; 0 of padding."""
    if is_real is None:
        return keys - keys.mean(-2, keepdim=True)
    num_real = is_real.sum(1)[:, None, None, None].clamp(min=1)
    return _only(keys - _only(keys, is_real).sum(-2, keepdim=True) / num_real, is_real)


def _seen_before(inputs: Tensor, is_real: Tensor | None) -> Tensor:
    """Which tokens of inputs (samples, tokens, channels) a token sees where none sees those behind it:
    (samples, tokens, tokens)."""
    there = torch.ones_like(inputs[..., 0], dtype=torch.bool) if is_real is None else is_real
    return (there[:, :, None] & there[:, None]).tril()


def _only(rows: Tensor, is_real: Tensor | None) -> Tensor:
    """Rows (samples, heads, tokens, width) with 0 for padding."""
    return rows if is_real is None else rows * is_real[:, None, :, None]


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


def _divided(lost: Tensor, scale: Tensor) -> Tensor:
    """What an output has to be for `lost` to come back behind its scale; nothing comes back through a scale of 0."""
    return torch.where(scale == 0, 0, lost / torch.where(scale == 0, 1, scale))

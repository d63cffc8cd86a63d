"""Attention weights: the softmax of the products of queries and keys, beside fused kernels, which put out none."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from spp.structure.adapters.adapter import AttentionPoint, LogitsPoint
from spp.structure.adapters.registry import adapter_for


@dataclass(frozen=True, eq=False)
class SeenAttention:
    """An attention, and what it made of a batch.

    Attributes:
        point: the attention.
        projections: its queries and keys, (batch, heads, tokens, width) each, under these names; empty where it has no
            heads, or heads without query-key channels.
    """

    point: AttentionPoint
    projections: Mapping[str, Tensor]


def attention_points(model: nn.Module) -> list[AttentionPoint]:
    """The attentions of a network in forward order; also of one that is masked, compact or held.

    Raises:
        ValueError: the model has no adapter, or one that does not know them.
    """
    return adapter_for(model).attention_points(model)


@contextmanager
def watched_attentions(model: nn.Module, points: Sequence[AttentionPoint]) -> Iterator[list[SeenAttention]]:
    """Keep the queries and keys of the one forward pass that is made inside, by point; masks have multiplied them.

    Args:
        model: a network that is not compiled.
        points: of that network.
    """
    projections: list[dict[str, Tensor]] = [{} for _ in points]
    handles = []

    def watch(found: dict[str, Tensor], logits: LogitsPoint) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def begin(module: nn.Module, args: tuple[Any, ...]) -> None:
            # Not earlier: a masked network sets the hooks of its masks when it is called, and ours have to follow them.
            sides = {"queries": (logits.query, logits.first_query), "keys": (logits.key, logits.first_key)}
            for side, (name, first) in sides.items():
                keep = _keeping(found, side, first, logits)
                handles.append(model.get_submodule(name).register_forward_hook(keep))

        return begin

    try:
        for found, point in zip(projections, points, strict=True):
            if point.logits.num_heads and point.logits.width:
                attention = model.get_submodule(point.logits.query.rpartition(".")[0])
                handles.append(attention.register_forward_pre_hook(watch(found, point.logits)))
        yield [SeenAttention(point, found) for point, found in zip(points, projections, strict=True)]
    finally:
        for handle in handles:
            handle.remove()


def compared_weights(own: SeenAttention, wanted: SeenAttention, is_real: Tensor | None) -> tuple[Tensor, Tensor]:
    """The weights of an attention and of that of a teacher, (batch, heads, tokens, tokens), in float32.

    Both are over the heads of the teacher and the tokens of the first, and without dropout. Heads that are gone, or
    have no query-key channel, let all tokens weigh alike, as masks of 0 do.

    Args:
        own: has all of the teacher's heads at most.
        wanted: the teacher's, which sees all tokens.
        is_real: bool (batch, tokens), False where a text is padded; None: nothing is.

    Raises:
        ValueError: heads or tokens have no counterpart in the teacher.
    """
    heads, tokens = wanted.point.logits.heads, own.point.tokens
    scores = _scores(wanted, tokens)
    own_scores = scores.new_zeros(scores.shape)
    if own.projections:
        found = _scores(own, None)
        if found.shape[-1] != scores.shape[-1] or not set(own.point.logits.heads) <= set(heads):
            raise ValueError(
                f"distill_attention: {own.point.logits.num_heads} heads over {found.shape[-1]} tokens cannot be "
                f"compared with the teacher's {len(heads)} over {scores.shape[-1]}; allowed: a teacher of the same "
                "blocks and heads, such as the dense network; leave teacher.name out, or use distill_attention=0"
            )
        places = own_scores.new_tensor([heads.index(head) for head in own.point.logits.heads]).long()
        own_scores = own_scores.index_copy(1, places, found)
    return _softmax(own_scores, is_real), _softmax(scores, is_real)


def _keeping(
    found: dict[str, Tensor], side: str, first: int, logits: LogitsPoint
) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
    def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        channels = output[..., first : first + logits.num_heads * logits.width]
        by_head = channels.reshape(*channels.shape[:-1], logits.num_heads, logits.width)
        found[side] = by_head.transpose(-3, -2)

    return keep


def _scores(seen: SeenAttention, tokens: Tensor | None) -> Tensor:
    queries, keys = (seen.projections[side] for side in ("queries", "keys"))
    if tokens is not None:
        queries, keys = queries[..., tokens, :], keys[..., tokens, :]
    return (seen.point.logits.scale * (queries @ keys.mT)).float()


def _softmax(scores: Tensor, is_real: Tensor | None) -> Tensor:
    if is_real is not None:
        scores = scores.masked_fill(~is_real[:, None, None], float("-inf"))
    return scores.softmax(-1)

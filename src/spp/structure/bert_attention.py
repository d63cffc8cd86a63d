"""The self-attention of a compact BERT."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from spp.structure.modeling_spp import apply_mask, fused_attention, scores_of


class CompactBertSelfAttention(nn.Module):
    """BERT's self-attention of fewer heads, with a query-key width of its own and a value width of its own.

    Scores keep the scale of the full head, so that removing a channel is the same as masking it. Without query-key
    channels all tokens that are seen weigh alike; without heads nothing is put out, and only the bias of the
    projection behind it is left.

    Args:
        source: a self-attention whose Linears have these sizes already; its parts are taken over.
        num_heads: number of heads.
        qk_width: channels of a query or key head.
        v_width: channels of a value head.
    """

    def __init__(self, source: Any, num_heads: int, qk_width: int, v_width: int) -> None:
        super().__init__()
        self.num_heads, self.qk_width, self.v_width = num_heads, qk_width, v_width
        self.scaling: float = source.scaling
        self.query: nn.Linear = source.query
        self.key: nn.Linear = source.key
        self.value: nn.Linear = source.value
        self.dropout: nn.Dropout = source.dropout
        self.training = source.training

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """Attend.

        Args:
            hidden_states: (batch, tokens, channels).
            attention_mask: (batch, 1, tokens, tokens): True where a token is seen, or numbers added to the scores.
            kwargs: what else transformers hands to an attention; an encoder has no use for it.

        Returns:
            (batch, tokens, num_heads * v_width), and None in the place of the weights.
        """
        shape = hidden_states.shape[:-1]
        if not self.num_heads:
            return self.value(hidden_states), None
        q, k = (
            linear(hidden_states).view(*shape, self.num_heads, self.qk_width).transpose(1, 2) if self.qk_width else None
            for linear in (self.query, self.key)
        )
        v = self.value(hidden_states).view(*shape, self.num_heads, self.v_width).transpose(1, 2)
        if q is None or k is None:
            scores = apply_mask(scores_of(v[..., :0], v[..., :0], v, self.scaling), attention_mask, is_causal=False)
            out = self.dropout(scores.softmax(dim=-1)) @ v
        else:
            dropout = self.dropout.p if self.training else 0.0
            out = fused_attention(q, k, v, scale=self.scaling, mask=attention_mask, dropout=dropout)
        return out.transpose(1, 2).reshape(*shape, self.num_heads * self.v_width), None


def head_sizes(attention: Any) -> tuple[int, int, int]:
    """Number of heads, and widths of a query-key and of a value head, of BERT's self-attention, compact or not."""
    if isinstance(attention, CompactBertSelfAttention):
        return attention.num_heads, attention.qk_width, attention.v_width
    return attention.num_attention_heads, attention.attention_head_size, attention.attention_head_size


def kept_heads(attention: Any) -> tuple[int, ...]:
    """Numbers that the heads of a self-attention have in the network that no head had left."""
    return tuple(getattr(attention, "kept_heads", range(head_sizes(attention)[0])))


def with_heads(attention: Any, heads: Sequence[int], qk_width: int, v_width: int) -> nn.Module:
    """The self-attention for Linears that are cut already: of transformers' class where whole heads are left.

    Args:
        attention: of BERT, or a CompactBertSelfAttention; it is used up.
        heads: ascending numbers of the heads that are left.
        qk_width: channels of a query or key head that are left.
        v_width: channels of a value head that are left.
    """
    numbers, made = kept_heads(attention), attention
    is_stock = not isinstance(attention, CompactBertSelfAttention)
    if is_stock and len(heads) and qk_width == v_width == attention.attention_head_size:
        made.num_attention_heads, made.all_head_size = len(heads), len(heads) * v_width
    else:
        made = CompactBertSelfAttention(attention, len(heads), qk_width, v_width)
    made.kept_heads = [numbers[head] for head in heads]
    return made  # type: ignore[no-any-return]

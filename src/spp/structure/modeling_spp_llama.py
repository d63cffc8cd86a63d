"""Llama networks whose units were pruned by spp: their attention, and how one is loaded from its folder.

A copy of this file lies in every folder that holds such a network and that stock code cannot load. It needs torch and
transformers, and not spp:

    AutoModelForCausalLM.from_pretrained("FOLDER", trust_remote_code=True)
"""

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL_WIDTH = 8
"""What the width of a head must be a multiple of for the fast kernels."""


class CompactLlamaAttention(nn.Module):
    """Llama's attention of fewer kv groups (a key head, a value head, and the query heads that read them).

    Queries and keys of a group keep some of its rotary pairs, of which each is turned by its own angle; values have a
    width of their own. Scores keep the scale of the full head, so that removing a channel is the same as masking it.

    Args:
        source: attention whose linears have these sizes already; its parts are taken over.
        num_groups: kv groups, 0 included.
        qk_width: channels of a query or key head, an even number.
        v_width: channels of a value head.
        rotary: int64, (num_groups, qk_width): the places of the channels among the angles of a full head.
    """

    rotary: Tensor

    def __init__(self, source: Any, num_groups: int, qk_width: int, v_width: int, rotary: Tensor) -> None:
        super().__init__()
        self.layer_idx: int = source.layer_idx
        self.num_groups, self.qk_width, self.v_width = num_groups, qk_width, v_width
        self.num_key_value_groups: int = source.num_key_value_groups
        self.head_dim: int = source.head_dim
        self.scaling: float = source.scaling
        self.attention_dropout: float = source.attention_dropout
        self.is_causal = True
        self.q_proj: nn.Linear = source.q_proj
        self.k_proj: nn.Linear = source.k_proj
        self.v_proj: nn.Linear = source.v_proj
        self.o_proj: nn.Linear = source.o_proj
        self.register_buffer("rotary", rotary.to(source.q_proj.weight.device))
        self.training = source.training

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Attend; hidden_states and the result are (batch, tokens, channels), the arguments are transformers'.

        `past_key_values` is what `cache` is called by older versions.
        """
        cache = past_key_values if cache is None else cache
        batch, num_tokens, _ = hidden_states.shape
        if not self.num_groups:
            if cache is not None:  # how many tokens there were is asked of a layer's keys
                nothing = hidden_states.new_zeros(batch, 1, num_tokens, 1)
                cache.update(nothing, nothing, self.layer_idx)
            return self.o_proj(hidden_states[..., :0]), None
        cos, sin = (angles[..., self.rotary].transpose(1, 2) for angles in position_embeddings)
        keys = _turned(_heads(self.k_proj(hidden_states), self.num_groups), cos, sin)
        values = _heads(self.v_proj(hidden_states), self.num_groups)
        if cache is not None:
            keys, values = cache.update(keys, values, self.layer_idx)
        repeats = self.num_key_value_groups
        cos, sin, keys, values = (each.repeat_interleave(repeats, 1) for each in (cos, sin, keys, values))
        queries = _turned(_heads(self.q_proj(hidden_states), self.num_groups * repeats), cos, sin)
        out = attend(
            queries,
            keys,
            values,
            scale=self.scaling,
            mask=attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            is_causal=attention_mask is None and num_tokens > 1,
        )
        return self.o_proj(out.transpose(1, 2).reshape(batch, num_tokens, -1)), None


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, mask: Tensor | None, dropout: float, is_causal: bool
) -> Tensor:
    """scaled_dot_product_attention of queries and keys of one width, 0 included, and values of another.

    Its flash kernels want one width, a multiple of 8, and leave others to slower ones: zeros fill up the narrower ones,
    which change no score, and are cut off again; not where the kernels that write the products out are asked for, which
    is when multiply-adds are counted.
    """
    if not q.shape[-1] or not v.shape[-1]:
        scores = q.new_zeros(*q.shape[:-1], k.shape[-2])
        scores = scores if not q.shape[-1] else q @ k.transpose(-2, -1) * scale
        if is_causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
        return F.dropout(scores.softmax(-1), dropout) @ v
    v_width = v.shape[-1]
    # The switch is the CPU's as well; torch.compile cannot ask for it.
    if torch.compiler.is_dynamo_compiling() or torch.backends.cuda.flash_sdp_enabled():  # type: ignore[no-untyped-call]
        width = -(-max(q.shape[-1], v_width) // KERNEL_WIDTH) * KERNEL_WIDTH
        q, k, v = (x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal, scale=scale)
    return out[..., :v_width]


def rotary_places(attention: Any) -> Tensor:
    """The places of the channels of every kv group among the angles of a full head, (groups, query-key width)."""
    if isinstance(attention, CompactLlamaAttention):
        return attention.rotary
    places = torch.arange(attention.head_dim, device=attention.k_proj.weight.device)
    return places.expand(attention.k_proj.out_features // attention.head_dim, -1)


def with_groups(attention: Any, num_groups: int, qk_width: int, v_width: int, rotary: Tensor) -> nn.Module:
    """The attention for linears that are cut already: of the stock class where it can have these widths.

    Args:
        attention: of Llama, or one of those here; it is used up.
        num_groups: kv groups that are left.
        qk_width: channels of a query or key head that are left.
        v_width: channels of a value head that are left.
        rotary: as of CompactLlamaAttention.
    """
    full: Sequence[int] = range(attention.head_dim)
    is_stock = not isinstance(attention, CompactLlamaAttention) and num_groups > 0
    if is_stock and qk_width == v_width == attention.head_dim and all(row == list(full) for row in rotary.tolist()):
        return attention  # type: ignore[no-any-return]
    return CompactLlamaAttention(attention, num_groups, qk_width, v_width, rotary)


def _heads(channels: Tensor, num_heads: int) -> Tensor:
    """(batch, tokens, heads * width) to (batch, heads, tokens, width)."""
    batch, num_tokens, width = channels.shape
    return channels.view(batch, num_tokens, num_heads, width // num_heads).transpose(1, 2)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: channel i and the one half a head later are a pair."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def layer_sizes(model: Any) -> list[dict[str, int]]:
    """The widths of every decoder layer, as config.json lists them under `spp_layers`."""
    sizes = []
    for layer in model.model.layers:
        attention, rotary = layer.self_attn, rotary_places(layer.self_attn)
        v_width = getattr(attention, "v_width", attention.head_dim)
        sizes.append(
            {
                "intermediate_size": layer.mlp.down_proj.in_features,
                "num_key_value_heads": len(rotary),
                "qk_width": rotary.shape[1],
                "v_width": v_width,
            }
        )
    return sizes


def _resize(model: Any) -> None:
    """Give the layers of a dense network the widths of its configuration; the weights do not matter."""
    for layer, sizes in zip(model.model.layers, model.config.spp_layers, strict=True):
        mlp, attention = layer.mlp, layer.self_attn
        mlp.intermediate_size = width = sizes["intermediate_size"]
        mlp.gate_proj, mlp.up_proj = (_linear(each, num_outputs=width) for each in (mlp.gate_proj, mlp.up_proj))
        mlp.down_proj = _linear(mlp.down_proj, num_inputs=width)
        groups, qk_width, v_width = (sizes[name] for name in ("num_key_value_heads", "qk_width", "v_width"))
        repeats = attention.num_key_value_groups
        attention.q_proj = _linear(attention.q_proj, num_outputs=groups * repeats * qk_width)
        attention.k_proj = _linear(attention.k_proj, num_outputs=groups * qk_width)
        attention.v_proj = _linear(attention.v_proj, num_outputs=groups * v_width)
        attention.o_proj = _linear(attention.o_proj, num_inputs=groups * repeats * v_width)
        if not groups or (qk_width, v_width) != (attention.head_dim, attention.head_dim):
            rotary = torch.zeros(groups, qk_width, dtype=torch.long)
            layer.self_attn = CompactLlamaAttention(attention, groups, qk_width, v_width, rotary)


def _linear(source: nn.Linear, *, num_inputs: int | None = None, num_outputs: int | None = None) -> nn.Linear:
    num_inputs = source.in_features if num_inputs is None else num_inputs
    num_outputs = source.out_features if num_outputs is None else num_outputs
    if (num_inputs, num_outputs) == (source.in_features, source.out_features):
        return source
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors is a no-op")
        return nn.Linear(num_inputs, num_outputs, bias=source.bias is not None, dtype=source.weight.dtype)


@cache
def _hugging_face_classes() -> dict[str, Any]:
    """The classes for transformers, which is imported only where they are asked for."""
    from transformers import LlamaConfig, LlamaForCausalLM

    class SppLlamaConfig(LlamaConfig):  # type: ignore[misc]
        model_type = "spp_llama"

        def __init__(self, spp_layers: Any = (), **values: Any) -> None:
            self.spp_layers = list(spp_layers)
            super().__init__(**values)

    class SppLlamaForCausalLM(LlamaForCausalLM):  # type: ignore[misc]
        config_class = SppLlamaConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            _resize(self)

    made = {"SppLlamaConfig": SppLlamaConfig, "SppLlamaForCausalLM": SppLlamaForCausalLM}
    for name, class_ in made.items():
        class_.__module__, class_.__qualname__ = __name__, name
    return made


def __getattr__(name: str) -> Any:
    if name in ("SppLlamaConfig", "SppLlamaForCausalLM"):
        return _hugging_face_classes()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

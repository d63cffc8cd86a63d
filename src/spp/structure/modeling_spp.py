"""Networks that were pruned by spp: their parts, and how one is loaded from its folder.

A copy of this file lies in every folder that spp writes. It needs torch, timm and safetensors, transformers where the
network is one of transformers, and not spp:

    import modeling_spp                                   # with the folder on Python's path
    network = modeling_spp.load("FOLDER")                 # or
    network = timm.create_model("spp_member", pretrained=True, folder="FOLDER")

Transformers takes it by AutoModelForImageClassification.from_pretrained("FOLDER", trust_remote_code=True).

The folder's config.json has timm's keys; under "spp" it lists the sizes of each attention and MLP.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.layers.attention import Attention, AttentionRope
from timm.layers.mlp import GluMlp
from timm.layers.pos_embed_sincos import rope_rotate_half, rot
from timm.models import is_model, register_model
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from timm.models.swin_transformer import WindowAttention, get_relative_position_index
from timm.models.vision_transformer import Block
from torch import Tensor, nn

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
FORMAT = 1
"""Of the entry "spp" in config.json."""
KERNEL_WIDTH = 8
"""What the width of a head must be a multiple of for the fast kernels."""


def split_heads(qkv: Tensor, num_heads: int, qk_width: int, v_width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Take the output of a fused qkv Linear apart.

    Args:
        qkv: shape (batch, tokens, num_heads * (2 * qk_width + v_width)).
        num_heads: number of heads, 0 included.
        qk_width: channels of a query or key head.
        v_width: channels of a value head.

    Returns:
        Queries and keys of shape (batch, num_heads, tokens, qk_width), values (batch, num_heads, tokens,
        v_width).
    """
    batch, tokens, _ = qkv.shape
    first_key, first_value = num_heads * qk_width, 2 * num_heads * qk_width
    if not qk_width:
        v = qkv.reshape(batch, tokens, num_heads, v_width).transpose(1, 2)
        return v[..., :0], v[..., :0], v
    q = qkv[..., :first_key].reshape(batch, tokens, num_heads, qk_width)
    k = qkv[..., first_key:first_value].reshape(batch, tokens, num_heads, qk_width)
    v = qkv[..., first_value:].reshape(batch, tokens, num_heads, v_width)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def scores_of(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Scores of queries and keys, (batch, num_heads, tokens, tokens): all 0 without a query-key channel.

    Written so that ONNX can run it: it has no reshape and no product of tensors without elements.
    """
    if q.shape[-1]:
        return (q * scale) @ k.transpose(-2, -1)
    batch, num_heads, tokens, _ = v.shape
    return v.new_zeros(batch, num_heads, tokens, tokens)


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, mask: Tensor | None, dropout: float, is_causal: bool = False
) -> Tensor:
    """scaled_dot_product_attention of queries and keys of one width and values of another, (..., tokens, v width).

    Its flash kernels want one width, a multiple of 8, and leave others to slower ones: zeros fill up the narrower ones.
    They change no score and no other channel, and are cut off again. Where the kernels that write the products out are
    asked for, which is when multiply-adds are counted, they would be of no use.
    """
    v_width = v.shape[-1]
    # The switch is the CPU's as well; torch.compile cannot ask for it.
    if torch.compiler.is_dynamo_compiling() or torch.backends.cuda.flash_sdp_enabled():  # type: ignore[no-untyped-call]
        width = -(-max(q.shape[-1], v_width) // KERNEL_WIDTH) * KERNEL_WIDTH
        q, k, v = (x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal, scale=scale)
    return out[..., :v_width]


class CompactAttention(nn.Module):
    """timm's Attention of fewer heads, with a query-key width of its own and a value width of its own.

    Scores keep the scale of the full head, so that removing a channel is the same as masking it. Fused
    attention is used where the source used it. Without query-key channels the products are written out, for the scores
    are the mask alone; without heads only the projection's bias is left.

    Args:
        source: attention whose `qkv` and `proj` have these sizes already; its parts are taken over.
        num_heads: number of heads.
        qk_width: channels of a query or key head.
        v_width: channels of a value head.
    """

    def __init__(self, source: Any, num_heads: int, qk_width: int, v_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale: float = source.scale
        self.fused_attn: bool = source.fused_attn
        self.qk_width = qk_width
        self.v_width = v_width
        self.qkv: nn.Linear = source.qkv
        self.attn_drop: nn.Dropout = source.attn_drop
        self.proj: nn.Linear = source.proj
        self.proj_drop: nn.Dropout = source.proj_drop
        self.training = source.training

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attend; x and the result are (batch, tokens, channels), the arguments are timm's."""
        return self._attend(self.qkv(x), attn_mask, is_causal)

    def _attend(self, qkv: Tensor, attn_mask: Tensor | None, is_causal: bool, angles: Tensor | None = None) -> Tensor:
        batch, tokens, _ = qkv.shape
        if not self.num_heads:
            out: Tensor = self.proj_drop(self.proj(qkv[..., :0]))
            return out
        q, k, v = split_heads(qkv, self.num_heads, self.qk_width, self.v_width)
        if angles is not None and self.qk_width:
            q, k = self._turned(q, angles), self._turned(k, angles)
        if self.fused_attn and self.qk_width and self.v_width:
            dropout = self.attn_drop.p if self.training else 0.0
            x = fused_attention(q, k, v, scale=self.scale, mask=attn_mask, dropout=dropout, is_causal=is_causal)
        else:
            scores = apply_mask(scores_of(q, k, v, self.scale), attn_mask, is_causal)
            x = self.attn_drop(scores.softmax(dim=-1)) @ v
        x = x.transpose(1, 2).reshape(batch, tokens, self.num_heads * self.v_width)
        out = self.proj_drop(self.proj(x))
        return out

    def _turned(self, x: Tensor, angles: Tensor) -> Tensor:
        """Queries or keys turned by rotary positions, where an attention has them."""
        raise NotImplementedError


def apply_mask(scores: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
    """Mask scores as scaled_dot_product_attention does: True in a bool mask keeps, a float mask is added."""
    if is_causal:
        return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
    if attn_mask is None:
        return scores
    if attn_mask.dtype == torch.bool:
        return scores.masked_fill(~attn_mask, float("-inf"))
    return scores + attn_mask


class CompactWindowAttention(WindowAttention):
    """timm's WindowAttention of fewer heads, with a query-key width of its own and a value width of its own.

    Scores keep the scale of the full head; bias table and window bookkeeping are the source's, so that
    `set_input_size` works on the compact model. Fused attention is used where the source used it (timm's default here
    is not to). Without query-key channels the products are written out; without heads only the projection's bias is
    left.

    Args:
        source: attention whose `qkv`, `proj` and bias table have these sizes already; its parts are taken over.
        num_heads: number of heads.
        qk_width: channels of a query or key head.
        v_width: channels of a value head.
    """

    relative_position_index: Tensor

    def __init__(self, source: Any, num_heads: int, qk_width: int, v_width: int) -> None:
        nn.Module.__init__(self)
        self.dim = source.dim
        self.window_size = source.window_size
        self.window_area = source.window_area
        self.num_heads = num_heads
        self.scale = source.scale
        self.fused_attn = source.fused_attn
        self.qk_width = qk_width
        self.v_width = v_width
        self.relative_position_bias_table = source.relative_position_bias_table
        self.register_buffer("relative_position_index", source.relative_position_index, persistent=False)
        self.qkv = source.qkv
        self.attn_drop = source.attn_drop
        self.proj = source.proj
        self.proj_drop = source.proj_drop
        self.softmax = source.softmax
        self.training = source.training

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend inside windows.

        Args:
            x: (windows of all samples, tokens of a window, channels); so is the result.
            mask: (windows of one sample, tokens, tokens), added to the scores; None without a shift.
        """
        windows, tokens, _ = x.shape
        qkv = self.qkv(x)
        if not self.num_heads and torch.compiler.is_exporting():  # in training every parameter shall have a gradient
            out: Tensor = self.proj_drop(self.proj(qkv[..., :0]))
            return out
        q, k, v = split_heads(qkv, self.num_heads, self.qk_width, self.v_width)
        bias = self._get_rel_pos_bias()
        if self.fused_attn and self.qk_width and self.v_width:
            bias = bias if mask is None else bias + mask.repeat(windows // len(mask), 1, 1).unsqueeze(1)
            dropout = self.attn_drop.p if self.training else 0.0
            x = fused_attention(q, k, v, scale=self.scale, mask=bias, dropout=dropout)
        else:
            scores = scores_of(q, k, v, self.scale) + bias
            if mask is not None:
                by_sample = scores.view(windows // len(mask), len(mask), self.num_heads, tokens, tokens)
                scores = (by_sample + mask.unsqueeze(1)).view_as(scores)
            x = self.attn_drop(self.softmax(scores)) @ v
        x = x.transpose(1, 2).reshape(windows, tokens, self.num_heads * self.v_width)
        out = self.proj_drop(self.proj(x))
        return out

    def set_window_size(self, window_size: tuple[int, int]) -> None:
        """Change the window and interpolate the position biases."""
        if self.num_heads:
            super().set_window_size(window_size)
            return
        # There is nothing to interpolate, which timm does not expect.
        height, width = self.window_size = window_size
        self.window_area = height * width
        table = self.relative_position_bias_table
        empty = table.new_empty((2 * height - 1) * (2 * width - 1), 0)
        self.relative_position_bias_table = nn.Parameter(empty, requires_grad=table.requires_grad)
        self.relative_position_index = get_relative_position_index(height, width, device=table.device)

    def _get_rel_pos_bias(self) -> Tensor:
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        return bias.view(self.window_area, self.window_area, self.num_heads).permute(2, 0, 1).contiguous().unsqueeze(0)


class CompactBiasedAttention(CompactAttention):
    """CompactAttention whose queries and values have biases of their own, and keys none, as in BEiT and EVA.

    timm's attentions add them within one function that calls no module. Here what it makes passes `projected`, which
    changes nothing and is a place for hooks. Arguments are those of CompactAttention.
    """

    def __init__(self, source: Any, num_heads: int, qk_width: int, v_width: int) -> None:
        super().__init__(source, num_heads, qk_width, v_width)
        self.q_bias: nn.Parameter | None = getattr(source, "q_bias", None)
        self.v_bias: nn.Parameter | None = getattr(source, "v_bias", None)
        self.projected = nn.Identity()

    def _projected(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        if self.q_bias is not None and self.v_bias is not None:
            qkv = qkv + torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        projected: Tensor = self.projected(qkv)
        return projected


class CompactBeitAttention(CompactBiasedAttention):
    """timm's BEiT attention, whose heads have relative position biases of their own, of fewer heads and narrower ones.

    Arguments are those of CompactAttention; the bias table has its size already, too.
    """

    relative_position_index: Tensor | None
    k_bias = None

    def __init__(self, source: Any, num_heads: int, qk_width: int, v_width: int) -> None:
        super().__init__(source, num_heads, qk_width, v_width)
        self.window_size = source.window_size
        self.relative_position_bias_table: nn.Parameter | None = source.relative_position_bias_table
        self.register_buffer("relative_position_index", source.relative_position_index, persistent=False)

    def forward(self, x: Tensor, shared_rel_pos_bias: None = None) -> Tensor:  # type: ignore[override]
        """Attend; x and the result are (batch, tokens, channels). A bias that layers share is not known here."""
        has_bias = self.relative_position_bias_table is not None and self.num_heads
        return self._attend(self._projected(x), self._get_rel_pos_bias() if has_bias else None, is_causal=False)

    _get_rel_pos_bias: Any = BeitAttention._get_rel_pos_bias
    _init_buffers: Any = BeitAttention._init_buffers
    set_window_size: Any = BeitAttention.set_window_size


class CompactEvaAttention(CompactBiasedAttention):
    """timm's EvaAttention or AttentionRope, with one map for queries, keys and values, of fewer and narrower heads.

    Where positions are rotary, queries and keys of a head keep some of its rotary pairs, each turned by its own angle.

    Args:
        source: attention whose `qkv`, `proj` and biases have these sizes already; its parts are taken over.
        num_heads: number of heads.
        qk_width: channels of a query or key head.
        v_width: channels of a value head.
        rotary: int64, (num_heads, qk_width): the places of the channels among the angles of a full head; None: those
            of the source, and where it has others, of weights that are yet to be loaded.
        head_numbers: int64, (num_heads,): of the heads among those that have angles; None: likewise.
    """

    rotary: Tensor
    head_numbers: Tensor

    def __init__(
        self,
        source: Any,
        num_heads: int,
        qk_width: int,
        v_width: int,
        rotary: Tensor | None = None,
        head_numbers: Tensor | None = None,
    ) -> None:
        super().__init__(source, num_heads, qk_width, v_width)
        self.num_prefix_tokens: int = source.num_prefix_tokens
        self.rotate_half: bool = source.rotate_half
        full = getattr(source, "full_size", (source.num_heads, getattr(source, "head_dim", 0)))
        self.full_size: tuple[int, int] = full
        places = rotary_places(source)[:1, :qk_width].expand(num_heads, -1) if rotary is None else rotary
        numbers = torch.arange(num_heads) if head_numbers is None else head_numbers
        # What has all its heads and channels has the names of timm's alone.
        is_whole, device = full == (num_heads, qk_width), source.proj.weight.device
        self.register_buffer("rotary", places.to(device).contiguous(), persistent=not is_whole)
        self.register_buffer("head_numbers", numbers.to(device), persistent=not is_whole)

    def forward(  # type: ignore[override]
        self, x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Attend; x and the result are (batch, tokens, channels), the arguments are timm's."""
        return self._attend(self._projected(x), attn_mask, is_causal, rope)

    def _turned(self, x: Tensor, angles: Tensor) -> Tensor:
        sines, cosines = (self._own(each).to(x.dtype) for each in angles.chunk(2, dim=-1))
        first, rest = x[:, :, : self.num_prefix_tokens], x[:, :, self.num_prefix_tokens :]
        other = rope_rotate_half(rest) if self.rotate_half else rot(rest)
        return torch.cat([first, rest * cosines + other * sines], dim=2)

    def _own(self, values: Tensor) -> Tensor:
        """Of values for all heads and channels, (..., [heads,] tokens, channels), those of its own."""
        values = values.unsqueeze(0) if values.ndim == 2 else values
        if values.shape[-3] > 1:
            values = values.index_select(-3, self.head_numbers)
        return torch.take_along_dim(values, self.rotary[:, None], dim=-1)


def rotary_places(attention: Any) -> Tensor:
    """The places of an EVA attention's query-key channels among the angles of a full head, (heads, width)."""
    if isinstance(attention, CompactEvaAttention):
        return attention.rotary
    return torch.arange(attention.head_dim).expand(attention.num_heads, -1)


class CompactMultiheadAttention(CompactAttention):
    """torch's nn.MultiheadAttention as torchvision calls it, of tokens to themselves, with Linears that can be cut.

    Its weights are called as torch calls them in `state_dict`, so that what has all its channels loads into either.

    Args:
        source: nn.MultiheadAttention of the widths it was built with, or one of these whose Linears have these sizes
            already; its parameters are taken over.
        num_heads: number of heads.
        qk_width: channels of a query or key head.
        v_width: channels of a value head.
    """

    def __init__(self, source: Any, num_heads: int, qk_width: int, v_width: int) -> None:
        if isinstance(source, nn.MultiheadAttention):
            head_width: int = source.head_dim
            parts: dict[str, Any] = {
                "scale": head_width**-0.5,
                "qkv": _linear_of(source.in_proj_weight, source.in_proj_bias),
                "proj": _linear_of(source.out_proj.weight, source.out_proj.bias),
                "attn_drop": nn.Dropout(source.dropout),
            }
            source = SimpleNamespace(**parts, fused_attn=True, proj_drop=nn.Identity(), training=source.training)
        super().__init__(source, num_heads, qk_width, v_width)
        self.register_state_dict_post_hook(_with_torchs_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_without_torchs_names)  # type: ignore[no-untyped-call]

    def forward(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> tuple[Tensor, None]:  # type: ignore[override]
        """Attend; query, key and value are the same (batch, tokens, channels), and so is the result."""
        return super().forward(query), None


_TORCHS_NAMES = {"qkv.weight": "in_proj_weight", "qkv.bias": "in_proj_bias"} | {
    f"proj.{kind}": f"out_proj.{kind}" for kind in ("weight", "bias")
}


def _with_torchs_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for own, name in _TORCHS_NAMES.items():
        if prefix + own in state:
            state[prefix + name] = state.pop(prefix + own)


def _without_torchs_names(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    for own, name in _TORCHS_NAMES.items():
        if prefix + name in state:
            state[prefix + own] = state.pop(prefix + name)


def _linear_of(weight: Any, bias: Any) -> nn.Linear:
    """A Linear of these parameters."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = weight
    if bias is not None:
        made.bias = bias
    return made


class CompactSeparateAttention(nn.Module):
    """Attention of transformers with Linears for queries, keys and values, with fewer heads and with widths of its own.

    Scores keep the scale of the full head. Without query-key channels all tokens weigh alike; without heads only the
    output's bias is left.

    Args:
        source: attention whose four Linears have these sizes already; its parts are taken over.
        num_heads: number of heads.
        qk_width: channels of a query or key head.
        v_width: channels of a value head.
    """

    def __init__(self, source: Any, num_heads: int, qk_width: int, v_width: int) -> None:
        super().__init__()
        self.num_attention_heads, self.qk_width, self.v_width = num_heads, qk_width, v_width
        self.scaling: float = source.scaling
        self.attention_dropout: float = source.attention_dropout
        self.q_proj: nn.Linear = source.q_proj
        self.k_proj: nn.Linear = source.k_proj
        self.v_proj: nn.Linear = source.v_proj
        self.o_proj: nn.Linear = source.o_proj
        self.training = source.training

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """Attend; hidden_states and the result are (batch, tokens, channels).

        Args:
            hidden_states: what is attended to.
            attention_mask: (batch, 1, tokens, tokens): True where a token is seen, or numbers added to the scores.
            kwargs: what else transformers hands to an attention; an encoder has no use for it.
        """
        if not self.num_attention_heads:
            return self.o_proj(hidden_states[..., :0]), None
        v = self._heads(self.v_proj, hidden_states, self.v_width)
        if self.qk_width and self.v_width:
            q, k = (self._heads(linear, hidden_states, self.qk_width) for linear in (self.q_proj, self.k_proj))
            dropout = self.attention_dropout if self.training else 0.0
            out = fused_attention(q, k, v, scale=self.scaling, mask=attention_mask, dropout=dropout)
        else:
            scores = apply_mask(scores_of(v[..., :0], v[..., :0], v, self.scaling), attention_mask, is_causal=False)
            out = F.dropout(scores.softmax(dim=-1), self.attention_dropout, self.training) @ v
        return self.o_proj(out.transpose(1, 2).flatten(2)), None

    def _heads(self, linear: nn.Linear, hidden_states: Tensor, width: int) -> Tensor:
        """(batch, heads, tokens, width)."""
        shape = (*hidden_states.shape[:-1], self.num_attention_heads, width)
        heads: Tensor = linear(hidden_states).view(shape).transpose(1, 2)
        return heads


class ShorterBlock(Block):
    """timm's Block that first drops tokens for good, the same positions of every image.

    Args:
        source: the block; its parts are taken over under their names.
        kept: ascending numbers, of the tokens that reach the block, of those that stay.
    """

    kept: Tensor

    def __init__(self, source: Block, kept: Tensor) -> None:
        nn.Module.__init__(self)
        for name, part in source.named_children():
            self.add_module(name, part)
        self.register_buffer("kept", kept, persistent=False)
        self.training = source.training

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """From (batch, tokens, channels) to (batch, kept tokens, channels); a mask is over the kept tokens."""
        out: Tensor = super().forward(x.index_select(1, self.kept), attn_mask, is_causal)
        return out


COMPACT_CLASSES: dict[type[nn.Module], Any] = {
    Attention: CompactAttention,
    WindowAttention: CompactWindowAttention,
    BeitAttention: CompactBeitAttention,
    EvaAttention: CompactEvaAttention,
    AttentionRope: CompactEvaAttention,
    nn.MultiheadAttention: CompactMultiheadAttention,
}
"""What stands for which attention of timm, where its widths are no longer those of the stock class."""


def is_separate(attention: Any) -> bool:
    """Whether an attention has Linears for queries, keys and values, as those of transformers, and not one for all."""
    return getattr(attention, "q_proj", None) is not None


def attention_sizes(attention: Any) -> dict[str, Any]:
    """Number of heads, widths of a query-key and of a value head, and the factor of the scores, of any of these."""
    if is_separate(attention):
        num_heads, scale = attention.num_attention_heads, attention.scaling
        width = attention.q_proj.out_features // max(num_heads, 1)
    elif isinstance(attention, nn.MultiheadAttention):
        num_heads, width = attention.num_heads, attention.head_dim
        scale = width**-0.5
    else:
        num_heads, scale = attention.num_heads, attention.scale
        width = attention.qkv.out_features // 3 // max(num_heads, 1)
    return {
        "num_heads": num_heads,
        "qk_width": getattr(attention, "qk_width", width),
        "v_width": getattr(attention, "v_width", width),
        "scale": float(scale),
    }


def numbers_of_heads(attention: Any) -> list[int]:
    """The numbers that the heads of an attention have in the network that no head had left, as far as it is known."""
    numbers: list[int] = list(getattr(attention, "kept_heads", range(attention_sizes(attention)["num_heads"])))
    return numbers


def with_heads(attention: Any, heads: Sequence[int], qk_width: int, v_width: int) -> nn.Module:
    """The attention for linears that are cut already: of the stock class where it can have these widths.

    Args:
        attention: of timm or transformers, or one of those here; it is used up.
        heads: ascending numbers of the heads that are left.
        qk_width: channels of a query or key head that are left.
        v_width: channels of a value head that are left.
    """
    numbers, stock_width = numbers_of_heads(attention), getattr(attention, "head_dim", 0)
    made: Any = attention
    can_be_stock = len(heads) > 0 and qk_width == v_width == stock_width
    if type(attention) is Attention and can_be_stock:
        made.num_heads, made.attn_dim = len(heads), len(heads) * stock_width
    elif is_separate(attention):
        if can_be_stock and not isinstance(attention, CompactSeparateAttention):
            made.num_attention_heads = len(heads)  # its forward takes it from what the Linears put out
        else:
            made = CompactSeparateAttention(attention, len(heads), qk_width, v_width)
    else:
        compact_class = COMPACT_CLASSES.get(type(attention), type(attention))
        made = compact_class(attention, len(heads), qk_width, v_width)
    made.kept_heads = [numbers[head] for head in heads]
    return made  # type: ignore[no-any-return]


def opened(attention: Any) -> nn.Module:
    """An equal attention of the same parameters, whose queries, keys and values are put out by a module."""
    sizes = attention_sizes(attention)
    made: nn.Module = COMPACT_CLASSES[type(attention)](
        attention, sizes["num_heads"], sizes["qk_width"], sizes["v_width"]
    )
    return made


def load(folder: str | Path) -> nn.Module:
    """The network of a folder, in evaluation mode, on the CPU.

    Raises:
        ValueError: one line, if a file is missing or broken, or the weights do not have the sizes in config.json.
    """
    folder = Path(folder)
    network = build(read_config(folder))
    try:
        weights = load_file(folder / WEIGHTS_FILE)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{folder / WEIGHTS_FILE}: it cannot be read ({reason}); allowed: the file that spp wrote; copy it again"
        ) from None
    _check_shapes(network, weights, folder)
    network.load_state_dict(weights)
    return network.eval()


def read_config(folder: str | Path) -> dict[str, Any]:
    """What config.json says.

    Raises:
        ValueError: one line, if it is missing, broken, or not written by spp.
    """
    file = Path(folder) / CONFIG_FILE
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise ValueError(f"{file}: it cannot be read ({reason}); allowed: the file that spp wrote") from None
    own = config.get("spp") if isinstance(config, dict) else None
    if not isinstance(own, dict) or own.get("format") != FORMAT or not isinstance(own.get("modules"), dict):
        raise ValueError(f"{file}: it has no entry 'spp' of format {FORMAT}; allowed: the file that spp wrote")
    return dict(config)


def build(config: Mapping[str, Any]) -> nn.Module:
    """The network that a config.json describes, with weights at random."""
    network = _dense_network(config)
    before: list[int] | None = None
    for name, kept in config["spp"].get("tokens", {}).items():
        places = kept if before is None else [before.index(token) for token in kept]
        if before is None or kept != before:
            network.set_submodule(name, ShorterBlock(network.get_submodule(name), torch.tensor(places)))  # type: ignore[arg-type]
        before = list(kept)
    for name, sizes in config["spp"]["modules"].items():
        module: Any = network.get_submodule(name)
        if "hidden" in sizes:
            _resize_mlp(module, sizes["hidden"])
        else:
            network.set_submodule(name, _resized_attention(module, **sizes))
    return network


def transform(config: Mapping[str, Any]) -> Any:
    """The function that makes an input, (channels, height, width), of a PIL image."""
    from timm.data import create_transform, resolve_data_config

    return create_transform(**resolve_data_config({}, pretrained_cfg=dict(config["pretrained_cfg"])))


def _dense_network(config: Mapping[str, Any]) -> nn.Module:
    own, factory = config["spp"], config["spp"].get("factory")
    if "transformers" in own:
        return _network_of_transformers(own["transformers"], config["model_args"])
    if factory is None:
        overlay = dict(config.get("pretrained_cfg", {}))
        network: nn.Module = timm.create_model(
            config["architecture"], pretrained_cfg_overlay=overlay, **config.get("model_args", {})
        )
        return network
    module, _, name = factory.partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"config.json: its network is made by {factory!r}, which cannot be imported ({error}); allowed: a function "
            f"that can be; put the folder of {module.partition('.')[0]} on PYTHONPATH"
        ) from None
    made: nn.Module = make(**config.get("model_args", {}))
    return made


def _network_of_transformers(name: str, values: Mapping[str, Any]) -> nn.Module:
    try:
        import transformers

        made = getattr(transformers, name)
        is_network = issubclass(made, transformers.PreTrainedModel)
    except (ImportError, AttributeError, TypeError):
        is_network = False
    if not is_network:
        raise ValueError(
            f"config.json: its network is the {name!r} of transformers, which is not here; allowed: transformers 5; "
            "pip install 'transformers>=5,<6'"
        )
    network: nn.Module = made(made.config_class.from_dict(dict(values)))
    return network


def _resize_mlp(mlp: Any, num_units: int) -> None:
    firsts, second = mlp_parts(mlp)
    for first in firsts:
        _resize(mlp.get_submodule(first), num_outputs=num_units * rows_per_unit(mlp))
    _resize(mlp.get_submodule(second), num_inputs=num_units)


def mlp_parts(mlp: nn.Module) -> tuple[tuple[str, ...], str]:
    """The names of the Linears that put out the hidden channels of an MLP, and of the one that takes them in."""
    known = {"down_proj": ("gate_proj", "up_proj"), "fc2": ("fc1",), "3": ("0",)}
    if hasattr(mlp, "fc1_g"):
        return ("fc1_g", "fc1_x"), "fc2"
    return next((firsts, second) for second, firsts in known.items() if hasattr(mlp, second))


def rows_per_unit(mlp: nn.Module) -> int:
    """How many rows each first map of an MLP has for a hidden channel: 2 where one holds the gate as well."""
    return 2 if isinstance(mlp, GluMlp) else 1


def _resized_attention(attention: Any, num_heads: int, qk_width: int, v_width: int, scale: float) -> nn.Module:
    if is_separate(attention):
        for linear, width in ((attention.q_proj, qk_width), (attention.k_proj, qk_width), (attention.v_proj, v_width)):
            _resize(linear, num_outputs=num_heads * width)
        _resize(attention.o_proj, num_inputs=num_heads * v_width)
        resized: Any = with_heads(attention, range(num_heads), qk_width, v_width)
        resized.scaling = scale
        return resized  # type: ignore[no-any-return]
    if isinstance(attention, nn.MultiheadAttention):
        attention = opened(attention)
    _resize(attention.qkv, num_outputs=num_heads * (2 * qk_width + v_width))
    _resize(attention.proj, num_inputs=num_heads * v_width)
    for name, width in (("q_bias", qk_width), ("v_bias", v_width)):
        bias = getattr(attention, name, None)
        if bias is not None:
            setattr(attention, name, nn.Parameter(bias.new_empty(num_heads * width)))
    if getattr(attention, "relative_position_bias_table", None) is not None:
        table = attention.relative_position_bias_table
        attention.relative_position_bias_table = nn.Parameter(table.new_empty(len(table), num_heads))
    made: Any = with_heads(attention, range(num_heads), qk_width, v_width)
    made.scale = scale
    return made  # type: ignore[no-any-return]


def _resize(linear: nn.Linear, *, num_outputs: int | None = None, num_inputs: int | None = None) -> None:
    rows = linear.out_features if num_outputs is None else num_outputs
    columns = linear.in_features if num_inputs is None else num_inputs
    if (rows, columns) == (linear.out_features, linear.in_features):
        return
    linear.weight = nn.Parameter(linear.weight.new_zeros(rows, columns))
    if linear.bias is not None and rows != linear.out_features:
        linear.bias = nn.Parameter(linear.bias.new_zeros(rows))
    linear.out_features, linear.in_features = rows, columns


def _check_shapes(network: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    for name in (*expected, *(name for name in found if name not in expected)):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{folder / WEIGHTS_FILE}: {name} is {_shape_text(found.get(name))} there and "
                f"{_shape_text(expected.get(name))} by {CONFIG_FILE}; allowed: files that fit; copy both again"
            )


def _shape_text(shape: Sequence[int] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape)) or "a number"


def spp_member(pretrained: bool = False, *, folder: str | Path, **kwargs: Any) -> nn.Module:
    """The entry point for timm.create_model("spp_member", pretrained=True, folder="FOLDER")."""
    return load(folder) if pretrained else build(read_config(folder))


if not is_model("spp_member"):  # a copy of this file may be here already
    register_model(spp_member)


@cache
def _hugging_face_classes() -> dict[str, Any]:
    """The classes for transformers, which is imported only where they are asked for."""
    from transformers import PretrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import ImageClassifierOutput

    class SppConfig(PretrainedConfig):  # type: ignore[misc]
        model_type = "spp"

    class SppForImageClassification(PreTrainedModel):  # type: ignore[misc]
        config_class = SppConfig
        main_input_name = "pixel_values"

        def __init__(self, config: Any, network: nn.Module | None = None) -> None:
            super().__init__(config)
            self.network = build(config.to_dict()) if network is None else network

        @classmethod
        def from_pretrained(cls, folder: str | Path, *args: Any, config: Any = None, **kwargs: Any) -> Any:
            """From a folder, or the name of one on the Hub."""
            if not Path(folder).is_dir():
                from huggingface_hub import snapshot_download

                words = ("revision", "token", "cache_dir", "local_files_only")
                folder = snapshot_download(str(folder), **{word: kwargs[word] for word in words if word in kwargs})
            network = load(folder)
            return cls(SppConfig(**read_config(folder)) if config is None else config, network).eval()

        def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any) -> Any:
            """Scores of the classes, (batch, classes), and the cross entropy where labels (batch,) are given."""
            logits = self.network(pixel_values)
            logits = getattr(logits, "logits", logits)
            loss = None if labels is None else F.cross_entropy(logits, labels)
            return ImageClassifierOutput(loss=loss, logits=logits)

    made = {"SppConfig": SppConfig, "SppForImageClassification": SppForImageClassification}
    for name, class_ in made.items():
        class_.__module__, class_.__qualname__ = __name__, name
    return made


def __getattr__(name: str) -> Any:
    if name in ("SppConfig", "SppForImageClassification"):
        return _hugging_face_classes()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

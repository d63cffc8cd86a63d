"""CLIP and BERT that were pruned by spp: their attentions, and how they are loaded from their folders.

A copy of this file lies in every folder of a CLIP or BERT that spp writes. It needs torch, transformers and
safetensors, and not spp:

    import modeling_transformers                          # with the folder on Python's path
    network = modeling_transformers.load("FOLDER")        # of transformers' class, such as CLIPModel, but smaller

The folder's config.json is that of transformers; under "spp" it lists the sizes of each attention and MLP. Where only
whole heads and hidden channels of MLPs are gone, transformers itself loads it by from_pretrained("FOLDER") of the class
that config.json names, too. Stock code needs as many heads as there were, so that those that are gone are zeros in the
file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    CLIPModel,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
)
from transformers.models.bert.modeling_bert import BertAttention, BertSelfAttention
from transformers.models.clip.modeling_clip import CLIPAttention

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
_BERTS = (BertModel, BertForSequenceClassification, BertForTokenClassification, BertForQuestionAnswering)
CLASSES: dict[str, Any] = {
    each.__name__: each for each in (CLIPModel, CLIPVisionModelWithProjection, CLIPTextModelWithProjection, *_BERTS)
}
"""What a folder may hold, by the name in config.json."""
TOWERS = {"vision": "CLIPVisionModelWithProjection", "text": "CLIPTextModelWithProjection"}
"""What each encoder of a CLIPModel is by itself."""
KERNEL_WIDTH = 8
"""What the width of a head must be a multiple of for the fast kernels."""


@dataclass(frozen=True)
class Linears:
    """Dotted names of the Linears within an attention and within an MLP."""

    query: str
    key: str
    value: str
    output: str
    first: str
    second: str


CLIP_LINEARS = Linears("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
BERT_LINEARS = Linears("self.query", "self.key", "self.value", "output.dense", "intermediate.dense", "output.dense")


def linears_of(network: nn.Module) -> Linears:
    """The names in a network of one of the classes of this file."""
    return BERT_LINEARS if isinstance(network, _BERTS) else CLIP_LINEARS


class CompactClipAttention(nn.Module):
    """CLIP's attention of fewer heads, with a query-key width of its own and a value width of its own.

    Scores keep the scale of the full head, so that removing a channel is the same as masking it. Without query-key
    channels all tokens that are seen weigh alike; without heads only the projection's bias is left.

    Args:
        source: attention whose Linears have these sizes already; its parts are taken over.
        num_heads: number of heads.
        qk_width: channels of a query or key head.
        v_width: channels of a value head.
    """

    def __init__(self, source: Any, num_heads: int, qk_width: int, v_width: int) -> None:
        super().__init__()
        self.num_heads, self.qk_width, self.v_width = num_heads, qk_width, v_width
        self.scale: float = source.scale
        self.dropout: float = source.dropout
        self.k_proj: nn.Linear = source.k_proj
        self.v_proj: nn.Linear = source.v_proj
        self.q_proj: nn.Linear = source.q_proj
        self.out_proj: nn.Linear = source.out_proj
        self.training = source.training

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """Attend; hidden_states and the result are (batch, tokens, channels).

        Args:
            hidden_states: what is attended to.
            attention_mask: (batch, 1, tokens, tokens): True where a token is seen, or numbers added to the scores.
            kwargs: of transformers; `is_causal` counts where there is no mask.
        """
        heads = _attend(
            self,
            hidden_states,
            (self.q_proj, self.k_proj, self.v_proj),
            scale=self.scale,
            mask=attention_mask,
            dropout=self.dropout if self.training else 0.0,
            is_causal=bool(kwargs.get("is_causal", False)) and attention_mask is None,
        )
        return self.out_proj(heads), None


class CompactBertSelfAttention(nn.Module):
    """BERT's self-attention of fewer heads, likewise; without heads nothing is put out.

    Args:
        source: self-attention whose Linears have these sizes already; its parts are taken over.
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
        """From (batch, tokens, channels) to (batch, tokens, num_heads * v_width), and None for the weights.

        Args:
            hidden_states: what is attended to.
            attention_mask: (batch, 1, tokens, tokens): True where a token is seen, or numbers added to the scores.
            kwargs: what else transformers hands to an attention; an encoder has no use for it.
        """
        heads = _attend(
            self,
            hidden_states,
            (self.query, self.key, self.value),
            scale=self.scaling,
            mask=attention_mask,
            dropout=self.dropout.p if self.training else 0.0,
            is_causal=False,
        )
        return heads, None


def _attend(
    sizes: CompactClipAttention | CompactBertSelfAttention,
    hidden_states: Tensor,
    linears: tuple[nn.Linear, nn.Linear, nn.Linear],
    **arguments: Any,
) -> Tensor:
    """Outputs of all heads, (batch, tokens, num_heads * v_width); the arguments are those of `fused_attention`."""
    shape = hidden_states.shape[:-1]
    if not sizes.num_heads:
        return hidden_states[..., :0]
    q, k, v = (
        linear(hidden_states).reshape(*shape, sizes.num_heads, width).transpose(1, 2)
        for linear, width in zip(linears, (sizes.qk_width, sizes.qk_width, sizes.v_width), strict=True)
    )
    out = fused_attention(q, k, v, **arguments)
    return out.transpose(1, 2).reshape(*shape, sizes.num_heads * sizes.v_width)


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, mask: Tensor | None, dropout: float, is_causal: bool
) -> Tensor:
    """scaled_dot_product_attention of queries and keys of one width and values of another, (..., tokens, v width).

    Its flash kernels want one width, a multiple of 8, and leave others to slower ones: zeros fill up the narrower ones.
    They change no score and no other channel, and are cut off again. Where the kernels that write the products out are
    asked for, which is when multiply-adds are counted, they would be of no use.
    """
    v_width = v.shape[-1]
    # The switch is the CPU's as well; torch.compile cannot ask for it.
    is_fused = torch.compiler.is_dynamo_compiling() or torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
    if not is_fused and not q.shape[-1]:
        scores = q.new_zeros(*q.shape[:-1], k.shape[-2])
        return F.dropout(_masked(scores, mask, is_causal).softmax(-1), dropout) @ v
    if is_fused:
        width = -(-max(q.shape[-1], v_width) // KERNEL_WIDTH) * KERNEL_WIDTH
        q, k, v = (x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal, scale=scale)
    return out[..., :v_width]


def _masked(scores: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    """Mask scores as scaled_dot_product_attention does: True in a bool mask keeps, a float mask is added."""
    if is_causal:
        return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
    if mask is None:
        return scores
    return scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask


def head_sizes(attention: Any) -> dict[str, Any]:
    """Number of heads, widths of a query-key and of a value head, and the factor of the scores, compact or not.

    Args:
        attention: of CLIP or BERT; BERT's is the module that holds the self-attention and the projection.
    """
    part = _self_attention(attention)
    if isinstance(part, BertSelfAttention):
        width = part.attention_head_size
        return {"num_heads": part.num_attention_heads, "qk_width": width, "v_width": width, "scale": part.scaling}
    widths = [getattr(part, name, getattr(part, "head_dim", None)) for name in ("qk_width", "v_width")]
    scale = float(part.scaling if part is not attention else part.scale)
    return {"num_heads": part.num_heads, "qk_width": widths[0], "v_width": widths[1], "scale": scale}


def numbers_of_heads(attention: Any) -> list[int]:
    """The numbers that the heads of an attention have in the network that no head had left, as far as it is known."""
    kept = getattr(_self_attention(attention), "kept_heads", None)
    return list(range(head_sizes(attention)["num_heads"])) if kept is None else list(kept)


def with_heads(attention: Any, heads: Sequence[int], qk_width: int, v_width: int) -> nn.Module:
    """The attention for Linears that are cut already: of transformers' class where whole heads are left.

    Args:
        attention: of CLIP or BERT, compact or not; it is used up.
        heads: ascending numbers of the heads that are left.
        qk_width: channels of a query or key head that are left.
        v_width: channels of a value head that are left.
    """
    numbers, part = numbers_of_heads(attention), _self_attention(attention)
    has_whole_heads, num_heads = len(heads) > 0 and qk_width == v_width, len(heads)
    made: Any = part
    if isinstance(part, BertSelfAttention) and has_whole_heads and v_width == part.attention_head_size:
        made.num_attention_heads, made.all_head_size = num_heads, num_heads * v_width
    elif isinstance(part, CLIPAttention) and has_whole_heads and v_width == part.head_dim:
        made.num_heads = num_heads  # its forward takes it from what the Linears put out
    else:
        compact_class = CompactClipAttention if part is attention else CompactBertSelfAttention
        made = compact_class(part, num_heads, qk_width, v_width)
    made.kept_heads = [numbers[head] for head in heads]
    if part is attention:
        return made  # type: ignore[no-any-return]
    attention.self = made
    return attention  # type: ignore[no-any-return]


def _self_attention(attention: Any) -> Any:
    """The module that has the heads."""
    return attention.self if isinstance(attention, BertAttention) else attention


def load(folder: str | Path) -> nn.Module:
    """The network of a folder, in evaluation mode, on the CPU: one of `CLASSES`, smaller.

    Raises:
        ValueError: one line, if a file is missing or broken, or the weights do not have the sizes in config.json.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        own = config["spp"]
        made = CLASSES[config["architectures"][0]]
        weights = load_file(folder / WEIGHTS_FILE)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{folder}: it cannot be read ({reason}); allowed: a folder that spp wrote; copy it again"
        ) from None
    network: Any = made(made.config_class.from_dict({name: value for name, value in config.items() if name != "spp"}))
    for name, sizes in own["modules"].items():
        resize(network, name, sizes)
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    if own["padded"]:
        # What stock code asks for beyond the kept rows and columns is zeros, and stands behind them.
        weights = {
            name: value[tuple(slice(0, size) for size in shapes[name])] if name in shapes else value
            for name, value in weights.items()
        }
    wrong = [name for name in {**shapes, **weights} if name not in weights or weights[name].shape != shapes.get(name)]
    if wrong:
        raise ValueError(
            f"{folder / WEIGHTS_FILE}: {wrong[0]} does not have the size in {CONFIG_FILE}; allowed: files that fit; "
            "copy both again"
        )
    network.load_state_dict(weights)
    return network.eval()  # type: ignore[no-any-return]


def resize(network: Any, name: str, sizes: Mapping[str, Any]) -> None:
    """Give an attention or MLP of a network, by its dotted name, other sizes in place; its weights are lost."""
    module: Any = network.get_submodule(name)
    linears = linears_of(network)
    if "hidden" in sizes:
        _resize(module, linears.first, rows=sizes["hidden"])
        _resize(module, linears.second, columns=sizes["hidden"])
        return
    num_heads, qk_width, v_width = (sizes[part] for part in ("num_heads", "qk_width", "v_width"))
    for part, width in ((linears.query, qk_width), (linears.key, qk_width), (linears.value, v_width)):
        _resize(module, part, rows=num_heads * width)
    _resize(module, linears.output, columns=num_heads * v_width)
    setattr(_self_attention(module), "scale" if linears == CLIP_LINEARS else "scaling", sizes["scale"])
    network.set_submodule(name, with_heads(module, range(num_heads), qk_width, v_width))


def _resize(module: nn.Module, name: str, rows: int | None = None, columns: int | None = None) -> None:
    linear: Any = module.get_submodule(name)
    linear.out_features = linear.out_features if rows is None else rows
    linear.in_features = linear.in_features if columns is None else columns
    linear.weight = nn.Parameter(linear.weight.new_empty(linear.out_features, linear.in_features))
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.new_empty(linear.out_features))


def tower_of(network: Any, tower: str) -> nn.Module:
    """One encoder of a CLIPModel by itself, with the projection behind it; it holds the same modules.

    Args:
        network: a CLIPModel, compact or not.
        tower: vision or text.
    """
    made = CLASSES[TOWERS[tower]]
    with torch.device("meta"):
        alone: Any = made(getattr(network.config, f"{tower}_config"))
    for name, _ in list(alone.named_children()):
        setattr(alone, name, getattr(network, name))
    alone.train(network.training)
    return alone  # type: ignore[no-any-return]

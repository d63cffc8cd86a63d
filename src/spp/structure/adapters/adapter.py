"""What an adapter is: all that the rest of the package must know of one architecture."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from spp.structure.inputs import Inputs
from spp.structure.pair import Pair


@dataclass(frozen=True)
class MaskPoint:
    """Where the mask of a pair multiplies.

    Attributes:
        linear: dotted name of a module.
        side: "input" or "output" of that module.
        width: how many leading channels of that side belong to the pair, all heads together.
        num_copies: how often these channels come one after the other, each time with the same masks.
        copies_per_head: how often the units of one head come one after the other before the next head begins.
        channels_per_unit: how many neighbouring channels a unit has each time.
        first: number of the first of these channels; 0 where masks multiply.
    """

    linear: str
    side: str
    width: int
    num_copies: int = 1
    copies_per_head: int = 1
    first: int = 0
    channels_per_unit: int = 1

    def spread(self, mask: Tensor, pair: Pair) -> Tensor:
        """A number for every unit of `pair`, (size,), as factors of all the channels."""
        num_heads = 1 if pair.per_head else pair.num_heads
        own_heads = pair.num_heads if pair.per_head else 1
        by_head = mask.view(own_heads, 1, -1).repeat(num_heads, self.copies_per_head, 1)
        return by_head.flatten().repeat_interleave(self.channels_per_unit).repeat(self.num_copies)

    def gather(self, values: Tensor, pair: Pair) -> Tensor:
        """The transpose of `spread`: (..., width) summed up by unit, (..., size)."""
        by_unit = values.reshape(*values.shape[:-1], -1, self.channels_per_unit).sum(-1)
        by_head = by_unit.reshape(*values.shape[:-1], pair.num_heads, self.copies_per_head, -1).sum(-2)
        return by_head.flatten(-2) if pair.per_head else by_head.sum(-2)


@dataclass(frozen=True)
class TokenPoint:
    """A block whose tokens can have masks of their own, and before which tokens can leave.

    Attributes:
        block: dotted name of the block.
        norms: dotted names of the modules through which alone its maps see the tokens.
        num_prefix: tokens in front of the patches (class, distillation, registers); they always stay.
        num_patches: patches of the model's input, whatever has left since.
    """

    block: str
    norms: tuple[str, ...]
    num_prefix: int
    num_patches: int


@dataclass(frozen=True, eq=False)
class StreamPoint:
    """Where the residual stream is that the output of a pair's second map is added to.

    Attributes:
        module: dotted name of the module whose input is the stream before that.
        scale: what multiplies the output before it is added, (channels,); None: nothing does.
        arrange: brings what has the layout of the stream into that of the second map's output, as windows do; places
            that the stream does not have are 0. None: both have one layout.
    """

    module: str
    scale: Tensor | None = None
    arrange: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class LogitsPoint:
    """How a self-attention makes its logits, scale * q k^T, before biases and masks.

    Attributes:
        query: dotted name of the Linear that puts out the queries, head after head, from row `first_query` on.
        key: the same of the keys, from row `first_key` on; it has the input of `query`.
        num_heads: heads.
        width: query-key channels of a head.
        scale: factor of the products.
        heads: numbers that these heads have in the network that none had left.
        is_causal: whether a token sees only itself and those before it.
    """

    query: str
    first_query: int
    key: str
    first_key: int
    num_heads: int
    width: int
    scale: float
    heads: tuple[int, ...]
    is_causal: bool = False


@dataclass(frozen=True, eq=False)
class HiddenPoint:
    """Where one of the hidden states of a network is, those that a teacher's are compared with.

    Attributes:
        module: dotted name of a module.
        side: "input" (its first argument) or "output" (what it returns, or the first of that) of the module.
        tokens: numbers of the tokens that the state has, of those of a network that none have left, int64 (num_tokens,)
            along dimension 1; None: all.
    """

    module: str
    side: str
    tokens: Tensor | None = None


@dataclass(frozen=True, eq=False)
class AttentionPoint:
    """How an attention makes its weights: the softmax of its logits over the keys that no padding hides.

    Attributes:
        logits: how it makes these.
        tokens: numbers of the tokens that it sees, of those of a network that none have left, int64 (num_tokens,);
            None: all.
    """

    logits: LogitsPoint
    tokens: Tensor | None = None


@dataclass(frozen=True, eq=False)
class UnitWeights:
    """Where the units of a pair lie in one parameter.

    Attributes:
        name: dotted name of the parameter.
        parameter: the parameter itself.
        dim: its dimension along which the units lie.
        index: int64, (units, slices of a unit): for every unit the numbers of its rows (dim 0) or columns (dim 1).
    """

    name: str
    parameter: nn.Parameter
    dim: int
    index: Tensor


@dataclass(frozen=True)
class Tower:
    """A part of a model that takes an input of its own and can be pruned by itself, such as an encoder of CLIP.

    Attributes:
        modules: dotted names of the modules that it consists of.
    """

    modules: tuple[str, ...]


class Adapter(ABC):
    """Knowledge of one architecture; a new one is a file in this folder that registers such an object.

    The file is imported whenever any model is looked up, so it imports an optional framework inside its
    functions.

    Attributes:
        model_classes: qualified names of the model classes that the adapter serves; subclasses included.
    """

    model_classes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def example_inputs(self, model: nn.Module) -> dict[str, Tensor]:
        """Inputs of the model's own size by the names of its forward: batch 1, device and dtype of its weights."""

    @abstractmethod
    def pairs(self, model: nn.Module, *, per_head: bool) -> list[Pair]:
        """The pairs of size > 0 in forward order; `refuse`s a part whose units cannot be separated."""

    @abstractmethod
    def mask_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        """Where the mask of `pair` multiplies."""

    @abstractmethod
    def shrink(self, model: nn.Module, module: str, kept: Mapping[str, Sequence[Tensor]]) -> None:
        """Cut one attention or MLP module down, in place.

        A head without a "vo" unit leaves, whatever its "qk" units.

        Args:
            model: the model to change.
            module: dotted name of the attention or MLP module, as in `Pair.module`.
            kept: for each kind to cut the ascending numbers of the kept units, one tensor per head.
        """

    @abstractmethod
    def unit_weights(self, model: nn.Module, pair: Pair) -> list[UnitWeights]:
        """Where the units of `pair` lie in the parameters; see `spp.structure.find.unit_weights`."""

    @abstractmethod
    def set_drop_path(self, model: nn.Module, rate: float) -> None:
        """Set stochastic depth, in place: from 0 in the first block, rising evenly, to `rate` in the last."""

    def towers(self, model: nn.Module) -> dict[str, Tower]:
        """The towers by their names; none where a model is one."""
        return {}

    def module_sizes(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        """Sizes of every attention and MLP by dotted name, as modeling_spp.py takes them to build the network again.

        Raises:
            ValueError: that file cannot build networks of this architecture.
        """
        raise ValueError(
            f"model: a {type(model).__name__} is not allowed in a folder that loads without spp; allowed: a ViT, DeiT, "
            "Swin, CLIP, or BERT with another head; keep its state_dict and the masks"
        )

    def first_mask_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        """Where the mask of `pair` multiplies what the first map of the pair puts out, for "vo" as in `mask_point`.

        Raises:
            ValueError: an architecture of which that is not known.
        """
        raise ValueError(
            f"method.released_quirks: True is not allowed with {type(model).__name__}, of which the released places of "
            "the masks are not known; allowed: false; leave it out"
        )

    def key_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        """Where the keys of a "qk" pair are put out, in the order of the queries at its `mask_point`.

        Raises:
            ValueError: an architecture of which that is not known.
        """
        raise ValueError(
            f"method.name: energy is not allowed with {type(model).__name__}, whose keys are not known; allowed: "
            "methods that score by gradients or weights; use method=taylor"
        )

    def token_points(self, model: nn.Module) -> list[TokenPoint]:
        """The blocks in forward order; none where the model cannot do without some of its tokens."""
        return []

    def drop_tokens(self, model: nn.Module, block: str, kept: Tensor) -> None:
        """Let only the tokens numbered `kept` (int64, ascending), of those that reach it, into a block, in place."""
        raise NotImplementedError

    def real_tokens(self, model: nn.Module, module: str, inputs: Inputs) -> Tensor | None:
        """Which of the tokens that a module sees are no padding, bool (samples, tokens); None: all of them.

        Args:
            model: the model.
            module: dotted name of an attention or MLP.
            inputs: what the model is called with.
        """
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        return None if mask is None else mask.bool()

    def sequential_blocks(self, model: nn.Module) -> list[str]:
        """Dotted names of the blocks in forward order, of a model of which inner activations may be kept for a whole
        data set; none of another. Each block puts out a tensor, which is all that the next one has of those before."""
        return []

    def stream_point(self, model: nn.Module, pair: Pair) -> StreamPoint | None:
        """Where the stream is that a "vo" or "mlp" pair adds to; None where it is not added as it is."""
        return None

    def logits_point(self, model: nn.Module, pair: Pair) -> LogitsPoint | None:
        """How the attention of a "qk" pair makes its logits; None where they are more than products of two maps."""
        return None

    def hidden_points(self, model: nn.Module) -> list[HiddenPoint]:
        """The hidden states in forward order: what the first block is given, and what every block puts out.

        Raises:
            ValueError: an architecture of which they are not known.
        """
        raise ValueError(
            f"distill_hidden: a {type(model).__name__} is not allowed, of which the hidden states are not known; "
            "allowed: 0; leave it out"
        )

    def attention_points(self, model: nn.Module) -> list[AttentionPoint]:
        """The attentions in forward order.

        Raises:
            ValueError: an architecture of which they are not known, or whose logits are more than products of two maps.
        """
        raise ValueError(
            f"distill_attention: a {type(model).__name__} is not allowed, whose attentions are not known to be softmax "
            "of products alone; allowed: 0; leave it out"
        )

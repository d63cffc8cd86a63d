"""What an adapter is: all that the rest of the package must know of one architecture."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from spp.structure.pair import Pair


@dataclass(frozen=True)
class MaskPoint:
    """Where the mask of a pair multiplies.

    Attributes:
        linear: dotted name of a module.
        side: "input" or "output" of that module.
        width: how many leading channels of that side belong to the pair, all heads together.
    """

    linear: str
    side: str
    width: int


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

    def module_sizes(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        """Sizes of every attention and MLP by dotted name, as modeling_spp.py takes them to build the network again.

        Raises:
            ValueError: that file cannot build networks of this architecture.
        """
        raise ValueError(
            f"model: a {type(model).__name__} is not allowed in a folder that loads without spp; allowed: a ViT, DeiT "
            "or Swin; keep its state_dict and the masks"
        )

    def token_points(self, model: nn.Module) -> list[TokenPoint]:
        """The blocks in forward order; none where the model cannot do without some of its tokens."""
        return []

    def drop_tokens(self, model: nn.Module, block: str, kept: Tensor) -> None:
        """Let only the tokens numbered `kept` (int64, ascending), of those that reach it, into a block, in place."""
        raise NotImplementedError

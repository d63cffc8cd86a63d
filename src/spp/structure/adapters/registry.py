"""What an adapter is, and which adapter serves which model."""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar, NoReturn

from torch import Tensor, nn

if TYPE_CHECKING:
    from spp.structure.pairs import Pair


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
    def example(self, model: nn.Module) -> Tensor:
        """An input of the model's own size, batch 1, of the device and dtype of its weights."""

    @abstractmethod
    def pairs(self, model: nn.Module, *, per_head: bool) -> "list[Pair]":
        """The pairs of size > 0 in forward order; `refuse`s a part whose units cannot be separated."""

    @abstractmethod
    def mask_point(self, model: nn.Module, pair: "Pair") -> MaskPoint:
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
    def unit_weights(self, model: nn.Module, pair: "Pair") -> list[UnitWeights]:
        """Where the units of `pair` lie in the parameters; see `spp.structure.pairs.unit_weights`."""

    def token_points(self, model: nn.Module) -> list[TokenPoint]:
        """The blocks in forward order; none where the model cannot do without some of its tokens."""
        return []

    def drop_tokens(self, model: nn.Module, block: str, kept: Tensor) -> None:
        """Let only the tokens numbered `kept` (int64, ascending), of those that reach it, into a block, in place."""
        raise NotImplementedError


_ADAPTERS: dict[str, Adapter] = {}


def register(adapter: Adapter) -> None:
    """Make an adapter known. Also the way in for an architecture that lives outside of this package."""
    for name in adapter.model_classes:
        _ADAPTERS[name] = adapter


def adapter_for(model: nn.Module) -> Adapter:
    """The adapter of the model's class, or of the nearest base class that has one.

    Raises:
        ValueError: there is none, or `model` is no module.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model: {type(model).__name__} is not allowed: must be a torch.nn.Module; use timm.create_model(name)"
        )
    _import_adapters()
    for base in type(model).__mro__:
        adapter = _ADAPTERS.get(f"{base.__module__}.{base.__qualname__}")
        if adapter is not None:
            return adapter
    refuse(model, _first_unknown(model))


def refuse(model: nn.Module, module: str) -> NoReturn:
    """Raise the one-line ValueError that names the model's class and the module that was not understood."""
    supported = ", ".join(sorted(name.rpartition(".")[2] for name in _ADAPTERS))
    part = type(model.get_submodule(module)).__name__
    raise ValueError(
        f"model: {type(model).__name__} is not supported: {module or 'itself'} ({part}) was not understood;"
        f" supported are {supported} with plain attention and MLP blocks;"
        " for another architecture write an adapter (see spp/structure/adapters/registry.py)"
    )


@cache
def _import_adapters() -> None:
    package = __name__.rpartition(".")[0]
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(info.name)


def _first_unknown(model: nn.Module) -> str:
    """The first module that is no common building block, else the first with parameters, else the model."""
    named = dict(model.named_modules())
    del named[""]
    own = [n for n, m in named.items() if not type(m).__module__.startswith(("torch.nn.", "timm.layers."))]
    weighted = [n for n, m in named.items() if next(m.parameters(recurse=False), None) is not None]
    return next(iter(own or weighted), "")

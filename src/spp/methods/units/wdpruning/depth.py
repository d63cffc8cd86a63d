"""A ViT that ends behind some of its blocks: output heads of their own there, trained along with the one at the end."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from timm.layers import global_pool_nlc
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


class OutputHead(nn.Module):
    """What follows the blocks of a ViT: norms, pooling and the last layer.

    Args:
        model: a ViT; its parts are taken over.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.norm, self.fc_norm = model.norm, model.fc_norm
        self.head_drop, self.head = model.head_drop, model.head
        self._pool: dict[str, Any] = {
            "pool_type": model.global_pool,
            "num_prefix_tokens": model.num_prefix_tokens,
            "reduce_include_prefix": model.pool_include_prefix,
        }

    def forward(self, tokens: Tensor) -> Tensor:
        """What the head puts out, (batch, head.out_features), from (batch, tokens, channels)."""
        pooled = global_pool_nlc(self.norm(tokens), **self._pool)
        outputs: Tensor = self.head(self.head_drop(self.fc_norm(pooled)))
        return outputs


class Rest(OutputHead):
    """What follows the first blocks in the whole network: its other blocks and its output head.

    Args:
        model: the whole network; the parts are taken over.
        depth: blocks that come before.
    """

    def __init__(self, model: VisionTransformer, depth: int) -> None:
        super().__init__(model)
        self.blocks = model.blocks[depth:]

    def forward(self, tokens: Tensor) -> Tensor:
        """What the head puts out, (batch, head.out_features), from the first blocks' (batch, tokens, channels)."""
        return super().forward(self.blocks(tokens))


def require_depth(model: Any, depth: int, field: str) -> int:
    """Refuse a network that cannot end behind block number `depth`; returns how many blocks it has.

    Raises:
        ValueError: it is no plain ViT, or has no more blocks than that; one line that names method.`field`.
    """
    if type(model) is not VisionTransformer or getattr(model, "attn_pool", None) is not None:
        raise ValueError(
            f"method.{field}: {depth} is not allowed with this {type(model).__name__}; allowed: null, or a ViT with one"
            f" output head on a token or on their mean; leave method.{field} out"
        )
    num_blocks = len(model.blocks)
    if not 1 <= depth < num_blocks:
        raise ValueError(
            f"method.{field}: {depth} is not allowed; allowed: 1 to {num_blocks - 1}, or null for all blocks;"
            f" use method.{field}={max(1, num_blocks - 2)}"
        )
    return num_blocks


@contextmanager
def cut_at(model: Any, depth: int) -> Iterator[None]:
    """A ViT without the blocks behind `depth`, for a while."""
    blocks = model.blocks
    model.blocks = blocks[:depth]
    try:
        yield
    finally:
        model.blocks = blocks


def shorten(model: Any, depth: int) -> Rest:
    """Take all blocks but the first `depth` out of a ViT, in place; its norm and its output head start afresh.

    Raises:
        ValueError: it is no plain ViT, or has no more blocks than that.
    """
    require_depth(model, depth, "depth")
    rest = Rest(model, depth)
    model.blocks = model.blocks[:depth]
    _set_parts(model, _fresh_parts(model))
    return rest


class TrainedAlong:
    """The rest of a shortened network while both output heads train: it sees what the last block put out.

    It is a part of the network, so that it is trained, averaged, saved and moved with it, until it is taken off.
    """

    def __init__(self, model: nn.Module, rest: Rest) -> None:
        self._model = model
        self._tokens: Tensor | None = None
        model.add_module("rest", rest)
        self._handle = model.get_submodule("norm").register_forward_pre_hook(self._keep_tokens())

    def take_outputs(self) -> Tensor:
        """What the whole network puts out, (batch, head.out_features), for the batch the short one has just seen."""
        assert self._tokens is not None
        tokens, self._tokens = self._tokens, None
        outputs: Tensor = self._model.get_submodule("rest")(tokens)
        return outputs

    def take_off(self) -> None:
        """Leave the short network alone."""
        self._handle.remove()
        delattr(self._model, "rest")

    def _keep_tokens(self) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(module: nn.Module, args: tuple[Tensor]) -> None:
            self._tokens = args[0]

        return hook


class Exits:
    """Fresh output heads behind some blocks of a ViT that train along with its own.

    They are parts of the network, so that they are trained, saved and moved with it, until one or none is left.

    Args:
        model: a plain ViT, changed in place.
        depths: numbers of the blocks, from 1, behind which they stand.
    """

    def __init__(self, model: Any, depths: Sequence[int]) -> None:
        self._model = model
        self._tokens: dict[int, Tensor] = {}
        self._heads = {depth: OutputHead(model) for depth in depths}
        for head in self._heads.values():
            _set_parts(head, _fresh_parts(model))
        self._handles = [model.blocks[depth - 1].register_forward_hook(self._keep_tokens(depth)) for depth in depths]
        model.add_module("exits", nn.ModuleDict({str(depth): head for depth, head in self._heads.items()}))

    def take_outputs(self) -> list[Tensor]:
        """What the heads put out, (batch, head.out_features) each, for the batch that the network has just seen."""
        return [head(self._tokens.pop(depth)) for depth, head in self._heads.items()]

    def leave_through(self, depth: int) -> None:
        """Make the network end behind block number `depth` with the head there, or leave it whole, in place."""
        for handle in self._handles:
            handle.remove()
        delattr(self._model, "exits")
        if depth in self._heads:
            self._model.blocks = self._model.blocks[:depth]
            head = self._heads[depth]
            _set_parts(self._model, {"norm": head.norm, "fc_norm": head.fc_norm, "head": head.head})

    def _keep_tokens(self, depth: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            self._tokens[depth] = output

        return hook


def _fresh_parts(model: Any) -> dict[str, nn.Module]:
    """Norms and last layer like those of a ViT, their weights drawn anew."""
    parts: dict[str, nn.Module] = {}
    for name in ("norm", "fc_norm", "head"):
        fresh = copy.deepcopy(getattr(model, name))
        if not isinstance(fresh, nn.Identity):  # which a model has where it does without
            fresh.reset_parameters()
        parts[name] = fresh
    return parts


def _set_parts(owner: nn.Module, parts: Mapping[str, nn.Module]) -> None:
    for name, part in parts.items():
        setattr(owner, name, part)

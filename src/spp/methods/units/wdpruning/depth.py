"""A ViT cut short: an output head of its own behind block number `depth`, trained along with the one at the end."""

import copy
from collections.abc import Callable
from typing import Any

from timm.layers import global_pool_nlc
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


class Rest(nn.Module):
    """What follows the first blocks in the whole network: its other blocks and its output head.

    Args:
        model: the whole network; the parts are taken over.
        depth: blocks that come before.
    """

    def __init__(self, model: VisionTransformer, depth: int) -> None:
        super().__init__()
        self.blocks = model.blocks[depth:]
        self.norm, self.fc_norm = model.norm, model.fc_norm
        self.head_drop, self.head = model.head_drop, model.head
        self._pool: dict[str, Any] = {
            "pool_type": model.global_pool,
            "num_prefix_tokens": model.num_prefix_tokens,
            "reduce_include_prefix": model.pool_include_prefix,
        }

    def forward(self, tokens: Tensor) -> Tensor:
        """What the head puts out, (batch, head.out_features), from the first blocks' (batch, tokens, channels)."""
        pooled = global_pool_nlc(self.norm(self.blocks(tokens)), **self._pool)
        outputs: Tensor = self.head(self.head_drop(self.fc_norm(pooled)))
        return outputs


def shorten(model: Any, depth: int) -> Rest:
    """Take all blocks but the first `depth` out of a ViT, in place; its norm and its output head start afresh.

    Raises:
        ValueError: it is no plain ViT, or has no more blocks than that.
    """
    if type(model) is not VisionTransformer or getattr(model, "attn_pool", None) is not None:
        raise ValueError(
            f"method.depth: {depth} is not allowed with this {type(model).__name__}; allowed: null, or a ViT with one"
            " output head on a token or on their mean; use method.depth=null"
        )
    if not 1 <= depth < len(model.blocks):
        raise ValueError(
            f"method.depth: {depth} is not allowed; allowed: 1 to {len(model.blocks) - 1}, or null for all blocks;"
            f" use method.depth={max(1, len(model.blocks) - 2)}"
        )
    rest = Rest(model, depth)
    model.blocks = model.blocks[:depth]
    for name in ("norm", "fc_norm", "head"):
        fresh = copy.deepcopy(getattr(model, name))
        if not isinstance(fresh, nn.Identity):  # which a model has where it does without
            fresh.reset_parameters()
        setattr(model, name, fresh)
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

"""What the adapters of Hugging Face's CLIP and BERT share: the attentions of modeling_transformers.py."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from spp.structure.adapters.separate import HeadSizes, SeparateAdapter


class TransformersAdapter(SeparateAdapter):
    """Attentions and folders by modeling_transformers.py, which imports transformers; no stochastic depth."""

    def module_sizes(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        from spp.structure.modeling_transformers import CLASSES, head_sizes

        if not isinstance(model, tuple(CLASSES.values())):
            return super().module_sizes(model)
        sizes: dict[str, dict[str, Any]] = {}
        for block in self.blocks(model):
            sizes[block.attention] = head_sizes(model.get_submodule(block.attention))
            second: Any = model.get_submodule(f"{block.mlp}.{self.mlp_parts.second}")
            sizes[block.mlp] = {"hidden": second.in_features}
        return sizes

    def set_drop_path(self, model: nn.Module, rate: float) -> None:
        if rate > 0:
            raise ValueError(
                f"drop_path: {rate} is not allowed with {type(model).__name__}, whose blocks have no stochastic depth; "
                "allowed: 0; leave it out"
            )

    def head_sizes(self, attention: Any) -> HeadSizes:
        from spp.structure.modeling_transformers import head_sizes

        return HeadSizes(**head_sizes(attention))

    def kept_heads(self, attention: Any) -> tuple[int, ...]:
        from spp.structure.modeling_transformers import numbers_of_heads

        return tuple(numbers_of_heads(attention))

    def with_heads(self, attention: Any, heads: Sequence[int], qk_width: int, v_width: int) -> nn.Module:
        from spp.structure.modeling_transformers import with_heads

        return with_heads(attention, heads, qk_width, v_width)

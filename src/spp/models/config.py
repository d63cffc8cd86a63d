"""Which network is pruned, and where its weights come from."""

from dataclasses import dataclass, field
from typing import Any

from spp.config import Config

TRAIN, PRETRAINED = "train", "pretrained"


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """A network of a library by its name, or one's own by a factory."""

    name: str | None = None
    """Name of the architecture in timm, for example deit_small_patch16_224."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of its constructor, for example {depth: 6, embed_dim: 64}; of a factory all arguments."""
    factory: str | None = None
    """One's own network instead: my.module:make_model, which returns a torch.nn.Module."""
    source: str | None = None
    """sha256 of the factory's source, filled in when planning."""
    weights: str = TRAIN
    """Where the dense weights come from: train, pretrained (the library's, or what the factory's network has), or a
    checkpoint's path, hashed as sha256:..."""
    per_head: bool = False
    """Mask every head's channels by themselves instead of one mask shared over the heads of a layer."""

    @property
    def library(self) -> str:
        """Which builder makes it: own or timm."""
        return "timm" if self.factory is None else "own"

    @property
    def label(self) -> str:
        """What people call it."""
        return str(self.name) if self.factory is None else self.factory.partition(":")[0]

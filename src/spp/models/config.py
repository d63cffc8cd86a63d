"""Which network is pruned, and where its weights come from."""

from dataclasses import dataclass, field
from typing import Any

from spp.config import Config, later, require

TRAIN, PRETRAINED = "train", "pretrained"

GIVEN_BY_DATA = ("img_size", "in_chans", "num_classes")
"""Arguments of timm's constructors that follow from the data and the task; they may not be contradicted."""

AVERAGES = ("state_dict_ema", "model_ema")
"""Under which names a checkpoint holds a moving average, as timm looks for it."""

TIMM_KWARGS = (
    *("patch_size", "embed_dim", "depth", "depths", "num_heads", "head_dim", "window_size", "mlp_ratio"),
    *("qkv_bias", "qk_norm", "proj_bias", "scale_attn_norm", "scale_mlp_norm", "init_values"),
    *("class_token", "reg_tokens", "pos_embed", "no_embed_class", "global_pool", "pool_include_prefix"),
    *("pre_norm", "final_norm", "fc_norm", "norm_layer", "embed_norm_layer", "act_layer"),
    *("always_partition", "strict_img_size", "dynamic_img_size", "dynamic_img_pad"),
    *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"),
    *("weight_init", "fix_init"),
    *GIVEN_BY_DATA,
)
"""What a network of timm may be built with. Others would bring in files that no key knows (checkpoint_path,
pretrained_cfg, cache_dir) or make something else than a network that classifies (features_only)."""


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
    tag: str | None = later(None, neutral=None)
    """Which of timm's pretrained weights, where the name does not say; filled in when planning."""
    ema: bool = later(True, neutral=False)
    """Of a checkpoint that holds weights and their moving average, take the average; false in the key of one without.
    """

    def __post_init__(self) -> None:
        if self.factory is not None:
            return
        for name, value in self.kwargs.items():
            remedy = f"leave {name} out; a file is only named by model.weights"
            require(name in TIMM_KWARGS, f"kwargs.{name}", value, ", ".join(TIMM_KWARGS), remedy)
            require(_is_plain(value), f"kwargs.{name}", value, "numbers, words, and lists of them", "give it as one")

    @property
    def library(self) -> str:
        """Which builder makes it: own or timm."""
        return "timm" if self.factory is None else "own"

    @property
    def label(self) -> str:
        """What people call it."""
        return str(self.name) if self.factory is None else self.factory.partition(":")[0]


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)

"""Which network is pruned, and where its weights come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spp.config import Config, later, require

TRAIN, PRETRAINED = "train", "pretrained"
KEPT_HEAD, NEW_HEAD = "kept", "new"
OTHER_HEAD = (
    "model.head=new, which trains a head for these classes, or weights for them; say model.head=new recipe=transfer"
)
"""What can be done where given weights are for other classes."""


def knows_other_classes(weights: str, num_known: int, num_wanted: int | None) -> ValueError:
    """The refusal of given weights whose head is for another number of classes than the data have."""
    return ValueError(
        f"model.weights: {weights!r} knows {num_known} classes and the data have {num_wanted}; allowed: {OTHER_HEAD}"
    )


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

CAUSAL_NAMES = ("llama", "opt")
"""Language models of Hugging Face by their `model_type`; timm has none of these names."""
CAUSAL_KWARGS = (
    *("vocab_size", "hidden_size", "intermediate_size", "ffn_dim", "word_embed_proj_dim", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
    *("rms_norm_eps", "tie_word_embeddings", "attention_bias", "mlp_bias", "hidden_act", "activation_function"),
    *("do_layer_norm_before", "enable_bias", "dropout", "attention_dropout"),
)
"""What a language model that is trained here may be built with; a pretrained one brings its own."""
CLIP_NAMES = ("clip",)
"""Pairs of encoders of Hugging Face, of images and of texts."""
CLIP_KWARGS = ("vision", "text", "projection_dim", "logit_scale_init_value", "initializer_factor")
CLIP_TOWER_KWARGS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps"),
    *("attention_dropout", "initializer_range", "image_size", "patch_size", "num_channels"),
    *("vocab_size", "max_position_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"),
)
"""What each tower of a CLIP may be built with, in kwargs.vision and kwargs.text."""
BERT_NAMES = ("bert",)
"""Encoders of Hugging Face with a head for a whole text."""
BERT_KWARGS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "initializer_range"),
)
"""What such an encoder may be built with; one that starts from given weights has the sizes of these."""
DTYPES = ("float32", "bfloat16", "float16")
PACKAGE = "package:"
"""How `weights` begins where an installed Python package holds them."""

MAX_DEPTH, MAX_SIZE = 1000, 1_000_000
"""More blocks, and larger other numbers, than any network has: making one would take all memory, or days."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """A network of a library by its name, or one's own by a factory."""

    name: str | None = None
    """Name of the architecture in timm, for example deit_small_patch16_224, or of Hugging Face: llama, opt, clip or
    bert."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of its constructor, for example {depth: 6, embed_dim: 64}; of a factory all arguments."""
    factory: str | None = None
    """One's own network instead: my.module:make_model, which returns a torch.nn.Module."""
    source: str | None = None
    """sha256 of the factory's source, filled in when planning."""
    weights: str = TRAIN
    """Where the dense weights come from: train, pretrained (the library's, or what the factory's network has), or a
    checkpoint's path, hashed as sha256:...; of a language model or bert train, the folder of a Hugging Face
    model, or package:NAME."""
    per_head: bool = False
    """Mask every head's channels by themselves instead of one mask shared over the heads of a layer."""
    tag: str | None = later(None, neutral=None)
    """Which of timm's pretrained weights, where the name does not say; filled in when planning."""
    ema: bool = later(True, neutral=False)
    """Of a checkpoint that holds weights and their moving average, take the average; false in the key of one without.
    """
    head: str = later(KEPT_HEAD, neutral=KEPT_HEAD)
    """Of weights that are given: kept, or new, which takes all but the head; the dense stage trains both then."""
    dtype: str | None = later(None, neutral=None)
    """Numbers in which a language model computes: float32 (null is the same), bfloat16 or float16."""

    def __post_init__(self) -> None:
        require(self.head in (KEPT_HEAD, NEW_HEAD), "head", self.head, f"{KEPT_HEAD}, {NEW_HEAD}", f"use {KEPT_HEAD}")
        if self.factory is not None:
            return
        is_causal = self.library == "causal"
        allowed = f"{KEPT_HEAD}, as a language model has no classes"
        require(not is_causal or self.head == KEPT_HEAD, "head", self.head, allowed, "leave it out")
        allowed = "null, as only language models have it" if not is_causal else f"null, {', '.join(DTYPES)}"
        is_known = self.dtype is None or (is_causal and self.dtype in DTYPES)
        require(is_known, "dtype", self.dtype, allowed, "leave it out")
        kinds = {"causal": CAUSAL_KWARGS, "clip": CLIP_KWARGS, "bert": BERT_KWARGS}
        known = kinds.get(self.library, TIMM_KWARGS)
        for name, value in self.kwargs.items():
            if self.library == "clip" and name in ("vision", "text"):
                allowed = ", ".join(CLIP_TOWER_KWARGS)
                require(isinstance(value, Mapping), f"kwargs.{name}", value, allowed, "name its arguments")
                _check_arguments(value, CLIP_TOWER_KWARGS, f"kwargs.{name}")
            else:
                _check_arguments({name: value}, known, "kwargs")

    @property
    def is_trained(self) -> bool:
        """Whether the dense stage trains it; given weights stay as they are, unless they get a new head."""
        return self.weights == TRAIN or self.has_new_head

    @property
    def has_new_head(self) -> bool:
        """Whether its head begins anew over given weights."""
        return self.head == NEW_HEAD

    @property
    def library(self) -> str:
        """Which builder makes it: own, causal, clip, bert or timm."""
        if self.factory is not None:
            return "own"
        if self.name in CLIP_NAMES:
            return "clip"
        if self.name in BERT_NAMES:
            return "bert"
        return "causal" if self.name in CAUSAL_NAMES else "timm"

    @property
    def label(self) -> str:
        """What people call it."""
        return str(self.name) if self.factory is None else self.factory.partition(":")[0]


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(Config):
    """Another network than the dense one that teaches: one of timm, with given weights."""

    name: str | None = None
    """Name of the architecture in timm, also with the tag of its weights, NAME.TAG; null: the dense network."""
    weights: str = PRETRAINED
    """pretrained (timm's), or a checkpoint's path, hashed as sha256:..."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of its constructor, as of model.kwargs."""
    ema: bool = True
    """Of a checkpoint that holds weights and their moving average, take the average."""

    def __post_init__(self) -> None:
        weights, allowed = self.weights, "pretrained, or the path of a checkpoint: nobody trains it here"
        require(weights != TRAIN, "weights", weights, allowed, "use pretrained")
        is_said = weights != PRETRAINED or bool(self.kwargs)
        allowed = "a model of timm beside teacher.weights and teacher.kwargs"
        require(self.name is not None or not is_said, "name", self.name, allowed, "say which network it is")


def _check_arguments(values: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name, value in values.items():
        remedy = f"leave {name} out; a file is only named by model.weights"
        require(name in known, f"{where}.{name}", value, ", ".join(known), remedy)
        require(_is_plain(value), f"{where}.{name}", value, "numbers, words, and lists of them", "give it as one")
        most = MAX_DEPTH if name.startswith(("depth", "num_hidden_layers")) else MAX_SIZE
        largest = max(map(abs, numbers_in(value)), default=0)
        require(largest <= most, f"{where}.{name}", largest, f"up to {most}", "use a smaller one")


def numbers_in(value: Any) -> list[float]:
    """The numbers of a plain value: itself, or those of a list."""
    values = value if isinstance(value, list | tuple) else [value]
    return [number for number in values if isinstance(number, int | float) and not isinstance(number, bool)]


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)

"""Which data a network is trained and measured on."""

from dataclasses import dataclass, field
from typing import Any

from spp.config import Config, later, require

MAX_PIXELS = 4096
"""Of a side of an image: more would be a mistake, and exhaust the machine."""

MAX_LENGTH = 1_000_000
"""Of a window in tokens, likewise."""


FIXED_AUGMENT = ("interpolation", "normalize", "crop_pct")
"""Keys of a recipe's `augment` that also change images which are only looked at: those of validation and test."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """A data set of this package by its name, or one's own by a factory."""

    name: str | None = None
    """Data set: digits, cifar10 or imagefolder; a text: pydocs, wikitext2 or textfiles; images with captions:
    digit_scenes, openmoji, karpathy or pairs; or sentences: helptopics, movies, sst2, qqp, mnli, cola, stsb, table."""
    factory: str | None = None
    """One's own data instead: my.module:make_data, see spp.data.own."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the factory."""
    source: str | None = None
    """sha256 of the factory's source, filled in when planning."""
    img_size: int | None = None
    """Height and width in pixels of the images the model sees."""
    val_fraction: float = 0.1
    """Share of the training samples held out to choose weights and settings; the test set never is."""
    split_seed: int = 0
    """Seed of that split; the same for every training seed so that runs stay comparable."""
    num_train: int | None = None
    """Use only the first so many training samples (before the split); null uses all."""
    length: int | None = later(None, neutral=None)
    """Of text: tokens of a window that a network is trained and measured on; of captions: most that one may have; of
    sentences: the most that are kept, both texts of a pair together."""
    num_windows: int | None = later(None, neutral=None)
    """Of text: windows of validation, and of test, that are measured, spread evenly; null: all."""
    tokenizer: str | None = later(None, neutral=None)
    """Of captions the folder of a tokenizer of transformers, of sentences that of a model, or package:NAME; hashed as
    sha256:...; null: every word is a token."""
    fingerprint: dict[str, Any] = field(default_factory=dict)
    """Identity of the files, filled in when planning: split sizes and a hash of the manifest."""

    def __post_init__(self) -> None:
        size = self.img_size
        require(self.split_seed >= 0, "split_seed", self.split_seed, "0 or more", "use 0")
        allowed = f"1 to {MAX_PIXELS} pixels"
        require(size is None or 0 < size <= MAX_PIXELS, "img_size", size, allowed, "use 224")
        require(
            self.length is None or 1 < self.length <= MAX_LENGTH, "length", self.length, f"2 to {MAX_LENGTH}", "use 512"
        )
        num = self.num_windows
        require(num is None or num > 0, "num_windows", num, "null, or 1 or more", "use null")
        require(0 < self.val_fraction < 1, "val_fraction", self.val_fraction, "a number in (0, 1)", "use 0.1")

"""The loaders over a data set, whatever its samples are."""

from collections.abc import Mapping
from typing import Any

from spp.config import require
from spp.data.captions.module import CaptionData
from spp.data.config import DataConfig
from spp.data.images.module import ImageData
from spp.data.images.transforms import Augment
from spp.data.module import DataModule
from spp.data.own import OwnData
from spp.data.registry import (
    caption_sources,
    open_captions,
    open_sentences,
    open_text,
    sentence_sources,
    text_sources,
)
from spp.data.sentences.module import SentenceData
from spp.data.text.module import Encode, TextData


def check_augment(config: DataConfig, augment: Mapping[str, Any]) -> None:
    """Refuse an augmentation that the data do not know, without opening them.

    Raises:
        ValueError: one line.
    """
    if config.name in (*text_sources(), *sentence_sources()):
        require(not any(augment.values()), "augment", dict(augment), "{}, as text is not augmented", "leave it out")
    elif config.factory is None:
        Augment.read(augment)
    elif any(augment.values()):
        raise ValueError(
            f"augment: {dict(augment)} does not reach the data of {config.factory!r}; allowed: {{}}; augment in its "
            "train set"
        )


def open_data(
    config: DataConfig,
    runtime: Mapping[str, Any],
    *,
    batch_size: int,
    augment: Mapping[str, Any],
    seed: int,
    num_workers: int,
    encode: Encode | None = None,
) -> DataModule:
    """The loaders over a data set.

    Args:
        config: which data.
        runtime: where they lie and how they are read, see spp.data.registry.read_data.
        batch_size: samples per step over all devices together.
        augment: of images, see spp.data.images.transforms; one's own data bring their own.
        seed: of order and augmentation.
        num_workers: worker processes per loader.
        encode: of text, tokens as the network wants them; None: bytes.

    Raises:
        ValueError: one line, if they cannot be opened, or the augmentation is not known.
    """
    if config.factory is not None:
        check_augment(config, augment)
        return OwnData(config, runtime, batch_size=batch_size, seed=seed, num_workers=num_workers)
    if config.name in text_sources():
        check_augment(config, augment)
        text = open_text(config.name, runtime["root"], "data.name")
        return TextData(config, text, encode, batch_size=batch_size, seed=seed, num_workers=num_workers)
    if config.name in caption_sources():
        return CaptionData(
            config,
            open_captions(config, runtime),
            tokenizer_folder=runtime["tokenizer"],
            batch_size=batch_size,
            augment=augment,
            seed=seed,
            num_workers=num_workers,
            on_error=runtime["on_error"],
        )
    if config.name in sentence_sources():
        check_augment(config, augment)
        loaders = {"batch_size": batch_size, "seed": seed, "num_workers": num_workers}
        return SentenceData(config, open_sentences(config.name, runtime), runtime["tokenizer"], **loaders)
    assert config.img_size is not None
    return ImageData(
        name=str(config.name),
        img_size=config.img_size,
        batch_size=batch_size,
        val_fraction=config.val_fraction,
        split_seed=config.split_seed,
        seed=seed,
        augment=augment,
        num_workers=num_workers,
        num_train=config.num_train,
        **runtime,
    )

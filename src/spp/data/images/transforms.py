"""From a PIL image to the tensor a network sees: timm's transforms as DeiT uses them (Touvron et al. 2021).

Augmentation, all off unless set:
    rand_augment: timm's string, for example rand-m9-mstd0.5-inc1
    color_jitter: strength; as in timm, rand_augment takes its place where both are set
    random_erasing: probability, filled with noise per pixel
    hflip: probability of a horizontal flip
    crop: resized (random area and aspect), pad4 (random crop of the image padded by 4 pixels), none.
        As in DeiT, resized means pad4 for images of at most 32 pixels.
    scale: [smallest, largest] area of crop=resized, [0.08, 1] unless set
    repeated_aug: copies of an image in a row, see spp.data.sampling
Both for training and for evaluation:
    interpolation: bicubic unless set
    normalize: dataset (its own mean and deviation; the default), imagenet, none
    crop_pct: share of the resized image that evaluation keeps: 224/256 unless set, all for at most 32 pixels
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from PIL import Image
from timm.data.auto_augment import RandAugment, posterize
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision import transforms

from spp.data.images.source import Source

Transform = Callable[[Image.Image], Tensor]

LARGEST_SMALL_SIZE = 32
PADDING = 4
CHOICES = {
    "crop": ("resized", "pad4", "none"),
    "normalize": ("dataset", "imagenet", "none"),
    "interpolation": ("bicubic", "bilinear", "random"),
}


@dataclass(frozen=True, kw_only=True)
class Augment:
    """The keys above."""

    rand_augment: str | None = None
    color_jitter: float | None = None
    random_erasing: float = 0.0
    hflip: float = 0.0
    crop: str = "none"
    scale: tuple[float, float] = (0.08, 1.0)
    repeated_aug: int = 1
    interpolation: str = "bicubic"
    normalize: str = "dataset"
    crop_pct: float | None = None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Augment":
        """Check the keys and values of a config.

        Raises:
            ValueError: one line that names the key, the value, what is allowed and the remedy.
        """
        allowed = [entry.name for entry in fields(cls)]
        for name in values:
            if name not in allowed:
                raise ValueError(f"augment.{name}: is not known; allowed: {', '.join(allowed)}; remove it")
        # A key set to null in a config means the same as one left out.
        augment = cls(**{name: value for name, value in values.items() if value is not None})
        augment._check()
        return augment

    def _check(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                allowed = ", ".join(choices)
                raise ValueError(f"augment.{name}: {value!r} is not allowed; allowed: {allowed}; use {choices[0]}")
        for name in ("random_erasing", "hflip"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"augment.{name}: {value} is not allowed; allowed: a probability; use 0 for none")
        if self.rand_augment is not None and not self.rand_augment.startswith("rand-"):
            raise ValueError(
                f"augment.rand_augment: {self.rand_augment!r} is not allowed; allowed: timm's strings that "
                "start with rand-; use rand-m9-mstd0.5-inc1"
            )
        if self.repeated_aug < 1:
            raise ValueError(f"augment.repeated_aug: {self.repeated_aug} is not allowed; allowed: 1 or more; use 1")

    @property
    def is_random(self) -> bool:
        """Whether two looks at one training image may differ."""
        return bool(self.rand_augment or self.color_jitter or self.random_erasing or self.hflip or self.crop != "none")


def train_transform(augment: Augment, source: Source, img_size: int) -> Transform:
    """The random transform of training images; returns tensors of shape (C, img_size, img_size)."""
    mean, std = _statistics(augment, source)
    try:
        transform = create_transform(
            img_size,
            is_training=True,
            scale=(augment.scale[0], augment.scale[1]),
            hflip=augment.hflip,
            color_jitter=augment.color_jitter,  # type: ignore[arg-type]  # None is taken, but not annotated
            auto_augment=augment.rand_augment,
            interpolation=augment.interpolation,
            mean=mean,
            std=std,
            re_prob=augment.random_erasing,
            re_mode="pixel",
        )
    except (AssertionError, KeyError, ValueError):
        raise ValueError(
            f"augment.rand_augment: {augment.rand_augment!r} is not allowed; allowed: a string that timm "
            "understands; use rand-m9-mstd0.5-inc1"
        ) from None
    steps = list(transform.transforms)
    for step in steps:
        if isinstance(step, RandAugment):
            _mend_posterize(step)
    if augment.crop == "none":
        steps[:1] = _fit(augment, img_size)
    elif augment.crop == "pad4" or img_size <= LARGEST_SMALL_SIZE:
        steps[:1] = [*_fit(augment, img_size), transforms.RandomCrop(img_size, padding=PADDING)]
    return _compose(steps)


def eval_transform(augment: Augment, source: Source, img_size: int) -> Transform:
    """The fixed transform of validation and test images; returns tensors of shape (C, img_size, img_size)."""
    mean, std = _statistics(augment, source)
    return _compose(
        create_transform(
            img_size,
            is_training=False,
            crop_pct=augment.crop_pct or _usual_crop_pct(img_size),
            interpolation=_fixed(augment.interpolation),
            mean=mean,
            std=std,
        ).transforms
    )


def describe_transform(augment: Augment, source: Source, img_size: int) -> dict[str, Any]:
    """How raw images become inputs, in timm's words: for those who use a network elsewhere."""
    mean, std = _statistics(augment, source)
    return {
        "input_size": [source.in_chans, img_size, img_size],
        "interpolation": _fixed(augment.interpolation),
        "crop_pct": augment.crop_pct or _usual_crop_pct(img_size),
        "mean": list(mean),
        "std": list(std),
    }


def _usual_crop_pct(img_size: int) -> float:
    return 1.0 if img_size <= LARGEST_SMALL_SIZE else 224 / 256


def _mend_posterize(augmentation: RandAugment) -> None:
    """Let posterize to 0 bits, which timm asks for at full strength, give black; Pillow 13 refuses it."""
    for operation in augmentation.ops:
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize


def _posterize(image: Image.Image, num_bits: int, **options: Any) -> Image.Image:
    if num_bits == 0:
        return Image.new(image.mode, image.size)
    reduced: Image.Image = posterize(image, num_bits, **options)
    return reduced


def _statistics(augment: Augment, source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if augment.normalize == "dataset":
        return source.mean, source.std
    if augment.normalize == "none":
        return (0.0,) * source.in_chans, (1.0,) * source.in_chans
    if source.in_chans != len(IMAGENET_DEFAULT_MEAN):
        raise ValueError(
            "augment.normalize: 'imagenet' is not allowed for grey images; allowed: dataset, none; use dataset"
        )
    return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


def _fit(augment: Augment, img_size: int) -> list[Any]:
    """The whole image, its shorter side brought to `img_size`, its middle square."""
    mode = transforms.InterpolationMode(_fixed(augment.interpolation))
    return [transforms.Resize(img_size, interpolation=mode), transforms.CenterCrop(img_size)]


def _fixed(interpolation: str) -> str:
    return "bicubic" if interpolation == "random" else interpolation


def _compose(steps: list[Any]) -> Transform:
    composed: Transform = transforms.Compose(steps)
    return composed

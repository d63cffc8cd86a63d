"""Images and their classes: the data module of every image set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from spp.data.facts import DataFacts
from spp.data.images.selection import Selection, SkippedBySplit
from spp.data.images.source import Source, SplitName
from spp.data.images.transforms import Augment, Transform, describe_transform, eval_transform, train_transform
from spp.data.module import DataModule, Positions, WholeTensors, position_of
from spp.data.registry import open_source
from spp.data.sampling import Draw, own_random_numbers, seed_transforms
from spp.data.split import Indices, stratified_split

MAX_TENSOR_BYTES = 64 * 2**20
"""A set of fixed images up to this size is kept as one tensor, without PIL per image."""


class ImageData(DataModule):
    """A batch is images, float32 of shape (B, C, H, W), and labels, int64 of shape (B,).

    Args:
        name: one of spp.data.registry.sources().
        root: folder of the data set; None for those that travel with a package.
        img_size: height and width in pixels of the images in a batch.
        batch_size: images per step over all devices together.
        val_fraction: share of the training images that becomes the validation split, stratified.
        split_seed: seed of that split.
        seed: seed of order and augmentation.
        augment: see spp.data.images.transforms.
        num_workers: worker processes per loader; 0 loads in the process itself.
        num_train: use only the first so many training images (before the split); None uses all.
        download: fetch the data set into `root` if it is not there, where it can be.
        format: the form of the files, for data sets with several; None finds it out.
        on_error: with fail, the first image that is missing or cannot be decoded ends what runs by a
            BrokenImageError. With skip its place is taken by another one, always the same (see
            spp.data.images.selection.Selection): of train by one of train, of val by one of val, of test by one of
            test, where it counts twice. See `num_skipped`.
        cache: folder for indices of large sets and, with parquet, for flat copies of their images.
        image_column: of parquet, the column of images; None finds it out.
        label_column: of parquet, the column of classes; None finds it out.

    Raises:
        ValueError: if the data set, or a key or value of `augment`, is not known, or a batch would not fill.
    """

    def __init__(
        self,
        *,
        name: str,
        root: str | Path | None,
        img_size: int,
        batch_size: int,
        val_fraction: float,
        split_seed: int,
        seed: int,
        augment: Mapping[str, Any],
        num_workers: int,
        num_train: int | None = None,
        download: bool = False,
        format: str | None = None,
        on_error: str = "fail",
        cache: str | Path | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
    ) -> None:
        self.augment = Augment.read(augment)
        super().__init__(
            batch_size=batch_size, seed=seed, num_workers=num_workers, num_repeats=self.augment.repeated_aug
        )
        self.source: Source = open_source(
            name,
            root,
            num_train=num_train,
            download=download,
            format=format,
            on_error=on_error,
            cache=cache,
            image_column=image_column,
            label_column=label_column,
        )
        self.dataset = name
        self.on_error = on_error
        self.img_size = img_size
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self._skipped = SkippedBySplit(on_error, lambda split: len(self.source.split(split)))

    @property
    def facts(self) -> DataFacts:
        return DataFacts(
            name=self.dataset,
            samples="images",
            inputs={"img_size": self.img_size, "in_chans": self.source.in_chans},
            num_classes=self.source.num_classes,
            class_names=self.source.class_names,
            preprocessing=describe_transform(self.augment, self.source, self.img_size),
        )

    @property
    def num_skipped(self) -> int | None:
        """Different broken images that this process and its loaders' workers have come across, of all splits.

        Those of before an interruption count, those that other devices came across do not. None with on_error=fail.
        """
        if self.on_error == "fail":
            return None
        return len(self._skipped)

    def state_dict(self) -> dict[str, Any]:
        """The broken images by split, for a checkpoint."""
        return self._skipped.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from there."""
        self._skipped.load_state_dict(state_dict)

    def split(self) -> tuple[Indices, Indices]:
        return stratified_split(self.source.split("train").labels, self.val_fraction, self.split_seed)

    def train_samples(self, positions: Positions) -> Dataset[Any]:
        images = self._select("train", positions)
        if self.augment.is_random:
            return _AugmentedImages(images, train_transform(self.augment, self.source, self.img_size))
        return self._fixed_images(images)

    def plain_train_samples(self, positions: Positions) -> Dataset[Any]:
        return self.val_samples(positions)

    def val_samples(self, positions: Positions) -> Dataset[Any]:
        return self._fixed_images(self._select("train", positions))

    def test_samples(self) -> Dataset[Any]:
        return self._fixed_images(self._select("test", range(len(self.source.split("test")))))

    def _select(self, name: SplitName, positions: Positions) -> Selection:
        return Selection(self.source.split(name), positions, self._skipped.of(name))

    def _fixed_images(self, images: Selection) -> Dataset[Any]:
        fixed = _FixedImages(images, eval_transform(self.augment, self.source, self.img_size))
        num_bytes = len(images) * self.source.in_chans * self.img_size**2 * torch.float32.itemsize
        if num_bytes > MAX_TENSOR_BYTES:
            return fixed
        pixels, labels = zip(*(fixed[index] for index in range(len(fixed))), strict=True)
        return WholeTensors(torch.stack(pixels), torch.tensor(labels))


class _AugmentedImages(Dataset[tuple[Tensor, int]]):
    """Images under a random transform; asked by the sampler's draws."""

    def __init__(self, images: Selection, transform: Transform) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int]:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[Draw]) -> list[tuple[Tensor, int]]:
        items = []
        # Each image has a seed of its own, so that it looks the same from any worker and after any restart.
        with own_random_numbers():
            for draw in draws:
                image, label = self.images[draw.position]
                seed_transforms(draw.seed)
                items.append((self.transform(image), label))
        return items


class _FixedImages(Dataset[tuple[Tensor, int]]):
    """Images under a deterministic transform."""

    def __init__(self, images: Selection, transform: Transform) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, asked: int | Draw) -> tuple[Tensor, int]:
        image, label = self.images[position_of(asked)]
        return self.transform(image), label

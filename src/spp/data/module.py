"""The Lightning data module of every stage."""

import signal
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerStatus
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spp.data.registry import open_source
from spp.data.sampling import Draw, EpochSampler, own_random_numbers, seed_transforms
from spp.data.selection import Selection, SkippedImages
from spp.data.source import Source, SplitName
from spp.data.split import Indices, stratified_split
from spp.data.transforms import Augment, Transform, eval_transform, train_transform

Batch = tuple[Tensor, Tensor]
"""Images, float32 of shape (B, C, H, W), and labels, int64 of shape (B,)."""

MAX_TENSOR_BYTES = 64 * 2**20
"""A set of fixed images up to this size is kept as one tensor, without PIL per image."""


class ImageData(pl.LightningDataModule):
    """Loaders over one data set: train (shuffled, augmented, full batches), val (held out from train), test.

    What a loader yields depends on the data and on the arguments that shape it, not on `num_workers`, on what
    else draws random numbers, or on restarts.

    Args:
        name: one of spp.data.registry.sources().
        root: folder of the data set; None for those that travel with a package.
        img_size: height and width in pixels of the images in a batch.
        batch_size: images per step over all devices together.
        val_fraction: share of the training images that becomes the validation split, stratified.
        split_seed: seed of that split.
        seed: seed of order and augmentation.
        augment: see spp.data.transforms.
        num_workers: worker processes per loader; 0 loads in the process itself.
        num_train: use only the first so many training images (before the split); None uses all.
        download: fetch the data set into `root` if it is not there, where it can be.
        format: the form of the files, for data sets with several; None finds it out.
        on_error: with fail, the first image that is missing or cannot be decoded ends what runs by a
            BrokenImageError. With skip its place is taken by another one, always the same (see
            spp.data.selection.Selection): of train by one of train, of val by one of val, of test by one of test,
            where it counts twice. See `num_skipped`.
        cache: folder for indices of large sets and, with parquet, for flat copies of their images.

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
    ) -> None:
        super().__init__()
        self.source: Source = open_source(
            name, root, num_train=num_train, download=download, format=format, on_error=on_error, cache=cache
        )
        self.on_error = on_error
        self.img_size = img_size
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.seed = seed
        self.augment = Augment.read(augment)
        self.num_workers = num_workers
        self._first_epoch = self._num_batches_done = 0
        self._skipped: dict[SplitName, SkippedImages] = {}

    def start_at(self, epoch: int, num_batches: int) -> None:
        """Let the next train loader begin in `epoch`, behind its first `num_batches` batches."""
        self._first_epoch, self._num_batches_done = epoch, num_batches

    @property
    def num_skipped(self) -> int:
        """Different broken images that this process and its loaders' workers have come across, of all splits.

        Those of before an interruption count, those that other devices came across do not.
        """
        return sum(len(skipped.positions()) for skipped in self._skipped.values())

    def state_dict(self) -> dict[str, Any]:
        """The broken images by split, for a checkpoint."""
        return {name: skipped.positions() for name, skipped in self._skipped.items() if skipped.positions()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from there."""
        for name, positions in state_dict.items():
            skipped = self._skipped_of(cast(SplitName, name))
            if skipped is not None:
                skipped.restore(positions)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.source.num_classes

    @property
    def in_chans(self) -> int:
        """Channels of an image: 1 grey, 3 colour."""
        return self.source.in_chans

    @property
    def num_replicas(self) -> int:
        """Devices that share a batch: those of a training, while it runs."""
        return self._place[1]

    @property
    def _place(self) -> tuple[int, int]:
        """Rank of this process and number of them."""
        if self.trainer is None or self.trainer.state.status != TrainerStatus.RUNNING:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    @property
    def num_train_samples(self) -> int:
        """Images an epoch draws from: the training images less the validation split."""
        return len(self.split_indices[0])

    @property
    def steps_per_epoch(self) -> int:
        """Full batches per epoch."""
        self._check_batch_size()
        return self.num_train_samples // self.batch_size

    @cached_property
    def split_indices(self) -> tuple[Indices, Indices]:
        """Positions in the source's training images of train and of val, each sorted."""
        return stratified_split(self.source.split("train").labels, self.val_fraction, self.split_seed)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, augmented batches, all of them full."""
        self._check_batch_size()
        dataset: Dataset[Any]
        positions = self.split_indices[0]
        if self.augment.is_random:
            transform = train_transform(self.augment, self.source, self.img_size)
            dataset = _AugmentedImages(self._select("train", positions), transform)
        else:
            dataset = self._fixed_images(self._select("train", positions))
        num_per_device = self.batch_size // self.num_replicas
        sampler = EpochSampler(
            len(positions),
            seed=self.seed,
            num_repeats=self.augment.repeated_aug,
            num_replicas=self.num_replicas,
            rank=self._place[0],
            first_epoch=self._first_epoch,
            num_done=self._num_batches_done * num_per_device,
        )
        return self._loader(dataset, num_per_device, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation split, in order; while several devices train, this one's share of it.

        The shares have every image once: none is repeated to make them equally long.
        """
        rank, num_replicas = self._place
        share = self.split_indices[1][rank::num_replicas]
        return self._loader(self._fixed_images(self._select("train", share)), self.batch_size // num_replicas)

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test set, in order."""
        everything = range(len(self.source.split("test")))
        return self._loader(self._fixed_images(self._select("test", everything)), self.batch_size)

    def _check_batch_size(self) -> None:
        if self.batch_size > self.num_train_samples:
            raise ValueError(
                f"batch_size: {self.batch_size} is not allowed; allowed: at most the {self.num_train_samples} training "
                "images; use a smaller one"
            )
        if self.batch_size % self.num_replicas:
            raise ValueError(
                f"batch_size: {self.batch_size} is not allowed with {self.num_replicas} devices; allowed: a multiple "
                f"of their number; use {max(1, self.batch_size // self.num_replicas) * self.num_replicas}"
            )

    def _select(self, name: SplitName, positions: Sequence[int] | Indices) -> Selection:
        return Selection(self.source.split(name), positions, self._skipped_of(name))

    def _skipped_of(self, name: SplitName) -> SkippedImages | None:
        if self.on_error == "skip" and name not in self._skipped:
            self._skipped[name] = SkippedImages(len(self.source.split(name)))
        return self._skipped.get(name)

    def _fixed_images(self, images: Selection) -> Dataset[Any]:
        fixed = _FixedImages(images, eval_transform(self.augment, self.source, self.img_size))
        num_bytes = len(images) * self.in_chans * self.img_size**2 * torch.float32.itemsize
        if num_bytes > MAX_TENSOR_BYTES:
            return fixed
        pixels, labels = zip(*(fixed[index] for index in range(len(fixed))), strict=True)
        return _TensorImages(torch.stack(pixels), torch.tensor(labels))

    def _loader(self, dataset: Dataset[Any], batch_size: int, **options: Any) -> DataLoader[Batch]:
        # Lightning advises more workers whatever the data set's size; that is the user's choice, and for a
        # data set that lies in memory as one tensor any worker makes it slower.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        if isinstance(dataset, _TensorImages):
            options["collate_fn"] = _as_it_is
        else:
            options.update(
                num_workers=self.num_workers, persistent_workers=self.num_workers > 0, worker_init_fn=_forget_signals
            )
        # timm's create_loader makes a sampler of its own. Its PrefetchLoader could stand behind ours, but it erases on
        # the device with the device's random numbers, which are a batch's and not an image's: a restart would change
        # them. Copies overlap the training all the same, from pinned memory.
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            dataset,
            batch_size=batch_size,
            pin_memory=on_gpu,
            # A loader draws a seed for its workers even where it has none; not from the training's generator.
            generator=torch.Generator().manual_seed(self.seed),
            **options,
        )


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
        image, label = self.images[_index(asked)]
        return self.transform(image), label


class _TensorImages(Dataset[Batch]):
    """All images as one tensor (N, C, H, W); a batch is one indexing."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, asked: int | Draw) -> Batch:
        return self.images[_index(asked)], self.labels[_index(asked)]

    def __getitems__(self, asked: Sequence[int | Draw]) -> Batch:
        indices = torch.tensor([_index(one) for one in asked])
        return self.images[indices], self.labels[indices]


def _index(asked: int | Draw) -> int:
    return asked.position if isinstance(asked, Draw) else asked


def _forget_signals(worker_id: int) -> None:
    # What the training process does when it is told to stop is not for its loaders.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _as_it_is(batch: Batch) -> Batch:
    return batch

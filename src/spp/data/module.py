"""Loaders over one data set, whatever its samples are."""

import signal
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spp.data.facts import DataFacts
from spp.data.sampling import Draw, EpochSampler
from spp.data.split import Indices, permutation

Positions = Sequence[int] | Indices


class DataModule(ABC):
    """Loaders over one data set: train (shuffled, full batches), val (held out from train), test.

    What a loader yields depends on the data and on the arguments that shape it, not on `num_workers`, on what
    else draws random numbers, or on restarts.

    Args:
        batch_size: samples per step over all devices together.
        seed: seed of order and augmentation.
        num_workers: worker processes per loader; 0 loads in the process itself.
        num_repeats: copies of a training sample in a row, see spp.data.sampling.

    Attributes:
        pins_memory: whether loaders lay batches where a GPU copies them from while it computes.
    """

    def __init__(self, *, batch_size: int, seed: int, num_workers: int, num_repeats: int = 1) -> None:
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.num_repeats = num_repeats
        self.pins_memory = False
        self._first_epoch = self._num_batches_done = 0
        self._rank, self._num_replicas = 0, 1

    @property
    @abstractmethod
    def facts(self) -> DataFacts:
        """What networks and tasks must know of the data."""

    @property
    def tokenizer_files(self) -> Mapping[str, bytes]:
        """What makes tokens of texts, by name of the file in which transformers looks for it; {} of other samples."""
        return {}

    @abstractmethod
    def split(self) -> tuple[Indices, Indices]:
        """Positions of the samples of train and of val, each sorted."""

    @abstractmethod
    def train_samples(self, positions: Positions) -> Dataset[Any]:
        """The training samples at `positions`; asked by the sampler's draws where they are random."""

    @abstractmethod
    def val_samples(self, positions: Positions) -> Dataset[Any]:
        """The validation samples at `positions`, always the same."""

    def plain_train_samples(self, positions: Positions) -> Dataset[Any]:
        """The training samples at `positions` without random changes, where these can be left out."""
        return self.train_samples(positions)

    @abstractmethod
    def test_samples(self) -> Dataset[Any]:
        """The test set."""

    def start_at(self, epoch: int, num_batches: int) -> None:
        """Let the next train loader begin in `epoch`, behind its first `num_batches` batches."""
        self._first_epoch, self._num_batches_done = epoch, num_batches

    def take_share(self, rank: int, num_replicas: int) -> None:
        """From now on, loaders of train and val yield the share of one of several devices; (0, 1): everything."""
        self._rank, self._num_replicas = rank, num_replicas

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must know of the samples seen so far."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        assert not state_dict

    @property
    def num_skipped(self) -> int | None:
        """Different broken samples that were replaced so far; None where that is not asked for."""
        return None

    @property
    def num_replicas(self) -> int:
        """Devices that share a batch: those of a training, while it runs."""
        return self._num_replicas

    @property
    def num_train_samples(self) -> int:
        """Samples an epoch draws from: the training samples less the validation split."""
        return len(self.split_indices[0])

    @property
    def steps_per_epoch(self) -> int:
        """Full batches per epoch."""
        self._check_batch_size()
        return self.num_train_samples // self.batch_size

    @cached_property
    def split_indices(self) -> tuple[Indices, Indices]:
        """The result of `split`."""
        return self.split()

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled, augmented batches, all of them full."""
        self._check_batch_size()
        positions = self.split_indices[0]
        num_per_device = self.batch_size // self.num_replicas
        sampler = EpochSampler(
            len(positions),
            seed=self.seed,
            num_repeats=self.num_repeats,
            num_replicas=self.num_replicas,
            rank=self._rank,
            first_epoch=self._first_epoch,
            num_done=self._num_batches_done * num_per_device,
        )
        return self._loader(self.train_samples(positions), num_per_device, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation split, in order; while several devices train, this one's share of it.

        The shares have every sample once: none is repeated to make them equally long.
        """
        share = self.split_indices[1][self._rank :: self.num_replicas]
        return self._loader(self.val_samples(share), self.batch_size // self.num_replicas)

    def some_train_dataloader(self, num_samples: int) -> DataLoader[Any]:
        """Training samples drawn by the seed, in a fixed order, without random changes; all where there are fewer."""
        positions = self.split_indices[0]
        drawn = np.sort(permutation(len(positions), self.seed, len(positions))[:num_samples])
        return self._loader(self.plain_train_samples(positions[drawn]), self.batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        """The test set, in order."""
        return self._loader(self.test_samples(), self.batch_size)

    def _check_batch_size(self) -> None:
        if self.batch_size > self.num_train_samples:
            raise ValueError(
                f"batch_size: {self.batch_size} is not allowed; allowed: at most the {self.num_train_samples} training "
                f"{self.facts.samples}; use a smaller one"
            )
        if self.batch_size % self.num_replicas:
            raise ValueError(
                f"batch_size: {self.batch_size} is not allowed with {self.num_replicas} devices; allowed: a multiple "
                f"of their number; use {max(1, self.batch_size // self.num_replicas) * self.num_replicas}"
            )

    def _loader(self, dataset: Dataset[Any], batch_size: int, **options: Any) -> DataLoader[Any]:
        # Lightning advises more workers whatever the data set's size; that is the user's choice, and for a
        # data set that lies in memory as one tensor any worker makes it slower.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        if isinstance(dataset, WholeTensors):
            options["collate_fn"] = _as_it_is
        else:
            options.update(
                num_workers=self.num_workers, persistent_workers=self.num_workers > 0, worker_init_fn=_forget_signals
            )
        # timm's create_loader makes a sampler of its own. Its PrefetchLoader could stand behind ours, but it erases on
        # the device with the device's random numbers, which are a batch's and not a sample's: a restart would change
        # them. Copies overlap the training all the same, from pinned memory.
        return DataLoader(
            dataset,
            batch_size=batch_size,
            pin_memory=self.pins_memory,
            # A loader draws a seed for its workers even where it has none; not from the training's generator.
            generator=torch.Generator().manual_seed(self.seed),
            **options,
        )


class WholeTensors(Dataset[tuple[Tensor, Tensor]]):
    """All inputs as one tensor (N, ...) and all targets as another; a batch is one indexing."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, asked: int | Draw) -> tuple[Tensor, Tensor]:
        return self.inputs[position_of(asked)], self.targets[position_of(asked)]

    def __getitems__(self, asked: Sequence[int | Draw]) -> tuple[Tensor, Tensor]:
        indices = torch.tensor([position_of(one) for one in asked])
        return self.inputs[indices], self.targets[indices]


def position_of(asked: int | Draw) -> int:
    """The position that a loader asks for, by itself or by a sampler's draw."""
    return asked.position if isinstance(asked, Draw) else asked


def _forget_signals(worker_id: int) -> None:
    # What the training process does when it is told to stop is not for its loaders.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _as_it_is(batch: Any) -> Any:
    return batch

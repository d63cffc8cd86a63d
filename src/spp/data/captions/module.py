"""Images and their captions: the data module of every set of captioned images."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from spp.data.captions.source import Captions, CaptionSplit, SplitName
from spp.data.captions.tokenizer import CaptionTokenizer, FolderTokenizer, WordTokenizer, words_of
from spp.data.config import DataConfig
from spp.data.facts import DataFacts
from spp.data.images.selection import Selection, SkippedBySplit
from spp.data.images.source import Source
from spp.data.images.transforms import Augment, Transform, describe_transform, eval_transform, train_transform
from spp.data.module import DataModule, Positions, position_of
from spp.data.sampling import Draw, own_random_numbers, seed_transforms
from spp.data.split import Indices

MAX_CACHE_BYTES = 64 * 2**20
"""Images of a split that look the same every time are kept as tensors up to this size."""

Sample = dict[str, Tensor]


class CaptionData(DataModule):
    """A sample of train is an image with one of its captions, one of val or test an image with all of them.

    A batch is {"pixel_values": (B, C, H, W) float32, "input_ids": (B, K, length) int64, "is_caption": (B, K) bool,
    "image": (B,) int64}: K captions of each image, of which those that it does not have are padding, and the number of
    the image in its split.

    Args:
        config: which images, the number of tokens of a caption, which tokenizer.
        captions: the captioned images.
        tokenizer_folder: of a tokenizer; None: the words of the captions.
        batch_size: samples per step over all devices together.
        augment: of the images, see spp.data.images.transforms.
        seed: of order and augmentation.
        num_workers: worker processes per loader.
        on_error: with skip, captions that are too long are left out, and the place of a broken image is taken by
            another one with its captions; see `num_skipped`.

    Raises:
        ValueError: one line, if an augmentation is not known, or a caption is too long.
    """

    def __init__(
        self,
        config: DataConfig,
        captions: Captions,
        *,
        tokenizer_folder: str | None,
        batch_size: int,
        augment: Mapping[str, Any],
        seed: int,
        num_workers: int,
        on_error: str,
    ) -> None:
        self.augment = Augment.read(augment)
        super().__init__(
            batch_size=batch_size, seed=seed, num_workers=num_workers, num_repeats=self.augment.repeated_aug
        )
        assert config.length is not None
        assert config.img_size is not None
        self._config, self._captions, self._on_error = config, captions, on_error
        self._length, self._size = config.length, config.img_size
        self._folder = tokenizer_folder
        self._skipped = SkippedBySplit(on_error, lambda name: len(captions.splits[name]))
        self._num_too_long = 0

    @property
    def facts(self) -> DataFacts:
        tokenizer = self.tokenizer
        return DataFacts(
            name=str(self._config.name),
            samples="images",
            inputs={
                "img_size": self._size,
                "in_chans": self._captions.in_chans,
                "vocab_size": tokenizer.vocab_size,
                "length": self._length,
                "first_token": tokenizer.first_token,
                "last_token": tokenizer.last_token,
                "padding_token": tokenizer.padding_token,
            },
            preprocessing=describe_transform(self.augment, self._pictures, self._size),
        )

    @cached_property
    def tokenizer(self) -> CaptionTokenizer:
        """What makes tokens of captions."""
        if self._folder is not None:
            return FolderTokenizer(Path(self._folder))
        words = self._captions.words
        entries = self._captions.splits["train"].entries
        return WordTokenizer((w for e in entries for c in e.captions for w in words_of(c)) if words is None else words)

    @property
    def tokenizer_files(self) -> Mapping[str, bytes]:
        return self.tokenizer.files

    @property
    def num_skipped(self) -> int | None:
        """Entries, captions and different broken images that were left out or replaced so far."""
        if self._on_error == "fail":
            return None
        return self._captions.num_skipped + self._num_too_long + len(self._skipped)

    def state_dict(self) -> dict[str, Any]:
        return self._skipped.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._skipped.load_state_dict(state_dict)

    def split(self) -> tuple[Indices, Indices]:
        """Numbers of the captions of train, and of the images of val."""
        num_train = self._config.num_train or len(self._tokens["train"][1])
        return np.arange(min(num_train, len(self._tokens["train"][1]))), np.arange(len(self._captions.splits["val"]))

    def train_samples(self, positions: Positions) -> Dataset[Any]:
        transform = train_transform if self.augment.is_random else eval_transform
        return self._one_caption(positions, transform(self.augment, self._pictures, self._size), self.augment.is_random)

    def plain_train_samples(self, positions: Positions) -> Dataset[Any]:
        return self._one_caption(positions, eval_transform(self.augment, self._pictures, self._size), False)

    def val_samples(self, positions: Positions) -> Dataset[Any]:
        return self._all_captions("val", positions)

    def test_samples(self) -> Dataset[Any]:
        return self._all_captions("test", range(len(self._captions.splits["test"])))

    @cached_property
    def _pictures(self) -> Source:
        """The images as spp.data.images.transforms know them."""
        captions = self._captions

        def no_split(name: Any) -> Any:
            raise NotImplementedError

        return Source(0, captions.in_chans, None, captions.mean, captions.std, no_split)

    @cached_property
    def _tokens(self) -> dict[SplitName, tuple[Tensor, Tensor]]:
        """Of each split the tokens of all captions, (captions, length) int32, and which image each belongs to."""
        return {name: self._encode(split) for name, split in self._captions.splits.items()}

    def _encode(self, split: CaptionSplit) -> tuple[Tensor, Tensor]:
        captions = [caption for entry in split.entries for caption in entry.captions]
        owners = [number for number, entry in enumerate(split.entries) for _ in entry.captions]
        encoded = self.tokenizer.encode_all(captions)
        fits = [len(tokens) <= self._length for tokens in encoded]
        if not all(fits):
            first = fits.index(False)
            if self._on_error == "fail":
                raise ValueError(
                    f"data.length: the caption {captions[first]!r} at {split.entries[owners[first]].place} has "
                    f"{len(encoded[first])} tokens; allowed: up to {self._length}; shorten it, raise data.length, or "
                    "leave such captions out by data.on_error=skip"
                )
            self._num_too_long += fits.count(False)
        padded = torch.full((sum(fits), self._length), self.tokenizer.padding_token, dtype=torch.int32)
        kept = [number for number, is_short in enumerate(fits) if is_short]
        for row, number in enumerate(kept):
            padded[row, : len(encoded[number])] = torch.tensor(encoded[number], dtype=torch.int32)
        return padded, torch.tensor([owners[number] for number in kept])

    def _one_caption(self, positions: Positions, transform: Transform, is_random: bool) -> Dataset[Any]:
        owners = self._tokens["train"][1]
        asked = [(int(owners[number]), [int(number)]) for number in positions]
        return self._samples("train", asked, transform, num_captions=1, is_random=is_random)

    def _all_captions(self, name: SplitName, positions: Positions) -> Dataset[Any]:
        of_image = self._captions_of_images(name)
        asked = [(int(position), of_image[int(position)]) for position in positions]
        transform = eval_transform(self.augment, self._pictures, self._size)
        return self._samples(name, asked, transform, num_captions=max(map(len, of_image)), is_random=False)

    def _samples(
        self,
        name: SplitName,
        asked: list[tuple[int, list[int]]],
        transform: Transform,
        *,
        num_captions: int,
        is_random: bool,
    ) -> Dataset[Any]:
        split = self._captions.splits[name]
        num_bytes = len(split) * self._captions.in_chans * self._size**2 * torch.float32.itemsize
        return _CaptionedImages(
            Selection(split, range(len(split)), self._skipped.of(name)),
            transform,
            self._tokens[name][0],
            self._captions_of_images(name),
            asked,
            num_captions,
            keeps=not is_random and num_bytes <= MAX_CACHE_BYTES,
        )

    def _captions_of_images(self, name: SplitName) -> list[list[int]]:
        """Of each image of a split the numbers of its captions."""
        found: list[list[int]] = [[] for _ in self._captions.splits[name].entries]
        for number, owner in enumerate(self._tokens[name][1].tolist()):
            found[owner].append(number)
        return found


class _CaptionedImages(Dataset[Sample]):
    """Images with some of their captions.

    Args:
        images: all of a split.
        transform: from an image to a tensor.
        tokens: of all captions of the split, (captions, length).
        of_image: of each image the numbers of its captions.
        asked: of each sample the number of its image and of its captions.
        num_captions: how many captions of a sample there is room for.
        keeps: whether an image that was transformed is kept.
    """

    def __init__(
        self,
        images: Selection,
        transform: Transform,
        tokens: Tensor,
        of_image: list[list[int]],
        asked: list[tuple[int, list[int]]],
        num_captions: int,
        *,
        keeps: bool,
    ) -> None:
        self.images, self.transform, self.tokens, self.of_image = images, transform, tokens, of_image
        self.asked, self.num_captions, self.keeps = asked, num_captions, keeps
        self._kept: dict[int, tuple[Tensor, int]] = {}

    def __len__(self) -> int:
        return len(self.asked)

    def __getitem__(self, asked: int | Draw) -> Sample:
        return self.__getitems__([asked])[0]

    def __getitems__(self, asked: Sequence[int | Draw]) -> list[Sample]:
        # Each image has a seed of its own, so that it looks the same from any worker and after any restart.
        with own_random_numbers():
            return [self._sample(one) for one in asked]

    def _sample(self, asked: int | Draw) -> Sample:
        number, captions = self.asked[position_of(asked)]
        if isinstance(asked, Draw) and not self.keeps:
            seed_transforms(asked.seed)
        pixels, shown = self._kept.get(number) or self._read(number)
        if shown != number:  # a broken image, in whose place another one is shown
            captions = self.of_image[shown][: self.num_captions]
        tokens = self.tokens[captions].long()
        missing = self.num_captions - len(captions)
        return {
            "pixel_values": pixels,
            "input_ids": torch.cat([tokens, tokens.new_zeros(missing, tokens.shape[1])]),
            "is_caption": torch.arange(self.num_captions) < len(captions),
            "image": torch.tensor(shown),
        }

    def _read(self, number: int) -> tuple[Tensor, int]:
        image, shown = self.images[number]
        made = self.transform(image), shown
        if self.keeps:
            self._kept[number] = made
        return made

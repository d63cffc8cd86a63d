"""Text in windows of tokens: the data module of language models."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from spp.data.config import DataConfig
from spp.data.facts import DataFacts
from spp.data.module import DataModule, Positions, WholeTensors
from spp.data.split import Indices
from spp.data.text.source import SplitName, Text
from spp.data.text.windows import consecutive_windows

NUM_BYTES = 256
"""The vocabulary of bytes: every byte is a token, and there are no others."""

Encode = Callable[[str], Sequence[int]]
"""Tokens of a text."""


class TextData(DataModule):
    """A batch is windows of tokens, int64 of shape (B, length), twice: as inputs and as targets.

    Args:
        config: which text, and the length of its windows.
        text: the text.
        encode: tokens of a text; None: its bytes.
        batch_size: windows per step over all devices together.
        seed: of the order.
        num_workers: not used: the windows lie in memory.

    Raises:
        ValueError: one line, if a part of the text is shorter than a window.
    """

    def __init__(
        self, config: DataConfig, text: Text, encode: Encode | None, *, batch_size: int, seed: int, num_workers: int
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, num_workers=num_workers)
        assert config.length is not None
        self._config, self._text, self._encode, self._length = config, text, encode, config.length
        self._windows = {split: self._cut(split) for split in ("train", "validation")}

    @property
    def facts(self) -> DataFacts:
        inputs = {"vocab_size": NUM_BYTES, "length": self._length}
        return DataFacts(name=str(self._config.name), samples="windows", inputs=inputs)

    def split(self) -> tuple[Indices, Indices]:
        return np.arange(len(self._windows["train"])), np.arange(len(self._windows["validation"]))

    def train_samples(self, positions: Positions) -> Dataset[Any]:
        return self._samples(self._windows["train"], positions)

    def val_samples(self, positions: Positions) -> Dataset[Any]:
        return self._samples(self._windows["validation"], positions)

    def test_samples(self) -> Dataset[Any]:
        windows = self._cut("test")
        return WholeTensors(windows, windows)

    def _cut(self, split: SplitName) -> Tensor:
        joined = self._text.joined(split)
        if self._encode is None:
            tokens = torch.frombuffer(bytearray(joined.encode()), dtype=torch.uint8)
        else:
            tokens = torch.tensor(self._encode(joined))
        return consecutive_windows(tokens, self._length, None if split == "train" else self._config.num_windows, split)

    def _samples(self, windows: Tensor, positions: Positions) -> Dataset[Any]:
        chosen = windows[torch.as_tensor(np.asarray(positions))]
        return WholeTensors(chosen, chosen)

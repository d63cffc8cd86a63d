"""Sentences as batches of tokens."""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from spp.data.config import DataConfig
from spp.data.facts import DataFacts
from spp.data.files import limit_train
from spp.data.module import DataModule, Positions, WholeTensors, position_of
from spp.data.sampling import Draw
from spp.data.sentences.source import Sentences
from spp.data.sentences.tokens import Tokens, files_of_tokenizer, learn_words, open_tokenizer, tokenize
from spp.data.split import Indices, stratified_split
from spp.model_files import ModelFiles

MULTIPLE_OF = 8
"""Batches are as long as their longest text, rounded up to this."""

_log = logging.getLogger(__name__)


class SentenceData(DataModule):
    """A batch is a mapping for the network and targets (B,); of test, also the part that each sample belongs to.

    The mapping holds input_ids, attention_mask and token_type_ids, int64 of shape (B, tokens of the longest text).

    Args:
        config: which sentences, and the most tokens of a text.
        sentences: those.
        tokenizer: where the tokenizer lies; None: the words of the training texts.
        batch_size: samples per step over all devices together.
        seed: of the order.
        num_workers: not used: the tokens lie in memory.

    Raises:
        ValueError: one line, if the tokenizer is another one by now.
    """

    def __init__(
        self,
        config: DataConfig,
        sentences: Sentences,
        tokenizer: str | None,
        *,
        batch_size: int,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, num_workers=num_workers)
        assert config.length is not None
        self._config, self._sentences = config, sentences
        self._num_train = limit_train(len(sentences.rows["train"]), config.num_train)
        self._texts = _Texts(sentences, tokenizer, config.tokenizer, config.length)

    @property
    def facts(self) -> DataFacts:
        length, names = self._config.length, self._sentences.class_names
        truncated = {split: self._texts.of(split).num_truncated for split in self._splits}
        return DataFacts(
            name=str(self._config.name),
            samples="texts",
            inputs={"vocab_size": self._texts.vocab_size, "length": length},
            num_classes=None if names is None else len(names),
            class_names=names,
            are_texts=True,
            parts=self._sentences.parts,
            preprocessing={"tokenizer": self._texts.name, "length": length, "num_truncated": truncated},
        )

    @property
    def tokenizer_files(self) -> Mapping[str, bytes]:
        return self._texts.tokenizer_files

    def split(self) -> tuple[Indices, Indices]:
        if "validation" in self._sentences.rows:
            return np.arange(self._num_train), np.arange(len(self._sentences.rows["validation"]))
        targets = np.asarray(self._sentences.targets("train")[: self._num_train])
        classes = targets if self._sentences.class_names is not None else np.zeros(len(targets))
        return stratified_split(classes, self._config.val_fraction, self._config.split_seed)

    def train_samples(self, positions: Positions) -> Dataset[Any]:
        return self._samples("train", positions)

    def val_samples(self, positions: Positions) -> Dataset[Any]:
        return self._samples("validation" if "validation" in self._sentences.rows else "train", positions)

    def test_samples(self) -> Dataset[Any]:
        return self._samples("test", range(len(self._sentences.rows["test"])))

    @property
    def _splits(self) -> Sequence[str]:
        return [split for split in self._sentences.rows if split != "test"]

    def _samples(self, split: str, positions: Positions) -> Dataset[Any]:
        places = np.asarray(positions, dtype=np.int64)
        targets = torch.tensor(self._sentences.targets(split))[torch.as_tensor(places)]
        parts = None
        if split == "test" and len(self._sentences.parts) > 1:
            parts = torch.tensor([row.part for row in self._sentences.rows[split]])[torch.as_tensor(places)]
        return _TokenSamples(self._texts.of(split), places, targets, parts)


class _Texts:
    """The tokens of the splits, each made when it is asked for."""

    def __init__(self, sentences: Sentences, tokenizer: str | None, digest: str | None, length: int) -> None:
        self._texts = {split: tuple(row.texts for row in rows) for split, rows in sentences.rows.items()}
        self._where = None if digest is None else (str(tokenizer), digest.removeprefix("sha256:"))
        self._length = length

    @property
    def name(self) -> str:
        return "words of the training texts" if self._where is None else f"sha256:{self._where[1]}"

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    @property
    def tokenizer_files(self) -> Mapping[str, bytes]:
        return files_of_tokenizer(self._tokenizer, self._length)

    def of(self, split: str) -> Tokens:
        return _tokens(self._where, self._length, split, self._texts[split], self._texts["train"])

    @property
    def _tokenizer(self) -> Any:
        return _tokenizer(self._where, self._texts["train"])


# Stages that follow each other in one process ask for the same.
@lru_cache(maxsize=1)
def _tokenizer(where: tuple[str, str] | None, train: tuple[tuple[str, ...], ...]) -> Any:
    return learn_words(train) if where is None else open_tokenizer(ModelFiles(Path(where[0])), where[1])


@lru_cache(maxsize=3)
def _tokens(
    where: tuple[str, str] | None,
    length: int,
    split: str,
    texts: tuple[tuple[str, ...], ...],
    train: tuple[tuple[str, ...], ...],
) -> Tokens:
    tokens = tokenize(_tokenizer(where, train), texts, length)
    if tokens.num_truncated:
        share = f"{tokens.num_truncated} of {len(texts)} {split} texts"
        _log.warning("data: %s have more than data.length=%d tokens and are cut to that", share, length)
    return tokens


class _TokenSamples(WholeTensors):
    """Samples whose batches are as long as their longest text."""

    def __init__(self, tokens: Tokens, places: Indices, targets: Tensor, parts: Tensor | None) -> None:
        super().__init__(torch.from_numpy(tokens.ids), targets)
        self.tokens, self.places, self.parts = tokens, places, parts

    def __getitem__(self, asked: int | Draw) -> Any:
        inputs, *others = self.__getitems__([asked])
        return {name: value[0] for name, value in inputs.items()}, *(value[0] for value in others)

    def __getitems__(self, asked: Sequence[int | Draw]) -> Any:
        numbers = [position_of(one) for one in asked]
        rows = self.places[numbers]
        lengths = torch.from_numpy(self.tokens.lengths[rows])
        longest = min(-(-int(lengths.max()) // MULTIPLE_OF) * MULTIPLE_OF, self.tokens.ids.shape[1])
        inputs = {
            "input_ids": torch.from_numpy(self.tokens.ids[rows, :longest]).long(),
            "attention_mask": (torch.arange(longest) < lengths[:, None]).long(),
            "token_type_ids": torch.from_numpy(self.tokens.parts[rows, :longest]).long(),
        }
        targets = self.targets[numbers]
        return (inputs, targets) if self.parts is None else (inputs, targets, self.parts[numbers])

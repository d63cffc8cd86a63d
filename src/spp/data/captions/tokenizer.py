"""From a caption to tokens: the words of the training captions, or the tokenizer that lies beside the weights."""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt"),
)
"""What decides how a tokenizer of transformers cuts."""

_WORD = re.compile(r"[\w']+")
PADDING, FIRST, UNKNOWN, LAST = range(4)
"""Special tokens of the words. transformers takes an end numbered 2 for one whose number it does not know."""


class CaptionTokenizer(ABC):
    """Tokens of captions, each between a first and a last one.

    Attributes:
        vocab_size: how many there are.
        first_token: in front of every caption.
        last_token: behind it.
        padding_token: what comes after that.
    """

    vocab_size: int
    first_token: int
    last_token: int
    padding_token: int

    @abstractmethod
    def encode_all(self, captions: Sequence[str]) -> list[list[int]]:
        """The tokens of every caption."""

    @property
    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """The tokenizer as transformers.AutoTokenizer reads it, by name of the file."""


class WordTokenizer(CaptionTokenizer):
    """Every word is a token; those that are not known are one.

    Args:
        words: the known ones.
    """

    first_token, last_token, padding_token = FIRST, LAST, PADDING

    def __init__(self, words: Iterable[str]) -> None:
        self._numbers = {word: number for number, word in enumerate(sorted(set(words)), LAST + 1)}
        self.vocab_size = LAST + 1 + len(self._numbers)

    def encode_all(self, captions: Sequence[str]) -> list[list[int]]:
        return [[FIRST, *(self._numbers.get(word, UNKNOWN) for word in words_of(each)), LAST] for each in captions]

    @property
    def files(self) -> dict[str, bytes]:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

        special = {"pad_token": "<pad>", "bos_token": "<s>", "unk_token": "<unk>", "eos_token": "</s>"}
        vocabulary = dict(zip(special.values(), (PADDING, FIRST, UNKNOWN, LAST), strict=True)) | self._numbers
        tokenizer: Any = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD.pattern), "removed", invert=True)
        first, last = special["bos_token"], special["eos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A {last}", special_tokens=[(first, FIRST), (last, LAST)]
        )
        about = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
        return {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": json.dumps(about).encode()}


class FolderTokenizer(CaptionTokenizer):
    """A tokenizer of transformers.

    Args:
        folder: its files.

    Raises:
        ValueError: one line, if there is none.
    """

    def __init__(self, folder: Path) -> None:
        import transformers

        files_of(folder)
        self._folder = folder
        self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        self._tokenizer.model_max_length = 10**12  # captions that are too long are named, not cut
        self.vocab_size = len(self._tokenizer)
        self.first_token, self.last_token = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        self.padding_token = self._tokenizer.pad_token_id

    def encode_all(self, captions: Sequence[str]) -> list[list[int]]:
        tokens: list[list[int]] = self._tokenizer(list(captions))["input_ids"]
        return tokens

    @property
    def files(self) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in files_of(self._folder)}


def words_of(caption: str) -> list[str]:
    """The words of a caption, in small letters and without punctuation."""
    return _WORD.findall(caption.lower())


def files_of(folder: Path) -> list[Path]:
    """The files of a tokenizer.

    Raises:
        ValueError: one line, if there are none.
    """
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not files:
        raise ValueError(
            f"data.tokenizer: {str(folder)!r} has none; allowed: null for the words of the training captions, or a "
            f"folder with {', '.join(TOKENIZER_FILES)}; download it beside the weights"
        )
    return files


def identity_of(folder: Path) -> str:
    """sha256 over the files of a tokenizer."""
    digest = hashlib.sha256()
    for file in files_of(folder):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode() + file.read_bytes())
    return f"sha256:{digest.hexdigest()}"

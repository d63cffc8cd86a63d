"""From sentences to tokens: by the tokenizer.json of a pretrained model, or by the words of the training texts."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spp.model_files import ModelFiles, find_model_files

TOKENIZER_FILE = "tokenizer.json"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MAX_WORDS = 2000
"""Different words that a vocabulary of one's own has, special tokens included."""
PADDING = 0
"""The token of padding of every BERT."""

# What works in threads must not be forked, as training processes are.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True)
class Tokens:
    """Texts as tokens.

    Attributes:
        ids: tokens, (texts, longest text), PADDING behind the end; int32.
        parts: 0 for tokens of the first text of a pair, 1 for those of the second, likewise; uint8.
        lengths: tokens of each text, (texts,).
        num_truncated: texts that were longer than the network sees.
    """

    ids: npt.NDArray[np.int32]
    parts: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]
    num_truncated: int


def find_tokenizer(name: str) -> tuple[str, ModelFiles]:
    """The hash of a tokenizer and where it lies, by the folder of its model, or package:NAME.

    Raises:
        ValueError: one line, if it is not there.
    """
    files = find_model_files(name, "data.tokenizer")
    return hashlib.sha256(files.read(TOKENIZER_FILE, "data.tokenizer")).hexdigest(), files


def open_tokenizer(files: ModelFiles, digest: str) -> Any:
    """The tokenizer of a model.

    Raises:
        ValueError: one line, if it is another one by now, or none.
    """
    from tokenizers import Tokenizer

    content = files.read(TOKENIZER_FILE, "data.tokenizer")
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(
            f"data.tokenizer: {TOKENIZER_FILE} of {str(files.path)!r} has changed since it was planned; allowed: the "
            "same file; run again"
        )
    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:
        raise ValueError(
            f"data.tokenizer: {TOKENIZER_FILE} of {str(files.path)!r} is none ({str(error).splitlines()[0]}); allowed: "
            "what transformers saves; save it again by save_pretrained"
        ) from None
    tokenizer.no_padding()
    return tokenizer


def learn_words(texts: Sequence[tuple[str, ...]]) -> Any:
    """A tokenizer whose tokens are the most frequent words of some texts, in lower case; others are [UNK]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    counts = Counter(
        word for each in texts for text in each for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )
    words = sorted(counts, key=lambda word: (-counts[word], word))[: MAX_WORDS - len(SPECIAL_TOKENS)]
    vocabulary = {word: number for number, word in enumerate([*SPECIAL_TOKENS, *words])}
    tokenizer: Any = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL_TOKENS[1]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    first, last = "[CLS]", "[SEP]"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(name, vocabulary[name]) for name in (first, last)],
    )
    return tokenizer


def files_of_tokenizer(tokenizer: Any, length: int) -> dict[str, bytes]:
    """A tokenizer as transformers.AutoTokenizer reads it, by name of the file; longer texts it cuts as `tokenize` does.

    Args:
        tokenizer: of the package tokenizers.
        length: the most tokens of a text, special ones included.
    """
    tokenizer.enable_truncation(length, strategy="longest_first")
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    known = {name: token for name, token in special.items() if tokenizer.token_to_id(token) is not None}
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length, **known}
    about["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return {TOKENIZER_FILE: tokenizer.to_str().encode(), "tokenizer_config.json": json.dumps(about, indent=1).encode()}


def tokenize(tokenizer: Any, texts: Sequence[tuple[str, ...]], length: int) -> Tokens:
    """Texts as tokens, the longest text of a pair cut first where a sample has more than `length`.

    Args:
        tokenizer: of the package tokenizers.
        texts: one text or two each.
        length: the most tokens that are kept, special ones included.
    """
    tokenizer.enable_truncation(length, strategy="longest_first")
    found = tokenizer.encode_batch([text[0] if len(text) == 1 else text for text in texts])
    lengths = np.array([len(one.ids) for one in found], dtype=np.int64)
    ids = np.full((len(found), int(lengths.max(initial=1))), PADDING, dtype=np.int32)
    parts = np.zeros(ids.shape, dtype=np.uint8)
    for number, one in enumerate(found):
        ids[number, : len(one.ids)], parts[number, : len(one.ids)] = one.ids, one.type_ids
    return Tokens(ids, parts, lengths, sum(bool(one.overflowing) for one in found))

"""From text to tokens: bytes for networks that are trained here, else the tokenizer that lies beside the weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spp.models.pretrained import TOKENIZER_FILES
from spp.text import reason_of

NUM_BYTES = 256


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer.

    Attributes:
        name: what the record calls it.
        encode: tokens of a text, with the special tokens that the tokenizer itself adds.
        encode_plain: tokens of a text alone.
        first_token: what it puts before every text, None for nothing.
        boundary_token: what may stand where there is no text before: that which begins texts, else that which ends
            them; None: it has neither.
    """

    name: str
    encode: Callable[[str], list[int]]
    encode_plain: Callable[[str], list[int]]
    first_token: int | None
    boundary_token: int | None


def byte_tokens(text: str) -> list[int]:
    """The bytes of a text in UTF-8."""
    return list(text.encode())


def open_tokenizer(folder: Path | None) -> Tokenizer:
    """The tokenizer in the folder of a pretrained model; None: bytes.

    Raises:
        ValueError: one line, if there is none, or it cannot be read.
    """
    if folder is None:
        return Tokenizer("bytes", byte_tokens, byte_tokens, None, None)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ValueError(
            f"model.weights: {str(folder)!r} has no tokenizer; allowed: one of {', '.join(TOKENIZER_FILES)} beside the "
            "weights; download it, too"
        )
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        raise ValueError(
            f"model.weights: the tokenizer in {str(folder)!r} cannot be read ({reason_of(error)}); allowed: one that "
            "transformers reads; download its files again"
        ) from None
    # A whole text is longer than what the model sees at once, and is cut into windows afterwards.
    tokenizer.model_max_length = 10**12
    empty: list[int] = tokenizer.encode("")
    return Tokenizer(
        name=type(tokenizer).__name__,
        encode=tokenizer.encode,
        encode_plain=partial(tokenizer.encode, add_special_tokens=False),
        first_token=empty[0] if empty else None,
        boundary_token=tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id,
    )

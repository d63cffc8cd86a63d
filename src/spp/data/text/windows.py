"""Windows of tokens: those to calibrate with are drawn, those to measure on follow each other."""

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from spp.data.text.source import Text

MAX_TRIES = 100_000
"""Documents that are looked at for one that is long enough."""


def calibration_windows(
    text: Text, encode: Callable[[str], Sequence[int]], num_windows: int, length: int, seed: int
) -> Tensor:
    """Windows of the train split, drawn as Wanda, SparseGPT and RIA draw them.

    Crops begin at random places of the joined text. Of documents one is drawn until it is longer than a window, and
    cropped; the generator is Python's, so that a seed gives the draws of those codes.

    Args:
        text: to draw from.
        encode: tokens of a text.
        num_windows: how many windows.
        length: tokens of each.
        seed: of the draws.

    Returns:
        Tokens (num_windows, length), int64.

    Raises:
        ValueError: one line, if the text is shorter than what is asked for.
    """
    draws = random.Random(seed)
    if text.rule == "documents":
        return torch.stack([_crop_of_document(text, encode, length, draws) for _ in range(num_windows)])
    tokens = torch.tensor(encode(text.joined("train")), dtype=torch.long)
    if len(tokens) < max(num_windows * length, length + 2):
        raise ValueError(
            f"calibration.num_windows: {num_windows} windows of {length} tokens are more than the text has, "
            f"{len(tokens)} tokens; allowed: up to {len(tokens) // length} windows; use fewer or shorter ones, or "
            "another text"
        )
    starts = [draws.randint(0, len(tokens) - length - 1) for _ in range(num_windows)]
    return torch.stack([tokens[start : start + length] for start in starts])


def _crop_of_document(text: Text, encode: Callable[[str], Sequence[int]], length: int, draws: random.Random) -> Tensor:
    documents = text.pieces("train")
    for _ in range(MAX_TRIES):
        tokens = encode(documents[draws.randint(0, len(documents) - 1)])
        if len(tokens) > length:
            start = draws.randint(0, len(tokens) - length - 1)
            return torch.tensor(tokens[start : start + length], dtype=torch.long)
    raise ValueError(
        f"calibration.length: none of {MAX_TRIES} documents that were drawn has more than {length} tokens; allowed: "
        "windows shorter than the documents; use a smaller length"
    )


def consecutive_windows(tokens: Tensor, length: int, num_windows: int | None, split: str) -> Tensor:
    """Windows that follow each other without overlap; what is left at the end is dropped.

    Args:
        tokens: of the whole text, (N,).
        length: tokens of each.
        num_windows: so many of them, spread evenly; None: all.
        split: for messages.

    Returns:
        Tokens (windows, length), int64.

    Raises:
        ValueError: one line, if there are fewer than are asked for.
    """
    num_all = len(tokens) // length
    wanted = num_all if num_windows is None else num_windows
    if not 0 < wanted <= num_all:
        raise ValueError(
            f"data.num_windows: {num_windows} windows of {length} tokens are not in the {split} text of {len(tokens)} "
            f"tokens; allowed: up to {num_all}; use fewer, or a smaller data.length"
        )
    places = [(2 * index + 1) * num_all // (2 * wanted) for index in range(wanted)]
    return tokens[: num_all * length].reshape(num_all, length)[places].long()

"""Recall at k over a whole gallery of images and texts, without ever holding all their scores."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

CHUNK = 1024
"""Images, and texts, whose scores are held at a time."""


def recall(
    images: Tensor, texts: Tensor, image_of_text: Tensor, ks: Sequence[int] = (1, 5, 10), chunk: int = CHUNK
) -> dict[str, float]:
    """Share of queries whose true match is among the k best scores, in both directions.

    A score is the product of two embeddings. An image's match is the best of its texts, a text's match its image.
    Among equal scores a match stands where it does on average over all orders of them: one tied with t others
    behind g better ones has rank g + 1 + t / 2. A query counts at k if this rank is at most k, so that neither a
    constant network nor the order of the gallery gains anything.

    Args:
        images: embeddings (n, d).
        texts: embeddings (m, d).
        image_of_text: int64 (m,), the row in `images` that each text belongs to. Images without a text are part of the
            gallery, but no queries.
        ks: the ranks.
        chunk: images, and texts, whose scores are held at a time; changes no result.

    Returns:
        {"i2t_r1": ..., "t2i_r1": ..., ...} in percent, by k.

    Raises:
        ValueError: one line, if shapes do not fit, a text belongs to no image, or an embedding is not finite.
    """
    _check(images, texts, image_of_text, ks)
    owners = image_of_text.to(images.device)
    best_of_image, score_of_text = _own_scores(images, texts, owners, chunk)
    ahead_of_image, tied_with_image = (torch.zeros(len(images), device=images.device) for _ in range(2))
    ahead_of_text, tied_with_text = (torch.zeros(len(texts), device=images.device) for _ in range(2))
    own_tied = torch.zeros(len(images), device=images.device)
    for rows, columns, scores in _scores(images, texts, chunk):
        is_own = _is_own(owners, rows, columns)
        best = best_of_image[rows, None]
        ahead_of_image[rows] += ((scores > best) & ~is_own).sum(1)
        tied_with_image[rows] += ((scores == best) & ~is_own).sum(1)
        own_tied[rows] += ((scores == best) & is_own).sum(1)
        own = score_of_text[None, columns]
        ahead_of_text[columns] += ((scores > own) & ~is_own).sum(0)
        tied_with_text[columns] += ((scores == own) & ~is_own).sum(0)
    is_query = own_tied > 0
    # The first of s own texts among s + t equal scores stands at (s + t + 1) / (s + 1) on average.
    image_ranks = (ahead_of_image + (own_tied + tied_with_image + 1) / (own_tied + 1))[is_query]
    text_ranks = ahead_of_text + (tied_with_text + 2) / 2
    ranks = {"i2t": image_ranks, "t2i": text_ranks}
    return {
        f"{direction}_r{k}": 100 * (values <= k).double().mean().item()
        for k in ks
        for direction, values in ranks.items()
    }


def _check(images: Tensor, texts: Tensor, image_of_text: Tensor, ks: Sequence[int]) -> None:
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"recall: embeddings of shapes {tuple(images.shape)} and {tuple(texts.shape)} do not fit; allowed: (n, d) "
            "and (m, d); give both towers' projections"
        )
    if image_of_text.shape != (len(texts),) or not len(texts):
        raise ValueError(
            f"recall: image_of_text of shape {tuple(image_of_text.shape)} does not fit {len(texts)} texts; allowed: "
            "one image for each of at least one text; give one row of `images` per text"
        )
    if image_of_text.min() < 0 or image_of_text.max() >= len(images):
        raise ValueError(
            f"recall: image_of_text names rows {int(image_of_text.min())} to {int(image_of_text.max())}; allowed: 0 to "
            f"{len(images) - 1}; number the images from 0"
        )
    if any(k < 1 for k in ks):
        raise ValueError(f"recall: ks={list(ks)} is not allowed; allowed: 1 or more; use 1, 5, 10")
    for name, values in (("images", images), ("texts", texts)):
        if not torch.isfinite(values).all():
            raise ValueError(
                f"recall: embeddings of {name} are not finite; allowed: finite numbers; look at the network's outputs"
            )


def _scores(images: Tensor, texts: Tensor, chunk: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows, columns, and the scores there, chunk by chunk.

    Equal embeddings have equal scores wherever they stand in a chunk, which a product in the embeddings' own
    precision does not promise: what it rounds differently is below single precision here.
    """
    for top in range(0, len(images), chunk):
        rows = slice(top, min(top + chunk, len(images)))
        for left in range(0, len(texts), chunk):
            columns = slice(left, min(left + chunk, len(texts)))
            yield rows, columns, (images[rows].double() @ texts[columns].double().T).float()


def _is_own(owners: Tensor, rows: slice, columns: slice) -> Tensor:
    return torch.arange(rows.start, rows.stop, device=owners.device)[:, None] == owners[None, columns]


def _own_scores(images: Tensor, texts: Tensor, owners: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Best score of each image with a text of its own (-inf without one), and each text's score with its image."""
    best_of_image = torch.full((len(images),), float("-inf"), device=images.device)
    score_of_text = torch.full((len(texts),), float("-inf"), device=images.device)
    for rows, columns, scores in _scores(images, texts, chunk):
        own = scores.masked_fill(~_is_own(owners, rows, columns), float("-inf"))
        best_of_image[rows] = torch.maximum(best_of_image[rows], own.amax(1))
        score_of_text[columns] = torch.maximum(score_of_text[columns], own.amax(0))
    return best_of_image, score_of_text

"""Some images of a split, in which broken ones may be replaced by others."""

import logging
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import RawArray
from typing import Any

from PIL import Image

from spp.data.images.broken import BrokenImageError
from spp.data.images.source import Labels, Split
from spp.data.split import Indices

_log = logging.getLogger(__name__)


class SkippedImages:
    """The images of a split that were found broken; loaders' worker processes add to the same set.

    Each is logged when it is found.
    """

    def __init__(self, num_samples: int) -> None:
        # One byte per image, which every process only ever sets: no lock is needed.
        self._is_broken = RawArray("B", num_samples)

    def __contains__(self, position: int) -> bool:
        return bool(self._is_broken[position])

    def add(self, position: int, error: BrokenImageError) -> None:
        """Count an image once, however often and by how many processes it is found."""
        if position not in self:
            self._is_broken[position] = 1
            _log.warning("skipped, and replaced by another image: %s", str(error).partition("; ")[0])

    def positions(self) -> list[int]:
        """Those found so far, sorted."""
        return [position for position, is_broken in enumerate(bytes(self._is_broken)) if is_broken]

    def restore(self, positions: Sequence[int]) -> None:
        """Count images that were found before an interruption."""
        for position in positions:
            self._is_broken[position] = 1


class SkippedBySplit:
    """The images that were found broken, of every split of a data set.

    Args:
        on_error: skip or, with which there are none, fail.
        num_samples: images of a split by its name.
    """

    def __init__(self, on_error: str, num_samples: Callable[[Any], int]) -> None:
        self.skips = on_error == "skip"
        self._num_samples = num_samples
        self._by_split: dict[str, SkippedImages] = {}

    def __len__(self) -> int:
        return sum(len(skipped.positions()) for skipped in self._by_split.values())

    def of(self, name: str) -> SkippedImages | None:
        """Those of one split; None where the first one ends what runs."""
        if self.skips and name not in self._by_split:
            self._by_split[name] = SkippedImages(self._num_samples(name))
        return self._by_split.get(name)

    def state_dict(self) -> dict[str, Any]:
        """Their positions by split, for a checkpoint."""
        return {name: skipped.positions() for name, skipped in self._by_split.items() if skipped.positions()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on counting from there."""
        for name, positions in state_dict.items():
            skipped = self.of(name)
            if skipped is not None:
                skipped.restore(positions)


class Selection:
    """The images of `split` at `positions`.

    With `skipped`, the place of a broken image is taken by the next one of the selection that can be read, after
    the last one by the first: batches keep their size, any process comes to the same image, and it is never one
    from outside the selection. The label is that of the image that is shown. Without it the error of the broken
    image is raised.
    """

    def __init__(self, split: Split, positions: Sequence[int] | Indices, skipped: SkippedImages | None = None) -> None:
        self.split, self.positions, self.skipped = split, positions, skipped

    @property
    def labels(self) -> Labels:
        """Class of every image as the manifest has it, shape (N,)."""
        labels: Labels = self.split.labels[self.positions]
        return labels

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if self.skipped is None:
            return self.split[int(self.positions[index])]
        for step in range(len(self)):
            position = int(self.positions[(index + step) % len(self)])
            if position in self.skipped:
                continue
            try:
                return self.split[position]
            except BrokenImageError as error:
                self.skipped.add(position, error)
        raise BrokenImageError(
            f"data.on_error: 'skip' finds none of {len(self)} images that can be read; allowed: sets with some; "
            "correct data.root"
        )

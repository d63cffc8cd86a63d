import multiprocessing

import numpy as np
import pytest
from PIL import Image

from spp.data.images.broken import BrokenImageError
from spp.data.images.selection import Selection, SkippedImages


class Numbers:
    """Image `index` is one pixel of that brightness; some are broken."""

    def __init__(self, count, broken=()):
        self.labels = np.arange(count) * 10
        self.broken, self.asked = set(broken), []

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.asked.append(index)
        if index in self.broken:
            raise BrokenImageError(f"data.root: number {index}")
        return Image.new("L", (1, 1), index), int(self.labels[index])


def shown(selection):
    items = [selection[index] for index in range(len(selection))]
    assert all(label == 10 * image.getpixel((0, 0)) for image, label in items)
    return [image.getpixel((0, 0)) for image, _ in items]


def test_positions_and_labels():
    selection = Selection(Numbers(9), [7, 2, 5])
    assert shown(selection) == [7, 2, 5]
    assert selection.labels.tolist() == [70, 20, 50]


def test_without_skipping_the_error_is_raised():
    with pytest.raises(BrokenImageError, match="number 2"):
        shown(Selection(Numbers(9, [2]), [7, 2, 5]))


def test_the_next_of_the_selection_takes_the_place(caplog):
    split = Numbers(9, [2, 5, 8])
    skipped = SkippedImages(9)
    selection = Selection(split, [1, 2, 5, 6, 7, 8], skipped)
    for _ in range(2):
        assert shown(selection) == [1, 6, 6, 6, 7, 1]
    assert skipped.positions() == [2, 5, 8]
    assert sorted(split.asked.count(number) for number in (2, 5, 8)) == [1, 1, 1]
    assert [record.message.rpartition(" ")[2] for record in caplog.records] == ["2", "5", "8"]


def test_what_is_shown_does_not_depend_on_what_was_asked_before():
    broken = [0, 3, 4, 9]
    expected = shown(Selection(Numbers(10, broken), range(10), SkippedImages(10)))
    selection = Selection(Numbers(10, broken), range(10), SkippedImages(10))
    for index in np.random.default_rng(0).permutation(10).tolist():
        assert selection[index][0].getpixel((0, 0)) == expected[index]


def test_nothing_can_be_read():
    with pytest.raises(BrokenImageError, match=r"^data\.on_error: 'skip' finds none of 3 images that can be read; "):
        Selection(Numbers(9, range(9)), [1, 2, 3], SkippedImages(9))[0]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_add_to_the_same_set(method):
    context = multiprocessing.get_context(method)
    skipped = SkippedImages(9)
    processes = [context.Process(target=skipped.add, args=(n, BrokenImageError("x"))) for n in (3, 7)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert skipped.positions() == [3, 7]


def test_restored_ones_are_not_read_again():
    split, skipped = Numbers(9, [2]), SkippedImages(9)
    skipped.restore([2])
    assert shown(Selection(split, [1, 2, 3], skipped)) == [1, 3, 3]
    assert 2 not in split.asked

"""10,605 sentences of movie reviews with the mean rating of 20 readers, from -4 to 4: for or against the movie?

They lie in the source archive of the package vaderSentiment (MIT licence), which `make models` downloads; nothing of it
is run. Sentences with a rating of 0 have no class. Which sentences come from one review is not known. In the file those
for a movie come first; they are shuffled once and for all, and the twelfth part of them is the test set.
"""

import io
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from spp.data.files import require_root
from spp.data.sentences.source import Place, Row, Sentences, checked
from spp.data.split import permutation

FILE = "movieReviewSnippets_GroundTruth.txt"
INNER = "hutto_ICWSM_2014.tar.gz"
TEST_SHARE = 12
_SEED = 2014


def open_sentences(place: Place) -> Sentences:
    """Read the sentences.

    Raises:
        ValueError: one line, if the archive is not there, or holds something else.
    """
    root = require_root(place.root, "the source archive of vaderSentiment, which make models downloads")
    in_order = list(_rows(*_read(root)))
    rows = [in_order[place] for place in permutation(len(in_order), _SEED)]
    num_test = len(rows) // TEST_SHARE
    return checked(
        {"train": rows[num_test:], "test": rows[:num_test]},
        on_error=place.options["on_error"],
        class_names=("negative", "positive"),
    )


def _rows(source: str, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            _, rating, sentence = line.split("\t", 2)
            value = float(rating)
        except ValueError:
            raise ValueError(
                f"data.root: {source} line {number} is no number, rating and sentence; allowed: the file of "
                "vaderSentiment 3.3.2; download it again"
            ) from None
        if value:
            yield Row((sentence,), "positive" if value > 0 else "negative", f"{source} line {number}")


def _read(root: Path) -> tuple[str, str]:
    """Where the sentences are, and all of them as one text."""
    plain, archives = root / FILE, sorted(root.glob("[vV]ader*entiment-*.tar.gz"))
    if plain.is_file():
        return str(plain), plain.read_text(encoding="utf-8")
    if not archives:
        raise ValueError(
            f"data.root: {str(root)!r} has neither {FILE} nor vaderSentiment-3.3.2.tar.gz; allowed: a folder with "
            "one of them; run make models, or pip download --no-deps --no-binary :all: vaderSentiment==3.3.2"
        )
    state = archives[-1].stat()
    return str(archives[-1]), _unpacked(archives[-1], state.st_size, state.st_mtime_ns)


@cache
def _unpacked(archive: Path, size: int, mtime_ns: int) -> str:
    try:
        with tarfile.open(archive) as outer:
            inner = outer.extractfile(next(one for one in outer if one.name.endswith(f"/{INNER}")))
            assert inner is not None
            with tarfile.open(fileobj=io.BytesIO(inner.read())) as found:
                file = found.extractfile(next(one for one in found if one.name.endswith(f"/{FILE}")))
                assert file is not None
                return file.read().decode("utf-8")
    except (tarfile.TarError, StopIteration, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"data.root: {str(archive)!r} does not hold {FILE} ({type(error).__name__}); allowed: the source archive "
            "of vaderSentiment 3.3.2; download it again"
        ) from None

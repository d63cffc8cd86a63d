"""Sentences of the help texts that ship with Python: which of six long topics are they from? No download.

They differ a little from version to version of Python, which the fingerprint tells.
"""

import re
from collections.abc import Iterator
from pydoc_data.topics import topics

from spp.data.sentences.source import Place, Row, Sentences, checked
from spp.data.split import permutation

TOPICS = ("compound", "debugger", "formatstrings", "specialnames", "string-methods", "types")
MIN_WORDS = 6
_SEED = 3
TEST_SHARE = 6
"""Every so many sentences of a topic one is of the test set."""


def open_sentences(place: Place) -> Sentences:
    """The sentences of at least MIN_WORDS words that one topic alone has; nothing is read from a folder."""
    by_topic = {topic: list(dict.fromkeys(_sentences(topics[topic]))) for topic in TOPICS if topic in topics}
    counts: dict[str, int] = {}
    for sentences in by_topic.values():
        for sentence in sentences:
            counts[sentence] = counts.get(sentence, 0) + 1
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    for topic, sentences in by_topic.items():
        own = [sentence for sentence in sentences if counts[sentence] == 1]
        for number, sentence in enumerate(own):
            split = "test" if number % TEST_SHARE == 0 else "train"
            rows[split].append(Row((sentence,), topic, f"topic {topic}, sentence {number + 1}"))
    # Whoever trains on the first of them shall see all topics.
    rows["train"] = [rows["train"][place] for place in permutation(len(rows["train"]), _SEED)]
    return checked(rows, on_error=place.options["on_error"], class_names=TOPICS)


def _sentences(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in re.split(r"(?<=[.!?:])\s+", " ".join(paragraph.split())):
            if len(sentence.split()) >= MIN_WORDS:
                yield sentence

"""WikiText-2: wiki.train, wiki.valid and wiki.test as train.txt, valid.txt and test.txt of one folder.

Lines of the test split are joined by two newlines and those of train by a space, as Wanda, SparseGPT and RIA do. The
perplexities that papers print are of the raw text; that with <unk> in it gives others.
"""

from dataclasses import replace

from spp.data.text.lines import open_lines
from spp.data.text.source import Text


def open_text(root: str | None) -> Text:
    """The lines of the folder, and whether rare words were replaced in them."""
    text = open_lines(root)
    has_unknown_words = any("<unk>" in line for line in text.pieces("test"))
    return replace(text, facts={**text.facts, "form": "tokens with <unk>" if has_unknown_words else "raw"})

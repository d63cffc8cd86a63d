"""One's own text: a folder with valid.txt, test.txt and perhaps train.txt."""

from spp.data.text.lines import open_lines
from spp.data.text.source import Text


def open_text(root: str | None) -> Text:
    """The lines of the folder."""
    return open_lines(root)

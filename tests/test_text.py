import pytest

from spp.text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb", "a\\rb"),
        ("txt\u202egpj", "txt\\u202egpj"),
        ("\udce9", "\\udce9"),
        ("é 世界\t\\n\n", "é 世界\t\\n\n"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text, shown):
    assert visible(text) == shown

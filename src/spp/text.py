"""Text that others wrote, shown harmlessly: names, labels, words and logs may hold what a terminal would obey."""

import re

_OBEYED = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline: escape sequences begin with one
    "\u200e\u200f\u2028-\u202e\u2066-\u2069"  # what turns the direction of text around, or breaks lines
    "\ud800-\udfff"  # bytes of a name that is not UTF-8, which no terminal can be sent
    "]"
)


def visible(text: str) -> str:
    """The text, in which what a terminal would obey is written out: `\\x1b[2J` instead of a cleared screen."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def reason_of(error: BaseException) -> str:
    """The first line of what an error says, or the name of its class where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]

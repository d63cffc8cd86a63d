"""Text in HTML: whatever a user named, and whatever a stage wrote down, is text and nothing else."""

import json
import math
import re
from collections.abc import Iterable
from html import escape
from typing import Any


def element(tag: str, content: str = "", **attributes: str | int | None) -> str:
    """One element around `content`, which is HTML; attribute values are text.

    `_` in a name stands for `-`, `cls` for class; an attribute that is None is left out.
    """
    words = [
        f' {"class" if name == "cls" else name.replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    ]
    return f"<{tag}{''.join(words)}>{content}</{tag}>"


def text(value: object) -> str:
    """Any value as text in HTML."""
    return escape(str(value))


def paragraphs(lines: Iterable[str], cls: str | None = None) -> str:
    """Every line of text as a paragraph, with what stands between backticks as code."""
    coded = (re.sub(r"`([^`]+)`", r"<code>\1</code>", text(line)) for line in lines)
    return "".join(element("p", line, cls=cls) for line in coded)


def copyable(line: str) -> str:
    """A command with a button that copies it; the script acts on `data-copy`."""
    button = element("button", "Copy", type="button", cls="copy", data_copy=line, aria_label=f"Copy {line}")
    return element("div", element("code", text(line)) + button, cls="command")


def json_for_script(value: object) -> str:
    """JSON that may stand inside <script>: nothing in it ends the element; NaN and infinity become null."""
    dumped = json.dumps(finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # The last two end a line in JavaScript though not in JSON.
    for letter in "<>&\u2028\u2029":
        dumped = dumped.replace(letter, f"\\u{ord(letter):04x}")
    return dumped


def finite(value: Any) -> Any:
    """The same value with None for every number that JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value

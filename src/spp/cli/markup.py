"""Text in the markup of rich."""

import rich.markup

from spp.text import visible


def escape(text: str) -> str:
    """Text that is shown as it stands: neither rich takes it for markup, nor a terminal for a command."""
    return rich.markup.escape(visible(text))

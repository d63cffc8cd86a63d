"""Exit codes, and the one line that says what is wrong."""

import sys

from spp.text import visible

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def complain(message: str) -> None:
    """Say in one line what is wrong."""
    print(f"spp: {visible(' '.join(message.split()))}", file=sys.stderr)

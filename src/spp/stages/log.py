"""What workers print: each line with its time, so that a log is never empty."""

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def write_log() -> None:
    """Print what this package says, from informations on; to be called once by whoever is a worker's process."""
    package = logging.getLogger("spp")
    if not any(isinstance(handler, logging.StreamHandler) for handler in package.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(_FORMAT, "%Y-%m-%d %H:%M:%S"))
        package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False

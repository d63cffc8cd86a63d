"""What `spp doctor` finds out, one finding at a time."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

TIMEOUT_SECONDS = 5.0


class Verdict(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Works, but not everything or not as well as it could."""
    MISSING = "missing"
    """The program cannot work here without it."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and what to do if that is not all it could be."""

    area: str
    what: str
    verdict: Verdict
    found: str
    remedy: str = ""


def answer_of(command: Sequence[str]) -> tuple[int, str]:
    """Exit code and output of a command, its complaint where it has no output; 127 if there is no such command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except FileNotFoundError:
        return 127, f"{command[0]} is not on PATH"
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, f"{command[0]}: {error}"
    return done.returncode, (done.stdout.strip() or done.stderr.strip())

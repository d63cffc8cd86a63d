"""The line of a traceback that its reader wrote, or can do something about."""

import re

_FRAME = re.compile(r'^\s*File "(?P<file>.+?)", line (?P<line>\d+), in (?P<function>.+)$')
_FOREIGN = re.compile(r"site-packages|dist-packages|[/\\]lib[/\\]python3\.\d+[/\\]|^<")
_OURS = re.compile(r"[/\\]spp[/\\]")


def own_line(traceback: str) -> str | None:
    """`my_nets.py:12 in forward: return self.proj(x)`: the innermost line of the user's own code in a traceback.

    Of a traceback without any it is the innermost of this package, and None where there is neither: nobody is helped by
    the frames of Lightning or torch.
    """
    lines = traceback.splitlines()
    frames = [
        (found, lines[place + 1 : place + 2]) for place, line in enumerate(lines) if (found := _FRAME.match(line))
    ]
    known = [frame for frame in frames if not _FOREIGN.search(frame[0]["file"])]
    own = [frame for frame in known if not _OURS.search(frame[0]["file"])]
    for found, after in (own or known)[-1:]:
        file = found["file"].rpartition("/")[2] if own else found["file"][found["file"].rindex("spp/") :]
        code = after[0].strip() if after and not _FRAME.match(after[0]) else ""
        return f"{file}:{found['line']} in {found['function']}{f': {code}' if code else ''}"
    return None


def message(traceback: str) -> list[str]:
    """What a traceback says beside its frames: the lines of its last exception."""
    lines = [line for line in traceback.splitlines() if line.strip()]
    last = max((place for place, line in enumerate(lines) if line.startswith("  ")), default=-1)
    return lines[last + 1 :] or lines[-1:]

"""What people call a sweep and say about it; none of it enters a key."""

import re
from dataclasses import dataclass, field
from typing import Any

from spp.config import Config, require

ABOUT_FIELDS = ("name", "tags", "note")
"""Top-level fields of every configuration that say it."""

_NAME = re.compile(r"[\w][\w.+-]{0,79}")
_TAG = re.compile(r"[\w][\w.:+-]{0,63}")
_MAX_NOTE = 1000


@dataclass(frozen=True, kw_only=True)
class AboutConfig(Config):
    """How a sweep is found again by people."""

    name: str | None = None
    """A short name beside the one that follows from the words; a later sweep of that name takes it over."""
    tags: list[Any] = field(default_factory=list)
    """Labels, which W&B gets as well."""
    note: str | None = None
    """A remark."""

    def __post_init__(self) -> None:
        allowed = "letters, digits, '_', '-', '.' and '+', at most 80, not beginning with a sign"
        require(self.name is None or bool(_NAME.fullmatch(self.name)), "name", self.name, allowed, "use name=study-1")
        object.__setattr__(self, "tags", list(dict.fromkeys(map(str, self.tags))))
        for tag in self.tags:
            allowed = "letters, digits, '_', '-', '.', ':' and '+', at most 64, not beginning with a sign"
            require(bool(_TAG.fullmatch(tag)), "tags", tag, allowed, "use tags=[paper,ablation]")
        note = self.note or ""
        is_line = len(note) <= _MAX_NOTE and note.isprintable()
        require(is_line, "note", note[:60], f"one line of at most {_MAX_NOTE} characters", "shorten it")

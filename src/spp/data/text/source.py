"""What every text looks like: its parts, and the rules by which pieces become windows (llm-methods, section 1)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

Rule = Literal["crops", "documents"]


@dataclass(frozen=True)
class Text:
    """A text in pieces (lines, articles, documents) by split.

    Attributes:
        pieces: returns the pieces of a split.
        rule: how windows to calibrate with are drawn: crops of the joined text, or one crop of each long document.
        train_joint: between the pieces of train where they are joined.
        test_joint: between those of validation and test.
        facts: what the fingerprint says beside the hash: which files, and what stands in for a part that is not there.
    """

    pieces: Callable[[SplitName], Sequence[str]]
    rule: Rule = "crops"
    train_joint: str = " "
    test_joint: str = "\n\n"
    facts: dict[str, Any] = field(default_factory=dict)

    def joined(self, split: SplitName) -> str:
        """All pieces of a split as one text."""
        return (self.train_joint if split == "train" else self.test_joint).join(self.pieces(split))

    def fingerprint(self) -> dict[str, Any]:
        """Characters by split, the rules, and a hash of all pieces."""
        digest, characters = hashlib.sha256(), {}
        for split in SPLITS:
            pieces = self.pieces(split)
            characters[split] = sum(map(len, pieces))
            for piece in pieces:
                digest.update(f"{split} {len(piece)}\n{piece}\n".encode())
        return {
            "characters": characters,
            "joints": [self.train_joint, self.test_joint],
            "rule": self.rule,
            **self.facts,
            "sha256": digest.hexdigest(),
        }

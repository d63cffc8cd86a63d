"""What the forms have in common: which files belong to a split, and what is known of its images beforehand."""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn, Protocol

from spp.data.files import Stamp, stamp_of
from spp.data.images.source import OnError, Split, SplitName

PARTS: dict[SplitName, tuple[str, ...]] = {"train": ("train",), "test": ("val", "validation", "test")}
"""What a split is called in names of files and folders; the first that is there counts."""
_OF_MANY = re.compile(r"-(\d+)-of-(\d+)\.")

_log = logging.getLogger(__name__)


class ImageSet(Protocol):
    """The images below one root in one form."""

    @property
    def num_classes(self) -> int:
        """Number of classes of the training images."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Their names; None where the form has numbers alone."""

    def stamp(self) -> Stamp:
        """What changes when the set is changed, found quickly."""

    def manifest(self, name: SplitName) -> list[str]:
        """One line per image, in the order of the positions: where it lies, its size, its class."""

    def open_split(self, name: SplitName) -> Split:
        """All images of a split."""


def find_files(root: Path, suffix: str) -> dict[SplitName, list[Path]]:
    """The files of each split, by name: root/train-*, root/*-train-*, root/train<suffix>, the same in root/data, or
    all of root/train. Hidden files do not count."""
    found: dict[SplitName, list[Path]] = {}
    for name, parts in PARTS.items():
        found[name] = next((files for part in parts if (files := _files_of_part(root, part, suffix))), [])
    return found


def _files_of_part(root: Path, part: str, suffix: str) -> list[Path]:
    named = re.compile(rf"(.+-)?{part}(-.+)?{re.escape(suffix)}")
    for folder in (root, root / "data"):
        files = [file for file in visible_files(folder, suffix) if named.fullmatch(file.name)]
        if files:
            return files
    return visible_files(root / part, suffix)


def visible_files(folder: Path, *suffixes: str) -> list[Path]:
    """What lies in a folder, is not a folder itself, is not hidden and ends so, sorted; links that lead nowhere too."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if is_visible(entry.name, suffixes) and not entry.is_dir()]
    return [folder / name for name in sorted(names)]


def is_visible(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a name is not hidden and ends in one of the suffixes, in capitals or not."""
    return not name.startswith(".") and name.lower().endswith(suffixes)


def present_files(files: Iterable[Path], root: Path, on_error: OnError) -> list[Path]:
    """Those that are there.

    Raises:
        ValueError: if one is missing that a link or a number (-00003-of-00010) promises, unless that is skipped.
    """
    present: list[Path] = []
    missing: list[Path] = []
    for file in files:
        (present if file.exists() else missing).append(file)
    names = [file.name for file in missing] + _missing_numbers([*present, *missing])
    if names:
        complain(f"{str(root)!r} lacks {names[0]!r} ({len(names)} missing)", on_error)
    return present


def _missing_numbers(files: list[Path]) -> list[str]:
    found = [(file.name, match) for file in files if (match := _OF_MANY.search(file.name))]
    if len(found) < len(files) or not found:
        return []
    name, first = found[0]
    digits, total = len(first[1]), int(first[2])
    numbers = {int(match[1]) for _, match in found}
    missing = [number for number in range(total) if number not in numbers]
    return [f"{name[: first.start(1)]}{number:0{digits}d}{name[first.end(1) :]}" for number in missing]


def complain(problem: str, on_error: OnError, *, allowed: str = "whole files", remedy: str = "fetch it again") -> None:
    """Say what is wrong with a file: as an error, or in the log where it is skipped.

    Raises:
        ValueError: with on_error=fail.
    """
    if on_error == "fail":
        raise ValueError(
            f"data.root: {problem}; allowed: {allowed}; {remedy}, or train without it by data.on_error=skip"
        )
    _log.warning("skipped, and left out of the manifest: %s", problem)


def refuse(root: Path, problem: str, contents: str) -> NoReturn:
    """Raise for what cannot be left out."""
    raise ValueError(f"data.root: {str(root)!r} {problem}; allowed: {contents}; correct data.root or add what lacks")


def stamp_with(files: Iterable[Path], root: Path, on_error: OnError) -> Stamp:
    """The files' stamp, which differs between what is found by on_error=fail and by skip."""
    return [[on_error], *stamp_of(files, root)]

"""The checkpoint of a stage: one file that is whole or absent, with all that decides what follows.

It ends in the sha256 of all that comes before, which is checked before anything of it is believed; tools that read
torch's files pass over these last bytes. Files that the stage has finished on the way (the members of a family) are
kept beside it in `partial`, under names that tell their content, so that an old checkpoint never meets a newer file.
There lies also the checkpoint before the last one, for the case that the last one is damaged.
"""

import hashlib
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import torch

from spp.stages.ranks import link_or_copy
from spp.store.store import CHECKPOINT, PARTIAL
from spp.temporary import remove, temporary
from spp.text import reason_of

FORMAT = 2
PREVIOUS = "previous.ckpt"
"""Name, in `partial`, of the checkpoint before the last one."""
OURS = "spp"
"""Where, in Lightning's checkpoint, that lies which Lightning does not know."""

_CHUNK_BYTES = 2**20
_DIGEST_BYTES = hashlib.sha256().digest_size


class UnusableCheckpointError(Exception):
    """A checkpoint is damaged, or does not fit what the stage has built."""


class CheckpointFile:
    """`last.ckpt` in a stage's folder.

    Args:
        folder: the stage's.
        key: the stage's; a checkpoint of another one is refused.
        artifacts: where the stage writes its artifacts; those of them that exist belong to the checkpoint.
    """

    def __init__(self, folder: Path, key: str, artifacts: Path) -> None:
        self.path = folder / CHECKPOINT
        self._partial = folder / PARTIAL
        self.previous = self._partial / PREVIOUS
        self._key = key
        self._artifacts = artifacts
        self._hashes: dict[str, str] = {}

    def write(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by `state` at once; it is on disk when this returns. The one before is kept."""
        state[OURS] |= {"format": FORMAT, "key": self._key, "files": self._keep_artifacts()}
        sibling = temporary(self.path.parent)
        try:
            with open(sibling, "xb") as file:
                hashed = _HashedFile(file)
                torch.save(state, cast("IO[bytes]", hashed))
                file.write(hashed.digest.digest())
                file.flush()
                os.fsync(file.fileno())
            self._keep_previous()
            os.replace(sibling, self.path)
        except BaseException:
            sibling.unlink(missing_ok=True)
            raise

    def read(self, path: Path | None = None) -> dict[str, Any] | None:
        """The state in `path` (the last checkpoint), or None where there is no such file.

        Raises:
            UnusableCheckpointError: one line, if it is damaged, of another stage, or of another format.
        """
        path = path or self.path
        try:
            _check_digest(path)
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self._check(state[OURS])
        except FileNotFoundError:
            return None
        except Exception as error:
            reason = reason_of(error)
            raise UnusableCheckpointError(f"{path} cannot be used ({reason})") from None
        return state

    def restore_artifacts(self, state: Mapping[str, Any]) -> None:
        """Put the artifacts that belong to a state that was read where the stage had them."""
        for name, digest in state[OURS]["files"].items():
            link_or_copy(self._kept(name, digest), self._artifacts / name)
            self._hashes[name] = digest

    def drop_last(self) -> None:
        """Forget the last checkpoint, and the artifacts that came from it; the one before stays."""
        remove(self.path)
        self._hashes.clear()
        for path in self._artifacts.iterdir():
            path.unlink()

    def drop_all(self) -> None:
        """Forget every checkpoint, and the artifacts that came from them."""
        self.drop_last()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _keep_previous(self) -> None:
        if not self.path.exists():
            return
        self._partial.mkdir(exist_ok=True)
        sibling = temporary(self._partial)
        link_or_copy(self.path, sibling)
        os.replace(sibling, self.previous)

    def _check(self, ours: Mapping[str, Any]) -> None:
        if (ours["format"], ours["key"]) != (FORMAT, self._key):
            raise ValueError(f"it has format {ours['format']} and is of stage {ours['key']}")
        for name, digest in ours["files"].items():
            if _sha256(self._kept(name, digest)) != digest:
                raise ValueError(f"its file {name} has changed")

    def _keep_artifacts(self) -> dict[str, str]:
        """Keep what the stage has finished; name -> sha256. An artifact never changes once it is there."""
        for path in sorted(self._artifacts.iterdir()):
            if path.name not in self._hashes:
                digest = _sha256(path)
                self._partial.mkdir(exist_ok=True)
                sibling = temporary(self._partial)
                link_or_copy(path, sibling)
                os.replace(sibling, self._kept(path.name, digest))
                self._hashes[path.name] = digest
        return dict(self._hashes)

    def _kept(self, name: str, digest: str) -> Path:
        return self._partial / f"{digest}-{name}"


class _HashedFile:
    """A file that is written from its begin to its end, and hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _check_digest(path: Path) -> None:
    """Refuse a file that does not end in the sha256 of what comes before.

    Raises:
        ValueError: it does not.
    """
    with open(path, "rb") as file:
        num_left = os.fstat(file.fileno()).st_size - _DIGEST_BYTES
        digest = hashlib.sha256()
        while num_left > 0 and (data := file.read(min(num_left, _CHUNK_BYTES))):
            digest.update(data)
            num_left -= len(data)
        if num_left or file.read() != digest.digest():
            raise ValueError("its content is not what was written")


def _sha256(path: Path) -> str:
    """Hash of a file, which is on disk when this returns."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every global generator that training draws from, in types that load without pickles."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    numbers = torch.from_numpy(np.asarray(keys, np.int64))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [str(name), numbers, int(position), int(has_gauss), float(cached)],
        "python": [version, list(words), gauss],
    }


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Go on where `random_state` was; a device's own generator only where both are on one."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))

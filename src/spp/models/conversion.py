"""A GGUF file as a folder that transformers and `spp.models.decoder` read: safetensors in fp32, and the tokenizer."""

import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from spp.models.causal import save_quietly
from spp.models.pretrained import CONFIG_FILE
from spp.temporary import temporary
from spp.text import reason_of

_log = logging.getLogger(__name__)


def convert_once(gguf: Path, folder: Path) -> None:
    """Write `folder` from a GGUF file, unless it is there; all of it or nothing.

    Raises:
        ValueError: one line, if transformers cannot read the file.
    """
    if (folder / CONFIG_FILE).is_file():
        return
    import transformers

    _log.warning("%s is converted once, into %s", gguf.name, folder)
    partial = temporary(folder.parent)
    partial.mkdir(parents=True, exist_ok=True)
    try:
        where: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        # It was read as plain numbers; with these the library would save it as quantised.
        model.config.__dict__.pop("quantization_config", None)
        model.hf_quantizer, model.is_quantized = None, False
        save_quietly(model, partial)
        transformers.AutoTokenizer.from_pretrained(**where).save_pretrained(partial)
        if not (folder / CONFIG_FILE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    except (OSError, ValueError, ImportError) as error:
        reason = reason_of(error)
        raise ValueError(
            f"model.weights: {str(gguf)!r} cannot be converted ({reason}); allowed: a GGUF file that transformers "
            "reads, with the packages gguf and accelerate installed; install the extra llm, or free some disk"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)

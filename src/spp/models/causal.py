"""Language models of Hugging Face (Llama, OPT) as one network, as tasks call networks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spp.models.config import ModelConfig
from spp.models.finite import first_not_finite
from spp.text import reason_of

ATTENTION = "sdpa"
CONFIGURATION = "configuration"
"""Under which name the inputs of a given model hold what its config.json says."""


class CausalNetwork(nn.Module):
    """A language model called as tasks call networks.

    Args:
        model: of transformers, with a head over the vocabulary.
        length: tokens of a window, for what depends on it, as multiply-adds do.
    """

    def __init__(self, model: nn.Module, length: int) -> None:
        super().__init__()
        self.model = model
        self.model.window_length = length  # type: ignore[assignment]

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (batch, length, vocabulary) of tokens (batch, length)."""
        logits: Tensor = self.model(input_ids=tokens, use_cache=False).logits
        return logits

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors, as transformers reads them.

        Raises:
            ValueError: a weight is not finite; nothing is written then.
        """
        name = first_not_finite(self.model)
        if name is not None:
            raise ValueError(f"model.weights: {name!r} is not finite; allowed: finite numbers; use a smaller lr")
        save_quietly(self.model, folder)

    def load(self, folder: Path) -> None:
        """Take over the weights of a model that transformers saved."""
        import transformers

        library: Any = transformers.AutoModelForCausalLM
        saved = library.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True)
        self.model.load_state_dict(saved.state_dict())


def build(
    config: ModelConfig, inputs: Mapping[str, Any], num_outputs: int | None, runtime: Mapping[str, Any]
) -> CausalNetwork:
    """The network, freshly initialised.

    Args:
        config: name, and sizes in kwargs.
        inputs: the size of the vocabulary and the length of a window; of a given model `configuration` says the rest.
        num_outputs: not used: the task of language takes what the vocabulary has.
        runtime: not used: weights of a given model are loaded by those who need them.

    Raises:
        ValueError: one line, if transformers refuses the arguments.
    """
    vocabulary = {"vocab_size": inputs["vocab_size"]}
    further = {"dropout": 0.0} if config.name == "opt" else {}
    arguments = inputs.get(CONFIGURATION, {**vocabulary, **further, **config.kwargs})
    try:
        return CausalNetwork(build_from(_configuration(config, arguments)), inputs["length"])
    except Exception as error:
        reason = reason_of(error)
        raise ValueError(
            f"model.kwargs: {arguments} do not fit {config.name} ({reason}); allowed: the arguments of its "
            "configuration in transformers; correct model.kwargs"
        ) from None


def build_from(configuration: Any, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The network of a configuration of transformers, freshly initialised; the default device decides where."""
    import transformers

    library: Any = transformers.AutoModelForCausalLM
    model: nn.Module = library.from_config(configuration, dtype=dtype, attn_implementation=ATTENTION)
    return model


def save_quietly(model: Any, folder: Path) -> None:
    """What transformers' save_pretrained writes, without its bar of progress."""
    import transformers

    logging: Any = transformers.utils.logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        if was_on:
            logging.enable_progress_bar()


def _configuration(config: ModelConfig, arguments: Mapping[str, Any]) -> Any:
    import transformers

    # Bytes have no special tokens; the library's own numbers would lie in the middle of them.
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return transformers.AutoConfig.for_model(str(config.name), **{**special, **arguments})

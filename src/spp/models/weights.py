"""Weights in and out of networks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from spp.models.checkpoints import read_checkpoint, without_wrappers
from spp.models.config import ModelConfig, knows_other_classes
from spp.models.finite import first_not_finite
from spp.models.new_head import converted, has_head, head_parameters, with_new_head
from spp.models.registry import sha256_of

WEIGHTS_FILE = "model.safetensors"
"""Name of the artifact that holds a dense network."""


_NUM_SHOWN = 3
"""Names that a message shows; of the others it says how many there are."""


def load_given(model: nn.Module, config: ModelConfig, file: str) -> None:
    """Load the checkpoint whose hash a config names as its `weights`, see `load_checkpoint`.

    Raises:
        ValueError: one line, if it is another one by now, cannot be read, or does not fit.
    """
    if f"sha256:{sha256_of(Path(file))}" != config.weights:
        raise ValueError(f"model.weights: {file!r} has changed since it was planned; allowed: the same file; run again")
    load_checkpoint(model, config, file)


def load_checkpoint(model: nn.Module, config: ModelConfig, file: str) -> None:
    """Load a checkpoint as a config says, whatever its `weights`; a head that is to be new begins anew.

    Weights of a network of timm may be for another image size or number of channels.

    Raises:
        ValueError: one line, if it cannot be read, or does not fit.
    """
    weights = without_wrappers(read_checkpoint(Path(file), ema=config.ema), model.state_dict().keys())
    if config.has_new_head:
        weights = with_new_head(model, weights)
    elif config.library == "timm":
        refuse_other_head(model, weights, file)
    load_weights(model, converted(model, weights) if config.library == "timm" else weights, file)


def refuse_other_head(model: nn.Module, weights: Mapping[str, Tensor], file: str) -> None:
    """Refuse weights whose head is for another number of classes.

    Raises:
        ValueError: one line.
    """
    for name in head_parameters(model) if has_head(model) else ():
        wanted, given = model.get_parameter(name).shape[0], weights.get(name)
        if given is not None and given.ndim and given.shape[0] != wanted:
            raise knows_other_classes(file, given.shape[0], wanted)


def save_weights(model: nn.Module, file: Path, metadata: dict[str, str] | None = None) -> None:
    """Write the weights of a model, on the CPU or not, to a safetensors file.

    Raises:
        ValueError: they are not finite; nothing is written then.
    """
    _require_finite(model, file.name, "use a smaller lr")
    save_file(own_weights(model), file, metadata=metadata)


def own_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model by name, on the CPU; those that are tied to others before them are not there again."""
    tied = _tied(model)
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items() if name not in tied}


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load `weights` strictly.

    Raises:
        ValueError: if names or shapes differ, or a weight is not finite; the line names `source` and the first
            differences.
    """
    weights = {**{name: weights[first] for name, first in _tied(model).items() if first in weights}, **weights}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = _differences(model.state_dict(), weights) or str(error).splitlines()[-1].strip()
        raise ValueError(
            f"model.weights: {source!r} does not fit the model ({reason}); allowed: the weights of model.name with "
            "model.kwargs; correct one of them"
        ) from None
    _require_finite(model, source, "take a checkpoint from before it diverged")


def _tied(model: nn.Module) -> dict[str, str]:
    """Names in the state of a model that stand for the numbers of another one before them, with that one's name."""
    first: dict[int, str] = {}
    tied = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            tied[name] = first[id(parameter)]
    return tied


def _differences(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    shapes = [
        f"{name} is {tuple(given[name].shape)} and not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    missing = [name for name in wanted if name not in given]
    unknown = [repr(name)[1:-1] for name in given if name not in wanted]  # what a stranger's file may hold
    kinds = {"it lacks ": missing, "it has the unknown ": unknown, "": shapes}
    return "; ".join(f"{what}{_some(names)}" for what, names in kinds.items() if names)


def _some(names: Sequence[str]) -> str:
    num_more = len(names) - _NUM_SHOWN
    return ", ".join(names[:_NUM_SHOWN]) + (f" and {num_more} more" if num_more > 0 else "")


def _require_finite(model: nn.Module, source: str, remedy: str) -> None:
    name = first_not_finite(model)
    if name is not None:
        raise ValueError(f"model.weights: {name!r} of {source!r} is not finite; allowed: finite numbers; {remedy}")

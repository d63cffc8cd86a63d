"""The folder of a pruned CLIP, or of one of its towers: as transformers has it, where that can be, and loadable in any
case by one small file that needs torch and transformers, and not spp."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from spp.deploy.card import MeasuredValue, numbers_and_origin
from spp.structure.find import example_inputs, module_sizes

WEIGHTS_FILE, CONFIG_FILE, MODELING_FILE = "model.safetensors", "config.json", "modeling_transformers.py"
_CLASSES = ("CLIPModel", "CLIPVisionModelWithProjection", "CLIPTextModelWithProjection")


def is_clip(network: nn.Module) -> bool:
    """Whether a network is what this module writes."""
    return _class_of(network) is not None


def is_clip_folder(folder: Path) -> bool:
    """Whether a folder is one that `write` has written."""
    return (folder / MODELING_FILE).is_file()


def write(folder: Path, small: nn.Module) -> tuple[str, ...]:
    """Write weights, config.json and the file that loads them into an empty folder; returns their names."""
    from spp.structure import modeling_transformers

    sizes = module_sizes(small)
    is_stock = _fits_stock(small, sizes)
    config = _config(small, sizes, is_padded=is_stock)
    weights = {name: value.detach().cpu() for name, value in small.state_dict().items()}
    if is_stock:
        weights = {name: _padded(name, value, sizes, config) for name, value in weights.items()}
    contiguous = {name: value.contiguous() for name, value in weights.items()}
    save_file(contiguous, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    shutil.copyfile(str(modeling_transformers.__file__), folder / MODELING_FILE)
    return WEIGHTS_FILE, CONFIG_FILE, MODELING_FILE


def card(origin: Mapping[str, Any], measured: Sequence[MeasuredValue], licence: str | None) -> str:
    """The README.md of such a folder."""
    numbers, source = numbers_and_origin(origin, measured, licence)
    head = ["---", "library_name: transformers", "tags: [clip, pruned, spp]"]
    head += [f"license: {licence}"] if licence else []
    usage = [
        "## How to load it",
        "",
        "`modeling_transformers.py` in this folder needs torch and transformers. In Python, in this folder:",
        "",
        "```python",
        "import modeling_transformers",
        "",
        'network = modeling_transformers.load(".")    # takes and returns what transformers\' own class does',
        "```",
        "",
        'Where `"padded": true` stands in config.json, transformers loads it, too (`CLIPModel.from_pretrained(".")`), '
        "with heads of zeros in the place of those that are gone: the same outputs, but only the MLPs are smaller.",
    ]
    return "\n".join([*head, "---", "# CLIP, pruned", "", *numbers, "", *usage, "", *source, ""])


@torch.no_grad()
def difference(folder: Path, small: nn.Module) -> float:
    """Largest difference of what the written towers put out from what the network's do, relative to the largest."""
    from spp.structure import modeling_transformers

    loaded = modeling_transformers.load(folder)
    was_training = small.training
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for name, example in example_inputs(small).items():
        if name == "attention_mask":  # goes with the tokens, which are all of the text here
            continue
        if example.is_floating_point():
            inputs = torch.randn(2, *example.shape[1:], generator=generator)
        else:
            most = _tower(small, name).config.vocab_size
            inputs = torch.randint(0, most, (2, *example.shape[1:]), generator=generator)
        outputs = [_tower(each.eval(), name)(**{name: inputs}).pooler_output for each in (small.cpu().float(), loaded)]
        worst = max(worst, float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max()))
    small.train(was_training)
    return worst


def dense_of(folder: Path) -> nn.Module | None:
    """The network that a written one was cut from, with weights at random; None where the folder does not say it."""
    from spp.structure.modeling_transformers import CLASSES

    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    hidden = config.pop("spp").get("dense_hidden")
    if hidden is None:
        return None
    for tower in _towers_in(config):
        tower["intermediate_size"] = hidden["vision_model" if "patch_size" in tower else "text_model"]
    made: Any = CLASSES[config["architectures"][0]]
    dense: nn.Module = made(made.config_class.from_dict(config))
    return dense.eval()


def towers_of(network: nn.Module) -> dict[str, nn.Module]:
    """Each encoder of a CLIP by itself, with its projection; nothing of what is one of them, or no CLIP."""
    if _class_of(network) != "CLIPModel":
        return {}
    from spp.structure.modeling_transformers import TOWERS, tower_of

    return {tower: tower_of(network, tower) for tower in TOWERS}


def _tower(network: Any, input_name: str) -> Any:
    return getattr(network, "vision_model" if input_name == "pixel_values" else "text_model")


def _class_of(network: nn.Module) -> str | None:
    names = [base.__name__ for base in type(network).__mro__ if base.__module__.startswith("transformers.models.clip")]
    return next((name for name in names if name in _CLASSES), None)


def _fits_stock(small: nn.Module, sizes: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether only whole heads and hidden channels of MLPs are gone: then zeros fill up what stock code asks for."""
    return all(
        "hidden" in entry or not entry["num_heads"] or entry["qk_width"] == entry["v_width"] == _head_width(small, name)
        for name, entry in sizes.items()
    )


def _head_width(small: nn.Module, name: str) -> int:
    """Channels of a head of the dense network."""
    layer: Any = small.get_submodule(name.rpartition(".")[0])
    width: int = round(layer.self_attn.scale**-2)
    return width


def _config(small: Any, sizes: Mapping[str, Mapping[str, Any]], *, is_padded: bool) -> dict[str, Any]:
    config: dict[str, Any] = small.config.to_dict()
    dense_hidden = {}
    for tower in _towers_in(config):
        prefix = "vision_model" if "patch_size" in tower else "text_model"
        hidden = [entry["hidden"] for name, entry in sizes.items() if "hidden" in entry and name.startswith(prefix)]
        dense_hidden[prefix] = tower["intermediate_size"]
        tower["intermediate_size"] = max(1, *hidden)
    plain = {
        name: value for name, value in config.items() if name not in ("dtype", "torch_dtype", "transformers_version")
    }
    own = {"format": 1, "modules": sizes, "padded": is_padded, "dense_hidden": dense_hidden}
    return {**plain, "architectures": [_class_of(small)], "spp": own}


def _towers_in(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The configurations of the encoders, which may be one alone."""
    return [config[name] for name in ("vision_config", "text_config") if name in config] or [config]


def _padded(name: str, value: Tensor, sizes: Mapping[str, Any], config: Mapping[str, Any]) -> Tensor:
    """A weight with rows or columns of zeros behind its own, as wide as stock code makes it."""
    module, _, part = name.rpartition(".")
    owner, _, linear = module.rpartition(".")
    if owner not in sizes:
        return value
    tower = config.get("vision_config" if name.startswith("vision_model") else "text_config", config)
    width = tower["intermediate_size"] if "hidden" in sizes[owner] else tower["hidden_size"]
    if linear in ("out_proj", "fc2"):
        return F.pad(value, (0, width - value.shape[1])) if part == "weight" else value
    missing = width - value.shape[0]
    return F.pad(value, (0, 0, 0, missing) if part == "weight" else (0, missing))

"""The folder of a pruned CLIP, of one of its towers, or of a BERT: as transformers has it, where that can be, and
loadable in any case by one small file that needs torch and transformers, and not spp."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from spp.deploy.card import MeasuredValue, numbers_and_origin
from spp.structure.find import example_inputs, module_sizes

if TYPE_CHECKING:
    from spp.structure.modeling_transformers import Linears

WEIGHTS_FILE, CONFIG_FILE, MODELING_FILE = "model.safetensors", "config.json", "modeling_transformers.py"
_WHERE_READ = "_name_or_path"
"""Under which a configuration knows the folder that it is from, which is nobody's business who gets the member."""
_MODULES = ("transformers.models.clip.", "transformers.models.bert.")
"""Where the classes of these networks are."""


def is_written(network: nn.Module) -> bool:
    """Whether a network is what this module writes."""
    return class_of(network) is not None


def is_transformers_folder(folder: Path) -> bool:
    """Whether a folder is one that `write` has written."""
    return (folder / MODELING_FILE).is_file()


def write(folder: Path, small: nn.Module, class_names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Write weights, config.json and the file that loads them into an empty folder; returns their names.

    Args:
        folder: where to.
        small: the network.
        class_names: of the outputs of a BERT that classifies; None: they are not known.
    """
    from spp.structure import modeling_transformers

    sizes = module_sizes(small)
    is_stock = _fits_stock(sizes)
    config = _config(small, sizes, is_padded=is_stock)
    if class_names is not None and hasattr(small, "num_labels"):
        num, num_outputs = len(class_names), small.num_labels
        if num != num_outputs:
            raise ValueError(
                f"class_names: {num} names are not allowed for {num_outputs} outputs; allowed: one each; give them all"
            )
        config["id2label"] = {str(number): name for number, name in enumerate(class_names)}
        config["label2id"] = {name: number for number, name in enumerate(class_names)}
    weights = {name: value.detach().cpu() for name, value in small.state_dict().items()}
    if is_stock:
        for name, (dim, size) in _stock_sizes(modeling_transformers.linears_of(small), sizes, config).items():
            if name in weights:  # a Linear without bias has none
                weights[name] = _padded(weights[name], dim, size)
    contiguous = {name: value.contiguous() for name, value in weights.items()}
    save_file(contiguous, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    shutil.copyfile(str(modeling_transformers.__file__), folder / MODELING_FILE)
    return WEIGHTS_FILE, CONFIG_FILE, MODELING_FILE


def card(
    small: nn.Module,
    origin: Mapping[str, Any],
    measured: Sequence[MeasuredValue],
    licence: str | None,
    preprocessing: Mapping[str, Any],
    has_tokenizer: bool,
) -> str:
    """The README.md of such a folder; `preprocessing` says how the data made inputs of texts."""
    numbers, source = numbers_and_origin(origin, measured, licence)
    kind, class_name = kind_of(small), class_of(small)
    head = ["---", "library_name: transformers", f"tags: [{kind.lower()}, pruned, spp]"]
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
        'Where `"padded": true` stands in config.json, transformers loads it, too '
        f'(`{class_name}.from_pretrained(".")`), with heads of zeros in the place of those that are gone: the same '
        "outputs, but only the MLPs are smaller.",
    ]
    if has_tokenizer:
        usage += ["", '`transformers.AutoTokenizer.from_pretrained(".")` makes its tokens of texts.']
    elif kind == "BERT" and "tokenizer" in preprocessing:
        usage += ["", f"Texts: at most {preprocessing['length']} tokens; tokenizer: {preprocessing['tokenizer']}."]
    return "\n".join([*head, "---", f"# {kind}, pruned", "", *numbers, "", *usage, "", *source, ""])


@torch.no_grad()
def difference(folder: Path, small: nn.Module) -> float:
    """Largest difference of what the written network puts out from what `small` does, relative to the largest."""
    from spp.structure import modeling_transformers

    networks = [small.cpu().float(), modeling_transformers.load(folder)]
    was_training = small.training
    for network in networks:
        network.eval()
    compare = _differences_of_texts if kind_of(small) == "BERT" else _differences_of_towers
    worst = max(compare(networks))
    small.train(was_training)
    return worst


def _differences_of_towers(networks: Sequence[Any]) -> Iterator[float]:
    generator = torch.Generator().manual_seed(0)
    for name, example in example_inputs(networks[0]).items():
        if name == "attention_mask":  # goes with the tokens, which are all of the text here
            continue
        if example.is_floating_point():
            inputs = torch.randn(2, *example.shape[1:], generator=generator)
        else:
            most = _tower(networks[0], name).config.vocab_size
            inputs = torch.randint(0, most, (2, *example.shape[1:]), generator=generator)
        yield _relative_difference([_tower(each, name)(**{name: inputs}).pooler_output for each in networks])


def _differences_of_texts(networks: Sequence[Any]) -> Iterator[float]:
    """Of two texts, of which the second is padded by a half."""
    length = example_inputs(networks[0])["input_ids"].shape[1]
    tokens = torch.randint(0, networks[0].config.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    is_real = (torch.arange(length) < torch.tensor([[length], [(length + 1) // 2]])).long()
    outputs = [each(input_ids=tokens, attention_mask=is_real) for each in networks]
    yield _relative_difference([each if isinstance(each, Tensor) else each[0] for each in outputs])


def _relative_difference(outputs: Sequence[Tensor]) -> float:
    return float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())


def dense_of(folder: Path) -> nn.Module | None:
    """The network that a written one was cut from, with weights at random; None where the folder does not say it."""
    from spp.structure.modeling_transformers import CLASSES

    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    hidden = config.pop("spp").get("dense_hidden")
    if hidden is None:
        return None
    for tower in _towers_in(config):
        tower["intermediate_size"] = hidden[_prefix_of(tower)]
    made: Any = CLASSES[config["architectures"][0]]
    dense: nn.Module = made(made.config_class.from_dict(config))
    return dense.eval()


def towers_of(network: nn.Module) -> dict[str, nn.Module]:
    """Each encoder of a CLIP by itself, with its projection; nothing of what is one of them, or no CLIP."""
    if class_of(network) != "CLIPModel":
        return {}
    from spp.structure.modeling_transformers import TOWERS, tower_of

    return {tower: tower_of(network, tower) for tower in TOWERS}


def _tower(network: Any, input_name: str) -> Any:
    return getattr(network, "vision_model" if input_name == "pixel_values" else "text_model")


def class_of(network: nn.Module) -> str | None:
    """The name of the class of transformers that its folder holds; None where this module writes no such folder."""
    names = [base.__name__ for base in type(network).__mro__ if base.__module__.startswith(_MODULES)]
    if not names:
        return None
    from spp.structure.modeling_transformers import CLASSES

    return next((name for name in names if name in CLASSES), None)


def kind_of(network: nn.Module) -> str:
    """CLIP or BERT."""
    name = class_of(network)
    return "BERT" if name is not None and name.startswith("Bert") else "CLIP"


def _fits_stock(sizes: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether only whole heads and hidden channels of MLPs are gone: then zeros fill up what stock code asks for."""
    return all(
        "hidden" in entry
        or not entry["num_heads"]
        or entry["qk_width"] == entry["v_width"] == round(entry["scale"] ** -2)  # channels of a head of the dense one
        for entry in sizes.values()
    )


def _config(small: Any, sizes: Mapping[str, Mapping[str, Any]], *, is_padded: bool) -> dict[str, Any]:
    config: dict[str, Any] = small.config.to_dict()
    dense_hidden = {}
    for tower in _towers_in(config):
        prefix = _prefix_of(tower)
        hidden = [entry["hidden"] for name, entry in sizes.items() if "hidden" in entry and name.startswith(prefix)]
        dense_hidden[prefix] = tower["intermediate_size"]
        tower["intermediate_size"] = max(1, *hidden)
        tower.pop(_WHERE_READ, None)
    left_out = ("dtype", "torch_dtype", "transformers_version", _WHERE_READ)
    plain = {name: value for name, value in config.items() if name not in left_out}
    own = {"format": 1, "modules": sizes, "padded": is_padded, "dense_hidden": dense_hidden}
    return {**plain, "architectures": [class_of(small)], "spp": own}


def _towers_in(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The configurations of the encoders, which may be one alone."""
    return [config[name] for name in ("vision_config", "text_config") if name in config] or [config]


def _prefix_of(tower: Mapping[str, Any]) -> str:
    """How the names of the modules of an encoder begin, by its configuration; of a BERT, which is one, all of them."""
    if tower["model_type"] == "bert":
        return ""
    return "vision_model" if "patch_size" in tower else "text_model"


def _stock_sizes(
    linears: "Linears", sizes: Mapping[str, Mapping[str, Any]], config: dict[str, Any]
) -> dict[str, tuple[int, int]]:
    """What is smaller than in stock code, by name of a weight or bias: the dimension, and its size there."""
    found: dict[str, tuple[int, int]] = {}
    for tower in _towers_in(config):
        for owner, entry in sizes.items():
            if not owner.startswith(_prefix_of(tower)):
                continue
            is_mlp = "hidden" in entry
            width = tower["intermediate_size"] if is_mlp else tower["hidden_size"]
            inputs = (linears.first,) if is_mlp else (linears.query, linears.key, linears.value)
            for name in inputs:
                found |= {f"{owner}.{name}.{part}": (0, width) for part in ("weight", "bias")}
            found[f"{owner}.{linears.second if is_mlp else linears.output}.weight"] = (1, width)
    return found


def _padded(value: Tensor, dim: int, size: int) -> Tensor:
    """A weight or bias with zeros behind its own along a dimension, to a size."""
    missing = size - value.shape[dim]
    return F.pad(value, (0, missing) if dim == value.ndim - 1 else (0, 0, 0, missing))

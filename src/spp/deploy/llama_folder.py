"""The folder of a pruned Llama: one that stock transformers loads where it can, else one with its own small loader.

Stock code takes equal layers of whole kv groups; see `spp_layers` of modeling_spp_llama.py for all others, of which
those with whole attentions, or none, are what other engines can take on.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from spp.models.causal import CausalNetwork
from spp.models.weights import own_weights
from spp.structure import modeling_spp_llama
from spp.structure.modeling_spp import CONFIG_FILE, WEIGHTS_FILE
from spp.structure.modeling_spp_llama import CompactLlamaAttention, layer_sizes

MODELING_FILE = "modeling_spp_llama.py"
MODEL_TYPE = "spp_llama"
_REMOTE = {"AutoConfig": "SppLlamaConfig", "AutoModelForCausalLM": "SppLlamaForCausalLM"}


def llama_in(network: nn.Module) -> nn.Module | None:
    """The Llama of transformers that a network is or holds as a CausalNetwork; None: another network."""
    model = network.model if isinstance(network, CausalNetwork) else network
    names = {base.__qualname__ for base in type(model).__mro__}
    return model if "LlamaForCausalLM" in names else None


def is_llama_folder(folder: Path) -> bool:
    """Whether config.json is that of a Llama, pruned or not."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") in ("llama", MODEL_TYPE)


def write_llama(folder: Path, model: nn.Module) -> tuple[str, ...]:
    """Write weights, configuration and, where stock code cannot load them, the loader into an empty folder.

    Returns:
        The names of the files.
    """
    save_file(own_weights(model), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    stock = stock_config(model)
    config: dict[str, Any] = json.loads((model.config if stock is None else stock).to_json_string())  # type: ignore[operator, union-attr]
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    config.pop("_name_or_path", None)  # where it was read
    files: tuple[str, ...] = (WEIGHTS_FILE, CONFIG_FILE)
    if stock is None:
        names = {auto: f"{Path(MODELING_FILE).stem}.{name}" for auto, name in _REMOTE.items()}
        config |= {"model_type": MODEL_TYPE, "architectures": ["SppLlamaForCausalLM"], "auto_map": names}
        config["spp_layers"] = layer_sizes(model)
        shutil.copyfile(str(modeling_spp_llama.__file__), folder / MODELING_FILE)
        files += (MODELING_FILE,)
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return files


def stock_config(model: Any) -> Any:
    """The configuration with which stock transformers builds these shapes; None where it cannot.

    It wants one width of all MLPs, the same whole kv groups everywhere, and hidden channels that are a multiple of the
    number of heads.
    """
    sizes, attentions = layer_sizes(model), [layer.self_attn for layer in model.model.layers]
    if any(isinstance(attention, CompactLlamaAttention) for attention in attentions):
        return None
    if any(own != sizes[0] for own in sizes) or not sizes[0]["intermediate_size"]:
        return None
    num_groups = sizes[0]["num_key_value_heads"]
    num_heads = num_groups * attentions[0].num_key_value_groups
    if model.config.hidden_size % num_heads:
        return None
    values = model.config.to_dict() | {
        "intermediate_size": sizes[0]["intermediate_size"],
        "num_key_value_heads": num_groups,
        "num_attention_heads": num_heads,
        "head_dim": attentions[0].head_dim,
    }
    values.pop("model_type", None)
    values.pop("spp_layers", None)
    import transformers

    return transformers.LlamaConfig(**values)


def load_llama(folder: Path) -> nn.Module:
    """The network of such a folder, in evaluation mode, on the CPU, in the numbers of its weights."""
    import transformers

    is_stock = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))["model_type"] != MODEL_TYPE
    library: Any = transformers.LlamaForCausalLM if is_stock else modeling_spp_llama.SppLlamaForCausalLM
    model: nn.Module = library.from_pretrained(str(folder), dtype="auto", local_files_only=True)
    return model.eval()


@torch.no_grad()
def largest_difference(loaded: nn.Module, model: nn.Module) -> float:
    """Of the logits of two networks for random tokens, relative to the largest."""
    config: Any = model.config
    generator, device = torch.Generator().manual_seed(0), next(model.parameters()).device
    tokens = torch.randint(config.vocab_size, (2, min(32, config.max_position_embeddings)), generator=generator)
    was_training = model.training
    expected = model.eval()(input_ids=tokens.to(device)).logits.cpu()
    model.train(was_training)
    return float((loaded(input_ids=tokens).logits - expected).abs().max() / expected.abs().max())

"""Peak memory of pruning one decoder layer: python benchmarks/bench_layer.py [--llama2-7b] [--method sparsegpt ...]

Above what the process takes before it reads the layer, beside the layer's weights, its largest Gram matrix and two
buffers of activations. Weights are random, of one layer and few tokens of vocabulary; bf16, on one thread unless
OMP_NUM_THREADS says otherwise. Linux alone tells the peak of a part of a process.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from spp.methods.weights.registry import load_weight_method, read_weight_method
from spp.models.decoder import DecoderModel
from spp.sparsity.config import SparsityConfig
from spp.sparsity.prune_layer import prune_and_forget, statistics_needed
from spp.stages.language import Activations
from spp.stages.layer_shares import collect_statistics
from spp.stages.sparse_member import save_layer

SMALL = {"hidden_size": 1024, "intermediate_size": 2752, "num_attention_heads": 8}
LLAMA2_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32}


def memory(name: str) -> int:
    """VmRSS (now) or VmHWM (the peak since it was reset) of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


class Peak:
    """Prints the peak of each part above what there was at the start."""

    def __init__(self, allowed: int) -> None:
        self.allowed, self.before = allowed, memory("VmRSS")
        self.start()

    def start(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self.began = time.process_time()

    def tell(self, part: str) -> None:
        peak, seconds = memory("VmHWM") - self.before, time.process_time() - self.began
        print(f"  {part:32s} {peak / 1e9:6.2f} GB   {peak / self.allowed:5.2f} of that   {seconds:7.1f} s", flush=True)
        self.start()


def save_model(folder: Path, sizes: dict[str, int], length: int) -> None:
    own = {"num_hidden_layers": 1, "vocab_size": 256, "max_position_embeddings": length, "tie_word_embeddings": True}
    config = transformers.LlamaConfig(**sizes, **own, dtype="bfloat16")
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def measure(folder: Path, name: str, num_windows: int, length: int) -> None:
    model = DecoderModel(folder, torch.bfloat16, torch.device("cpu"))
    widest = max(model.input_widths().values())
    parts = {
        "weights": model.layer_bytes(),
        "the largest Gram matrix": 4 * widest**2,
        "two buffers": 2 * 2 * num_windows * length * model.hidden_size,
    }
    allowed = sum(parts.values())
    texts = ", ".join(f"{part} {num_bytes / 1e9:.2f}" for part, num_bytes in parts.items())
    print(f"{name}, {num_windows} x {length} tokens: {texts} GB: {allowed / 1e9:.2f} GB together")
    method = read_weight_method({"name": name})
    axes, chooser = method.resolve(SparsityConfig()), load_weight_method(method)
    peak = Peak(allowed)
    peak.before -= model.layer_bytes()  # the layer is there already, with random numbers
    windows = torch.randint(256, (num_windows, length), generator=torch.Generator().manual_seed(0))
    activations = Activations(model, windows, folder)
    layer = model.load_layer(0)
    peak.tell("reading")
    needs = statistics_needed(chooser, axes)
    stats = collect_statistics(model, layer, activations, needs)
    peak.tell("statistics")
    weights = {name: linear.weight for name, linear in model.linears(layer).items()}
    results = prune_and_forget(weights, stats, model.inputs, chooser, axes, axes.share, {})
    peak.tell("masks and updates")
    save_layer(folder / "layer.safetensors", results, model.dtype)
    peak.tell("writing")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--llama2-7b", action="store_true", help="the shape of Llama-2-7B: minutes, and 6 GB")
    parser.add_argument("--method", nargs="+", default=["sparsegpt"])
    parser.add_argument("--num-windows", type=int, default=4)
    parser.add_argument("--length", type=int, default=1024)
    words = parser.parse_args(argv)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        save_model(Path(place), LLAMA2_7B if words.llama2_7b else SMALL, words.length)
        for name in words.method:
            measure(Path(place), name, words.num_windows, words.length)


if __name__ == "__main__":
    main()

"""How fast compact networks of one cost are: python benchmarks/bench_compact.py [--model NAME] [--macs SHARE].

Beside a timm ViT stand the one that spp cuts from it to a share of its multiply-adds (widths in multiples of 8, an
order by lot: a speed asks for no accuracy), the same with widths as they come, and, where it is installed (pip install
torch-pruning), one that Torch-Pruning cuts evenly in all dimensions, that of the residual stream too, to the nearest
share that it reaches below ours. They run in turns, so that a busy machine slows all of them alike. Prints achieved
multiply-adds, medians, spread (interquartile range over median), and the speed-up over what the multiply-adds promise.
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spp
from bench_search import timed
from spp.dynamics.ranking import Ranking


def cut_by_lot(model: nn.Module, share: float, multiple: int) -> nn.Module:
    """The network at a share of its multiply-adds, its units ordered by lot."""
    pairs = spp.find_pairs(model)
    generator = torch.Generator().manual_seed(0)
    scores = {pair.name: torch.rand(pair.size, generator=generator, dtype=torch.float64) for pair in pairs}
    order = Ranking.from_scores(scores, pairs, per_cost=False)
    return spp.compact(model, order.rounded_to(multiple).masks(macs=share))


class _Attention(nn.Module):
    """Attention of timm on maps that Torch-Pruning has narrowed: timm's own forward expects the widths of before."""

    def __init__(self, attention: nn.Module, num_heads: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.num_heads = attention.qkv, attention.proj, num_heads

    def forward(self, tokens: Tensor, **unused: None) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def cut_by_torch_pruning(name: str, images: Tensor, share: float) -> nn.Module:
    """The network of Torch-Pruning nearest to a share of the multiply-adds from below, widths in multiples of 8."""
    import torch_pruning

    def cut(ratio: float) -> nn.Module:
        model = timm.create_model(name).eval()
        heads = {block.attn.qkv: block.attn.num_heads for block in model.blocks}
        for block in model.blocks:
            block.attn = _Attention(block.attn, block.attn.num_heads)
        pruner = torch_pruning.pruner.BasePruner(
            model,
            images[:1],
            importance=torch_pruning.importance.GroupMagnitudeImportance(),
            pruning_ratio=ratio,
            ignored_layers=[model.head],
            num_heads=heads,
            round_to=8,
        )
        pruner.step()
        return model

    dense = spp.count_cost(timm.create_model(name), images[:1]).macs
    low, high = 0.0, 0.9
    best = None
    for _ in range(8):
        middle = (low + high) / 2
        model = cut(middle)
        if spp.count_cost(model, images[:1]).macs <= share * dense:
            best, high = model, middle
        else:
            low = middle
    if best is None:
        raise SystemExit(f"--macs: Torch-Pruning reaches no {share:g} of {name}; take a larger share")
    return best


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="deit_small_patch16_224")
    parser.add_argument("--macs", type=float, default=0.5, help="share of the dense multiply-adds")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    words = parser.parse_args(argv)
    torch.manual_seed(0)
    dense = timm.create_model(words.model).eval()
    images = torch.randn(words.batch, *dense.pretrained_cfg["input_size"])
    networks = {
        "dense": dense,
        "spp, multiples of 8": cut_by_lot(dense, words.macs, 8),
        "spp, as they come": cut_by_lot(dense, words.macs, 1),
    }
    try:
        networks["Torch-Pruning"] = cut_by_torch_pruning(words.model, images, words.macs)
    except ImportError:
        print("Torch-Pruning is not installed; pip install torch-pruning puts it beside ours")
    costs = {name: spp.count_cost(network, images[:1]).macs for name, network in networks.items()}
    images = images.to(words.device)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for network in networks.values():
            network.to(words.device).eval()(images)
        for _ in range(words.repeats):
            for name, network in networks.items():
                seconds[name].append(timed(partial(network, images), words.device))
    print(f"{words.model}, batch {words.batch}, {words.device}, {torch.get_num_threads()} threads")
    for name, took in seconds.items():
        median = statistics.median(took)
        first, _, third = statistics.quantiles(took, n=4)
        speed_up = statistics.median(seconds["dense"]) / median
        ideal = costs["dense"] / costs[name]
        print(
            f"  {name:20} {costs[name] / 1e9:6.3f} G {median * 1e3:9.1f} ms ±{100 * (third - first) / median:4.0f} %"
            f"  {speed_up:5.2f} times as fast, {speed_up / ideal:5.3f} of the ideal"
        )


if __name__ == "__main__":
    main()

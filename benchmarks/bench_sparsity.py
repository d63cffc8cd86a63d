"""CPU seconds per linear of one-shot pruning: python benchmarks/bench_sparsity.py [--shape OUTxIN ...] [--llama2-7b].

Beside each step stands its straight formulation: SparseGPT's sweep and factor as its paper and release state them,
Gram matrices added up whole and for every linear apart, thresholds by a whole sort, one least-squares system per row.
Weights and inputs are random, fp32, on one thread unless OMP_NUM_THREADS says otherwise.
"""

import argparse
import resource
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from spp.methods.weights.registry import load_weight_method, read_weight_method
from spp.sparsity.curvature import Curvature
from spp.sparsity.least_squares import solve_least_squares
from spp.sparsity.pattern import Pattern, keep_largest
from spp.sparsity.permutation import find_permutation
from spp.sparsity.problem import LinearProblem, prepare_input
from spp.sparsity.statistics import InputStats
from spp.sparsity.sweep import choose_in_sweep

SHAPES = ("1024x1024", "2048x2048", "2048x5504")
LLAMA2_7B = ("4096x4096", "4096x11008")
NUM_TOKENS = 1024
ROWS_SOLVED_ALONE = 8
"""Of the rows as many are solved one by one, and the time of all is estimated from them."""


def timed(label: str, run: Callable[[], object], beside: float | None = None, *, times: int = 1) -> float:
    """Print and return the CPU seconds that `run` takes, and how many times faster it is than what stands beside it."""
    began = time.process_time()
    for _ in range(times):
        run()
    seconds = (time.process_time() - began) / times
    ratio = "" if beside is None else f"   {beside / seconds:5.2f} times as fast"
    print(f"  {label:58s} {seconds:9.3f} s{ratio}", flush=True)
    return seconds


def published_factor(gram: Tensor) -> Tensor:
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)


def published_sweep(weight: Tensor, factor: Tensor, block_size: int = 128, sparsity: float = 0.5) -> Tensor:
    """Blocks of columns on W, one column at a time, each spread over the rest of its block."""
    weight = weight.clone()
    for start in range(0, weight.shape[1], block_size):
        stop = min(start + block_size, weight.shape[1])
        block, upper = weight[:, start:stop].clone(), factor[start:stop, start:stop]
        kept, errors = torch.zeros_like(block), torch.zeros_like(block)
        score = block**2 / upper.diagonal() ** 2
        removed = score <= score.flatten().sort().values[int(score.numel() * sparsity)]
        for j in range(stop - start):
            column, pivot = block[:, j], upper[j, j]
            new = column.clone()
            new[removed[:, j]] = 0
            kept[:, j] = new
            error = (column - new) / pivot
            block[:, j:] -= error[:, None] @ upper[j, j:][None]
            errors[:, j] = error
        weight[:, start:stop] = kept
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return weight


def add_published(gram: Tensor, x: Tensor) -> None:
    scaled = (2 / NUM_TOKENS) ** 0.5 * x.T.float()
    gram *= 0.5
    gram += scaled @ scaled.T


def solve_row_by_row(weight: Tensor, mask: Tensor, gram: Tensor) -> None:
    for row, kept in zip(weight, mask, strict=True):
        k, r = kept.nonzero()[:, 0], (~kept).nonzero()[:, 0]
        torch.linalg.solve(gram[k[:, None], k], gram[k[:, None], r] @ row[r])


def accumulation(num_in: int) -> None:
    x = torch.randn(NUM_TOKENS, num_in)
    full = torch.zeros(num_in, num_in)
    whole = timed("published Gram matrix, one linear", lambda: add_published(full, x))
    stats = InputStats(num_in, ["gram"])
    stats.add(x)
    timed("lower blocks, one linear", lambda: stats.add(x), whole)
    three = timed("published, three linears of one input", lambda: [add_published(full, x) for _ in range(3)])
    timed("lower blocks, one for three linears", lambda: stats.add(x), three)


def shape(num_out: int, num_in: int) -> None:
    """Print all steps for one linear."""
    print(f"{num_out} x {num_in}, {torch.get_num_threads()} thread(s)")
    accumulation(num_in)
    weight = torch.randn(num_out, num_in)
    scales = torch.randn(num_in).exp()
    stats = InputStats(num_in)
    for _ in range(1 + 2 * num_in // NUM_TOKENS):
        stats.add((torch.randn(NUM_TOKENS, num_in) + torch.randn(NUM_TOKENS, 1)) * scales)
    gram = stats.gram
    published = timed("published factor (three factorisations)", lambda: published_factor(gram))
    curvature = Curvature(gram)
    timed("factor", lambda: curvature.inverse_factor, published)
    factor = curvature.inverse_factor
    published = timed("published sweep", lambda: published_sweep(weight, factor))
    block = Pattern(group="block")
    timed("sweep on W^T in two levels", lambda: choose_in_sweep(weight, factor, block), published)
    choices(weight, stats)
    mask = keep_largest(weight.abs() * stats.norms, Pattern())
    few = slice(0, ROWS_SOLVED_ALONE)
    alone = timed(
        f"least squares row by row, {ROWS_SOLVED_ALONE} rows", lambda: solve_row_by_row(weight[few], mask[few], gram)
    )
    alone *= num_out / ROWS_SOLVED_ALONE
    print(f"  {'the same for all rows, estimated':58s} {alone:9.3f} s")
    timed("least squares, all rows at once", lambda: solve_least_squares(weight, mask, curvature, 0.01), alone)
    methods(weight, stats)
    print(f"  peak memory of the process so far: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def choices(weight: Tensor, stats: InputStats) -> None:
    score = weight.abs() * stats.norms
    half = score.numel() // 2
    sort = timed("threshold of the matrix by a sort", lambda: score <= score.flatten().sort().values[half])
    timed("choice over the matrix", lambda: keep_largest(score, Pattern(group="matrix")), sort)
    sort = timed("choice by row by a stable sort", lambda: score.sort(dim=1, stable=True))
    timed("choice by row", lambda: keep_largest(score, Pattern()), sort)
    sort = timed("2:4 by topk of every group", lambda: score.view(len(score), -1, 4).topk(2, dim=2, largest=False))
    timed("2:4", lambda: keep_largest(score, Pattern(keep=2, of=4)), sort)
    timed("channel permutation by assignment", lambda: find_permutation(score, 2, 4, "assignment"))


def methods(weight: Tensor, stats: InputStats) -> None:
    for name in ("wanda", "ria", "sparsegpt", "spp_ria"):
        method = load_weight_method(read_weight_method({"name": name}))
        known = prepare_input("linear", weight, stats, damping=0.01)
        pattern = Pattern(group="block" if name == "sparsegpt" else "row")
        timed(f"method {name}, all of it", lambda m=method, k=known, p=pattern: m.choose(LinearProblem(weight, k, p)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", nargs="+", default=SHAPES, help="OUTxIN")
    parser.add_argument("--llama2-7b", action="store_true", help="the shapes of Llama-2-7B: minutes, and 8 GiB")
    arguments = parser.parse_args(argv)
    torch.manual_seed(0)
    for text in LLAMA2_7B if arguments.llama2_7b else arguments.shape:
        num_out, num_in = map(int, text.split("x"))
        shape(num_out, num_in)


if __name__ == "__main__":
    main()

"""The measuring of a language model, layer by layer: perplexity on the validation and the test text, zero-shot tasks.

Windows go through all layers some at a time, and after each such part there is a checkpoint.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spp.data.facts import DataFacts
from spp.models.decoder import DecoderModel
from spp.models.tokenizer import open_tokenizer
from spp.stages.context import StageRun
from spp.stages.finite import require_finite_numbers
from spp.stages.language import Activations, count_language_cost, given_folder, model_folder, open_model, walk
from spp.stages.sparse_member import apply_layer, layer_file
from spp.stages.tokens import HELD_OUT, load_windows
from spp.tasks.config import TaskConfig
from spp.tasks.language import Language, LanguageEvaluator, window_losses
from spp.tasks.registry import build_task

if TYPE_CHECKING:
    from spp.stages.zero_shot import Continuation, Likelihood

MAX_TOKENS_AT_ONCE = 2**16
"""Tokens between two checkpoints; the layers are read anew for each."""
MAX_ASKED_AT_ONCE = 2**18
"""The same of zero-shot tasks, which have many short rows."""


def run(stage: StageRun) -> dict[str, Any]:
    """Measure the dense network, or a member, on windows of the held-out text."""
    facts = DataFacts(name=str(stage.config["data"]["name"]), samples="windows")
    task = build_task(TaskConfig.from_spec(stage.config["task"], "task"), stage.runtime.task, facts)
    assert isinstance(task, Language)
    folder = model_folder(stage.store, stage.spec, "member")
    model = open_model(stage, folder)
    windows = load_windows(stage, model.vocab_size)
    cost = count_language_cost(folder, windows["test"].shape[1])
    metrics = {}
    with stage.interruptions.deferred():
        losses = _losses(stage, model, windows)
        answers = _ask(stage, model, losses) if "zero_shot" in stage.config else {}
    for split in HELD_OUT:
        evaluator = LanguageEvaluator()
        evaluator.add(losses[split])
        values = evaluator.compute()
        require_finite_numbers(values, f"{stage.kind}: {split}")
        metrics["val" if split == "validation" else split] = task.describe(values, evaluator.num_samples)
    tokens = stage.input_summary("tokens")
    num_windows, length = windows["test"].shape
    return {
        "task": task.name,
        "headline": task.headline,
        **_sizes(stage, cost.macs, cost.params),
        "metrics": metrics,
        "protocol": {
            **{name: tokens[name] for name in ("tokenizer", "first_token", "joint", "length")},
            "num_windows": num_windows,
            "num_tokens": num_windows * (length - 1),
        },
        "window_losses": [round(loss, 6) for loss in losses["test"].tolist()],
        **answers,
    }


def _sizes(stage: StageRun, macs: float, params: int) -> dict[str, Any]:
    """Sizes of what is measured; zeros among a member's weights count as no parameters, and save no multiply-add."""
    if "budget" not in stage.config:
        return {"macs": macs, "params": params}
    summary, reference = stage.input_summary("member"), stage.input_summary("reference")
    return {
        "budget": dict(stage.config["budget"]),
        "macs": macs,
        "params": params - summary["num_weights"] + summary["num_kept"],
        "widths": {},
        "achieved_sparsity": summary["achieved_sparsity"],
        "dense": {name: reference[name] for name in ("macs", "params")},
    }


def _losses(stage: StageRun, model: DecoderModel, windows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean loss of each window of each split, in nats per token."""
    done: dict[str, list[Tensor]] = {split: [] for split in HELD_OUT} if stage.saved is None else stage.saved["losses"]
    for split in HELD_OUT:
        size = max(1, MAX_TOKENS_AT_ONCE // windows[split].shape[1])
        for part in torch.split(windows[split], size)[len(done[split]) :]:
            done[split].append(_losses_of(stage, model, part, split))
            stage.save_at_boundary({"losses": done})
    return {split: torch.cat(parts) for split, parts in done.items()}


def _losses_of(stage: StageRun, model: DecoderModel, windows: Tensor, split: str) -> Tensor:
    activations = Activations(model, windows, stage.artifacts.parent)
    try:
        _through_layers(stage, model, activations, f"measuring on {split}")
        losses = [window_losses(logits, tokens).cpu() for logits, tokens in activations.logits()]
    finally:
        activations.close()
    return torch.cat(losses)


def _through_layers(stage: StageRun, model: DecoderModel, activations: Activations, what: str) -> None:
    is_member = "budget" in stage.config

    def change(index: int, layer: nn.Module) -> None:
        if is_member:
            apply_layer(model.linears(layer), layer_file(stage.input_artifacts("member"), index))

    walk(model, activations, change, lambda index: stage.progress(index + 1, model.num_layers, "layers", what))


def _ask(stage: StageRun, model: DecoderModel, losses: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the zero-shot tasks say; checkpoints keep the losses of windows beside the answers so far."""
    from spp.stages import zero_shot

    windows_done = {split: [part] for split, part in losses.items()}

    def score(continuations: "Sequence[Continuation]") -> "list[Likelihood]":
        rows = zero_shot.rows_of(continuations, model.max_length)
        # Equally long ones together, so that little is padding; the longest first, as it decides what memory is needed.
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
        done: list[Likelihood] = [] if stage.saved is None else stage.saved.get("answers", [])
        while len(done) < len(order):
            size = max(1, MAX_ASKED_AT_ONCE // len(rows[order[len(done)]]))
            part = order[len(done) : len(done) + size]
            found = _logits_of_rows(stage, model, [rows[row] for row in part])
            for row, logits in zip(part, found, strict=True):
                done.append(zero_shot.likelihood(logits, len(rows[row]), continuations[row][1]))
            stage.save_at_boundary({"losses": windows_done, "answers": done})
        return [likelihood for _, likelihood in sorted(zip(order, done, strict=True))]

    tokenizer = open_tokenizer(given_folder(stage.store, stage.spec, "member"))
    root = stage.runtime.data["zero_shot_root"]
    return {"zero_shot": zero_shot.ask(stage.config["zero_shot"], root, tokenizer, score, stage.artifacts)}


def _logits_of_rows(stage: StageRun, model: DecoderModel, rows: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    """Logits (length, vocabulary) of each row of tokens; what fills rows up stands behind all that counts."""
    length = max(map(len, rows))
    padded = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    activations = Activations(model, padded, stage.artifacts.parent)
    try:
        _through_layers(stage, model, activations, "asking")
        for logits, _ in activations.logits():
            yield from logits
    finally:
        activations.close()

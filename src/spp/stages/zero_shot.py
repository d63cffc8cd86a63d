"""Zero-shot tasks of lm-evaluation-harness, put to a language model layer by layer.

The harness makes the questions and counts the answers; what it asks of a model, the log-likelihood of a continuation
behind a context, is computed here for many of them at once, so that each layer is read once for all.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from torch import Tensor

from spp.models.tokenizer import Tokenizer
from spp.text import reason_of

FILE = "zero_shot.json"
"""What the harness says of the answers, as it says it."""
METRICS = ("acc", "acc_norm")
"""What the record takes over: the share of questions whose right answer is the likeliest, also per byte of it."""
RESAMPLES = 1000
"""For standard errors that have no formula."""

Continuation = tuple[list[int], list[int]]
"""Tokens of a context, one or more, and of what follows it."""
Likelihood = tuple[float, bool]
"""The logarithm of a continuation's probability, and whether each of its tokens was the likeliest."""
Scorer = Callable[[Sequence[Continuation]], list[Likelihood]]


class HarnessModel(TemplateLM):  # type: ignore[misc]  # the harness is not typed
    """What the harness takes for a model.

    Args:
        tokenizer: of the network.
        special_tokens: whether questions begin with what the tokenizer puts before every text.
        score: of continuations.
    """

    def __init__(self, tokenizer: Tokenizer, special_tokens: bool, score: Scorer) -> None:
        super().__init__()
        self._tokenizer, self._special_tokens, self._score = tokenizer, special_tokens, score

    @property
    def eot_token_id(self) -> int:
        """The token that stands for an empty context.

        Raises:
            ValueError: the tokenizer has none.
        """
        if self._tokenizer.boundary_token is None:
            raise ValueError(
                f"zero_shot.tasks: a question is empty, and the tokenizer {self._tokenizer.name} has no token that "
                "begins or ends a text; allowed: tasks with questions; leave the task out"
            )
        return self._tokenizer.boundary_token

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Tokens of a text."""
        has_special = self._special_tokens if add_special_tokens is None else add_special_tokens
        return self._tokenizer.encode(string) if has_special else self._tokenizer.encode_plain(string)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[Likelihood]:
        return self._score([(context, continuation) for _, context, continuation in requests])

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Refused.

        Raises:
            ValueError: always.
        """
        raise _refusal(requests, "the likelihood of whole texts")

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Refused.

        Raises:
            ValueError: always.
        """
        raise _refusal(requests, "generated text")


def _refusal(requests: Any, what: str) -> ValueError:
    return ValueError(
        f"zero_shot.tasks: {requests[0].task_name!r} asks for {what}; allowed: tasks that choose among given answers; "
        "leave it out"
    )


def ask(config: Mapping[str, Any], root: str | None, tokenizer: Tokenizer, score: Scorer, out: Path) -> dict[str, Any]:
    """Put the tasks to a network; what the record shall say of the answers.

    Args:
        config: of a ZeroShotConfig.
        root: folder of one's own tasks.
        tokenizer: of the network.
        score: of continuations.
        out: folder for FILE.

    Raises:
        ValueError: one line, if there is no such task, its data cannot be had, or it asks for something else.
    """
    names: list[str] = config["tasks"]
    model = HarnessModel(tokenizer, config["special_tokens"], score)
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=_load(names, root),
        limit=config.get("max_samples"),
        bootstrap_iters=RESAMPLES,
        log_samples=False,
    )
    (out / FILE).write_text(json.dumps(found, indent=1, default=str) + "\n")
    return {
        "harness": lm_eval.__version__,
        "special_tokens": config["special_tokens"],
        "tasks": {name: _of_task(name, found) for name in sorted(found["n-samples"])},
    }


def _load(names: Sequence[str], root: str | None) -> list[Any]:
    """The tasks; those of the harness are looked through, which takes a while, only where one's own do not have all."""
    manager = TaskManager(include_path=root, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=root)
    _check_names(names, manager.all_tasks)
    try:
        loaded: Mapping[str, Any] = manager.load(list(names))["tasks"]
    except Exception as error:
        reason = reason_of(error)
        raise ValueError(
            f"zero_shot.tasks: {', '.join(names)} cannot be opened ({reason}); allowed: tasks whose data are here or "
            "can be downloaded; open them once where there is a network"
        ) from None
    return list(loaded.values())


def _check_names(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(
                f"zero_shot.tasks: {name!r} is no task of lm_eval {lm_eval.__version__}; allowed: what `lm_eval ls "
                "tasks` lists, and those in zero_shot.root; correct the name"
            )


def _of_task(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics in per cent, each with its standard error over the questions."""
    results = found["results"][name]
    metrics = {}
    for metric in METRICS:
        value, error = results.get(f"{metric},none"), results.get(f"{metric}_stderr,none")
        if value is not None:
            known = isinstance(error, int | float)
            metrics[metric] = {"value": 100 * float(value), "stderr": 100 * float(error) if known else None}
    return {
        "version": found["versions"].get(name),
        "num_shots": found["n-shot"].get(name),
        "num_samples": found["n-samples"][name]["effective"],
        "metrics": metrics,
    }


def rows_of(continuations: Sequence[Continuation], max_length: int) -> list[list[int]]:
    """What the network is given: all tokens but the last; of too many the first are left out."""
    return [(context + continuation)[-(max_length + 1) :][:-1] for context, continuation in continuations]


def likelihood(logits: Tensor, num_tokens: int, continuation: Sequence[int]) -> Likelihood:
    """The likelihood of a continuation.

    Args:
        logits: (length, vocabulary) of a row, perhaps with padding behind its tokens.
        num_tokens: of the row.
        continuation: its tokens.
    """
    # A continuation that is longer than the network sees keeps its end.
    wanted = torch.tensor(continuation[-num_tokens:], device=logits.device)
    predicted = logits[num_tokens - len(wanted) : num_tokens].float().log_softmax(1)
    total = predicted.gather(1, wanted[:, None]).sum()
    return float(total), bool((predicted.argmax(1) == wanted).all())

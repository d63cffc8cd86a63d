"""How large networks are, asked of a process of its own, as it needs torch; answers are remembered on this machine."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from spp.data.registry import form_of
from spp.plan.config import JOINT
from spp.plan.keys import canonical_json
from spp.plan.setup import Setup
from spp.plan.work import NetworkSize
from spp.store.atomic import read_json, write_json

_VERSION = 3
"""Raised when an answer has other fields."""

_MAX_SECONDS = 300.0


class NetworkSizes:
    """Sizes of dense networks; what is not known is noted, and asked for all at once by `ask`."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: where answers are remembered; None: the user's cache."""
        self._folder = folder or _user_cache()
        self._answers: dict[str, dict[str, Any]] = {}
        self._open: dict[str, dict[str, Any]] = {}

    def size_of(self, model: Mapping[str, Any], data: Mapping[str, Any]) -> NetworkSize | None:
        """See spp.plan.work.SizeOf."""
        question = _question(model, data, min_units=1)
        answer = None if question is None else self._answer(question)
        if answer is None or "error" in answer:
            return None
        return NetworkSize(answer["macs"], answer["params"], answer["units"], answer["num_pairs"])

    def refusal(self, setup: Setup) -> str | None:
        """Why a budget of a point cannot be reached, in the words of `spp run`; None where it can, or nobody knows."""
        kind, values = setup.budget.kind, setup.budget.values
        question = _question_of(setup)
        answer = None if question is None else self._answer(question)
        if question is None or answer is None or not answer.get("range"):
            return None
        lowest, highest = answer["range"][kind]
        if all(lowest <= (value * highest if value <= 1 else value) <= highest for value in values):
            return None
        # Its words come from where they are said by `spp run`, which also allows for rounding.
        answer = self._answer({**question, "budget": {"kind": kind, "values": values}})
        return None if answer is None else answer.get("refused")

    def out_of_reach(self, setup: Setup) -> dict[float, str]:
        """The budgets of a point that its method cannot serve although others can, and why; as far as is known."""
        budget, method = setup.budget, setup.method
        is_plain = budget.multiple_of == 1 and budget.form == "free" and not method.has_own_floors
        question = None if is_plain or method.kinds[0] == "budget" else _question_of(setup)
        if question is None:
            return {}
        wanted = {name: getattr(budget, name) for name in ("kind", "values", "multiple_of", "form")}
        answer = self._answer({**question, "selection": {"method": method.selection_settings(), **wanted}})
        return {} if answer is None else dict(answer.get("out_of_reach", ()))

    @property
    def has_questions(self) -> bool:
        """Whether something was wanted that is not known."""
        return bool(self._open)

    def ask(self) -> bool:
        """Find out what was not known; whether there was anything."""
        if not self._open:
            return False
        questions, self._open = self._open, {}
        asked = "".join(f"{json.dumps(question)}\n" for question in questions.values())
        command = [sys.executable, "-m", "spp.stages.sizes"]
        try:
            told = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=_MAX_SECONDS).stdout
        except (subprocess.TimeoutExpired, OSError):
            told = ""
        lines = told.splitlines()
        for place, name in enumerate(questions):
            answer = json.loads(lines[place]) if place < len(lines) else {"error": "no answer"}
            self._answers[name] = answer
            if "error" not in answer:
                self._remember(name, answer)
        return True

    def _answer(self, question: dict[str, Any]) -> dict[str, Any] | None:
        line = canonical_json([_VERSION, metadata.version("timm"), question])
        name = hashlib.sha256(line.encode()).hexdigest()[:24]
        if name not in self._answers and (known := read_json(self._folder / f"{name}.json")) is not None:
            self._answers[name] = known
        if name not in self._answers:
            self._open[name] = question
        return self._answers.get(name)

    def _remember(self, name: str, answer: dict[str, Any]) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(self._folder / f"{name}.json", answer, durable=False)
        except OSError:
            return  # it is asked again the next time


def _question_of(setup: Setup) -> dict[str, Any] | None:
    question = _question(setup.model.identity(), setup.data.identity(), setup.method.min_units)
    if question is not None and setup.budget.towers != JOINT:
        question["towers"] = setup.budget.towers
    return question


def _question(model: Mapping[str, Any], data: Mapping[str, Any], min_units: int) -> dict[str, Any] | None:
    """None where only running code of the user's would tell: networks and data of one's own."""
    form = form_of(data)
    if form is None or model.get("factory") is not None or not data.get("img_size"):
        return None
    # What depends on the weights, or on where they are, is none of its size.
    known = {name: model[name] for name in ("name", "kwargs", "per_head") if name in model}
    further = {"length": data.get("length"), "vocab_size": form.vocab_size}
    inputs = {"img_size": data["img_size"], "in_chans": form.in_chans}
    inputs |= {name: value for name, value in further.items() if value is not None}
    return {"model": known, "inputs": inputs, "num_outputs": form.num_classes, "min_units": min_units}


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spp" / "sizes"

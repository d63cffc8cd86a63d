"""spp run: plan a sweep, write it down, and carry it out."""

import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from spp.cli import hydra_multirun
from spp.cli.launch import run_planned
from spp.cli.outcome import outcome_json
from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.store.store import Store


def run(words: Sequence[str], multirun: bool, config_dirs: Sequence[str] = (), *, as_json: bool = False) -> int:
    """Run, or submit, the stages that the words ask for; exit code 1 if one of them failed.

    With `as_json` only the result goes to stdout; what happens on the way is for the eyes.
    """
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        if multirun and hydra_multirun.names_sweeper(words):
            code = hydra_multirun.multirun(words, config_dirs)
            result: dict[str, Any] = {"sweep": None, "ok": code == 0, "stages": {}}
        else:
            planned = plan_sweep(compose_points(words, multirun, config_dirs))
            ran = run_planned(planned)
            code = 0 if ran.ok else 1
            result = outcome_json(Store(planned.store), planned.plan, ran.sweep, ran.ok) if as_json else {}
    if as_json:
        print(json.dumps(result, indent=1))
    return code


def show_config(words: Sequence[str], multirun: bool, config_dirs: Sequence[str] = (), *, as_json: bool = False) -> int:
    """Print what the words compose as YAML, all references resolved: one document for each point; runs nothing."""
    points = compose_points(words, multirun, config_dirs)
    if as_json:
        print(json.dumps([point.cfg for point in points], indent=1))
        return 0
    print("---\n".join(OmegaConf.to_yaml(OmegaConf.create(point.cfg)) for point in points), end="")
    return 0

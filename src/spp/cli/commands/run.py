"""spp run: plan a sweep, write it down, and carry it out."""

from collections.abc import Sequence

from omegaconf import OmegaConf

from spp.cli import hydra_multirun
from spp.cli.launch import run_planned
from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep


def run(words: Sequence[str], multirun: bool, config_dirs: Sequence[str] = ()) -> int:
    """Run, or submit, the stages that the words ask for; exit code 1 if one of them failed."""
    if multirun and hydra_multirun.names_sweeper(words):
        return hydra_multirun.multirun(words, config_dirs)
    return 0 if run_planned(plan_sweep(compose_points(words, multirun, config_dirs))).ok else 1


def show_config(words: Sequence[str], multirun: bool, config_dirs: Sequence[str] = ()) -> int:
    """Print what the words compose as YAML, all references resolved: one document for each point; runs nothing."""
    points = compose_points(words, multirun, config_dirs)
    print("---\n".join(OmegaConf.to_yaml(OmegaConf.create(point.cfg)) for point in points), end="")
    return 0

"""The program as Hydra's sweepers drive it: `spp run -m hydra/sweeper=...`."""

from collections.abc import Sequence
from typing import Any, NoReturn

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from spp.cli.cached_composer import Composer
from spp.cli.config_loader import CONFIG_NAME, hydra_application
from spp.cli.launch import run_planned
from spp.cli.objective import PointFailed, objective_of
from spp.cli.points import compose_each
from spp.cli.sweep_plan import plan_sweep, point_name
from spp.cli.words import check_num_points, expand, one_line, parse_word, split_search_path

# Nothing of Hydra's own lands in the user's folder, and its log says nothing that the launcher does not.
_SETTINGS = ("hydra/launcher=spp", "hydra.output_subdir=null", "hydra.sweep.dir=${paths.store}/hydra")
_SWEEPER_WORDS = ("hydra/sweeper=", "hydra.sweeper.")


def names_sweeper(words: Sequence[str]) -> bool:
    """Whether the words ask for one of Hydra's sweepers."""
    return any(word.lstrip("+").startswith(_SWEEPER_WORDS) for word in words)


def multirun(words: Sequence[str], config_dirs: Sequence[str] = ()) -> int:
    """Let a sweeper of Hydra choose the points; exit code 1 if a stage failed.

    Raises:
        ValueError: one line for words that Hydra or the sweeper cannot use.
    """
    words, more_dirs = split_search_path(words)
    expanded = expand(words, multirun=True)
    _check(expanded)
    with hydra_application([*config_dirs, *more_dirs]) as hydra:
        composer = Composer(hydra.config_loader, CONFIG_NAME)
        check_num_points([parse_word(composer, word) for word in expanded])
        _check_sweeper(hydra, composer, expanded)
        try:
            hydra.multirun(config_name=CONFIG_NAME, task_function=_never, overrides=[*_SETTINGS, *expanded])
        except PointFailed:
            return 1
        except (HydraException, OmegaConfBaseException) as error:
            groups = [word for word in expanded if word.startswith(_SWEEPER_WORDS[0])]
            raise ValueError(one_line(error, expanded, composer, _with_hydra(hydra, groups))) from None
    return 0


def launch(composer: Composer, job_overrides: Sequence[Sequence[str]], *, needs_values: bool) -> list[JobReturn]:
    """Run, or submit, the points that a sweeper chose, as one sweep.

    Returns:
        For each point its objective (a `MetricValue`); None where it was submitted and nobody waits.

    Raises:
        ValueError: one line if a point's configuration is wrong.
    """

    planned = plan_sweep(compose_each(composer, job_overrides))
    run_planned(planned, wait=needs_values)
    is_detached = planned.cluster.name == "slurm" and not (needs_values or planned.cluster.wait)
    stages_of = {point.name: point.stages for point in planned.plan.points}
    returned = []
    for overrides in job_overrides:
        result = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
        if not is_detached:
            try:
                result.return_value = objective_of(planned.store, stages_of[point_name(overrides)])
                if needs_values and result.return_value is None:
                    raise ValueError(
                        "hydra/sweeper: a final stage of the pipeline has no metric on the validation split to choose "
                        "by; allowed: pipelines that end in measure; leave the sweeper out"
                    )
            except PointFailed as failure:
                result.status, result.return_value = JobStatus.FAILED, failure
        returned.append(result)
    return returned


def _check(words: Sequence[str]) -> None:
    for word in words:
        field = word.lstrip("+~").partition("=")[0]
        if field.startswith("hydra.sweeper.") and any(part.startswith("_") for part in field.split(".")):
            raise ValueError(
                f"{field}: {word.partition('=')[2]!r} is not allowed; allowed: the settings of a sweeper; choose the "
                "sweeper itself by hydra/sweeper=NAME"
            )
        if word.lstrip("+~").startswith("hydra") and not word.lstrip("+").startswith(_SWEEPER_WORDS):
            raise ValueError(
                f"{word}: nothing here reads it; allowed: the fields of conf/, hydra/sweeper=NAME and its fields "
                "hydra.sweeper.NAME=VALUE; remove it"
            )


def _check_sweeper(hydra: Hydra, composer: Composer, words: Sequence[str]) -> None:
    """Refuse what no sweeper can be made of, before it begins: what it raises later is said where it happens.

    Raises:
        ValueError: one line.
    """
    try:
        overrides = [*_SETTINGS, *words]
        cfg = hydra.compose_config(CONFIG_NAME, overrides, RunMode.MULTIRUN, with_log_configuration=False)
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(cfg))
        Plugins.instance().instantiate_sweeper(hydra_context=context, task_function=_never, config=cfg)
    except Exception as error:
        groups = [word for word in words if word.startswith(_SWEEPER_WORDS[0])]
        raise ValueError(one_line(error, words, composer, _with_hydra(hydra, groups))) from None


def _with_hydra(hydra: Hydra, groups: Sequence[str]) -> DictConfig | None:
    """The configuration with Hydra's own part; None if not even the groups can be composed."""

    try:
        return hydra.config_loader.load_configuration(CONFIG_NAME, list(groups), RunMode.MULTIRUN)
    except HydraException:
        return None


def _never(cfg: Any) -> NoReturn:
    raise AssertionError("the launcher runs stages, not a task function")

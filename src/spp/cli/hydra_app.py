"""The program as Hydra's sweepers drive it: `spp run -m hydra/sweeper=...`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from spp.cli.compose import compose_each, expand_shorthand, one_line, parse_word
from spp.cli.composer import Composer
from spp.cli.planning import plan_sweep, point_name
from spp.locations import CONF
from spp.plan.spec import Stage
from spp.store.store import Store

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

# Nothing of Hydra's own lands in the user's folder, and its log says nothing that the launcher does not.
_SETTINGS = ("hydra/launcher=spp", "hydra.output_subdir=null", "hydra.sweep.dir=${paths.store}/hydra")
_SWEEPER_WORDS = ("hydra/sweeper=", "hydra.sweeper.")


class PointFailed(Exception):  # noqa: N818 - the error is the stage's, which has been shown
    """A point has no objective, because a stage of it failed."""


def multirun(words: Sequence[str]) -> int:
    """Let a sweeper of Hydra choose the points; exit code 1 if a stage failed.

    Raises:
        ValueError: one line for words that Hydra or the sweeper cannot use.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    expanded = expand_shorthand(words)
    _check(expanded)
    with _application() as hydra:
        composer = Composer(hydra.config_loader)
        for word in expanded:
            parse_word(composer, word)
        try:
            hydra.multirun(config_name="config", task_function=_never, overrides=[*_SETTINGS, *expanded])
        except PointFailed:
            return 1
        except (HydraException, OmegaConfBaseException) as error:
            groups = [word for word in expanded if word.startswith(_SWEEPER_WORDS[0])]
            raise ValueError(one_line(error, expanded, composer, _with_hydra(hydra, groups))) from None
    return 0


def launch(composer: Composer, job_overrides: Sequence[Sequence[str]], *, needs_values: bool) -> "list[JobReturn]":
    """Run, or submit, the points that a sweeper chose, as one sweep.

    Returns:
        For each point its objective, the mean validation top-1 in percent over its final stages; None where
        it was submitted and nobody waits. Never the test set: a sweeper would choose by it.

    Raises:
        ValueError: one line if a point's configuration is wrong.
    """
    from hydra.core.utils import JobReturn, JobStatus

    from spp.cli.run import run_planned

    planned = plan_sweep(compose_each(composer, job_overrides))
    run_planned(planned, wait=needs_values)
    is_detached = planned.cluster.name == "slurm" and not (needs_values or planned.cluster.wait)
    stages_of = {point.name: point.stages for point in planned.plan.points}
    returned = []
    for overrides in job_overrides:
        result = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
        if not is_detached:
            try:
                result.return_value = _objective(planned.store, stages_of[point_name(overrides)])
                if needs_values and result.return_value is None:
                    raise ValueError(
                        "hydra/sweeper: a final stage of the pipeline has no validation top-1 to choose by; allowed: "
                        "pipelines that end with trained networks; leave the sweeper out"
                    )
            except PointFailed as failure:
                result.status, result.return_value = JobStatus.FAILED, failure
        returned.append(result)
    return returned


def _objective(root: Path, stages: Sequence[Stage]) -> float | None:
    store = Store(root)
    for stage in stages:
        if not store.is_done(stage.kind, stage.key):
            raise PointFailed(f"{stage.kind} {stage.key} is not done")
    found = [store.summary(stage.kind, stage.key).get("val", {}).get("top1") for stage in stages]
    return None if None in found else float(sum(found) / len(found))


def _check(words: Sequence[str]) -> None:
    for word in words:
        if word.lstrip("+~").startswith("hydra") and not word.lstrip("+").startswith(_SWEEPER_WORDS):
            raise ValueError(
                f"{word}: nothing here reads it; allowed: the fields of conf/, hydra/sweeper=NAME and its fields "
                "hydra.sweeper.NAME=VALUE; remove it"
            )


@contextmanager
def _application() -> "Iterator[Hydra]":
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra

    version.setbase("1.3")
    GlobalHydra.instance().clear()
    try:
        yield Hydra.create_main_hydra2("spp", create_config_search_path(str(CONF)))
    finally:
        GlobalHydra.instance().clear()


def _with_hydra(hydra: "Hydra", groups: Sequence[str]) -> "DictConfig | None":
    """The configuration with Hydra's own part; None if not even the groups can be composed."""
    from hydra.errors import HydraException
    from hydra.types import RunMode

    try:
        return hydra.config_loader.load_configuration("config", list(groups), RunMode.MULTIRUN)
    except HydraException:
        return None


def _never(cfg: Any) -> NoReturn:
    raise AssertionError("the launcher runs stages, not a task function")

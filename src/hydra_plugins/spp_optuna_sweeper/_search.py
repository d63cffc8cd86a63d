"""The search: ask for points, have them run, tell the results; a file in the store remembers them."""

import hashlib
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus

from spp.cli.objective import MetricValue, PointFailed
from spp.cli.sweep_plan import point_name
from spp.config import Config, require
from spp.process import Process, is_alive, this_process

try:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    from optuna.trial import FrozenTrial, Trial, TrialState

    from hydra_plugins.spp_optuna_sweeper._space import read_space, to_words
except ImportError:
    raise ValueError(
        "hydra/sweeper: 'spp_optuna' needs the package optuna; allowed: basic without it; pip install 'spp[optuna]'"
    ) from None

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.plugins.launcher import Launcher

# What a trial remembers beside its result.
_PROCESS, _METRIC = "process", "metric"


@dataclass(frozen=True, kw_only=True)
class Settings(Config):
    """See SppOptunaSweeperConf."""

    n_trials: int
    n_jobs: int
    seed: int
    study_name: str | None

    def __post_init__(self) -> None:
        for name in ("n_trials", "n_jobs"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more", "use 2")
        require(0 <= self.seed < 2**31, "seed", self.seed, "an integer from 0 to 2^31 - 1", "use 0")
        is_file = self.study_name is None or (self.study_name != "" and "/" not in self.study_name)
        require(is_file, "study_name", self.study_name, "null, or a name without '/'", "leave it out")


class Search:
    """A study of the points that `words` span, kept in `<store>/optuna/<name>.journal`."""

    def __init__(
        self, settings: Settings, store: str, launcher: "Launcher", loader: "ConfigLoader", words: Sequence[str]
    ) -> None:
        self._settings = settings
        self._launcher = launcher
        self._fixed, self._space = read_space(words, loader)
        self._name = settings.study_name or _name_of(words, settings)
        self._file = Path(store, "optuna", f"{self._name}.journal")
        self._num_launched = 0
        self._num_failed = 0

    def run(self) -> MetricValue:
        """Search until enough points have a result; returns the best one, as the metric's own direction has it.

        Raises:
            ValueError: one line if another process searches this study.
            PointFailed: if a point of this call failed, after the others are done.
        """
        study = self._open()
        known = _with_result(study)
        print(f"study {self._name}: {len(known)} of {self._settings.n_trials} points known, in {self._file}")
        while (missing := self._settings.n_trials - len(_with_result(study)) - self._num_failed) > 0:
            # Drawn anew from what is known: a search that was stopped goes on where it would have gone on.
            study.sampler = optuna.samplers.TPESampler(seed=self._settings.seed + len(_with_result(study)))
            self._run_batch(study, min(missing, self._settings.n_jobs))
        if not _with_result(study):
            raise PointFailed("no point has a result")
        self._report(study.best_trial)
        if self._num_failed:
            raise PointFailed(f"{self._num_failed} points have no result")
        return _metric_of(study.best_trial)

    def _open(self) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        lock = JournalFileOpenLock(str(self._file))
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(self._file), lock_obj=lock)),
            study_name=self._name,
            direction="maximize",
            load_if_exists=True,
        )
        self._take_up(study)
        return study

    def _take_up(self, study: optuna.Study) -> None:
        """Put the points that an ended search left without a result in line again."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = Process.from_tag(trial.user_attrs.get(_PROCESS, ""))
            if owner is not None and owner != this_process() and is_alive(owner):
                raise ValueError(
                    f"hydra.sweeper.study_name: {self._name!r} is being searched by process {owner.pid} on "
                    f"{owner.host}; allowed: one search at a time; wait for it, or give this one another name"
                )
            study.tell(trial.number, state=TrialState.FAIL)
        settled = (TrialState.COMPLETE, TrialState.WAITING)
        known = [trial.params or trial.system_attrs.get("fixed_params") for trial in study.get_trials(states=settled)]
        for trial in study.get_trials(states=(TrialState.FAIL,)):
            if trial.params and trial.params not in known:
                known.append(trial.params)
                study.enqueue_trial(trial.params)

    def _run_batch(self, study: optuna.Study, size: int) -> None:
        trials = [study.ask(self._space) for _ in range(size)]
        for trial in trials:
            trial.set_user_attr(_PROCESS, this_process().tag)
        points = [to_words(self._space, trial.params) for trial in trials]
        returned = self._launcher.launch([[*self._fixed, *point] for point in points], self._num_launched)
        self._num_launched += size
        for trial, point, result in zip(trials, points, returned, strict=True):
            self._tell(study, trial, point, result)

    def _tell(self, study: optuna.Study, trial: Trial, point: Sequence[str], result: JobReturn) -> None:
        value = result.return_value if result.status is JobStatus.COMPLETED else None
        if value is None or not math.isfinite(value):
            self._num_failed += 1
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            print(f"point {trial.number + 1}: {' '.join(point)}  no result")
            return
        trial.set_user_attr(_METRIC, value.plain())
        # The direction is known with the first result only, and a study needs one before: so it always maximises.
        study.tell(trial, -value if value.better == "lower" else value, skip_if_finished=True)
        print(f"point {trial.number + 1}: {' '.join(point)}  {value}  (best {_metric_of(study.best_trial)})")

    def _report(self, best: FrozenTrial) -> None:
        words = [*self._fixed, *to_words(self._space, best.params)]
        print(f"best: {_metric_of(best)} on the validation split; again: spp run {shlex.join(words)}")


def _with_result(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _metric_of(trial: FrozenTrial) -> MetricValue:
    """The result of a trial as it was measured."""
    return MetricValue.read(trial.user_attrs[_METRIC])


def _name_of(words: Sequence[str], settings: Settings) -> str:
    content: list[Any] = [point_name(words), settings.seed]
    return f"optuna-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:6]}"

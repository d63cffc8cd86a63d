"""The study, with a launcher that knows the results at once; the whole way is in test_multirun.py."""

import json
import os
import subprocess
import sys

import pytest
from hydra.core.utils import JobReturn, JobStatus

from hydra_plugins.spp_optuna_sweeper._search import Search, Settings
from spp.cli.objective import MetricValue, PointFailed

WORDS = ["finetune.lr=interval(0,1)", "seed=7"]


class Launcher:
    """The result of a point is -(lr - 0.3)^2, or (lr - 0.3)^2 where lower is better.

    The launch with the number `stop` is cut off, those of `bad` fail.
    """

    def __init__(self, stop=None, bad=(), better="higher"):
        self.stop, self.bad, self.better, self.launched = stop, bad, better, []

    def launch(self, job_overrides, initial_job_idx):
        returned = []
        for overrides in job_overrides:
            fixed, word = overrides
            assert fixed == "seed=7"
            self.launched.append(word)
            if len(self.launched) == self.stop:
                raise KeyboardInterrupt
            if len(self.launched) in self.bad:
                failed = JobReturn(status=JobStatus.FAILED)
                failed.return_value = PointFailed("finetune failed")
                returned.append(failed)
                continue
            done = JobReturn(status=JobStatus.COMPLETED)
            error = (float(word.removeprefix("finetune.lr=")) - 0.3) ** 2
            value = error if self.better == "lower" else -error
            done.return_value = MetricValue.read(
                {"value": value, "label": "error", "unit": "nats", "better": self.better}
            )
            returned.append(done)
        return returned


def search(tmp_path, launcher, **settings):
    plain = {"n_trials": 8, "n_jobs": 2, "seed": 0, "study_name": None, **settings}
    return Search(Settings.read(plain, "hydra.sweeper"), str(tmp_path), launcher, None, WORDS).run()


def test_the_best_of_all_points_is_found_and_the_same_seed_proposes_the_same(tmp_path, capsys):
    first, again, other = Launcher(), Launcher(), Launcher()
    best = search(tmp_path / "a", first)
    lrs = [float(word.removeprefix("finetune.lr=")) for word in first.launched]
    assert len(set(lrs)) == 8
    assert best == max(-((lr - 0.3) ** 2) for lr in lrs)
    winner = max(first.launched, key=lambda word: -((float(word.removeprefix("finetune.lr=")) - 0.3) ** 2))
    assert f"spp run seed=7 {winner}" in capsys.readouterr().out
    search(tmp_path / "b", again)
    search(tmp_path / "c", other, seed=1)
    assert again.launched == first.launched
    assert other.launched != first.launched


def test_of_a_metric_of_which_lower_is_better_the_lowest_is_found(tmp_path, capsys):
    higher, lower = Launcher(), Launcher(better="lower")
    search(tmp_path / "a", higher)
    best = search(tmp_path / "b", lower)
    assert lower.launched == higher.launched
    assert best == min((float(word.removeprefix("finetune.lr=")) - 0.3) ** 2 for word in lower.launched)
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"best: error {best:.4g} nats on the validation split")
    assert search(tmp_path / "b", Launcher(better="lower")) == best


def test_the_same_words_again_ask_for_nothing_and_more_points_only_for_the_rest(tmp_path):
    best = search(tmp_path, Launcher())
    assert search(tmp_path, again := Launcher()) == best
    assert again.launched == []
    search(tmp_path, more := Launcher(), n_trials=10)
    assert len(more.launched) == 2


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    undisturbed, stopped, restarted = Launcher(), Launcher(stop=5), Launcher()
    search(tmp_path / "a", undisturbed)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "b", stopped)
    search(tmp_path / "b", restarted)
    assert stopped.launched[:4] + restarted.launched == undisturbed.launched


def test_points_that_failed_are_told_and_tried_again_next_time(tmp_path):
    launcher = Launcher(bad=(2, 3))
    with pytest.raises(PointFailed, match="2 points"):
        search(tmp_path, launcher)
    assert len(launcher.launched) == 8
    search(tmp_path, again := Launcher())
    assert sorted(again.launched) == sorted([launcher.launched[1], launcher.launched[2]])


def test_nothing_but_failures_ends_too(tmp_path):
    with pytest.raises(PointFailed):
        search(tmp_path, Launcher(bad=range(100)), n_trials=3)


def test_a_study_that_a_living_process_searches_is_refused(tmp_path):
    other = (
        "import sys, time, types\n"
        "from hydra_plugins.spp_optuna_sweeper._search import Search, Settings\n"
        "def launch(points, start):\n print('asked', flush=True)\n time.sleep(600)\n"
        "settings = Settings(n_trials=8, n_jobs=2, seed=0, study_name=None)\n"
        "Search(settings, sys.argv[1], types.SimpleNamespace(launch=launch), None, eval(sys.argv[2])).run()\n"
    )
    command = [sys.executable, "-c", other, str(tmp_path), json.dumps(WORDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            while process.stdout.readline() != "asked\n":
                assert process.poll() is None
            with pytest.raises(ValueError, match=rf"being searched by process {process.pid}"):
                search(tmp_path, Launcher())
        finally:
            process.kill()
    search(tmp_path, after := Launcher())
    assert len(after.launched) == 8

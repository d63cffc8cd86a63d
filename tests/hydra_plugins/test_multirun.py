"""Hydra's sweepers drive the program: the words of a user, real stages, what is left in the folders."""

import pytest

from spp.cli.main import main
from spp.store.store import Store

FAST = ["debug=fast", "logger=off", "budget.values=[0.5]"]
OPTUNA = ["hydra/sweeper=spp_optuna", "hydra.sweeper.n_jobs=1"]

WRONG = [
    (["hydra/sweeper=best"], ["hydra/sweeper", "'best'", "basic", "spp_optuna"]),
    ([*OPTUNA, "seed=1"], ["hydra/sweeper", "nothing to choose"]),
    ([*OPTUNA, "hydra.sweeper.n_trails=3", "seed=range(3)"], ["hydra.sweeper.n_trails", "n_trials?"]),
    ([*OPTUNA, "hydra.sweeper.n_trials=0", "seed=range(3)"], ["hydra.sweeper.n_trials", "0", "allowed"]),
    ([*OPTUNA, "hydra.sweeper.direction=maximize", "seed=range(3)"], ["hydra.sweeper.direction", "allowed"]),
    ([*OPTUNA, "finetune.lr=interval(2,1)"], ["finetune.lr", "interval(2,1)"]),
    ([*OPTUNA, "finetune.epoch=3", "seed=range(3)"], ["finetune.epoch", "did you mean finetune.epochs?"]),
    ([*OPTUNA, "finetune.lr=[1"], ["finetune.lr=[1"]),
    ([*OPTUNA, "hydra.run.dir=x", "seed=range(3)"], ["hydra.run.dir=x"]),
    ([*OPTUNA, "hydra/launcher=basic", "seed=range(3)"], ["hydra/launcher=basic"]),
    ([*OPTUNA, "model=vit_macro", "seed=range(3)"], ["model", "did you mean model=vit_micro?"]),
]


@pytest.mark.parametrize(("words", "named"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_words_get_one_line(words, named, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "-m", *words, f"paths.store={tmp_path / 'store'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert [word for word in named if word not in error] == [], error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_optuna_searches_and_the_same_words_find_everything_done(tmp_path, capsys, monkeypatch):
    root = tmp_path / "store"
    monkeypatch.chdir(tmp_path)
    lr = "finetune.lr=tag(log,interval(1e-4,1e-2))"
    words = ["run", "-m", *OPTUNA, "hydra.sweeper.n_trials=2", *FAST, lr, f"paths.store={root}"]
    assert main(words) == 0
    assert "stays until" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    store = Store(root)
    assert len(store.list_sweeps()) == 2
    made = [ref.kind for ref in store.find_stages("")]
    assert sorted(made) == [
        "dense",
        "finetune",
        "finetune",
        "measure",
        "measure",
        "measure",
        "prune",
        "repair",
        "update",
    ]
    summaries = [store.summary("measure", ref.key) for ref in store.find_stages("") if ref.kind == "measure"]
    best = max(summary["metrics"]["val"]["top1"]["value"] for summary in summaries if "budget" in summary)
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "2 of 2 points known" in told
    assert f"best: top-1 {best:.4g} % on the validation split" in told
    assert len(store.list_sweeps()) == 2


@pytest.mark.slow
def test_hydras_own_sweeper_gives_all_points_as_one_sweep_and_failures_an_exit_code(tmp_path, capsys, monkeypatch):
    root = tmp_path / "store"
    monkeypatch.chdir(tmp_path)
    words = ["run", "-m", "hydra/sweeper=basic", *FAST, "finetune.select=best,last", f"paths.store={root}"]
    assert main(words) == 0
    store = Store(root)
    (sweep,) = store.list_sweeps()
    assert [point.overrides[-2] for point in store.read_plan(sweep).points] == [
        "finetune.select=best",
        "finetune.select=last",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    # What the next points start from is broken: they fail, which is said once and not as a traceback.
    (family,) = (ref for ref in store.find_stages("") if ref.kind == "repair")
    for path in store.artifacts_dir("repair", family.key).glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    capsys.readouterr()
    assert main([*words, "finetune.lr=0.01"]) == 1
    told = capsys.readouterr()
    assert "failed" in told.out
    assert "Traceback" not in told.err

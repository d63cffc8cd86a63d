import pytest

from spp.cli.points import compose_points
from spp.report.footnotes import Footnotes, differences
from spp.report.published import load_published

PUBLISHED = load_published()


def test_equal_sentences_have_one_letter():
    notes = Footnotes()
    assert notes.marks(["x", "y"]) == "ab"
    assert notes.marks(["z", "y"]) == "bc"
    assert notes.legend() == ("a: x.", "b: y.", "c: z.")


def test_the_papers_own_recipe_differs_in_nothing(make_row):
    assert differences([make_row(model="deit_small", data="imagenet")], PUBLISHED) == []


def test_a_rival_is_held_against_its_own_epochs(make_row):
    row = make_row(model="deit_small", data="imagenet", method="upop", epochs_search=40, batch_size=1)
    assert differences([row], PUBLISHED) == ["searched 40 epochs, the paper 60"]


def test_a_model_that_the_paper_has_not_has_no_recipe(make_row):
    assert differences([make_row(model="vit_micro", lr=1.0)], PUBLISHED) == []


RECIPE = {
    "precision": "32-true", "drop_path": 0.1, "label_smoothing": 0.1, "mixup": 0.8, "cutmix": 1.0, "mixup_prob": 1.0,
    "mixup_switch_prob": 0.5, "input_noise": 0.0, "distill_weight": 0.0,
    "augment": {
        "crop": "resized", "hflip": 0.5, "rand_augment": "rand-m9-mstd0.5-inc1", "color_jitter": 0.3,
        "random_erasing": 0.25, "repeated_aug": 3, "interpolation": "bicubic",
    },
}  # fmt: skip
TRAINED = {**RECIPE, "min_lr": 1e-5, "warmup_epochs": 0.0, "weight_decay": 0.05, "ema_decay": None, "clip_grad": None}


def test_every_field_of_a_recipe_is_held_against_the_released_code(make_row):
    row = make_row(model="deit_small", data="imagenet", recipes={"update": RECIPE, "finetune": TRAINED})
    assert differences([row], PUBLISHED) == []
    for field in RECIPE:
        if field == "precision":
            continue  # of the finetuning it is not known
        changed = {**TRAINED, field: None}
        row = make_row(model="deit_small", data="imagenet", recipes={"finetune": changed})
        (sentence,) = differences([row], PUBLISHED)
        assert f"finetune.{field}" in sentence
    update = {**RECIPE, "mixup": 0.0, "augment": {**RECIPE["augment"], "color_jitter": 0.4}}
    row = make_row(model="deit_small", data="imagenet", recipes={"update": update, "finetune": TRAINED})
    assert differences([row], PUBLISHED) == [
        "update.mixup=0, update.augment.color_jitter=0.4, the released code 0.8, 0.3"
    ]


@pytest.mark.parametrize(
    ("experiment", "kinds"),
    [
        ("spp_released", ("update", "finetune")),
        ("upop_deit_small", ("search", "finetune")),
        ("vit_slim_deit_small", ("search", "finetune")),
        ("wdpruning_deit_tiny", ("search",)),
    ],
)
def test_the_experiments_that_claim_a_released_recipe_have_it(make_row, experiment, kinds):
    (point,) = compose_points([f"experiment={experiment}"], multirun=False)
    method = point.cfg["method"]["name"]
    recipes = {kind: point.cfg[kind] for kind in kinds}
    row = make_row(model=point.model, data="imagenet", method=method, recipes=recipes)
    unlike = [sentence for sentence in differences([row], PUBLISHED) if "the released code" in sentence]
    assert unlike == []

import pytest

from spp.plan.batches import check_batches
from spp.plan.reading import check_fields


def missing_in(cfg, name):
    return {key: value for key, value in cfg.items() if key != name}


def test_a_pipeline_has_the_recipes_that_it_names_and_nobody_asks_for_others(cfg, setup_of):
    run = setup_of(recipes=("dense", "finetune"), search={"epochs": "???"}, update=None)
    assert set(run.recipes) == {"dense", "finetune"}
    assert run.dense.lr == 1e-3
    with pytest.raises(ValueError, match=r"^pipeline: it uses the recipe 'prune'.*add 'prune' to them"):
        _ = run.prune


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": None}, r"^search: None is not allowed"),
        (
            {"search": {"epochs": 1, "batch_size": 8, "lr": "???"}},
            r"^search\.lr: it is not set; allowed: .*search\.lr=",
        ),
        ({"model": {"name": "???"}}, r"^model\.name: it is not set"),
        ({"seed": "???"}, r"^seed: it is not set"),
        ({"seed": True}, r"^seed: True is not allowed"),
        ({"colour": 1}, r"^colour: 1 is an unknown field; allowed: .*seed"),
        ({"model": {"nam": "x"}}, r"^model\.nam: unknown field.*did you mean model\.name\?"),
        ({"rest_of_walk": True, "budget": {"kind": "macs", "values": ["2G"]}}, r"^budget\.values: 2000000000"),
        ({"cluster": {"name": "debug", "resources": {"finetun": {}}}}, r"^cluster\.resources: 'finetun'.*measure"),
        ({"dense": {"epochs": 1, "batch_size": 8, "lr": 1.0, "distill_weight": 0.5}}, r"^dense\.distill_weight: 0\.5"),
    ],
)
def test_wrong_configurations_are_refused_in_one_line(setup_of, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        setup_of(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["seed", "task", "paths"])
def test_what_is_not_there_is_named(cfg, name):
    with pytest.raises(ValueError, match=rf"^{name}: None is not allowed"):
        check_fields(missing_in(cfg, name))


def test_how_files_are_found_enters_no_key(setup_of):
    stage = setup_of().dense_network()
    assert stage.runtime["model"] == {"weights_file": "/w"}
    assert stage.runtime["data"]["cache"].endswith("store/cache")
    assert stage.config["data"] == {"name": "digits", "fingerprint": {"name": "digits", "sha256": "0"}}
    assert stage.key == setup_of(paths={"store": "elsewhere"}, num_workers=4).dense_network().key


def test_what_weighed_padding_has_other_versions_where_there_is_some(setup_of):
    def versions(model):
        run = setup_of(model={"name": model})
        return {kind: run.stage(kind, label=kind).version for kind in ("update", "search", "prune", "repair")}

    plain = versions("timm")
    for library in ("bert", "clip"):
        more = {kind: version - plain[kind] for kind, version in versions(library).items()}
        assert more == {"update": 2, "search": 2, "prune": 0, "repair": 1}


def test_given_weights_depend_on_no_recipe_and_no_seed(setup_of):
    given = {"model": {"name": "vit", "weights": "pretrained"}}
    assert setup_of(seed=0, **given).dense_network().key == setup_of(seed=1, **given).dense_network().key
    assert setup_of(seed=0).dense_network().key != setup_of(seed=1).dense_network().key


def chain(run, finetune):
    dense = run.dense_network()
    family = run.stage("prune", label="family", inputs={"dense": dense}, **run.shared, recipe=run.prune)
    return dense, family, run.finetune_and_measure(family, dense, 0.5, finetune)


def test_a_chain_ends_with_the_measure_of_the_trained_member_and_of_the_dense_network(setup_of):
    run = setup_of()
    dense, family, final = chain(run, run.finetune)
    assert final.kind == "measure"
    assert final.config["budget"] == {"kind": "macs", "value": 0.5}
    member, reference = final.inputs["member"], final.inputs["reference"]
    assert (member.kind, member.inputs) == ("finetune", {"family": family})
    assert (reference.kind, reference.inputs) == ("measure", {"member": dense})
    assert "budget" not in reference.config
    for measured in (final, reference):
        assert measured.config.keys() - {"budget"} == {"task", "data", "augment"}


def test_only_what_changes_the_number_is_in_the_key_of_a_measure(setup_of):
    def dense_measure(**changes):
        run = setup_of(finetune={"epochs": 0, "batch_size": 8, "lr": 1.0, **changes})
        return chain(run, run.finetune)[2].inputs["reference"]

    plain = dense_measure()
    assert plain.runtime["measure_batch_size"] == 8
    other = dense_measure(batch_size=64, augment={"flip": 0.5})
    assert (other.key, other.runtime["measure_batch_size"]) == (plain.key, 64)
    assert dense_measure(augment={"sharpness": 2}).key != plain.key


def test_nothing_is_finetuned_where_there_is_nothing_to_train(setup_of):
    run = setup_of(finetune={"epochs": 0, "batch_size": 8, "lr": 1.0})
    _, family, final = chain(run, run.finetune)
    assert final.inputs["member"] == family


def test_a_recipe_that_distills_has_its_teacher(setup_of):
    run = setup_of(finetune={"epochs": 1, "batch_size": 8, "lr": 1.0, "distill_weight": 0.5})
    dense, family, final = chain(run, run.finetune)
    assert final.inputs["member"].inputs == {"dense": dense, "family": family}


def test_another_teacher_takes_the_place_of_the_dense_network_where_a_recipe_distills(setup_of):
    taught = {"epochs": 1, "batch_size": 8, "lr": 1.0, "distill_weight": 0.5}
    run = setup_of(finetune=taught, dense=taught, teacher={"name": "regnet", "weights": "sha256:0"})
    dense, family, final = chain(run, run.finetune)
    member = final.inputs["member"]
    assert member.inputs == {"family": family}
    assert member.config["teacher"] == dense.config["teacher"] == run.teacher.plain()
    assert member.runtime["teacher"] == {"weights_file": "/t"}
    assert "teacher" not in family.config
    # Where nothing distills it changes nothing.
    plain, named = setup_of(), setup_of(teacher={"name": "regnet"})
    assert chain(plain, plain.finetune)[-1].key == chain(named, named.finetune)[-1].key


def test_the_dense_network_is_measured_once_for_all_budgets_and_methods(setup_of, label_free):
    finals = [
        run.finetune_and_measure(run.dense_network(), run.dense_network(), size, run.finetune)
        for run, size in ((setup_of(), 0.5), (setup_of(), 0.3), (setup_of(method=label_free), 0.5))
    ]
    assert len({final.inputs["reference"].key for final in finals}) == 1


def test_epochs_that_a_search_does_not_need_go_to_the_walk_or_to_the_finetuning(setup_of, label_free):
    search, walk = setup_of().share_epochs()
    assert (search.epochs, walk.epochs, search.label_smoothing) == (10, 10, 0.1)
    run = setup_of(method=label_free)
    search, walk = run.share_epochs()
    assert (search.epochs, walk.epochs, search.label_smoothing, search.mixup) == (2, 18, 0, 0)
    assert run.finetune_of(0.5, walk).epochs == 10
    one_shot = setup_of(method=label_free, prune={"epochs": 0, "batch_size": 8, "lr": 1.0})
    search, walk = one_shot.share_epochs()
    assert (search.epochs, walk.epochs, one_shot.finetune_of(0.5, walk).epochs) == (2, 0, 18)


def test_the_rest_of_the_walk_is_for_members_that_are_taken_early(setup_of):
    walk = {"epochs": 10, "batch_size": 8, "lr": 1.0, "shape": "linear"}
    run = setup_of(rest_of_walk=True, prune=walk, budget={"kind": "macs", "values": [0.75, 0.5]})
    assert [run.finetune_of(size, run.prune).epochs for size in (0.75, 0.5)] == [15, 10]


def test_a_method_that_needs_heads_gets_a_network_masked_by_heads_and_the_dense_one_is_shared(setup_of, by_head):
    run = setup_of(method=by_head)
    assert run.model.per_head
    assert run.dense_network().key == setup_of().dense_network().key


@pytest.mark.parametrize(
    ("cluster", "batch_size", "num_train", "message"),
    [
        ({"name": "debug"}, 9, 8, r"^finetune\.batch_size: 9 is more than there is; allowed: up to the 8 training"),
        (
            {"name": "local", "resources": {"finetune": {"tasks_per_node": 4}}},
            10,
            None,
            r"^finetune\.batch_size: 10 cannot be shared by 4 processes; .* use 8$",
        ),
    ],
)
def test_batches_that_cannot_be_made_are_refused(setup_of, cluster, batch_size, num_train, message):
    recipe = {"epochs": 1, "batch_size": batch_size, "lr": 1.0}
    run = setup_of(recipes=("finetune",), cluster=cluster, finetune=recipe)
    with pytest.raises(ValueError, match=message):
        check_batches(run, num_train)
    check_batches(setup_of(recipes=("finetune",), cluster=cluster, finetune={**recipe, "epochs": 0}), num_train)
    check_batches(setup_of(recipes=("finetune",), finetune=recipe), None)

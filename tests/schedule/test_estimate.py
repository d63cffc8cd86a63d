"""Estimates, against the arithmetic of the stages that they are for."""

import math

import pytest

from spp.methods.registry import config_class, search_cost
from spp.plan.spec import Stage
from spp.plan.work import NetworkSize
from spp.schedule.devices import device_of
from spp.schedule.estimate import Estimator

DATA = {"name": "imagefolder", "val_fraction": 0.01, "fingerprint": {"splits": {"train": 1_000_000, "test": 50_000}}}
MACS = 4.6e9
A100 = {"gpus_per_node": 4, "gpu_name": "A100"}
CPU = {"gpus_per_node": 0}


def training(kind="dense", epochs=300, resources=A100, precision="bf16-mixed", model="s", **config):
    recipe = {"epochs": epochs, "batch_size": 1000, "precision": precision, **config.pop("recipe", {})}
    config = {"model": {"name": model}, "data": DATA, "recipe": recipe, **config}
    return Stage(kind, config, resources=resources, runtime={"devices": 4, "num_threads": 1})


PAIRS = {"qk": 12, "vo": 12, "mlp": 12}


def size_of(model, data):
    return {"s": NetworkSize(MACS, 22e6, 20_000, PAIRS), "tiny": NetworkSize(MACS / 1000, 22e3, 200)}.get(model["name"])


def estimates(store, *stages):
    specs = {stage.key: stage.to_json() for stage in stages}

    def spec_of(kind, key):
        return specs.get(key) or store.spec(kind, key)

    return [Estimator(store, spec_of, size_of, search_cost).estimate([stage])[stage.key] for stage in stages]


def finish(store, stage, seconds, device="CPU"):
    store.put_spec(stage)
    store.begin(stage.kind, stage.key)
    store.finish(stage.kind, stage.key, {"seconds": seconds, "gpu_seconds": 0.0, "device": device})


def test_by_the_peak_it_is_the_arithmetic_of_the_field(store):
    (found,) = estimates(store, training())
    # 6 operations per multiply-add, sample and epoch of a training, 2 for a validation; 30 % of 312 TFLOPS.
    operations = 300 * MACS * (6 * 990_000 + 2 * 10_000)
    expected = operations / (0.3 * 312e12)
    assert found.gpu_seconds == pytest.approx(expected, rel=0.01)
    assert found.seconds == pytest.approx(expected / 4, rel=0.01)
    assert (found.by, found.basis) == ("nominal", "30 % of the bf16 peak of A100 (312 TFLOPS)")


def test_a_thousand_times_the_epochs_take_a_thousand_times_as_long(store):
    few, many = estimates(store, training(epochs=4), training(epochs=4000))
    start = device_of("A100").start_seconds
    assert (many.seconds - start) / (few.seconds - start) == pytest.approx(1000)


@pytest.mark.parametrize(
    ("kind", "config", "passes"),
    [
        ("finetune", {"budget": {"kind": "macs", "value": 0.5}}, 3 * 0.5),
        ("finetune", {"budget": {"kind": "macs", "value": MACS / 4}}, 3 * 0.25),
        ("finetune", {"budget": {"kind": "params", "value": 11e6}}, 3 * 0.5),
        ("finetune", {"budget": {"kind": "macs", "value": 0.5}, "recipe": {"distill_weight": 0.5}}, 3 * 0.5 + 1),
        ("prune", {}, 3),
        ("update", {"method": {"name": "spp"}}, 2),
        ("update", {"method": {"name": "spp", "drive": "kl"}}, 3),
        ("search", {"method": {"name": "taylor"}}, 2),
        ("search", {"method": {"name": "upop"}, "budget": {"kind": "macs", "value": 0.5}}, 3),
        ("search", {"method": {"name": "upop"}, "recipe": {"distill_weight": 0.5}}, 4),
    ],
)
def test_multiply_adds_of_the_kinds(store, kind, config, passes):
    (found,) = estimates(store, training(kind, epochs=2, **config))
    validated = 10_000 * {"finetune": 0.25 if passes == 0.75 else 0.5}.get(kind, 0)
    assert found.macs == pytest.approx(2 * MACS * (990_000 * passes + validated))


def test_a_measuring_has_the_network_of_its_inputs(store):
    dense = training()
    measure = Stage("measure", {"data": DATA, "recipe": {"batch_size": 1000}}, {"member": dense}, resources=CPU)
    _, found = estimates(store, dense, measure)
    assert found.macs == pytest.approx(MACS * 60_000)


@pytest.mark.parametrize(
    ("kind", "passes"), [("full", 24 * (1.5 + 1.3)), ("second", 12 * (1.5 + 1.3)), ("snapvit_prune", 2 * 6)]
)
def test_a_repair_goes_up_to_every_map_for_each_member(store, kind, passes):
    """Through the dense network and the member, half of the way on average; queries and keys are maps of their own."""
    family = training("prune", recipe={"epochs": 0}, budget={"kind": "macs", "values": [0.5, 0.3]})
    config = {"data": DATA, "model": {"name": "s"}, "repair": {"kind": kind, "num_samples": 256, "batch_size": 64}}
    stage = Stage("repair", config, {"family": family}, resources=CPU)
    _, found = estimates(store, family, stage)
    assert found.macs == pytest.approx(MACS * 256 * passes)


def test_a_search_asked_for_by_its_steps_has_them(store):
    by_steps = {"epochs": 0, "steps": 150, "batch_size": 256}
    (found,) = estimates(store, training("update", recipe=by_steps, method={"name": "spp"}))
    assert found.macs == pytest.approx(150 * 256 * 2 * MACS)


def test_refining_adds_its_steps_and_its_repairs(store):
    """256 samples kept, then five measurings of 1,024, each after a repair with these 256; 36 pairs of 48 maps."""
    recipe, method = {"batch_size": 100}, {"name": "spp", "refine": "obs", "refine_cuts": 5}
    plain, refined = (
        estimates(store, training("update", epochs=1, recipe=recipe, method=one))[0]
        for one in ({"name": "spp"}, method)
    )
    steps, repairs = (3 + 5 * 11) * 100 * 2, 5 * 256 * 48
    assert refined.macs - plain.macs == pytest.approx(MACS * (steps + repairs))
    assert refined.seconds > plain.seconds


def test_cuts_in_between_repair_the_network_but_for_the_last(store):
    once, often, without = (
        estimates(store, training("search", epochs=4, method=method))[0].macs
        for method in ({"name": "obs"}, {"name": "obs", "num_cuts": 4}, {"name": "gn", "num_cuts": 4})
    )
    assert often - once == pytest.approx(MACS * 3 * 256 * 48)
    assert without == once


def test_settings_of_other_code_are_not_known(store):
    (found,) = estimates(store, training("search", method={"name": "spp", "of_tomorrow": 1}))
    assert (found.seconds, found.by) == (None, "unknown")
    assert search_cost({"name": "tomorrow"}, 10, 8) is None


def test_a_search_with_views_and_pruned_networks_counts_them():
    config = config_class("snapvit")(num_samples=100, num_evaluations=3)
    cost = config.search_cost(num_steps=4, batch_size=16)
    assert cost.further_passes == pytest.approx(64 * (3 * 12 + 3 * (0.9 + 0.7 + 0.5 + 0.4)))


def test_what_such_stages_took_corrects_the_peak(store):
    done = training(epochs=1, resources=CPU, model="tiny", precision="32-true")
    other = training(epochs=10, resources=CPU, model="tiny", precision="32-true")
    (nominal,) = estimates(store, done)
    finish(store, done, 3 * nominal.seconds)
    assert nominal.by == "nominal"
    (found,) = estimates(store, other)
    cpu = device_of("CPU")
    steps = 10 * (990 + math.ceil(10) / 3)
    by_peak = cpu.start_seconds + 2 * found.macs / (4 * cpu.peak_fp32 * cpu.share_fp32) + steps * cpu.step_seconds
    assert found.seconds == pytest.approx(3 * by_peak)
    assert (found.by, found.basis) == ("measured", "1 stage like it on CPU")
    # Of another kind it is the next best thing; on another device it says nothing.
    method = {"name": "spp"}
    (search,) = estimates(
        store, training("update", epochs=1, resources=CPU, model="tiny", precision="32-true", method=method)
    )
    assert (search.by, search.basis) == ("measured", "1 finished dense on CPU")
    assert estimates(store, training(epochs=1))[0].by == "nominal"


def test_the_nearest_stages_tell(store):
    small = [training(epochs=n, resources=CPU, model="tiny", precision="32-true") for n in range(1, 6)]
    large = [training(epochs=n, resources=CPU, precision="32-true") for n in range(1, 6)]
    for stages, factor in ((small, 5), (large, 2)):
        for stage, nominal in zip(stages, estimates(type(store)(store.root / "empty"), *stages), strict=True):
            finish(store, stage, factor * nominal.seconds)
    empty = type(store)(store.root / "empty")
    for model, factor in (("tiny", 5), ("s", 2)):
        wanted = training(epochs=7, resources=CPU, model=model, precision="32-true")
        (found,), (nominal,) = estimates(store, wanted), estimates(empty, wanted)
        assert found.seconds == pytest.approx(factor * nominal.seconds)


def test_what_is_not_known_is_said_to_be(store):
    own = training(model="of-mine", resources=CPU)
    (found,) = estimates(store, own)
    assert (found.seconds, found.by) == (None, "unknown")
    assert found.basis == "its network or data are not known yet"
    (odd,) = estimates(store, training(resources={"gpus_per_node": 1, "gpu_name": "Abacus 3"}))
    assert (odd.gpu_seconds, odd.basis) == (None, "nobody has told what Abacus 3 can do")
    finish(store, own, 42.0)
    (found,) = estimates(store, own)
    assert (found.seconds, found.by) == (42.0, "measured")

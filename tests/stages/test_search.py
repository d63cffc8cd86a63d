"""The searches of all methods but SPP, and what comes out of the chains behind them."""

from collections import Counter

import pytest
import torch
from safetensors.torch import load_file

import spp
from spp.cli.main import main
from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.dynamics.ranking import open_path
from spp.methods.registry import config_class, method_names
from spp.models.weights import WEIGHTS_FILE
from spp.record.record import read_record
from spp.report.groups import num_searches
from spp.stages.member import member_file
from spp.stages.prune import BudgetWalk
from spp.stages.worker import run_stage
from spp.store.atomic import read_lines
from spp.store.store import Store

WORDS = [
    "debug=fast",
    "logger=off",
    "model.kwargs.depth=3",
    "data.num_train=250",
    *(f"{stage}.batch_size=16" for stage in ("dense", "update", "search", "prune", "finetune")),
    "search.epochs=1",
    "budget.values=[0.8]",
]
SEARCHING = [name for name in method_names() if name not in ("spp", "random", "magnitude")]
"""Those that take steps."""
WITH_TOKENS = "vit_slim method.tokens=0.6"
PIPELINED = "dsp method.weights_first=0.5"
FROZEN = "vit_slim method.freeze_weights=true method.unit=head"
BY_STEPS = "upop search.steps=19 search.epochs=0 prune.epochs=0"
"""An epoch has 14."""
CHAINS = ("taylor", "vit_slim", "upop", "lasso")
"""One whose weights stand still, one whose weights train, one that searches for each budget, one that also walks for
each."""


def rows_of(store, stage):
    """The record of a stage."""
    return read_lines(store.stage_dir(stage.kind, stage.key) / "metrics.jsonl")


def words_of(method: str) -> list[str]:
    # Whole heads can only go where every head has masks of its own.
    return [*WORDS, *f"method={method}".split(), *(["model.per_head=true"] if method == "dsp" else [])]


def searched(root, method: str):
    """The store after dense network and search of a method, and the search stage."""
    planned = plan_sweep(compose_points([*words_of(method), f"paths.store={root}"], False))
    store = Store(root)
    for kind in ("dense", "search"):
        stage = next(stage for stage in planned.plan.stages.values() if stage.kind == kind)
        store.put_spec(stage)
        run_stage(store.root, kind, stage.key)
    return store, stage


@pytest.fixture(scope="module")
def dense_root(tmp_path_factory):
    """A store that all methods of this file share, so that their dense network is trained once."""
    return tmp_path_factory.mktemp("searches") / "store"


def test_a_search_by_steps_takes_so_many_and_validates_at_the_end_of_each_epoch(dense_root):
    store, stage = searched(dense_root, BY_STEPS)
    summary, rows = store.summary("search", stage.key), store.read_metrics("search", stage.key)
    assert (summary["num_steps"], summary["epochs"]) == (19, pytest.approx(19 / 14))
    assert [row["step"] for row in rows] == [14, 19]
    assert all("val_top1" in row for row in rows)


@pytest.mark.parametrize("method", [*SEARCHING, WITH_TOKENS, BY_STEPS, PIPELINED, FROZEN])
def test_a_requeued_search_ends_as_the_undisturbed_one(method, dense_root, signals_at):
    store, stage = searched(dense_root, method)
    expected = (
        store.done("search", stage.key)["artifacts"],
        rows_of(store, stage),
    )
    folder = store.stage_dir("search", stage.key)
    folder.rename(folder.with_name("undisturbed"))
    folder.mkdir()
    store.put_spec(stage)
    calls, seen = signals_at([])
    places = [len(seen) + place for place in (3, 9, 16)]  # twice within the epoch, once in its validation
    signals_at(places)
    for _ in places:
        with pytest.raises(SystemExit):
            run_stage(store.root, "search", stage.key)
    run_stage(store.root, "search", stage.key)
    assert len(calls) == len(places)
    assert (
        store.done("search", stage.key)["artifacts"],
        rows_of(store, stage),
    ) == expected
    folder.with_name("undisturbed").rename(folder.with_name(f"{method}-undisturbed"))


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Root and plan of a sweep over CHAINS with two budgets."""
    root = tmp_path_factory.mktemp("family") / "store"
    words = [*WORDS, "budget.values=[0.6,0.4]", f"method={','.join(CHAINS)}", f"paths.store={root}"]
    assert main(["run", "-m", *words]) == 0
    store = Store(root)
    return store, store.read_plan(store.latest())


def of(plan, kind, method):
    return [stage for stage in plan.stages.values() if stage.kind == kind and method in plan.points_of(stage.key)[0]]


def test_one_dense_network_and_one_search_or_one_for_each_budget(family):
    _, plan = family
    assert [stage.kind for stage in plan.stages.values()].count("dense") == 1
    assert {method: len(of(plan, "search", method)) for method in CHAINS} == {
        "taylor": 1, "vit_slim": 1, "upop": 2, "lasso": 2,
    }  # fmt: skip
    assert {method: len(of(plan, "prune", method)) for method in CHAINS} == {
        "taylor": 1, "vit_slim": 1, "upop": 0, "lasso": 2,
    }  # fmt: skip


def test_every_member_is_as_large_as_asked_by_the_one_counter(family):
    store, plan = family
    for stage in (stage for stage in plan.stages.values() if stage.kind == "measure" and "budget" in stage.config):
        member = spp.load(store.artifacts_dir("finetune", stage.inputs["member"].key))
        summary = store.summary("measure", stage.key)
        cost = spp.count_cost(member, torch.zeros(1, 1, 8, 8))
        assert (cost.macs, cost.params) == (summary["macs"], summary["params"])
        asked = stage.config["budget"]["value"] * summary["dense"]["macs"]
        # The dearest unit of this network has 1.2 % of it.
        assert 0.98 * asked - 1 <= cost.macs <= asked


def test_the_walk_starts_from_the_weights_that_the_search_trained(family, tmp_path):
    store, plan = family
    (search,) = of(plan, "search", "vit_slim")
    words = [*WORDS, "method=vit_slim", "budget.values=[0.6,0.4]", "prune.epochs=0", "finetune.epochs=0"]
    assert main(["run", *words, f"paths.store={store.root}"]) == 0
    (cut,) = (s for s in store.read_plan(store.latest()).stages.values() if s.kind == "prune")
    assert cut.inputs["path"].key == search.key
    member = load_file(store.artifacts_dir("prune", cut.key) / member_file(0.4))
    folders = (store.artifacts_dir("search", search.key), store.artifacts_dir("dense", search.inputs["dense"].key))
    trained, dense = (load_file(folder / WEIGHTS_FILE)["norm.weight"] for folder in folders)
    assert torch.equal(member["norm.weight"], trained)
    assert not torch.equal(trained, dense)


def test_rows_count_each_search_for_the_members_it_serves(family):
    store, plan = family
    rows = {(row["method"], row["budget_asked"]): row for row in read_record(store, [sweep_of(store, plan)]).rows}
    assert len(rows) == 8
    for method in ("upop", "lasso"):
        assert num_searches(row for (name, _), row in rows.items() if name == method) == 2
    for (method, _), row in rows.items():
        assert row["num_members_of_search"] == (1 if method in ("upop", "lasso") else 2)
        searches = [s for s in of(plan, "search", method) if s.key == row["search_key"]]
        parts = [*searches, *(s for s in of(plan, "prune", method) if s.key == row["family_key"])]
        assert row["search_seconds"] == pytest.approx(sum(store.summary(s.kind, s.key)["seconds"] for s in parts))


def test_a_search_for_the_lambda_of_a_budget_tells_what_it_tried(family):
    store, plan = family
    for search in of(plan, "search", "lasso"):
        summary, wanted = store.summary("search", search.key), search.config["budget"]["value"]
        assert len(summary["lambdas"]) == 5
        ratios = [trial["macs"] / (wanted * summary["dense"]["macs"]) for trial in summary["lambdas"]]
        distances = [max(ratio, 1 / ratio) for ratio in ratios]
        chosen = max(index for index, distance in enumerate(distances) if distance == min(distances))
        assert summary["lam"] == summary["lambdas"][chosen]["lam"]


def test_extract_takes_a_ranking_as_well_as_a_path(family, tmp_path, capsys):
    store, plan = family
    (search,) = of(plan, "search", "taylor")
    folder = store.artifacts_dir("search", search.key)
    words = ["--macs", "0.5", "--multiple-of", "1", "--no-measure", "--out", str(tmp_path)]
    assert main(["extract", str(folder), *words, f"paths.store={store.root}"]) == 0
    small = spp.load(tmp_path)
    masks = open_path(folder).masks(macs=0.5)
    assert sum(int(mask.sum()) for mask in masks.values()) < 1728
    assert spp.count_cost(small, torch.zeros(1, 1, 8, 8)).macs == open_path(folder).cost_of(masks).macs


def test_report_compares_them_in_one_table(family, capsys):
    store, plan = family
    assert main(["report", "compare", "--format", "md", f"paths.store={store.root}", sweep_of(store, plan)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == ["dense", *CHAINS]
    rows = [row for row in read_record(store, [sweep_of(store, plan)]).rows if row["method"] == "upop"]
    accuracies = {row["budget_asked"]: row["metrics"]["top1"]["value"] for row in rows}
    (line,) = (line for line in lines if line.startswith("| upop "))
    assert line.startswith(f"| upop | {accuracies[0.6]:.1f} | {accuracies[0.4]:.1f} |")


def sweep_of(store, plan):
    return next(name for name in store.list_sweeps() if len(store.read_plan(name).points) == len(plan.points))


@pytest.mark.parametrize("method", method_names())
def test_all_methods_have_equal_epochs_in_all(method):
    per_head = ["model.per_head=true"] if method == "dsp" else []
    words = ["experiment=equal_epochs", f"method={method}", "budget.values=[0.8,0.7]", *per_head]
    (point,) = plan_sweep(compose_points(words, False)).plan.points
    for final in point.stages:
        chain, stage = [], final.inputs["member"]
        while stage.kind != "dense":
            chain.append(stage)
            stage = stage.inputs.get("family") or stage.inputs.get("path") or stage.inputs["dense"]
        by_kind = {stage.kind: stage.config for stage in chain}
        del by_kind["repair"]  # it solves for weights and trains none
        rest = epochs_after(final.config["budget"]["value"], by_kind["prune"]) if "prune" in by_kind else 0
        assert sum(config["recipe"]["epochs"] for config in by_kind.values()) - rest == 20 + 10 + 6


def epochs_after(size: float, prune: dict) -> int:
    """Epochs of a walk after it has come to a size, to the nearest whole one."""
    sizes, recipe = prune["budget"]["values"], prune["recipe"]
    walk, num_steps = BudgetWalk(sizes, 10_001, 1, recipe["shape"]), 10_000
    came = next(step for step in range(num_steps + 1) if walk.advance(step)[0] <= size)
    return round((1 - came / num_steps) * recipe["epochs"])


def epochs_of(stage) -> int:
    """Epochs of a stage and of all that it came from, but for the dense network."""
    if stage.kind == "dense":
        return 0
    if stage.kind == "measure":
        return epochs_of(stage.inputs["member"])
    sources = {source.key: source for source in stage.inputs.values()}
    own = 0 if stage.kind == "repair" else stage.config["recipe"]["epochs"]
    return own + sum(epochs_of(source) for source in sources.values())


@pytest.mark.parametrize("method", ["spp", "taylor", "magnitude", "random", "vit_slim", "upop", "leap"])
def test_without_a_walk_all_methods_have_equal_epochs_too(method):
    """What a search leaves over is for the finetuning, unless no weight shall be trained."""
    words = ["experiment=equal_epochs", f"method={method}", "budget.values=[0.5]", "update.epochs=5", "prune.epochs=0"]
    found = {}
    for epochs in (11, 0):
        (point,) = plan_sweep(compose_points([*words, f"finetune.epochs={epochs}"], False)).plan.points
        (found[epochs],) = point.stages
    assert epochs_of(found[11]) == 16
    assert found[0].inputs["member"].kind != "finetune"


def test_without_the_rest_of_the_walk_all_members_are_finetuned_alike(tmp_path, capsys):
    words = ["method=taylor", "budget.values=[0.8,0.4]"]
    found = {}
    for more in ([], ["rest_of_walk=true"]):
        (point,) = plan_sweep(compose_points([*words, *more], False)).plan.points
        found[len(more)] = [final.inputs["member"].config["recipe"]["epochs"] for final in point.stages]
    assert found[0] == [6, 6]
    assert found[1][1] == 6 < found[1][0]
    assert main(["plan", "rest_of_walk=true", "budget.values=[1.5M]", f"paths.store={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("spp: budget.values: 1500000")
    assert "fractions" in line


def test_lasso_searches_for_each_budget_or_once_along_its_path(tmp_path, capsys):
    words = ["plan", "method=lasso", "budget.values=[0.7,0.5,0.3]", f"paths.store={tmp_path}"]
    stages = {}
    for pipeline, more in (("lasso", []), ("lasso_path", []), ("lasso_path", ["method.lam=1"])):
        assert main([*words, f"pipeline={pipeline}", *more]) == 0
        lines = capsys.readouterr().out.splitlines()
        stages[pipeline, *more] = Counter(line.split(" ")[0] for line in lines if " queued " in line)
    assert stages["lasso",] == {"dense": 1, "search": 3, "prune": 3, "repair": 3, "finetune": 3, "measure": 4}
    assert stages["lasso_path",] == stages["lasso_path", "method.lam=1"]
    assert stages["lasso_path",] == {"dense": 1, "search": 1, "prune": 1, "repair": 1, "finetune": 3, "measure": 4}
    assert main([*words, "method.lam=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "method.lam: 1 " in line
    assert "pipeline=lasso_path" in line


def test_members_of_lasso_and_its_path_are_told_apart(tmp_path):
    words = [*WORDS, "method=lasso", "budget.values=[0.8,0.7]", "prune.epochs=0", "finetune.epochs=0"]
    for pipeline in ("pipeline=lasso", "pipeline=lasso_path"):
        assert main(["run", *words, pipeline, f"paths.store={tmp_path}"]) == 0
    store = Store(tmp_path)
    rows = read_record(store, store.list_sweeps()).rows
    assert {row["variant"] for row in rows} == {"", "pipeline=lasso_path"}
    by_variant = {
        variant: [row for row in rows if row["variant"] == variant] for variant in ("", "pipeline=lasso_path")
    }
    assert {variant: num_searches(found) for variant, found in by_variant.items()} == {"": 2, "pipeline=lasso_path": 1}
    assert all(len(found) == 2 for found in by_variant.values())


def test_a_pipeline_refuses_a_method_that_it_is_not_made_for(capsys, tmp_path):
    for pipeline, method in (("taylor", "upop"), ("upop", "taylor"), ("taylor", "spp"), ("lasso", "taylor")):
        assert main(["plan", f"pipeline={pipeline}", f"method={method}", f"paths.store={tmp_path}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"method={method}" in line
        assert "allowed" in line


def test_what_a_search_ends_in():
    kinds = {name: config_class(name).kinds for name in method_names()}
    assert {name for name, kind in kinds.items() if kind == ("budget",)} == {"upop", "wdpruning", "leap", "dsp"}
    assert {name for name, kind in kinds.items() if kind == ("path",)} == {"spp"}
    assert {name for name, kind in kinds.items() if "budget ranking" in kind} == {"lasso"}
    assert "ranking" in kinds["lasso"]

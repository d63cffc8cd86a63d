"""The one-shot chain on a language model of two small decoder layers that starts from random weights."""

import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from spp.cli.main import main
from spp.record.record import read_record
from spp.report.published import load_published
from spp.report.tables import llm
from spp.sparsity.allocation import allocate
from spp.stages import language, measure_language, sparsify
from spp.stages.language import count_language_cost
from spp.stages.tokens import FILE, load_windows
from spp.stages.worker import run_stage
from spp.store.store import Store
from spp.structure.cost import count_cost

transformers = pytest.importorskip("transformers", reason="the extra llm is not installed")

SIZES = "hidden_size:32,intermediate_size:48,num_hidden_layers:3,num_attention_heads:4,num_key_value_heads:2"
WORDS = [
    "experiment=one_shot_pydocs", "logger=off", "dense.epochs=0", "data.length=32", "data.num_windows=6",
    "calibration.num_windows=4", "calibration.length=32",
    f"model.kwargs={{{SIZES},max_position_embeddings:64,tie_word_embeddings:true}}",
]  # fmt: skip


def stages_of(store, kind):
    """Keys of the stages of a kind by the words that made them."""
    plan = store.read_plan(store.latest())
    return {stage.label: stage for stage in plan.stages.values() if stage.kind == kind}


@pytest.fixture(scope="module")
def finished(made_once):
    """A store with ria and sparsegpt, 2:4, wanda, 2:4 in another order and updated, and magnitude at 40 %."""

    def make(root):
        assert main(["run", "-m", *WORDS, "method=ria,sparsegpt", "sparsity=2of4", f"paths.store={root}"]) == 0
        order = ["sparsity.permutation=assignment", "sparsity.update=least_squares"]
        assert main(["run", *WORDS, "method=wanda", "sparsity=2of4", *order, f"paths.store={root}"]) == 0
        assert main(["run", *WORDS, "method=magnitude", "sparsity.sparsity=0.4", f"paths.store={root}"]) == 0

    return Store(made_once("one-shot", make))


def folder_of(store, kind, **config):
    """The artifacts of the only stage of a kind with this method."""
    found = [
        store.artifacts_dir(kind, path.name)
        for path in (store.root / "stages" / kind).iterdir()
        if path.is_dir() and store.spec(kind, path.name)["config"].get("method", {}).get("name") == config.get("method")
    ]
    (only,) = found
    return only


def whole_model(store, method):
    """The member by hand: transformers' own model with the weights and masks of the artifacts."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder_of(store, "dense")).eval()
    with torch.no_grad():
        for index, layer in enumerate(model.model.layers):
            tensors = load_file(folder_of(store, "sparsify", method=method) / f"layer_{index:03}.safetensors")
            for name in {key.rpartition(".")[0] for key in tensors}:
                weight = layer.get_submodule(name).weight
                bits = np.unpackbits(tensors[f"{name}.mask"].numpy())[: weight.numel()]
                weight.copy_(tensors.get(f"{name}.weight", weight) * torch.from_numpy(bits).view(weight.shape))
    return model


@pytest.mark.parametrize("method", ["ria", "sparsegpt", "wanda", "magnitude"])
def test_the_record_holds_the_perplexity_of_the_pruned_model_as_transformers_computes_it(finished, method):
    record = read_record(finished, finished.list_sweeps())
    (row,) = [row for row in record.rows if row["method"] == method]
    (held_out,) = [
        tokens["test"].long()
        for path in (finished.root / "stages" / "tokens").iterdir()
        if path.is_dir() and "test" in (tokens := load_file(path / "artifacts" / FILE))
    ]
    model = whole_model(finished, method)
    with torch.no_grad():
        losses = [float(model(input_ids=window[None], labels=window[None]).loss) for window in held_out]
    assert row["window_losses"] == pytest.approx(losses, abs=1e-4)
    assert row["metrics"]["perplexity"]["value"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)
    assert (row["metrics"]["perplexity"]["count"], row["protocol"]["num_tokens"]) == (6, 6 * 31)


def test_the_pattern_holds_everywhere_and_the_counts_are_exact(finished):
    model = whole_model(finished, "ria")
    for layer in model.model.layers:
        for linear in (module for module in layer.modules() if isinstance(module, torch.nn.Linear)):
            assert ((linear.weight != 0).view(len(linear.weight), -1, 4).sum(2) == 2).all()
    dense = transformers.AutoModelForCausalLM.from_pretrained(folder_of(finished, "dense"))
    record = read_record(finished, finished.list_sweeps())
    (row,) = [row for row in record.rows if row["method"] == "ria"]
    num_linear = sum(p.numel() for name, p in dense.named_parameters() if "proj" in name)
    assert row["dense_params"] - row["params"] == num_linear // 2


@pytest.mark.parametrize("method", ["ria", "wanda"])
def test_an_exported_member_is_stock_gives_the_same_logits_and_has_orders_folded_in(finished, tmp_path, method, capsys):
    (ref,) = [
        ref
        for ref in finished.find_stages("")
        if ref.kind == "sparsify" and finished.spec(ref.kind, ref.key)["config"]["method"]["name"] == method
    ]
    out = tmp_path / "member"
    words = ["export", ref.key[:16], "--format", "safetensors", "--out", str(out), f"paths.store={finished.root}"]
    assert main([*words, "--json"]) == 0
    schema = json.loads((Path(__file__).parents[2] / "docs" / "commands.schema.json").read_text())
    assert set(json.loads(capsys.readouterr().out)) == set(schema["$defs"]["export"]["required"])
    exported = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    expected = whole_model(finished, method)
    tokens = torch.randint(0, 256, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = (model(input_ids=tokens).logits for model in (exported, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    left = json.loads((out / "sparsity.json").read_text())["order_of_inputs"]
    for index, layer in enumerate(exported.model.layers):
        for name, linear in layer.named_modules():
            if isinstance(linear, torch.nn.Linear):
                order = left.get(f"model.layers.{index}.{name}", list(range(linear.in_features)))
                assert ((linear.weight[:, order] != 0).view(len(linear.weight), -1, 4).sum(2) <= 2).all()
    moved = {name.rpartition(".")[2] for name in left}
    assert moved <= {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}
    assert bool(moved) == (method == "wanda")
    assert main(words) == 2
    assert "is not empty; allowed: a new folder" in capsys.readouterr().err


def test_the_cost_by_arithmetic_is_what_the_counter_counts(finished):
    folder = folder_of(finished, "dense")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    tokens = torch.zeros(1, 32, dtype=torch.long)
    counted = count_cost(model, {"input_ids": tokens})
    found = count_language_cost(folder, 32)
    assert found.params == counted.params
    assert found.macs == counted.macs


def test_a_run_that_is_told_to_stop_goes_on_at_its_layer_with_the_same_bytes(finished, tmp_path, monkeypatch):
    words = [*WORDS, "method=ria", "sparsity=2of4", f"paths.store={tmp_path}"]
    pruned, real = [], sparsify._Sparsification._prune

    def prune(self, index, *args):
        pruned.append(index)
        real(self, index, *args)
        if index == 1 and len(pruned) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(sparsify._Sparsification, "_prune", prune)
    with pytest.raises(SystemExit):
        main(["run", *words])
    store = Store(tmp_path)
    (stage,) = stages_of(store, "sparsify").values()
    assert not store.is_done("sparsify", stage.key)
    run_stage(store.root, "sparsify", stage.key)
    assert pruned == [0, 1, 2]
    undisturbed = folder_of(finished, "sparsify", method="ria")
    for file in undisturbed.glob("*.safetensors"):
        assert (store.artifacts_dir("sparsify", stage.key) / file.name).read_bytes() == file.read_bytes()


def test_a_measuring_that_is_killed_goes_on_at_its_part_with_the_same_numbers(finished, tmp_path, monkeypatch):
    shutil.copytree(finished.root, tmp_path / "store")
    store = Store(tmp_path / "store")
    record = read_record(store, store.list_sweeps())
    (row,) = [row for row in record.rows if row["method"] == "magnitude"]
    shutil.rmtree(store.stage_dir("measure", row["key"]))
    parts, real = [], measure_language._losses_of

    def losses_of(stage, model, windows, split):
        parts.append((split, len(windows)))
        if len(parts) == 3:
            raise KeyboardInterrupt
        return real(stage, model, windows, split)

    monkeypatch.setattr(measure_language, "MAX_TOKENS_AT_ONCE", 4 * 32)
    monkeypatch.setattr(measure_language, "_losses_of", losses_of)
    words = [*WORDS, "method=magnitude", "sparsity.sparsity=0.4", f"paths.store={store.root}"]
    assert main(["run", *words]) != 0
    assert not store.is_done("measure", row["key"])
    run_stage(store.root, "measure", row["key"])
    assert parts == [("validation", 4), ("validation", 2), ("test", 4), ("test", 4), ("test", 2)]
    (again,) = [row for row in read_record(store, store.list_sweeps()).rows if row["method"] == "magnitude"]
    assert again["window_losses"] == row["window_losses"]


def test_tokens_of_another_vocabulary_are_one_line(finished):
    (folder,) = {
        path / "artifacts"
        for path in (finished.root / "stages" / "tokens").iterdir()
        if path.is_dir() and "test" in load_file(path / "artifacts" / FILE)
    }
    stage = SimpleNamespace(input_artifacts=lambda role: folder)
    assert load_windows(stage, 256)["test"].shape == (6, 32)
    with pytest.raises(
        ValueError, match=r"^model.weights: its tokenizer gives the token \d+, and the model knows 50; "
    ):
        load_windows(stage, 50)


def test_a_calibration_text_that_is_too_short_fails_with_one_line(tmp_path, capsys):
    assert main(["run", *WORDS, "method=ria", "calibration.num_windows=100000", f"paths.store={tmp_path}"]) == 1
    assert "calibration.num_windows: 100000 windows of 32 tokens are more than the text has" in capsys.readouterr().out


def test_the_table_names_every_axis_and_compares_window_by_window(finished):
    record = read_record(finished, finished.list_sweeps())
    (table,) = llm.tables(record, load_published())
    by_method = {entry["method"]: entry for entry in table.data if entry.get("text") == "pydocs"}
    assert by_method["sparsegpt"]["update"] == "obs"
    assert by_method["ria"]["pattern"] == "2:4"
    assert by_method["magnitude"]["pattern"] == "40 %"
    assert by_method["ria"]["calibration"] == "pydocs, 4 x 32"
    losses = {row["method"]: np.array(row["window_losses"]) for row in record.rows}
    difference = losses["sparsegpt"] - losses["ria"]
    assert by_method["sparsegpt"]["difference_to_ria"] == pytest.approx(difference.mean())
    assert by_method["sparsegpt"]["standard_error"] == pytest.approx(difference.std(ddof=1) / np.sqrt(6))
    assert by_method["magnitude"]["difference_to_ria"] is None  # of another pattern


def test_owl_takes_less_from_layers_with_outliers_and_the_same_in_all(finished, tmp_path):
    words = [*WORDS, "method=wanda", "sparsity.allocation=owl", f"paths.store={tmp_path}"]
    assert main(["run", *words]) == 0
    store = Store(tmp_path)
    (stage,) = stages_of(store, "sparsify").values()
    summary = store.summary("sparsify", stage.key)
    assert len(set(summary["shares"])) > 1
    assert np.mean(summary["shares"]) == pytest.approx(0.5)
    assert summary["achieved_sparsity"] == pytest.approx(0.5, abs=0.02)


def test_activations_that_do_not_fit_lie_on_disk_and_give_the_same_bytes(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(language, "_available_bytes", lambda: 0.0)
    assert main(["run", *WORDS, "method=ria", "sparsity=2of4", f"paths.store={tmp_path}"]) == 0
    store = Store(tmp_path)
    (stage,) = stages_of(store, "sparsify").values()
    for file in folder_of(finished, "sparsify", method="ria").glob("*.safetensors"):
        assert (store.artifacts_dir("sparsify", stage.key) / file.name).read_bytes() == file.read_bytes()
    assert not list(tmp_path.rglob("activations-*"))


def test_fisher_prices_are_those_of_the_whole_model_and_the_counts_exact(finished, tmp_path):
    words = [*WORDS, "method=wanda", "sparsity.allocation=fisher", f"paths.store={tmp_path}"]
    assert main(["run", *words]) == 0
    store = Store(tmp_path)
    (stage,) = stages_of(store, "sparsify").values()
    summary = store.summary("sparsify", stage.key)
    drawn = load_file(store.artifacts_dir("tokens", stages_of(store, "tokens")["calibration"].key) / FILE)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder_of(finished, "dense")).eval()
    curves, sizes = whole_curves(model, drawn["calibration"].long())
    expected = allocate("fisher", curves, sizes, 0.5, 0.1)
    assert summary["shares"] == pytest.approx(list(expected.values()), abs=2e-3)
    assert len({round(share, 3) for share in summary["shares"]}) > 1
    assert np.mean(summary["shares"]) == pytest.approx(0.5)
    linears = [[m for m in layer.modules() if isinstance(m, torch.nn.Linear)] for layer in model.model.layers]
    removed = sum(
        linear.out_features * int(linear.in_features * share + 1e-6)
        for share, layer in zip(summary["shares"], linears, strict=True)
        for linear in layer
    )
    assert summary["num_weights"] - summary["num_kept"] == removed


def whole_curves(model, windows):
    """By layer the price of removing each share, from one backward pass through the whole model."""
    inputs, outputs = {}, {}
    for name, module in model.model.layers.named_modules():
        if isinstance(module, torch.nn.Linear):

            def keep(module, args, output, name=name):
                inputs[name], outputs[name] = args[0], output
                output.retain_grad()

            module.register_forward_hook(keep)
    (model(input_ids=windows, labels=windows).loss * len(windows) * (windows.shape[1] - 1)).backward()
    curves, sizes = {}, {}
    for index, layer in enumerate(model.model.layers):
        prices = []
        for name, module in layer.named_modules():
            if isinstance(module, torch.nn.Linear):
                square = inputs[f"{index}.{name}"].square().mean((0, 1))
                score = (module.weight.square() * square).sort(dim=1).values
                at = torch.linspace(0, score.shape[1] - 1, 101).round().long()
                gradient = outputs[f"{index}.{name}"].grad.square().mean((0, 1))
                prices.append((module.weight.numel(), (score[:, at] * gradient[:, None]).mean(0) / 2))
        sizes[str(index)] = sum(number for number, _ in prices)
        curves[str(index)] = sum(number * price for number, price in prices) / sizes[str(index)]
    return {name: curve.detach() for name, curve in curves.items()}, sizes

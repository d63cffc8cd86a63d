"""What spp extract finds, cuts and measures, on a finished sweep of digits."""

import json
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

import spp
from spp.cli.main import main
from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.deploy.extract import fastest_fitting
from spp.dynamics.ranking import Ranking
from spp.record.record import read_record
from spp.store.store import Store
from spp.structure.tokens import drop_tokens, kept_tokens


def said(capsys, *words):
    assert main(["extract", *map(str, words)]) == 0
    return capsys.readouterr().out


def complaint(capsys, *words):
    assert main(["extract", *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_widths_are_multiples_of_8_within_the_budget_unless_told_otherwise(finished, tmp_path, capsys):
    root, sweep = finished
    store = f"paths.store={root}"
    said(capsys, sweep[:-2], "--macs", "0.93", "--no-measure", "--out", tmp_path / "a", store)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    dense = json.loads((tmp_path / "a" / "origin.json").read_text())["dense"]["macs"]
    cost = spp.count_cost(spp.load(tmp_path / "a"), torch.zeros(1, 1, 8, 8))
    assert 0.8 * dense < cost.macs <= 0.93 * dense
    names = ("qk_width", "v_width", "hidden")
    rounded = [sizes[name] for sizes in config["spp"]["modules"].values() for name in names if name in sizes]
    assert len(rounded) > 4
    assert all(width % 8 == 0 for width in rounded)
    # Where the walk has trained weights they count for more, unless the widths are asked for.
    text = said(capsys, sweep[:-2], "--macs", "0.43", "--no-measure", "--out", tmp_path / "b", store)
    assert "member_0.5" in text
    words = ("--macs", "0.43", "--multiple-of", "8", "--no-measure", "--out", tmp_path / "c", store)
    assert "weights: dense" in said(capsys, sweep[:-2], *words)


def test_accuracy_and_speed_stand_beside_those_of_the_dense_network(finished, tmp_path, capsys):
    root, sweep = finished
    text = said(capsys, sweep, "--macs", "0.5", "--threads", "1", "--out", tmp_path / "a", f"paths.store={root}")
    store = Store(root)
    measures = [stage for stage in store.read_plan(sweep).stages.values() if stage.kind == "measure"]
    (dense,) = (store.summary("measure", each.key) for each in measures if "budget" not in each.config)
    (member,) = (
        store.summary("measure", each.key) for each in measures if each.config.get("budget", {}).get("value") == 0.5
    )
    (line,) = (line for line in text.splitlines() if line.startswith("top-1 (%)"))
    before, after = (each["metrics"]["test"]["top1"] for each in (dense, member))
    expected = f"{before['value']:.4g} {after['value']:.4g} {after['count']} test images"
    assert line.removeprefix("top-1 (%)").split() == expected.split()
    assert "latency (ms), batch 1, 1 thread" in text
    assert f"| top-1 (%) | {after['value']:.4g} | {before['value']:.4g} |" in (tmp_path / "a/README.md").read_text()


def test_a_path_is_named_by_how_the_key_of_its_stage_begins(finished, tmp_path, capsys):
    root, _ = finished
    (ref,) = (ref for ref in Store(root).find_stages("") if ref.kind == "update")
    said(capsys, ref.key[:8], "--units", "0.5", "--no-measure", "--out", tmp_path / "a", f"paths.store={root}")
    assert json.loads((tmp_path / "a" / "origin.json").read_text())["stages"]["update"] == ref.key


def test_finetune_does_what_a_run_with_this_budget_would_and_does_it_once(finished, tmp_path, capsys):
    root = tmp_path / "store"
    shutil.copytree(finished[0], root)
    store, sweep = Store(root), finished[1]
    words = ["debug=fast", "logger=off", "budget.values=[0.4]", f"paths.store={root}"]
    planned = plan_sweep(compose_points(words, False)).plan.stages.values()
    missing = {(stage.kind, stage.key) for stage in planned if not store.is_done(stage.kind, stage.key)}
    assert {kind for kind, _ in missing} >= {"prune", "finetune", "measure"}

    words = (sweep, "--macs", "0.4", "--finetune", "--no-measure", f"paths.store={root}")
    text = said(capsys, *words, "--out", tmp_path / "a")
    assert all(store.is_done(*each) for each in missing)
    (key,) = (key for kind, key in missing if kind == "finetune")
    assert f"finetune {key}, made for this size" in text
    trained = load_file(store.artifacts_dir("finetune", key) / "member.safetensors")
    for name, weight in spp.load(tmp_path / "a").state_dict().items():
        assert torch.equal(weight, trained[name])

    finished_at = store.done("finetune", key)["finished_at"]
    said(capsys, *words, "--out", tmp_path / "b")
    assert store.done("finetune", key)["finished_at"] == finished_at
    rows = read_record(store, store.list_sweeps()).rows
    assert [row["member_key"] for row in rows if row["budget_asked"] == 0.4] == [key]


def test_what_is_there_is_not_overwritten(finished, tmp_path, capsys):
    root, sweep = finished
    words = (sweep, "--macs", "0.5", "--no-measure", "--out", tmp_path / "a", f"paths.store={root}")
    said(capsys, *words)
    assert complaint(capsys, *words).endswith("add --force")
    said(capsys, *words, "--force")


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["--macs", "0.001"], ["macs: 0.001 cannot be reached"]),
        (["--macs", "0.09", "--multiple-of", "16"], ["macs: 0.09 cannot be reached with widths that are multiples of"]),
        (["--latency-ms", "0.0001"], ["--latency-ms: 0.0001 cannot be reached here; allowed: about", "and more"]),
        (["--latency-ms", "5", "--batch", "0"], ["--batch: 0 is not allowed"]),
        (["--macs", "0.001", "--finetune"], ["macs: 0.001 cannot be reached"]),
        (["--latency-ms", "5", "--finetune"], ["--latency-ms: 5 is not allowed with --finetune"]),
        (["--macs", "0.5", "--repair", "64", "--finetune"], ["--repair: 64 is not allowed with --finetune"]),
        (["--macs", "0.5", "--multiple-of", "0"], ["--multiple-of: 0 is not allowed"]),
    ],
)
def test_what_cannot_be_is_said_in_one_line(finished, tmp_path, capsys, words, texts):
    root, sweep = finished
    line = complaint(capsys, sweep, *words, "--out", tmp_path / "a", f"paths.store={root}")
    assert all(text in line for text in texts), line
    assert not (tmp_path / "a").exists()


def test_a_latency_is_met_by_the_largest_member_that_is_so_fast():
    def select(size):
        if size < 100:
            raise ValueError("out of reach")
        return {"p": torch.tensor(size)}

    def time_of(masks):
        return 2 + float(masks["p"]) / 100

    masks = fastest_fitting(7.0, 50, 1000, select, time_of)
    assert 500 * 0.98 <= float(masks["p"]) <= 500
    assert float(fastest_fitting(20.0, 50, 1000, select, time_of)["p"]) == 1000
    with pytest.raises(ValueError, match=r"^--latency-ms: 2\.5 cannot be reached here; allowed: about 3"):
        fastest_fitting(2.5, 50, 1000, select, time_of)


def searched(model, folder):
    pairs = spp.find_pairs(model)
    optimizer = spp.BregmanOptimizer(spp.MaskedModel(model, pairs).masks, num_steps=1)
    return spp.SolutionPath.from_optimizer(optimizer, pairs).save(folder)


def small_vit(num_classes=3):
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=num_classes).eval()


def test_a_path_that_python_saved_is_cut_from_any_checkpoint_that_fits(tmp_path, capsys):
    model = small_vit()
    path = searched(model, tmp_path / "path")
    torch.save(
        {"state_dict": {f"module.{name}": weight for name, weight in model.state_dict().items()}}, tmp_path / "a.pt"
    )
    words = ("--model", "timm:test_vit", "--weights", tmp_path / "a.pt", "--macs", "0.6", "--multiple-of", "1")
    text = said(capsys, path, *words, "--threads", "1", "--out", tmp_path / "small", f"paths.store={tmp_path / 'none'}")
    assert "weights: a.pt of timm:test_vit" in text
    assert "latency (ms)" in text
    expected = spp.compact(model, spp.SolutionPath.load(path).masks(macs=0.6))
    images = torch.randn(2, 3, 160, 160)
    assert torch.allclose(spp.load(tmp_path / "small")(images), expected.eval()(images), atol=1e-5)
    assert str(tmp_path) not in (tmp_path / "small" / "origin.json").read_text()


def test_a_path_of_the_store_is_cut_from_other_weights_of_its_network(finished, tmp_path, capsys):
    root, sweep = finished
    words = (sweep, "--macs", "0.5", "--multiple-of", "1", "--no-measure", f"paths.store={root}")
    (ref,) = (ref for ref in Store(root).find_stages("") if ref.kind == "dense")
    weights = load_file(Store(root).artifacts_dir(ref.kind, ref.key) / "model.safetensors")
    head = next(name for name in weights if name.endswith("head.bias"))
    save_file({**weights, head: weights[head] + 1}, tmp_path / "other.safetensors")
    said(capsys, *words, "--weights", tmp_path / "other.safetensors", "--out", tmp_path / "a")
    assert torch.equal(spp.load(tmp_path / "a").state_dict()[head], weights[head] + 1)
    assert list(json.loads((tmp_path / "a" / "origin.json").read_text())["stages"]) == ["update"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--model", "timm:test_vit2", "--weights", "of_vit2.safetensors"], "cost more or less than those of --model"),
        (["--model", "timm:test_vit3", "--weights", "of_vit3.safetensors"], "units in 'blocks.0.attn.qk', and the"),
        (["--model", "timm:test_vit", "--weights", "none.pt"], "--weights: there is no file 'none.pt'"),
        (["--model", "timm:test_vit"], "--weights: there are none"),
        (["--model", "tests.no:thing"], "there is no module 'tests.no'"),
        (["--model", "timm:test_vit", "--weights", "other.safetensors"], "the unknown"),
        (["--model", "timm:test_vit", "--weights", "text.safetensors"], "--weights: "),
        (["--model", "timm:test_vit", "--weights", "text.pt"], "text.pt' cannot be read (it is no checkpoint)"),
        (["--model", "timm:test_vit", "--finetune"], "--finetune: it is not allowed with --model"),
        (
            ["--model", "timm:test_vit", "--weights", "fitting.safetensors", "--repair", "8"],
            "--repair: 8 is not allowed with --model",
        ),
        (["--weights", "fitting.safetensors"], "belongs to no stage"),
        (["--model", "timm:test_vit.no_tag", "--weights", "pretrained"], "--weights: pretrained is not allowed with"),
    ],
)
def test_a_path_without_what_it_needs_is_refused_in_one_line(tmp_path, capsys, words, text):
    model = small_vit()
    path = searched(model, tmp_path / "path")
    save_file(model.state_dict(), tmp_path / "fitting.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name in ("vit2", "vit3"):
        save_file(timm.create_model(f"test_{name}").state_dict(), tmp_path / f"of_{name}.safetensors")
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("hello")
    given = [str(tmp_path / word) if (tmp_path / word).is_file() else word for word in words]
    line = complaint(capsys, path, "--macs", "0.6", *given, "--out", tmp_path / "a", f"paths.store={tmp_path / 'none'}")
    assert text in line, line
    assert not (tmp_path / "a").exists()


def test_a_path_is_cut_from_the_folder_of_a_model_of_transformers(tmp_path, capsys):
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
    model = ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=3)).eval()
    model.save_pretrained(tmp_path / "hf")
    path = searched(model, tmp_path / "path")
    words = ("--model", tmp_path / "hf", "--params", "0.6", "--multiple-of", "1", "--no-measure")
    said(capsys, path, *words, "--out", tmp_path / "small", f"paths.store={tmp_path / 'none'}")
    expected = spp.compact(model, spp.SolutionPath.load(path).masks(params=0.6)).eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.allclose(spp.load(tmp_path / "small")(images).logits, expected(images).logits, atol=1e-5)
    weights = load_file(tmp_path / "hf" / "model.safetensors")
    save_file(
        {name: weight for name, weight in weights.items() if name != "classifier.bias"},
        tmp_path / "hf" / "model.safetensors",
        metadata={"format": "pt"},
    )
    assert main(["extract", *map(str, (path, *words, "--out", tmp_path / "other"))]) == 2
    assert (
        "its files lack 'classifier.bias'" in capsys.readouterr().err.splitlines()[-1]
    )  # below transformers' own table


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_the_folder_of_a_member_has_the_tokenizer_of_its_model_and_does_not_say_where_that_lay(kind, tmp_path, capsys):
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
    model = (
        BertForSequenceClassification(BertConfig(**sizes, vocab_size=50, num_labels=3))
        if kind == "bert"
        else LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=50, num_key_value_heads=3, max_position_embeddings=64))
    )
    model.eval().save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.json").write_text("{}")
    words = ("--model", tmp_path / "hf", "--params", "0.9", "--multiple-of", "1", "--no-measure")
    path = searched(model, tmp_path / "path")
    text = said(capsys, path, *words, "--out", tmp_path / "small", f"paths.store={tmp_path / 'none'}")
    assert "weights: hf\n" in text
    assert ("README.md" in text) == (tmp_path / "small" / "README.md").exists()
    assert (tmp_path / "small" / "tokenizer.json").read_text() == "{}"
    assert not [each.name for each in (tmp_path / "small").iterdir() if str(tmp_path).encode() in each.read_bytes()]


def test_a_path_without_some_tokens_is_shown_and_cut_without_them(tmp_path, capsys):
    name = "vit_tiny_patch16_224"
    model = timm.create_model(name, num_classes=3).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    dense = spp.count_cost(model, torch.zeros(1, 3, 224, 224))
    kept = {"blocks.4": list(range(140))}
    drop_tokens(model, kept)
    pairs = spp.find_pairs(model)
    scores = {pair.name: torch.rand(pair.size) for pair in pairs}
    path = Ranking.from_scores(scores, pairs, tokens=kept, dense=dense).save(tmp_path / "path")
    assert main(["path", "show", str(path), "--json", f"paths.store={tmp_path / 'none'}"]) == 0
    assert json.loads(capsys.readouterr().out)["dense"]["macs"] == dense.macs
    words = ("--model", f"timm:{name}", "--weights", tmp_path / "weights.safetensors", "--macs", "0.6", "--no-measure")
    said(capsys, path, *words, "--out", tmp_path / "small", f"paths.store={tmp_path / 'none'}")
    small, origin = spp.load(tmp_path / "small"), json.loads((tmp_path / "small" / "origin.json").read_text())
    assert kept_tokens(small)["blocks.4"] == kept["blocks.4"]
    assert origin["dense"]["macs"] == dense.macs
    assert 0.5 * dense.macs < origin["macs"] <= 0.6 * dense.macs


def test_weights_that_cannot_be_fetched_are_named_by_the_word_that_takes_their_file(tmp_path, capsys, monkeypatch):
    def unreachable():
        raise OSError("no network")

    monkeypatch.setattr("spp.models.timm.try_to_load_from_cache", lambda *place: None)
    monkeypatch.setattr("spp.models.timm.get_session", unreachable)
    path = searched(small_vit(), tmp_path / "path")
    words = ("--macs", "0.6", "--model", "timm:test_vit", "--weights", "pretrained")
    line = complaint(capsys, path, *words, "--out", tmp_path / "a", f"paths.store={tmp_path / 'none'}")
    assert line.startswith("spp: --weights: the weights of test_vit cannot be fetched here (no network)")
    assert line.endswith("say --weights test_vit.safetensors")

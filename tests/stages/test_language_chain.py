"""Structured pruning of a language model of two small layers by the ordinary chain, from random weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import spp
from spp.cli.main import main
from spp.store.store import Store
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs

transformers = pytest.importorskip("transformers", reason="the extra llm is not installed")

SIZES = "hidden_size:32,intermediate_size:48,num_hidden_layers:2,num_attention_heads:4,num_key_value_heads:2"
WORDS = [
    "task=language", "model=llama_micro", "data=pydocs", "data.length=32", "data.num_windows=6", "logger=off",
    "dense.epochs=0", "finetune.epochs=0", "budget.values=[0.6]", "repair.num_samples=8", "repair.batch_size=4",
    f"model.kwargs={{{SIZES},max_position_embeddings:64,tie_word_embeddings:true}}",
]  # fmt: skip


@pytest.fixture(scope="module")
def store(made_once):
    """A store with the chains of spp, driven by the distance to the dense network, and of energy."""

    def make(root):
        words = [*WORDS, f"paths.store={root}"]
        assert main(["run", *words, "method=spp", "method.drive=kl", "method.clip=3", "update.steps=6"]) == 0
        assert main(["run", *words, "method=energy", "search.steps=2"]) == 0

    return Store(made_once("language-chain", make))


def measured(store, method):
    """The summary of the member's measuring, and the file of the member."""
    found = []
    for plan in (store.read_plan(sweep) for sweep in store.list_sweeps()):
        searches = {stage.config["method"]["name"] for stage in plan.stages.values() if "method" in stage.config}
        if method in searches:
            (stage,) = (s for s in plan.stages.values() if s.kind == "measure" and "budget" in s.config)
            member = stage.inputs["member"]
            found.append((store.summary("measure", stage.key), store.artifacts_dir(member.kind, member.key)))
    ((summary, folder),) = found
    return summary, next(folder.glob("member_*.safetensors"))


def windows():
    """Six windows of 32 bytes, spread evenly over the test text."""
    from spp.data.registry import open_text

    text = open_text("pydocs", None, "data.name").joined("test").encode()
    num_all = len(text) // 32
    places = [(2 * index + 1) * num_all // 12 for index in range(6)]
    return torch.tensor([list(text[32 * place : 32 * place + 32]) for place in places])


@pytest.mark.parametrize("method", ["spp", "energy"])
def test_a_member_has_the_perplexity_and_the_distance_that_its_record_says(store, method):
    summary, file = measured(store, method)
    network, tokens = spp.load(file), windows()
    (dense_stage,) = {stage.key for stage in store.read_plan(store.latest()).stages.values() if stage.kind == "dense"}
    dense = transformers.AutoModelForCausalLM.from_pretrained(store.artifacts_dir("dense", dense_stage)).eval()
    with torch.no_grad():
        logits, wanted = network(tokens), dense(tokens).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    own, full = (each[:, :-1].softmax(-1).double() for each in (logits, wanted))
    values = {name: entry["value"] for name, entry in summary["metrics"]["test"].items()}
    assert values["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert values["kl"] == pytest.approx(float((full * (full / own).log()).sum(-1).mean()), abs=1e-5)
    assert values["agreement"] == pytest.approx(100 * float((own.argmax(-1) == full.argmax(-1)).double().mean()))


def test_a_member_has_the_size_that_was_asked_for(store):
    summary, file = measured(store, "spp")
    network = spp.load(file)
    cost = count_cost(network, example_inputs(network))
    assert (cost.macs, cost.params) == (summary["macs"], summary["params"])
    assert 0.55 * summary["dense"]["macs"] < cost.macs <= 0.6 * summary["dense"]["macs"]


def test_numbers_that_are_tied_are_stored_once(store):
    _, file = measured(store, "spp")
    assert "model.lm_head.weight" not in load_file(file)
    network = spp.load(file).model
    assert network.lm_head.weight is network.model.embed_tokens.weight

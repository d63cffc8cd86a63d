"""Images and texts through the whole chain: a small CLIP from the dense network to measured and timed members."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open

import spp
from spp.cli.main import main
from spp.data.captions.sources import digit_scenes
from spp.data.config import DataConfig
from spp.data.loaders import open_data
from spp.stages.worker import run_stage
from spp.store.store import CHECKPOINT, Store
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs

pytest.importorskip("transformers", reason="transformers is not installed; install the extra llm")

TOWER = "hidden_size:16,intermediate_size:32,num_hidden_layers:1,num_attention_heads:2"
WORDS = [
    *("model=clip_micro", "data=digit_scenes", "data.num_train=256", "debug=fast", "logger=off", "budget.values=[0.6]"),
    *(f"model.kwargs.text={{{TOWER}}}", f"model.kwargs.vision={{{TOWER},patch_size:10}}"),
    *("finetune.momentum_weight=0.4", "finetune.momentum_queue=100", "repair.batch_size=16"),
]


@pytest.fixture(scope="module")
def store(made_once):
    def make(root):
        assert main(["run", *WORDS, f"paths.store={root}"]) == 0

    return Store(made_once("retrieval-chain", make))


def stages_of(store, kind):
    return [stage for stage in store.read_plan(store.latest()).stages.values() if stage.kind == kind]


@pytest.fixture(scope="module")
def member(store):
    """The finetuned member's file, what was measured of it, and the spec of the measuring."""
    (finetune,) = stages_of(store, "finetune")
    (measure,) = (stage for stage in stages_of(store, "measure") if "budget" in stage.config)
    (file,) = store.artifacts_dir("finetune", finetune.key).glob("*.safetensors")
    return file, store.summary("measure", measure.key), store.spec("measure", measure.key)


def recalls_by_brute_force(network, spec):
    """Every image against every sentence of the test set."""
    config = DataConfig.from_spec(spec["config"]["data"], "data")
    data = open_data(config, spec["runtime"]["data"], batch_size=100, augment={}, seed=0, num_workers=0)
    images, texts, owners = [], [], []
    with torch.no_grad():
        for batch in data.test_dataloader():
            flags = batch["is_caption"]
            out = network(batch["pixel_values"], batch["input_ids"][flags])
            images.append(out["images"])
            texts.append(out["texts"])
            owners.append(batch["image"][:, None].expand_as(flags)[flags])
    scores = (torch.cat(images).double() @ torch.cat(texts).double().T).float()
    is_own = torch.arange(len(scores))[:, None] == torch.cat(owners)
    own = scores.masked_fill(~is_own, -torch.inf)
    image_ranks = 1 + (scores > own.amax(1, keepdim=True)).sum(1)
    text_ranks = 1 + (scores > own.amax(0)).sum(0)
    return {
        f"{way}_r{k}": 100 * float((ranks <= k).double().mean())
        for way, ranks in (("i2t", image_ranks), ("t2i", text_ranks))
        for k in (1, 5, 10)
    }


def test_a_member_has_the_recalls_that_its_record_says(member):
    file, summary, spec = member
    found = {name: entry["value"] for name, entry in summary["metrics"]["test"].items()}
    expected = recalls_by_brute_force(spp.load(file), spec)
    assert found == pytest.approx({**expected, "mean_recall": sum(expected.values()) / 6}, abs=0.11)  # one tie
    assert {"test", "before", "repaired", "val"} <= set(summary["metrics"])
    assert summary["metrics"]["test"]["i2t_r1"]["count"] == len(digit_scenes._scenes("test"))


def test_a_member_is_a_pair_of_encoders_of_the_size_asked_for_and_no_moving_average(store, member):
    file, summary, _ = member
    network = spp.load(file)
    cost = count_cost(network, example_inputs(network))
    assert (cost.macs, cost.params) == (summary["macs"], summary["params"])
    (dense,) = stages_of(store, "dense")
    assert 0.5 < cost.macs / store.summary("dense", dense.key)["macs"] <= 0.6
    with safe_open(file, "pt") as saved:
        assert sum(saved.get_tensor(name).numel() for name in saved.keys()) == cost.params  # noqa: SIM118
    recipe = stages_of(store, "finetune")[0].config["recipe"]
    assert (recipe["momentum_weight"], recipe["momentum_queue"]) == (0.4, 100)


def test_it_is_reported_extracted_timed_and_in_table_7(store, tmp_path, capsys):
    place = f"paths.store={store.root}"
    assert main(["report", "retrieval", place, "--format", "md", "--out", str(tmp_path / "report")]) == 0
    assert "| spp (priced) | macs 60 % |" in capsys.readouterr().out
    folder = str(tmp_path / "small")
    assert main(["extract", store.latest(), "--macs", "0.6", "--repair", "16", "--out", folder, place]) == 0
    told = json.loads((tmp_path / "small" / "origin.json").read_text())
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(told["sha256"])
    assert (told["method"], told["budget"]) == ("spp", {"kind": "macs", "value": 0.6})
    timing = ["--runtimes", "eager", "--batch", "1", "--threads", "1", "--device", "cpu", "--seconds", "0.1"]
    assert main(["benchmark", folder, *timing, "--keep", place]) == 0
    capsys.readouterr()
    assert main(["report", "table7", place, "--format", "csv", "--out", str(tmp_path / "report")]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if "small (spp macs 60 %)" in line]
    assert [line.split("|")[3].strip() for line in lines] == ["both", "vision", "text"]


def test_momentum_distillation_goes_on_to_the_bit_where_it_was_interrupted(store, signals_at, tmp_path):
    (finetune,) = stages_of(store, "finetune")
    other = Store(shutil.copytree(store.root, tmp_path / "store"))
    folder = other.stage_dir("finetune", finetune.key)
    shutil.rmtree(folder)
    other.put_spec(finetune)
    signals_at([1])  # behind the first batch: the queue holds it, and the average has moved
    with pytest.raises(SystemExit):
        run_stage(other.root, "finetune", finetune.key)
    assert (folder / CHECKPOINT).exists()
    run_stage(other.root, "finetune", finetune.key)
    artifacts = (each.done("finetune", finetune.key)["artifacts"] for each in (store, other))
    assert next(artifacts) == next(artifacts)

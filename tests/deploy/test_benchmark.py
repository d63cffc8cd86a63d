"""Speed of networks, and what of them can be pruned."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
import timm
import torch
from transformers import CLIPConfig

import spp
from spp.cli.main import main
from spp.deploy.benchmark import BenchmarkRequest, benchmark, peak_bytes
from spp.deploy.named import open_network
from spp.deploy.prunable import prunable
from spp.deploy.timing import samples_like
from spp.models.clip import ClipEncoders
from spp.record.latencies import latency_rows
from spp.store.benchmarks import read_benchmarks
from spp.structure.find import example_inputs
from spp.structure.modeling_transformers import tower_of

SIZES = {"num_hidden_layers": 1, "projection_dim": 12}
VISION = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 3, "image_size": 16, "patch_size": 8}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "max_position_embeddings": 9}
SPECIAL = {"vocab_size": 20, "bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0}
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "commands.schema.json").read_text())


def clip():
    config = CLIPConfig(vision_config={**VISION, **SIZES}, text_config={**TEXT, **SIZES, **SPECIAL}, projection_dim=12)
    return ClipEncoders(config).eval()


def channels(network):
    """Masks without every third unit."""
    return {pair.name: torch.arange(pair.size) % 3 > 0 for pair in spp.find_pairs(network)}


@pytest.fixture
def folder(vit, masks, tmp_path):
    spp.save_member(vit, masks, tmp_path / "small")
    return tmp_path / "small"


def test_a_member_is_measured_beside_the_dense_network_that_it_was_cut_from(folder, vit):
    request = BenchmarkRequest(networks=[str(folder)], runtimes=["eager"], batch_sizes=[1, 3], seconds=0.05)
    made = benchmark(request)
    dense, small = made.candidates
    example = torch.zeros(1, 3, 32, 32)
    assert (dense.cost, small.cost) == (spp.count_cost(vit, example), spp.count_cost(spp.load(folder), example))
    assert small.dense == dense.name
    assert [(row.network, row.batch_size) for row in made.rows] == [
        (each.name, size) for size in (1, 3) for each in (dense, small)
    ]
    for row in made.rows:
        assert row.low_ms <= row.median_ms <= row.high_ms
        assert row.per_second == pytest.approx(1e3 * row.batch_size / row.median_ms)
        is_dense = row.network == dense.name
        assert row.ideal == (None if is_dense else dense.cost.macs / small.cost.macs)
        assert (row.speed_up is None) == is_dense


def test_members_share_a_dense_row_only_if_they_were_cut_from_one_network(folder, tmp_path):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 4}
    other = timm.create_model("vit_tiny_patch16_224", **sizes).eval()
    half = {pair.name: torch.arange(pair.size) % 2 == 0 for pair in spp.find_pairs(other)}
    spp.save_member(other, half, tmp_path / "deeper")
    again = tmp_path / "again" / "small"
    shutil.copytree(folder, again)
    words = [str(folder), str(tmp_path / "deeper"), str(again)]
    made = benchmark(BenchmarkRequest(networks=words, runtimes=["eager"], batch_sizes=[1], seconds=0.01))
    costs = {each.name: each.cost for each in made.candidates}
    assert len(costs) == len(made.candidates) == 5
    small, deeper, same = (each for each in made.candidates if each.dense is not None)
    assert small.dense == same.dense != deeper.dense
    assert costs[deeper.dense] == spp.count_cost(other, torch.zeros(1, 3, 32, 32))
    ideal = {row.network: row.ideal for row in made.rows}
    assert ideal[deeper.name] == costs[deeper.dense].macs / deeper.cost.macs


def test_a_clip_is_measured_whole_and_tower_by_tower(tmp_path, capsys):
    network = clip()
    spp.save_member(network, channels(network), tmp_path / "small", origin={"method": "taylor"})
    words = [str(tmp_path / "small"), "--runtimes", "eager", "--batch", "1,3", "--threads", "1", "--device", "cpu"]
    store = tmp_path / "store"
    assert main(["benchmark", *words, "--seconds", "0.1", "--keep", "--json", f"paths.store={store}"]) == 0
    told = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator({**SCHEMA, "$ref": "#/$defs/benchmark"}).validate(told)

    small = spp.compact(network, channels(network))
    for name, source in (("small", small), (told["networks"][0]["name"], network)):
        costs = {
            each["part"]: (each["params"], each["macs"]) for each in told["networks"] if each["name"][:5] == name[:5]
        }
        for tower in ("vision", "text"):
            alone = tower_of(source, tower)
            cost = spp.count_cost(alone, example_inputs(alone))
            assert costs[tower] == (cost.params, cost.macs)
        assert costs["whole"][0] == sum(weight.numel() for weight in source.parameters())
    assert [(row["network"], row["batch_size"]) for row in told["rows"]] == [
        (each["name"], size) for size in (1, 3) for each in told["networks"]
    ]
    assert {row["dtype"] for row in told["rows"]} == {"float32"}

    (kept,) = read_benchmarks(store)
    lines = [line for line in latency_rows([kept]) if line["dense"] is not None]
    assert {(line["part"], line["origin"]["method"]) for line in lines} == {
        (part, "taylor") for part in ("whole", "vision", "text")
    }
    assert all(line["median_ms"] > 0 and line["ideal"] > 1 for line in lines)


def test_samples_are_of_the_networks_own_form():
    made = samples_like(clip(), 3)
    assert {name: (tuple(value.shape), value.dtype) for name, value in made.items()} == {
        "pixel_values": ((3, 3, 16, 16), torch.float32),
        "input_ids": ((3, 9), torch.int64),
        "attention_mask": ((3, 9), torch.int64),
    }
    assert made["attention_mask"].all()
    assert made["pixel_values"].std() > 0.5
    assert samples_like(tower_of(clip(), "vision").double(), 2).dtype == torch.float64


def test_the_peak_is_that_of_the_largest_moment():
    first, second = torch.nn.Linear(4, 1000, bias=False), torch.nn.Linear(1000, 2, bias=False)
    held = 4 * (4000 + 2000)
    # The inner values are held while the outputs are made of them.
    expected = held + 4 * 3 * (1000 + 2)
    assert peak_bytes(torch.nn.Sequential(first, second), torch.randn(3, 4)) == pytest.approx(expected, rel=0.02)


def test_the_command_prints_what_its_schema_says_and_draws(folder, tmp_path, capsys):
    words = [str(folder), "--runtimes", "eager,onnxruntime", "--batch", "1", "--threads", "1", "--device", "cpu"]
    figure = tmp_path / "speed.png"
    assert main(["benchmark", *words, "--seconds", "0.1", "--figure", str(figure), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator({**SCHEMA, "$ref": "#/$defs/benchmark"}).validate(told)
    assert {row["runtime"] for row in told["rows"]} == {"eager", "onnxruntime"}
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert figure.with_suffix(".csv").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["benchmark", "nothing"],
            "MODEL: 'nothing' is no such network; allowed: the folder of a member or of a model of ",
        ),
        (["benchmark", "timm:vit_teeny"], "MODEL: 'timm:vit_teeny' cannot be built "),
        (["benchmark"], "DIR|MODEL: it is missing; "),
        (["benchmark", "nothing", "--batch", "0"], "--batch: 0 is not allowed; "),
        (["benchmark", "nothing", "--figure", "a.txt"], "--figure: 'a.txt' is not allowed; "),
        (["pairs", "timm:resnet18"], "model: ResNet is not supported: "),
    ],
)
def test_wrong_words_are_one_line(words, line, capsys):
    assert main(words) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith(f"spp: {line}")


def test_what_is_left_alone_and_what_can_go_are_the_whole_network(folder):
    for network in (open_network(str(folder)).network, open_network(str(folder)).dense):
        found = prunable(network)
        num_params = sum(parameter.numel() for parameter in network.parameters())
        assert found.cost.params == num_params
        assert found.unit_params + sum(each.num_params for each in found.left_alone) == num_params


def test_pairs_prints_what_its_schema_says(folder, capsys):
    assert main(["pairs", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator({**SCHEMA, "$ref": "#/$defs/pairs"}).validate(told)
    assert sum(row["num_units"] for row in told["pairs"]) == sum(p.size for p in spp.find_pairs(spp.load(folder)))
    assert main(["pairs", str(folder)]) == 0
    assert "left alone:" in capsys.readouterr().out

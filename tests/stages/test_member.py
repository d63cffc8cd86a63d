"""Members on disk: what is built again computes what was written, also where a quirk is no matter of widths."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import spp
from spp.cli.main import main
from spp.dynamics.ranking import open_path
from spp.methods.registry import load_method, read_method
from spp.methods.units.spp.config import SPPConfig
from spp.models.weights import WEIGHTS_FILE
from spp.stages.member import build_untrained, describe_member, load_member, member_file, save_member, write_member
from spp.stages.worker import run_stage
from spp.store.atomic import read_lines
from spp.store.store import Store
from spp.structure.compact import compact
from spp.structure.cost import count_cost
from spp.structure.find import find_pairs
from spp.structure.tokens import kept_tokens

MODEL = {"name": "vit_tiny_patch16_224", "kwargs": {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}}
ARCHITECTURE = {"model": MODEL, "inputs": {"img_size": 8, "in_chans": 1}, "num_outputs": 4}


def rows_of(store, stage):
    """The record of a stage."""
    return read_lines(store.stage_dir(stage.kind, stage.key) / "metrics.jsonl")


@pytest.mark.parametrize("quirks", [False, True])
def test_a_member_keeps_its_scale_on_disk_and_through_training(tmp_path, quirks):
    torch.manual_seed(0)
    dense = build_untrained(ARCHITECTURE)
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.copy_(torch.randn_like(parameter) / 4)
    pairs = find_pairs(dense)
    masks = {pair.name: torch.arange(pair.size) < 2 + pair.size // 4 for pair in pairs}
    small = compact(dense, masks).eval()
    config = read_method({"name": "spp", "released_quirks": quirks})
    header = load_method("spp").finish_member(config, small, 0)
    save_member(tmp_path / "first.safetensors", small, masks, pairs, ARCHITECTURE, **header)
    images = torch.randn(3, 1, 8, 8)

    loaded = load_member(tmp_path / "first.safetensors")
    assert torch.equal(loaded(images), small(images))
    kept_width = 4
    assert loaded.blocks[0].attn.scale == (kept_width if quirks else 8) ** -0.5
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded(images).square().sum().backward()
    optimizer.step()
    write_member(tmp_path / "second.safetensors", loaded, describe_member(tmp_path / "first.safetensors"))
    again = load_member(tmp_path / "second.safetensors")
    assert torch.equal(again(images), loaded(images))
    assert not torch.equal(again(images), small(images))


WORDS = [
    "debug=fast",
    "logger=off",
    "data.num_train=500",
    *(f"{stage}.batch_size=32" for stage in ("dense", "update", "search", "prune", "finetune")),
    "budget.values=[0.5]",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A store for all chains of this file, so that their dense network is trained once."""
    return tmp_path_factory.mktemp("members") / "store"


def chain(root, *words):
    """The store after the chain of `words`, and its stages by kind."""
    assert main(["run", *WORDS, *words, f"paths.store={root}"]) == 0
    store = Store(root)
    return store, {stage.kind: stage for stage in store.read_plan(store.latest()).stages.values()}


def measured_of(stages):
    """The measuring of the member; that of the dense network is its input."""
    return stages["measure"]


def test_spp_with_released_quirks_searches_at_other_places_and_finetunes_another_function(root):
    words = ["method.scope=family", "prune.epochs=0", "budget.values=[0.3]"]
    (store, plain), (_, quirky) = (
        chain(root, *words, f"method.released_quirks={quirks}") for quirks in ("false", "true")
    )
    assert plain["dense"].key == quirky["dense"].key
    paths = [open_path(store.artifacts_dir("update", stages["update"].key)) for stages in (plain, quirky)]
    assert any(not torch.equal(entry, paths[1].entry[name]) for name, entry in paths[0].entry.items())
    files = [store.artifacts_dir("prune", stages["prune"].key) / member_file(0.3) for stages in (plain, quirky)]
    dense = build_untrained(store.summary("dense", plain["dense"].key)["architecture"])
    dense.load_state_dict(load_file(store.artifacts_dir("dense", plain["dense"].key) / WEIGHTS_FILE))
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for file, is_quirky in zip(files, (False, True), strict=True):
        kept = {name: torch.tensor(units) for name, units in describe_member(file)["kept"].items()}
        masks = {pair.name: torch.isin(torch.arange(pair.size), kept[pair.name]) for pair in paths[0].pairs}
        small, weights = compact(dense, masks).eval(), load_file(file)
        assert weights.keys() == small.state_dict().keys()
        assert all(torch.equal(value, weights[name]) for name, value in small.state_dict().items())
        # The same weights: what differs, with the quirks, is the scale.
        assert torch.equal(load_member(file)(images), small(images)) != is_quirky
    for stages, is_quirky in ((plain, False), (quirky, True)):
        member = load_member(store.artifacts_dir("finetune", stages["finetune"].key))
        attentions = [block.attn for block in member.blocks]
        assert min(attention.qk_width for attention in attentions) < 16
        expected = [attention.qk_width**-0.5 if is_quirky else 16**-0.5 for attention in attentions]
        assert [attention.scale for attention in attentions] == expected
    before = [store.summary("measure", measured_of(stages).key)["metrics"]["before"] for stages in (plain, quirky)]
    assert before[0] != before[1]


def test_a_scale_by_no_width_is_refused_before_the_walk(root):
    words = ["method.released_quirks=true", "method.min_units=0", "budget.kind=units"]
    store, stages = chain(root, "prune.epochs=0", "finetune.epochs=0")
    path = open_path(store.artifacts_dir("update", stages["update"].key))
    config = SPPConfig(released_quirks=True, min_units=0)
    select = load_method("spp").select
    size = next(size / 1728 for size in range(1, 1728) if has_values_alone(select(config, path, "units", size / 1728)))
    assert main(["run", *WORDS, *words, f"budget.values=[{size}]", f"paths.store={root}"]) == 1
    (prune,) = (stage for stage in store.read_plan(store.latest()).stages.values() if stage.kind == "prune")
    assert "without a query-key unit" in str(store.failure("prune", prune.key))
    assert read_lines(store.stage_dir("prune", prune.key) / "metrics.jsonl") == []


def has_values_alone(masks):
    return any(masks[f"blocks.{i}.attn.vo"].any() and not masks[f"blocks.{i}.attn.qk"].any() for i in range(6))


def test_upop_with_released_quirks_goes_on_from_biases_that_were_never_trained(root):
    store, stages = chain(root, "method=upop", "method.released_quirks=true", "finetune.epochs=0")
    weights = load_file(store.artifacts_dir("search", stages["search"].key) / member_file(0.5))
    biases = torch.cat([value for name, value in weights.items() if name.endswith("qkv.bias")])
    dense = load_file(store.artifacts_dir("dense", stages["dense"].key) / WEIGHTS_FILE)
    trained = torch.cat([value for name, value in dense.items() if name.endswith("qkv.bias")])
    assert biases.abs().max() <= 64**-0.5 < 2 * biases.std() * 3**0.5
    assert biases.std() > 3 * trained.std()


def test_a_shorter_member_of_wdpruning_is_built_again_and_stopped_searches_go_on(root, signals_at):
    words = ("method=wdpruning", "method.depth=4", "finetune.epochs=1")
    store, stages = chain(root, *words)
    summary = store.summary("measure", measured_of(stages).key)
    member = load_member(store.artifacts_dir("finetune", stages["finetune"].key))
    assert len(member.blocks) == 4
    cost = count_cost(member, torch.zeros(1, 1, 8, 8))
    assert (cost.macs, cost.params) == (summary["macs"], summary["params"])
    assert 0.98 * 0.5 * summary["dense"]["macs"] <= cost.macs <= 0.5 * summary["dense"]["macs"]

    search = stages["search"]
    expected = (
        store.done("search", search.key)["artifacts"],
        rows_of(store, search),
    )
    folder = store.stage_dir("search", search.key)
    shutil.move(folder, root.parent / "undisturbed")
    folder.mkdir()
    store.put_spec(search)
    _, seen = signals_at([])
    signals_at([len(seen) + 5])
    with pytest.raises(SystemExit):
        run_stage(store.root, "search", search.key)
    run_stage(store.root, "search", search.key)
    assert (
        store.done("search", search.key)["artifacts"],
        rows_of(store, search),
    ) == expected


def test_members_of_vit_slim_without_some_tokens_cost_what_was_asked(root, tmp_path, capsys):
    words = ("method=vit_slim", "method.tokens=0.6", "repair=none", "finetune.epochs=1", "budget.values=[0.5,0.3]")
    store, stages = chain(root, *words)
    dense = store.summary("dense", stages["dense"].key)
    folder = store.artifacts_dir("search", stages["search"].key)
    ranking = open_path(folder)
    assert {kind: ranking.dense_total(kind) for kind in ("macs", "params")} == {k: dense[k] for k in ("macs", "params")}
    counts = [len(kept) for kept in ranking.tokens.values()]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0] <= 17
    for size in (0.5, 0.3):
        file = store.artifacts_dir("prune", stages["prune"].key) / member_file(size)
        member = load_member(file)
        macs = count_cost(member, torch.zeros(1, 1, 8, 8)).macs
        # The dearest unit of this network has 1.2 % of it.
        assert 0.98 * size * dense["macs"] <= macs == describe_member(file)["macs"] <= size * dense["macs"]
        assert [len(kept) for kept in kept_tokens(member).values()] == counts
    tuned = store.artifacts_dir("finetune", stages["finetune"].key)
    assert kept_tokens(load_member(tuned)) == ranking.tokens

    for share, weights in (("0.2", "prune"), ("0.6", "search")):  # a member's, and those that the search trained
        out = tmp_path / share
        words = ["--macs", share, "--multiple-of", "1", "--no-measure", "--out", str(out), f"paths.store={root}"]
        assert main(["extract", str(folder), *words]) == 0
        assert weights in capsys.readouterr().out
        small = spp.load(out)
        assert kept_tokens(small) == ranking.tokens
        macs = count_cost(small, torch.zeros(1, 1, 8, 8)).macs
        assert 0.98 * float(share) * dense["macs"] <= macs <= float(share) * dense["macs"]
    assert main(["export", str(out), "--format", "torch", "--out", str(tmp_path / "small.pt2")]) == 0

    assert main(["extract", str(folder), "--macs", "1", "--out", str(tmp_path / "1"), f"paths.store={root}"]) == 2
    most = int(1e4 * ranking.budget_range("macs")[1] / dense["macs"]) / 1e4
    assert most < 0.95
    assert "macs: 1 cannot be reached; allowed: " in (line := capsys.readouterr().err)
    assert f" to {most:g} of the dense model" in line


def test_a_walk_starts_from_what_the_tokens_leave_and_a_budget_above_that_is_refused_before_it(root, capsys):
    words = ("method=vit_slim", "method.tokens=0.6", "finetune.epochs=0")
    assert main(["run", *WORDS, *words, "budget.values=[0.999]", f"paths.store={root}"]) == 1
    assert "macs: 0.999 cannot be reached" in capsys.readouterr().out
    store, stages = chain(root, *words, "budget.values=[0.5,0.9]", "budget.kind=params")
    members = store.summary("prune", stages["prune"].key)["members"]
    params = store.summary("dense", stages["dense"].key)["params"]
    assert all(0.98 * float(size) * params <= members[size]["params"] <= float(size) * params for size in members)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("[]", "that is a list"),
        ("{", "that is no JSON"),
        ("{}", "without the architecture's model"),
        ('{"architecture": {"model": {}}}', "without the architecture's inputs"),
        ('{"architecture": {"model": {}, "inputs": {"in_chans": -1}, "num_outputs": 7}}', "with inputs or num_outputs"),
        ('{"architecture": {"model": {}, "inputs": {}, "num_outputs": 1000000000000}}', "with inputs or num_outputs"),
        ('{"architecture": {"model": {}, "inputs": {"img_size": [-8, 8]}, "num_outputs": 7}}', "with inputs or"),
        ('{"architecture": {"model": {}, "inputs": {}, "num_outputs": 7, "samples": []}}', "without what its samples"),
        ('{"architecture": {"model": {}, "inputs": {}, "num_outputs": 7, "outputs": 3}}', "without what its samples"),
        ('{"architecture": {"model": {}, "inputs": {}, "num_outputs": 7}, "widths": "8"}', "without a number of units"),
        (
            '{"architecture": {"model": {}, "inputs": {}, "num_outputs": 7}, "widths": {"blocks.0.mlp": "8"}}',
            "without a number of units",
        ),
    ],
)
def test_a_header_from_elsewhere_is_refused_in_one_line(header, said, tmp_path):
    file = tmp_path / "member.safetensors"
    save_file({"w": torch.zeros(1)}, file, metadata={"spp_member": header})
    with pytest.raises(ValueError, match=rf"^member: '[^']*' has a header {said}[^\n]*; allowed: [^\n]*$"):
        load_member(file)


@pytest.mark.parametrize("source", [None, "0" * 64])
def test_the_header_of_a_stranger_calls_nothing(source, tmp_path):
    file, called = tmp_path / "member.safetensors", tmp_path / "called"
    model = {"factory": "subprocess:run", "source": source, "kwargs": {"args": ["mkdir", str(called)]}}
    header = {"architecture": {"model": model, "inputs": {}, "num_outputs": 7}, "widths": {}}
    save_file({"w": torch.zeros(1)}, file, metadata={"spp_member": json.dumps(header)})
    with pytest.raises(ValueError, match=r"^model\.factory: 'subprocess:run' (comes without|lies in) [^\n]*$"):
        load_member(file)
    assert not called.exists()


def test_a_header_of_a_network_that_no_memory_holds_is_refused(tmp_path):
    file = tmp_path / "member.safetensors"
    model = {"name": "vit_tiny_patch16_224", "kwargs": {"depth": 1_000_000}}
    header = {"architecture": {"model": model, "inputs": {"img_size": 16, "in_chans": 3}, "num_outputs": 7}}
    save_file({"w": torch.zeros(1)}, file, metadata={"spp_member": json.dumps({**header, "widths": {}})})
    with pytest.raises(ValueError, match=r"^model\.kwargs\.depth: 1000000 is not allowed; allowed: up to 1000"):
        load_member(file)

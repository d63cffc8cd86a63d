"""The one-shot chain on given language models, Llama and OPT, and what stops it: files, numbers, a full disk."""

import contextlib
import json
import os
import re
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from spp.cli.main import main
from spp.models.decoder import DecoderModel
from spp.record.record import read_record
from spp.stages import language
from spp.stages.finite import NotFiniteError
from spp.stages.language import Activations, HostBuffer
from spp.stages.sparse_member import layer_file, read_layer
from spp.stages.tokens import FILE
from spp.store.store import Store

transformers = pytest.importorskip("transformers", reason="the extra llm is not installed")

NAMES = {"llama": "llama2_7b", "opt": "opt_6_7b"}
WORDS = [
    "pipeline=one_shot", "task=language", "data=pydocs", "logger=off", "model.dtype=float32", "data.length=32",
    "data.num_windows=4", "calibration.num_windows=4", "calibration.length=32",
]  # fmt: skip


def run(kind, folder, store, *words):
    model = [f"model={NAMES[kind]}", f"model.weights={folder}"]
    return main(["run", *WORDS, *model, *words, f"paths.store={store}"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory, given_language_model):
    root = tmp_path_factory.mktemp("given")
    return {kind: given_language_model(kind, root / kind) for kind in NAMES}


@pytest.fixture
def llama(folders, tmp_path):
    """A copy of the Llama, to be damaged."""
    return shutil.copytree(folders["llama"], tmp_path / "model")


def only(store, kind):
    (stage,) = [s for s in store.read_plan(store.latest()).stages.values() if s.kind == kind]
    return stage


def test_opt_goes_through_the_chain_and_its_export_has_the_perplexity_of_the_record(folders, tmp_path, capsys):
    order = ["sparsity.permutation=assignment", "sparsity.update=least_squares"]
    assert run("opt", folders["opt"], tmp_path / "store", "method=spp_ria", "sparsity=2of4", *order) == 0
    store = Store(tmp_path / "store")
    (row,) = read_record(store, store.list_sweeps()).rows
    out = tmp_path / "member"
    assert (
        main(["export", row["key"][:16], "--format", "safetensors", "--out", str(out), f"paths.store={store.root}"])
        == 0
    )
    held_out = [s for s in store.read_plan(store.latest()).stages.values() if s.label == "held out"]
    windows = load_file(store.artifacts_dir("tokens", held_out[0].key) / FILE)["test"].long()
    for model_folder, column in ((out, "window_losses"), (folders["opt"], "dense_window_losses")):
        model = transformers.AutoModelForCausalLM.from_pretrained(model_folder).eval()
        with torch.no_grad():
            losses = [float(model(input_ids=window[None], labels=window[None]).loss) for window in windows]
        assert row[column] == pytest.approx(losses, abs=1e-4)
    about = json.loads((out / "sparsity.json").read_text())
    for name, weight in {k: v for file in out.glob("*.safetensors") for k, v in load_file(file).items()}.items():
        if name.endswith("weight") and "layers" in name and "norm" not in name:
            order = about["order_of_inputs"].get(name.removesuffix(".weight"), list(range(weight.shape[1])))
            assert ((weight[:, order] != 0).view(len(weight), -1, 4).sum(2) <= 2).all()


@pytest.mark.parametrize("kind", list(NAMES))
def test_masks_are_those_of_the_whole_model_whose_layers_are_pruned_one_after_the_other(kind, folders, tmp_path):
    """Wanda by hand: inputs are collected in the whole model, in which all layers before have their masks."""
    assert run(kind, folders[kind], tmp_path, "method=wanda") == 0
    store = Store(tmp_path)
    tokens = [s for s in store.read_plan(store.latest()).stages.values() if s.label == "calibration"]
    windows = load_file(store.artifacts_dir("tokens", tokens[0].key) / FILE)["calibration"].long()
    model = transformers.AutoModelForCausalLM.from_pretrained(folders[kind]).eval()
    for index, layer in enumerate(model.get_decoder().layers):
        linears = {name: module for name, module in layer.named_modules() if isinstance(module, torch.nn.Linear)}
        squares = {}
        hooks = [
            module.register_forward_pre_hook(
                lambda module, args, name=name, seen=squares: seen.update(
                    {name: args[0].flatten(0, -2).square().sum(0)}
                )
            )
            for name, module in linears.items()
        ]
        with torch.no_grad():
            model(input_ids=windows)
        for hook in hooks:
            hook.remove()
        file = layer_file(store.artifacts_dir("sparsify", only(store, "sparsify").key), index)
        found = read_layer(file, {name: module.weight.shape for name, module in linears.items()})
        for name, module in linears.items():
            score = module.weight.detach().abs() * squares[name].sqrt()
            kept = score.argsort(dim=1, descending=True)[:, : score.shape[1] // 2]
            mask = torch.zeros_like(score, dtype=torch.bool).scatter(1, kept, True)
            assert float((mask == found[name].mask).float().mean()) > 0.999, name
            with torch.no_grad():
                module.weight *= found[name].mask


DAMAGES = {
    "config.json": ("{", r"'[^']*config.json' cannot be read \("),
    "model.safetensors.index.json": ('{"metadata": {}}', r"'[^']*index.json' cannot be read \(it has no weight_map\)"),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_a_damaged_description_is_one_line_before_anything_runs(name, llama, tmp_path, capsys):
    content, line = DAMAGES[name]
    (llama / name).write_text(content)
    assert run("llama", llama, tmp_path / "store", "method=ria") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(f"^spp: model.weights: {line}", error)
    assert not (tmp_path / "store" / "stages").exists()


@pytest.mark.parametrize(
    ("pattern", "damage", "said"),
    [
        ("model-00002-of-*", lambda file: os.truncate(file, 3000), "safetensors' cannot be read ("),
        ("tokenizer.json", lambda file: file.write_text("{"), "model.weights: the tokenizer in"),
    ],
)
def test_a_damaged_shard_or_tokenizer_is_one_line_that_names_it(pattern, damage, said, llama, tmp_path, capsys):
    (file,) = llama.glob(pattern)
    damage(file)
    assert run("llama", llama, tmp_path / "store", "method=magnitude") == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "failed " in line and "ValueError" in line]
    assert failed
    assert all(said in line for line in failed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_numbers_that_overflow_stop_with_the_name_of_the_layer_also_where_no_statistics_are_kept(
    dtype, llama, tmp_path
):
    for file in llama.glob("*.safetensors"):
        tensors = load_file(file)
        if (name := "model.layers.1.mlp.down_proj.weight") in tensors:
            largest = torch.finfo(dtype).max / 2
            save_file({**tensors, name: tensors[name].sign() * largest}, file, metadata={"format": "pt"})
    model = DecoderModel(llama, dtype, torch.device("cpu"))
    activations = Activations(model, torch.arange(16)[None], tmp_path)
    activations.advance(model.load_layer(0), 0)
    with pytest.raises(
        NotFiniteError, match=r"^layers.1: its outputs hold NaN or infinity in torch.float[1236]*; allowed"
    ):
        activations.advance(model.load_layer(1), 1)


def test_weights_too_large_for_the_numbers_are_named(llama):
    for file in llama.glob("*.safetensors"):
        tensors = load_file(file)
        scaled = {name: 1e30 * weight if "1.mlp.up" in name else weight for name, weight in tensors.items()}
        save_file(scaled, file, metadata={"format": "pt"})
    model = DecoderModel(llama, torch.float16, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"'model.layers.1.mlp.up_proj.weight' holds [^;]* in torch.float16; allowed:"):
        model.load_layer(1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["calibration.length=65"], "calibration.length: 65 tokens are more than the model takes, 64; allowed: up to"),
        (["data.length=65"], "data.length: 65 tokens are more than the model takes, 64; allowed: up to"),
        (
            ["sparsity.keep=2", "sparsity.of=5"],
            "layers.self_attn.q_proj: its 32 inputs are not allowed with of=5; allo",
        ),
        (
            ["sparsity.keep=8", "sparsity.of=16", "sparsity.permutation=heuristic"],
            "heads: 4 heads of 32 inputs are not allowed with of=16; allowed: heads",
        ),
    ],
)
def test_what_the_model_cannot_take_is_one_line_before_anything_runs(words, line, folders, tmp_path, capsys):
    assert run("llama", folders["llama"], tmp_path, "method=ria", *words) == 2
    assert capsys.readouterr().err.startswith(f"spp: {line}")
    assert not (tmp_path / "stages").exists()


@pytest.mark.parametrize("word", ["budget.values=[0.3]", "budget=params"])
def test_a_budget_is_refused_where_single_weights_go(word, folders, tmp_path, capsys):
    assert run("llama", folders["llama"], tmp_path, "method=wanda", word) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"spp: {word.split('=')[0]}: ")
    assert error.endswith("use sparsity.sparsity=0.5\n")


def test_sizes_are_said_before_the_first_layer(folders, tmp_path, capsys, monkeypatch):
    said = []
    monkeypatch.setattr(Store, "write_progress", lambda self, kind, key, **words: said.append((kind, words)))
    assert run("llama", folders["llama"], tmp_path, "method=sparsegpt") == 0
    first = next(words for kind, words in said if kind == "sparsify")
    assert (first["done"], first["total"]) == (0, 2)
    layer = 4 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 48 + 2 * 32)
    grams, activations = 4 * (3 * 32 * 32 + 48 * 48), 4 * 4 * 32 * 32
    expected = "a layer {:.2g} GB, statistics of its inputs {:.2g} GB, activations in memory {:.2g} GB"
    assert first["message"] == expected.format(layer / 1e9, grams / 1e9, activations / 1e9)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"mount is not permitted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], capture_output=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount here")
def test_activations_on_a_disk_without_room_for_them_are_refused_before_they_are_written(small_disk, monkeypatch):
    monkeypatch.setattr(language, "_available_bytes", lambda: 0.0)
    fits = HostBuffer("numbers", (2**20 // 4, 2), torch.float32, small_disk)
    fits.values.fill_(1.0)
    assert list(small_disk.iterdir()) == []
    with pytest.raises(OSError, match="No space left on device"):
        HostBuffer("numbers", (2**21, 1), torch.float32, small_disk)
    assert list(small_disk.iterdir()) == []
    fits.close()


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount here")
def test_a_disk_that_is_full_ends_a_run_in_one_line_and_it_goes_on_once_there_is_room(folders, small_disk, capsys):
    assert run("llama", folders["llama"], small_disk, "method=magnitude") == 0
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    os.truncate(filler, filler.stat().st_size - 90_000)
    capsys.readouterr()
    words = ["method=sparsegpt", "sparsity.group=row"]
    assert run("llama", folders["llama"], small_disk, *words) == 1
    said = capsys.readouterr()
    assert [line for line in said.out.splitlines() if "failed   sparsify" in line and "No space left on device" in line]
    assert "Traceback" not in said.out + said.err
    filler.unlink()
    assert run("llama", folders["llama"], small_disk, *words) == 0

"""Weights as people have them, and what is refused in one line."""

import argparse
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spp.models.checkpoints import read_checkpoint, without_wrappers
from spp.models.config import ModelConfig
from spp.models.registry import read_model
from spp.models.weights import load_given, load_weights, save_weights

ONE_LINE = r"^model.weights: [^\n\x1b]*; allowed: [^\n\x1b]*; [^\n\x1b]*$"


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))


def prefixed(prefix, weights):
    return {prefix + name: value for name, value in weights.items()}


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "model.", "net.", "model._orig_mod.module.", "module.net."]
)
@pytest.mark.parametrize(
    "nesting", [(), ("state_dict",), ("model",), ("model_state_dict",), ("teacher",), ("model", "state_dict")]
)
def test_prefixes_and_nesting_in_any_order(prefix, nesting, tmp_path):
    trained, fresh = network(), network()
    content = prefixed(prefix, trained.state_dict())
    for name in reversed(nesting):
        content = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), name: content}
    torch.save(content, tmp_path / "w.pth")
    nn.init.zeros_(fresh[0].weight)
    config, runtime = read_model({"name": "vit_tiny_patch16_224", "weights": str(tmp_path / "w.pth")})
    load_given(fresh, config, runtime["weights_file"])
    assert torch.equal(fresh[0].weight, trained[0].weight)


def test_a_compiled_part_and_a_part_named_like_a_wrapper():
    weights = {"blocks.0._orig_mod.fc.weight": torch.ones(1), "head.weight": torch.ones(1)}
    assert list(without_wrappers(weights, ["blocks.0.fc.weight", "head.weight"])) == [
        "blocks.0.fc.weight",
        "head.weight",
    ]
    assert list(without_wrappers({"model.fc.weight": torch.ones(1)}, ["model.fc.weight"])) == ["model.fc.weight"]


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema"])
def test_an_average_is_preferred_and_said(average, tmp_path, caplog):
    file = tmp_path / "w.pth"
    torch.save({"model": {"w": torch.zeros(1)}, average: {"w": torch.ones(1)}}, file)
    assert read_checkpoint(file)["w"] == 1
    (record,) = caplog.records
    assert average in record.getMessage()
    assert "model.ema=false" in record.getMessage()
    assert read_checkpoint(file, ema=False)["w"] == 0
    named = {"name": "vit_tiny_patch16_224", "weights": str(file)}
    identities = [read_model({**named, "ema": ema})[0].identity() for ema in (True, False)]
    assert [identity.get("ema") for identity in identities] == [True, None]


def test_where_there_is_no_average_the_key_does_not_speak_of_it(tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / "w.pth")
    for weights in (str(tmp_path / "w.pth"), "train"):
        assert "ema" not in read_model({"name": "vit_tiny_patch16_224", "weights": weights})[0].identity()


class Code:
    """What a pickle may run."""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({0: torch.ones(1)}, "holds no weights but 0"),
        ({}, "holds no weights but nothing"),
        ([torch.ones(1)], "holds no weights but list"),
        ({"epoch": 3, "optimizer": {"lr": 1}}, "holds no weights but 'epoch', 'optimizer'"),
        ({"model": Code()}, "holds a .*Code, which is code"),
    ],
)
def test_what_is_no_weights_is_refused(content, said, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=ONE_LINE) as refused:
        read_checkpoint(tmp_path / "w.pth")
    assert re.search(said, str(refused.value))


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
@pytest.mark.parametrize("num_left", [0, 1, 50, 200])
def test_empty_and_cut_files_are_refused(suffix, num_left, tmp_path):
    file = tmp_path / f"w.{suffix}"
    weights = {"w": torch.ones(100)}
    save_file(weights, file) if suffix == "safetensors" else torch.save(weights, file)
    file.write_bytes(file.read_bytes()[:num_left])
    with pytest.raises(ValueError, match=ONE_LINE):
        read_checkpoint(file)


def test_a_refusal_shows_three_names_and_how_many_more():
    with pytest.raises(ValueError, match=ONE_LINE) as refused:
        load_weights(network(), {"0.weight": torch.ones(2, 2), "\x1b[31mx": torch.ones(1)}, "w.pth")
    said = str(refused.value)
    assert "it lacks 0.bias, 2.weight, 2.bias; " in said
    assert r"it has the unknown \x1b[31mx; 0.weight is (2, 2) and not (3, 2)" in said
    with pytest.raises(ValueError, match=r"it lacks 0.weight, 0.bias, 2.weight and 1 more\)"):
        load_weights(network(), {}, "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_read_nor_written(value, tmp_path):
    broken = network()
    with torch.no_grad():
        broken[2].bias[1] = value
    with pytest.raises(ValueError, match=r"^model.weights: '2.bias' of 'w.pth' is not finite; allowed: [^\n]*$"):
        load_weights(network(), broken.state_dict(), "w.pth")
    with pytest.raises(ValueError, match=r"^model.weights: '2.bias' of 'w.safetensors' is not finite; [^\n]*$"):
        save_weights(broken, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_buffer_may_be_infinite_on_purpose(tmp_path):
    model = network()
    model.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    save_weights(model, tmp_path / "w.safetensors")
    load_weights(model, model.state_dict(), "w.pth")


def test_a_config_of_an_old_spec_takes_no_average():
    assert ModelConfig.from_spec({"name": "vit_tiny_patch16_224"}, "model").ema is False


def test_a_lightning_module_with_its_loss_and_hyperparameters(tmp_path, caplog):
    import pytorch_lightning as pl
    from omegaconf import OmegaConf

    from spp.plan.config import RuntimeConfig
    from spp.stages.fitting import build_trainer, known_warnings

    class Module(pl.LightningModule):
        def __init__(self, lr=0.1, cfg=None, root=None):
            super().__init__()
            self.save_hyperparameters()
            self.backbone = network()
            self.criterion = nn.CrossEntropyLoss(weight=torch.ones(2))

        def training_step(self, batch):
            return self.criterion(self.backbone(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), self.hparams.lr)

    cfg = OmegaConf.create({"a": {"b": [1, 2.5, None, True]}, "c": "${a.b}"})
    module = Module(cfg=cfg, root=tmp_path)
    trainer = build_trainer(RuntimeConfig(accelerator="cpu"), max_epochs=0)
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(2, 2)))
    with known_warnings():
        trainer.fit(module, batches)
    trainer.save_checkpoint(tmp_path / "w.ckpt")
    weights = without_wrappers(read_checkpoint(tmp_path / "w.ckpt"), network().state_dict().keys())
    assert {name: value.tolist() for name, value in weights.items()} == {
        name: value.tolist() for name, value in module.backbone.state_dict().items()
    }
    (said,) = [record.getMessage() for record in caplog.records if record.name == "spp.models.checkpoints"]
    assert said == "the weights under 'backbone.' are taken, without criterion.weight"


def test_two_networks_in_one_file_are_refused():
    weights = {**prefixed("student.", network().state_dict()), **prefixed("\x1b[2J.", network().state_dict())}
    with pytest.raises(ValueError, match=ONE_LINE) as refused:
        without_wrappers(weights, network().state_dict().keys())
    assert r"it holds 2 such networks, as student., \x1b[2J." in str(refused.value)


def test_a_part_that_lacks_a_weight_is_no_such_part():
    weights = prefixed("backbone.", network().state_dict())
    weights.popitem()
    assert without_wrappers(weights, network().state_dict().keys()) == weights

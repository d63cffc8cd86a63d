"""BERT as a network of this package: sizes and weights from a folder or an archive, and what is refused."""

import json
import zipfile
from pathlib import Path

import pytest
import torch

from spp.models.build import architecture_of, build, build_for_weights
from spp.models.registry import read_model

transformers = pytest.importorskip("transformers", reason="transformers is not installed; install the extra llm")

SIZES = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
INPUTS = {"vocab_size": 50, "length": 16}


def saved(folder, kind="BertModel", **changes):
    torch.manual_seed(3)
    config = transformers.BertConfig(**{**SIZES, "max_position_embeddings": 32, **changes})
    model = getattr(transformers, kind)(config)
    model.save_pretrained(folder)
    return model.eval()


def network(values, num_outputs=3, inputs=INPUTS):
    config, runtime = read_model({"name": "bert", **values})
    architecture = architecture_of(config, inputs, num_outputs, samples={"name": "texts"}, outputs="logits")
    return build(architecture, runtime), architecture


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    saved(folder)
    return folder


def test_training_starts_from_an_encoder_in_a_folder(encoder):
    made, architecture = network({"head": "new", "weights": str(encoder)})
    stored = transformers.BertModel.from_pretrained(encoder)
    for name, value in stored.state_dict().items():
        assert torch.equal(made.state_dict()[f"bert.{name}"], value)
    tokens = torch.randint(0, 50, (2, 9))
    with torch.no_grad():
        scores = made.eval()(tokens)
        expected = made.classifier(stored.eval()(tokens).pooler_output)
    torch.testing.assert_close(scores, expected)
    kept = architecture["model"]
    assert kept["weights"].startswith("sha256:")
    assert kept["kwargs"]["hidden_size"] == 24
    # What is built again for weights of its own needs the folder no more.
    again = build_for_weights(architecture, {})
    again.load_state_dict(made.state_dict())


def test_an_archive_of_a_package_is_read_as_a_folder_is(encoder, tmp_path, monkeypatch):
    package = tmp_path / "some_bert"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('a package of weights is not run')\n")
    with zipfile.ZipFile(package / "model.zip", "w") as archive:
        for file in encoder.iterdir():
            archive.write(file, file.name)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    from_folder, described = network({"head": "new", "weights": str(encoder)})
    torch.manual_seed(0)
    from_package, also_described = network({"head": "new", "weights": "package:some-bert"})
    assert described == also_described
    for name, value in from_folder.state_dict().items():
        assert torch.equal(from_package.state_dict()[name], value)


def test_a_head_is_kept_where_it_fits_or_begins_anew(tmp_path, encoder):
    whole = saved(tmp_path / "whole", "BertForSequenceClassification", num_labels=3)
    made, _ = network({"weights": str(tmp_path / "whole")})
    assert torch.equal(made.classifier.weight, whole.classifier.weight)
    other, _ = network({"head": "new", "weights": str(tmp_path / "whole")}, num_outputs=2)
    assert other.classifier.weight.shape == (2, 24)
    with pytest.raises(ValueError, match=r"^model.weights: .* knows 3 classes and the data have 2"):
        network({"weights": str(tmp_path / "whole")}, num_outputs=2)
    with pytest.raises(ValueError, match=r"^model.weights: .* has no head; .* by model.head=new$"):
        network({"weights": str(encoder)})


def test_heads_of_pretraining_are_passed_over(tmp_path):
    stored = saved(tmp_path, "BertForPreTraining")
    made, _ = network({"head": "new", "weights": str(tmp_path)})
    assert torch.equal(made.bert.encoder.layer[1].output.dense.weight, stored.bert.encoder.layer[1].output.dense.weight)


@pytest.mark.parametrize(
    ("values", "inputs", "message"),
    [
        (
            {"weights": "package:not-there"},
            INPUTS,
            r"^model.weights: the package 'not-there' is not installed",
        ),
        ({"weights": "/nowhere"}, INPUTS, r"^model.weights: '/nowhere' is no folder"),
        ({"weights": "train", "kwargs": {"window": 3}}, INPUTS, r"^model.kwargs.window: 3 is not allowed"),
        ({"kwargs": SIZES}, {"vocab_size": 7, "length": 16}, r"^data.tokenizer: it has 7 tokens, and the network 50"),
        (
            {"kwargs": {**SIZES, "max_position_embeddings": 8}},
            INPUTS,
            r"^data.length: 16 is not allowed; .* 8 posi",
        ),
        ({"kwargs": {**SIZES, "hidden_size": 25}}, INPUTS, r"^model.kwargs: .* do not fit bert \(The hidden size"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(values, inputs, message):
    with pytest.raises(ValueError, match=message) as refused:
        network(values, inputs=inputs)
    assert "\n" not in str(refused.value)


def test_other_architectures_other_sizes_and_changed_files_are_refused(tmp_path, encoder):
    with pytest.raises(ValueError, match=r"^model.weights: .* does not fit the model \(bert.*\(50, 24\) and not"):
        network({"head": "new", "weights": str(encoder), "kwargs": {"hidden_size": 48}})
    saved(tmp_path)
    config, runtime = read_model({"name": "bert", "head": "new", "weights": str(tmp_path)})
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "layer_norm_eps": 0.1}))
    architecture = architecture_of(config, INPUTS, 3, samples={"name": "texts"}, outputs="logits")
    with pytest.raises(ValueError, match=r"^model.weights: .* has changed since it was planned"):
        build(architecture, runtime)
    (tmp_path / "config.json").write_text(json.dumps({**content, "model_type": "roberta"}))
    with pytest.raises(ValueError, match=r"^model.weights: .* holds the model_type 'roberta' .*; allowed: bert"):
        read_model({"name": "bert", "head": "new", "weights": str(tmp_path)})

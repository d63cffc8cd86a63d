"""Folders that stock transformers has written are networks of a name, too."""

import json

import pytest

from spp.cli.main import main

SIZES = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


def test_pairs_of_a_folder_of_transformers(tmp_path, capsys):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed; install the extra llm")
    (tmp_path / "config.json").write_text(
        json.dumps({**transformers.BertConfig(**SIZES).to_dict(), "architectures": ["BertModel"]})
    )
    assert main(["pairs", str(tmp_path), "--json"]) == 0
    pairs = json.loads(capsys.readouterr().out)["pairs"]
    assert [(pair["kind"], pair["num_units"]) for pair in pairs] == [("qk", 8), ("vo", 8), ("mlp", 24)]
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["NoSuchBert"]}')
    assert main(["pairs", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "cannot be built as 'NoSuchBert'" in told
    assert told.count("\n") == 1

"""Sentences as batches of tokens."""

import json

import numpy as np
import pytest
import torch

from spp.data.loaders import open_data
from spp.data.registry import fingerprint, read_data
from spp.data.sentences.tokens import open_tokenizer
from spp.model_files import ModelFiles

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed; install the extra llm")

TRAIN = [("one two three", "a"), ("two", "b"), ("one one four", "a"), ("three two", "b")] * 5
TEST = [("one five", "a"), ("two three one four two one two three", "b"), ("four", "a")]


def write(folder, pairs=False):
    folder.mkdir(exist_ok=True)
    for split, rows in (("train", TRAIN), ("test", TEST)):
        lines = [{"text": text, "label": label, **({"text2": "four"} if pairs else {})} for text, label in rows]
        names = list(lines[0])
        (folder / f"{split}.csv").write_text("\n".join([",".join(names), *(",".join(one.values()) for one in lines)]))
    return folder


def loaders(root, batch_size=4, seed=0, **values):
    config, runtime = read_data({"name": "table", "root": str(root), "length": 8, **values}, "")
    return open_data(config, runtime, batch_size=batch_size, augment={}, seed=seed, num_workers=0)


def test_words_of_train_become_tokens_padded_to_the_longest_of_a_batch(tmp_path):
    data = loaders(write(tmp_path))
    # By frequency, then alphabetically, behind the four special tokens: one 15, two 15, three 10, four 5.
    number = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "one": 4, "two": 5, "three": 6, "four": 7}
    inputs, labels = next(iter(data.test_dataloader()))
    expected = [
        ["[CLS]", "one", "[UNK]", "[SEP]", *["[PAD]"] * 4],
        ["[CLS]", "two", "three", "one", "four", "two", "one", "[SEP]"],
        ["[CLS]", "four", "[SEP]", *["[PAD]"] * 5],
    ]
    assert inputs["input_ids"].tolist() == [[number[word] for word in row] for row in expected]
    assert inputs["attention_mask"].sum(1).tolist() == [4, 8, 3]
    assert not inputs["token_type_ids"].any()
    assert labels.tolist() == [0, 1, 0]
    assert data.facts.inputs == {"vocab_size": 8, "length": 8}
    assert data.facts.class_names == ("a", "b")


def test_a_text_over_the_context_is_cut_and_counted(tmp_path, caplog):
    root = write(tmp_path)
    with (root / "train.csv").open("a") as file:
        file.write("\none two three four one two three four one,a\n")
    data = loaders(root)
    next(iter(data.test_dataloader()))
    assert data.facts.preprocessing["num_truncated"] == {"train": 1}
    told = [record.getMessage() for record in caplog.records]
    assert "data: 1 of 21 train texts have more than data.length=8 tokens and are cut to that" in told
    assert "data: 1 of 3 test texts have more than data.length=8 tokens and are cut to that" in told


def test_pairs_have_their_parts_told_apart_and_the_longer_text_cut(tmp_path):
    data = loaders(write(tmp_path, pairs=True))
    inputs, _ = next(iter(data.test_dataloader()))
    assert inputs["token_type_ids"].tolist()[0] == [0, 0, 0, 0, 1, 1, 0, 0]
    assert inputs["input_ids"].tolist()[1] == [2, 6, 7, 5, 4, 3, 4, 3]  # [CLS] two three one four [SEP] four [SEP]


def test_the_split_keeps_the_shares_of_the_classes_and_train_is_shuffled_by_the_seed(tmp_path):
    root = write(tmp_path)
    data = loaders(root, val_fraction=0.2)
    kept, held_out = data.split_indices
    assert (len(kept), len(held_out)) == (16, 4)
    labels = [label for _, labels in data.val_dataloader() for label in labels.tolist()]
    assert sorted(labels) == [0, 0, 1, 1]
    orders = [
        torch.cat([labels for _, labels in loaders(root, seed=seed, val_fraction=0.2).train_dataloader()]).tolist()
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_the_tokenizer_of_a_model_is_hashed_and_must_stay_as_it_is(tmp_path):
    root, model = write(tmp_path / "data"), tmp_path / "model"
    model.mkdir()
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "two": 4}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.enable_padding(length=32)  # as the file of a sentence encoder may say
    made.save(str(model / "tokenizer.json"))
    data = loaders(root, tokenizer=str(model))
    inputs, _ = next(iter(data.test_dataloader()))
    assert inputs["input_ids"][1].tolist() == [4, 1, 1, 1, 4, 1, 4, 1]
    assert data.facts.inputs["vocab_size"] == 5
    config, runtime = read_data({"name": "table", "root": str(root), "length": 8, "tokenizer": str(model)}, "")
    plain, plain_runtime = read_data({"name": "table", "root": str(root), "length": 8}, "")
    assert fingerprint(config, runtime) == fingerprint(plain, plain_runtime)
    assert config.identity() != plain.identity()
    changed = json.loads((model / "tokenizer.json").read_text())
    changed["model"]["vocab"]["two"] = 5
    (model / "tokenizer.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"^data.tokenizer: tokenizer.json of .* has changed since it was planned"):
        open_tokenizer(ModelFiles(model), str(config.tokenizer).removeprefix("sha256:"))


def test_parts_of_test_are_handed_on_and_augmentation_is_refused(tmp_path):
    for stem in ("train", "dev_matched", "dev_mismatched"):
        rows = [f"{kind}\tone\ttwo" for kind in ("entailment", "neutral", "contradiction")]
        (tmp_path / f"{stem}.tsv").write_text("\n".join(["label\tsentence1\tsentence2", *rows]))
    config, runtime = read_data({"name": "mnli", "root": str(tmp_path), "length": 8, "val_fraction": 0.4}, "")
    data = open_data(config, runtime, batch_size=4, augment={}, seed=0, num_workers=0)
    batches = list(data.test_dataloader())
    assert np.concatenate([batch[2] for batch in batches]).tolist() == [0, 0, 0, 1, 1, 1]
    assert len(next(iter(data.val_dataloader()))) == 2
    with pytest.raises(ValueError, match=r"^augment: .* text is not augmented"):
        open_data(config, runtime, batch_size=4, augment={"flip": 0.5}, seed=0, num_workers=0)

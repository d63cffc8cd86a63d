"""One's own data by a factory."""

import numpy as np
import pytest
import torch

from spp.data.loaders import open_data
from spp.data.registry import display_name, fingerprint, num_train_samples, read_data

FACTORY = '''
import numpy as np
import torch
from torch.utils.data import TensorDataset


class Jittered:
    """Inputs under a random transform of torch, numpy and random."""

    def __init__(self, count):
        self.targets = [index % 3 for index in range(count)]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        import random
        return index + torch.rand(2) + float(np.random.rand()) + random.random(), self.targets[index]


def make(count=30, validation=False, **more):
    test = TensorDataset(torch.arange(8.0)[:, None], torch.arange(8) % 3)
    made = {"train": Jittered(count), "test": test, "class_names": ["a", "b", "c"], **more}
    if validation:
        made["validation"] = TensorDataset(torch.zeros(5, 2), torch.zeros(5, dtype=torch.long))
    return made


def wrong(what=None):
    return {"nothing": [1], "list": {"train": [(1, 2)]}, "extra": {**make(), "holdout": 1},
            "bare": {**make(), "train": [1, 2, 3]}, "empty": {**make(), "test": []},
            "names": make(class_names="abc"), "word": make(samples=3), "mean": make(preprocessing=[0.5]),
            "tensor": make(preprocessing={"mean": torch.zeros(1)})}[what]
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Opens the data of a factory with words for the group `data`."""
    (tmp_path / "sets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)

    def build(batch_size=4, num_workers=0, factory="sets:make", **words):
        config, runtime = read_data({"factory": factory, **words}, "cache")
        return open_data(config, runtime, batch_size=batch_size, augment={}, seed=0, num_workers=num_workers)

    return build


def batches(loader):
    inputs, targets = zip(*loader, strict=True)
    return torch.cat(inputs), torch.cat(targets)


def test_the_splits(own):
    data = own(val_fraction=0.2)
    assert (data.num_train_samples, len(batches(data.val_dataloader())[1]), data.steps_per_epoch) == (24, 6, 6)
    assert len(batches(data.test_dataloader())[1]) == 8
    assert np.bincount(batches(data.val_dataloader())[1].numpy()).tolist() == [2, 2, 2]
    assert (data.facts.num_classes, data.facts.class_names, data.facts.samples) == (3, ("a", "b", "c"), "samples")


def test_a_validation_set_of_ones_own_leaves_train_whole(own):
    data = own(kwargs={"validation": True})
    assert (data.num_train_samples, len(batches(data.val_dataloader())[1])) == (30, 5)


@pytest.mark.parametrize("words", [{"val_fraction": 0.2}, {"split_seed": 1}])
def test_a_split_that_is_not_made_cannot_be_set(own, words):
    (name,) = words
    with pytest.raises(ValueError, match=rf"^data.{name}: [\d.]+ is not allowed; [^\n]* returns a validation set; "):
        own(kwargs={"validation": True}, **words)


@pytest.mark.parametrize("words", [{"name": "digits"}, {"img_size": 8}])
def test_what_a_factory_would_not_see_is_refused(own, words):
    with pytest.raises(ValueError, match=rf"^data.{next(iter(words))}: [^\n]* allowed: null beside data.factory; "):
        own(**words)


def test_fewer_training_samples(own):
    assert own(num_train=10, val_fraction=0.5).num_train_samples == 5
    with pytest.raises(ValueError, match=r"^data.num_train: 31 is not allowed; allowed: 1 to 30, or null [^\n]*$"):
        own(num_train=31)


def test_random_transforms_depend_on_the_seed_alone(own):
    first = batches(own().train_dataloader())
    torch.rand(3)
    np.random.seed(7)
    torch.testing.assert_close(batches(own().train_dataloader()), first, rtol=0, atol=0)
    torch.testing.assert_close(batches(own(num_workers=1).train_dataloader()), first, rtol=0, atol=0)
    data = own()
    epochs = [batches(data.train_dataloader())[0] for _ in range(1)]
    data.start_at(1, 0)
    assert not torch.equal(batches(data.train_dataloader())[0], epochs[0])


def test_validation_samples_are_always_the_same(own):
    data = own()
    first = batches(data.val_dataloader())
    torch.rand(3)
    torch.testing.assert_close(batches(data.val_dataloader()), first, rtol=0, atol=0)


def test_identity_is_the_source_and_nothing_is_run_for_it(own, tmp_path):
    (tmp_path / "sets.py").write_text("raise RuntimeError\n")
    config, runtime = read_data({"factory": "sets:make"}, "cache")
    assert fingerprint(config, runtime) == {"name": "sets:make"}
    assert display_name(config) == "sets"
    assert num_train_samples(config) is None
    assert len(config.source) == 64


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nothing", "returned a list"),
        ("list", "returned no map-style data set as 'test'"),
        ("extra", "returned an unknown 'holdout'"),
        ("names", "returned 'abc' as 'class_names', which are no list of names"),
        ("word", "returned 3 as 'samples', which is no word"),
        ("mean", "returned a list as 'preprocessing' instead of a dictionary of plain values"),
        ("tensor", r"returned 'preprocessing' that is not of plain values \(Object of type Tensor [^\n]*\)"),
        ("bare", r"returned samples of train that are no pairs \(input, target\) but int"),
        ("empty", "returned an empty 'test'"),
    ],
)
def test_what_is_no_data_set_is_named_in_one_line(own, what, message):
    with pytest.raises(ValueError, match=rf"^data.factory: 'sets:wrong' {message}; allowed: [^\n]*$"):
        own(factory="sets:wrong", kwargs={"what": what})


def test_augmentation_of_a_recipe_is_refused_where_it_does_not_reach(own, tmp_path):
    config, runtime = read_data({"factory": "sets:make"}, "cache")
    with pytest.raises(ValueError, match=r"^augment: \{'hflip': 0.5\} does not reach the data of 'sets:make'; [^\n]*$"):
        open_data(config, runtime, batch_size=4, augment={"hflip": 0.5}, seed=0, num_workers=0)

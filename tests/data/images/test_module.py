import re

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from spp.data.images.broken import BrokenImageError
from spp.data.images.module import ImageData
from spp.data.registry import open_source
from spp.stages.fitting import LightningData

RECIPE = {"crop": "pad4", "hflip": 0.5, "rand_augment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.25}


def image_data(**changes):
    arguments = {
        "name": "digits",
        "root": None,
        "img_size": 8,
        "batch_size": 64,
        "val_fraction": 0.1,
        "split_seed": 0,
        "seed": 0,
        "augment": {},
        "num_workers": 0,
    }
    return ImageData(**{**arguments, **changes})


def batches(loader):
    """All images and labels of one pass."""
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_digits():
    data = image_data()
    assert (data.facts.num_classes, data.facts.inputs["in_chans"], data.num_train_samples, data.steps_per_epoch) == (
        10,
        1,
        1350,
        21,
    )
    images, labels = next(iter(data.train_dataloader()))
    assert (images.shape, images.dtype) == ((64, 1, 8, 8), torch.float32)
    assert (labels.shape, labels.dtype) == ((64,), torch.int64)
    assert len(data.train_dataloader()) == 21
    assert len(batches(data.val_dataloader())[1]) == 150
    assert len(batches(data.test_dataloader())[1]) == 297


def test_train_and_val_together_are_the_normalized_training_images():
    data = image_data(batch_size=1)
    images = torch.cat([batches(loader)[0] for loader in (data.train_dataloader(), data.val_dataloader())])
    assert abs(float(images.mean())) < 1e-3
    assert abs(float(images.std()) - 1) < 1e-3
    source = open_source("digits", None)
    expected = (source.split("train").pixels[:, None] / 255 - source.mean[0]) / source.std[0]
    ours = sorted(image.tobytes() for image in images.numpy().round(4))
    assert ours == sorted(image.tobytes() for image in expected.astype(np.float32).round(4))


def test_val_is_stratified_and_in_order():
    data = image_data()
    labels = batches(data.val_dataloader())[1]
    assert np.ptp(np.bincount(labels)) <= 2
    train_labels = open_source("digits", None).split("train").labels
    assert np.array_equal(labels, train_labels[data.split_indices[1]])


def test_split_seed_and_seed_are_apart():
    val = [image_data(seed=1).split_indices[1], image_data(seed=2).split_indices[1]]
    assert np.array_equal(*val)
    assert not np.array_equal(val[0], image_data(split_seed=1).split_indices[1])
    one, other = (batches(image_data(seed=seed).train_dataloader())[1] for seed in (1, 2))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("augment", [{}, {"hflip": 0.5, "crop": "pad4"}])
def test_training_batches_depend_on_the_seed_alone(augment):
    first, second = (image_data(augment=augment).train_dataloader() for _ in range(2))
    torch.manual_seed(1)
    expected = [batches(first) for _ in range(2)]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    actual = [batches(second) for _ in range(2)]
    assert torch.equal(state, torch.get_rng_state())
    for (images, labels), (same_images, same_labels) in zip(expected, actual, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)
    assert not torch.equal(actual[0][1], actual[1][1])


def test_number_of_workers_changes_nothing(parquet_root):
    shape = {"name": "cifar10", "root": parquet_root, "img_size": 32, "batch_size": 20, "augment": RECIPE}
    one, two = (image_data(**shape, num_workers=count).train_dataloader() for count in (0, 2))
    for _ in range(2):
        images, labels = batches(one)
        same_images, same_labels = batches(two)
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_repeated_augmentation_shows_different_copies(parquet_root):
    augment = {**RECIPE, "repeated_aug": 3}
    data = image_data(name="cifar10", root=parquet_root, img_size=32, batch_size=30, augment=augment)
    images, labels = next(iter(data.train_dataloader()))
    assert torch.equal(labels, labels[::3].repeat_interleave(3))
    assert not torch.equal(images[0], images[1])
    assert data.steps_per_epoch == len(data.train_dataloader()) == 3


def test_folders_of_images(image_root):
    shape = {"img_size": 48, "val_fraction": 0.2, "augment": {"crop": "resized"}}
    data = image_data(name="imagefolder", root=image_root, batch_size=4, **shape)
    assert next(iter(data.train_dataloader()))[0].shape == (4, 3, 48, 48)
    assert batches(data.test_dataloader())[0].shape == (6, 3, 48, 48)


def test_fewer_training_images():
    data = image_data(num_train=100, batch_size=10)
    assert (data.num_train_samples, data.steps_per_epoch) == (90, 9)


def test_a_batch_larger_than_the_data_is_refused():
    data = image_data(num_train=100, batch_size=91)
    for ask in (lambda: data.steps_per_epoch, data.train_dataloader):
        with pytest.raises(ValueError, match=r"^batch_size: 91 is not allowed; allowed: at most the 90 training"):
            ask()


FORMS = ("folder", "shards", "parquet")
PHOTOGRAPHS = {"name": "imagefolder", "img_size": 32, "batch_size": 5, "val_fraction": 0.25, "augment": RECIPE}


def equal(ours, theirs):
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_every_form_gives_the_same_batches_to_any_number_of_workers(photographs, tmp_path):
    shape = {**PHOTOGRAPHS, "cache": tmp_path / "cache"}
    expected = image_data(**shape, root=photographs.make("folder"))
    wanted = [list(expected.train_dataloader()), list(expected.val_dataloader()), list(expected.test_dataloader())]
    assert [len(part) for part in wanted] == [3, 2, 2]
    for form in FORMS:
        root = photographs.make(form, "other")
        for num_workers in (0, 2):
            data = image_data(**shape, root=root, num_workers=num_workers)
            loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
            for loader, part in zip(loaders, wanted, strict=True):
                assert all(equal(ours, theirs) for ours, theirs in zip(loader, part, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_an_epoch_begun_in_one_form_goes_on_in_another(photographs, tmp_path, form):
    shape = {**PHOTOGRAPHS, "cache": tmp_path / "cache"}
    undisturbed = image_data(**shape, root=photographs.make("shards", "first")).train_dataloader()
    _, second = (list(undisturbed) for _ in range(2))
    data = image_data(**shape, root=photographs.make(form), num_workers=2)
    data.start_at(1, 1)
    assert all(equal(ours, theirs) for ours, theirs in zip(data.train_dataloader(), second[1:], strict=True))


def with_torn_images(photographs, form, part, places):
    """A set in which some images are torn; the sizes of all files stay as they were."""
    for place in places:
        name, encoded, label = photographs.samples[part][place]
        photographs.samples[part][place] = (name, encoded[:50] + bytes(len(encoded) - 50), label)
    return photographs.make(form)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("form", FORMS)
def test_a_broken_image_ends_the_epoch_with_its_name(photographs, tmp_path, form, num_workers):
    root = with_torn_images(photographs, form, "train", range(24))
    loader = image_data(**PHOTOGRAPHS, root=root, cache=tmp_path / "cache", num_workers=num_workers).train_dataloader()
    with pytest.raises(BrokenImageError) as caught:
        list(loader)
    message = r"data\.root: '.*(ant|bee|cow)/\d\d\.jpg' cannot be read as an image \(.*\); allowed: .*on_error=skip"
    assert re.fullmatch(message, str(caught.value))
    if num_workers:
        loader._iterator._shutdown_workers()  # collected with the error's frames it would wait for five seconds each


@pytest.mark.parametrize("form", FORMS)
def test_broken_images_are_replaced_and_counted(photographs, tmp_path, form):
    sound = image_data(**PHOTOGRAPHS, root=photographs.make("folder", "sound"))
    train, val = sound.split_indices
    # Two neighbours of train, the last of train, one of val.
    torn = sorted({int(train[3]), int(train[4]), int(train[-1]), int(val[0])})
    root = with_torn_images(photographs, form, "train", torn)
    epochs = []
    for num_workers in (0, 2):
        data = image_data(**PHOTOGRAPHS, root=root, cache=tmp_path / "cache", on_error="skip", num_workers=num_workers)
        assert data.num_skipped == 0
        loader = data.train_dataloader()
        epochs.append([list(loader) for _ in range(4)])
        images, labels = batches(data.val_dataloader())
        assert data.num_skipped == 4
        assert data.state_dict() == {"train": torn}
    for one, two in zip(*epochs, strict=True):
        assert all(equal(ours, theirs) for ours, theirs in zip(one, two, strict=True))
        assert {len(batch_labels) for _, batch_labels in one} == {5}
    wanted, wanted_labels = batches(sound.val_dataloader())
    assert torch.equal(images, wanted[[1, *range(1, len(wanted))]])
    assert torch.equal(labels, wanted_labels[[1, *range(1, len(wanted))]])


def test_images_that_are_whole_are_shown_as_without_skipping(photographs):
    root = photographs.make("folder")
    one, two = (image_data(**PHOTOGRAPHS, root=root, on_error=word).train_dataloader() for word in ("fail", "skip"))
    assert all(equal(ours, theirs) for ours, theirs in zip(one, two, strict=True))


class Recorder(pl.LightningModule):
    """Keeps the labels of every training batch, by epoch."""

    def __init__(self, num_inputs=64):
        super().__init__()
        self.layer = torch.nn.Linear(num_inputs, 10)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch[1].tolist()))
        return torch.nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

    def test_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)
        self.seen.pop()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:The `srun` command is available")
def test_lightning_announces_the_epoch_and_does_not_warn(tmp_path):
    data = image_data(batch_size=270)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    module = Recorder()
    trainer.fit(module, datamodule=LightningData(data))
    trainer.test(module, dataloaders=data.test_dataloader(), verbose=False)
    loader = image_data(batch_size=270).train_dataloader()
    expected = [(epoch, labels.tolist()) for epoch in range(2) for _, labels in loader]
    assert module.seen == expected


@pytest.mark.filterwarnings("ignore:The `srun` command is available")
def test_broken_images_are_counted_across_an_interruption(photographs, tmp_path):
    root = with_torn_images(photographs, "folder", "train", [0, 9])
    shape = {**PHOTOGRAPHS, "root": root, "on_error": "skip"}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet |= {"max_epochs": 3, "limit_val_batches": 0, "enable_checkpointing": False, "default_root_dir": tmp_path}
    trainer, data = pl.Trainer(**quiet), image_data(**shape)
    trainer.fit(Recorder(3 * 32 * 32), datamodule=LightningData(data))
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    assert data.num_skipped > 0
    trainer, resumed = pl.Trainer(**quiet), image_data(**shape)
    trainer.fit(
        Recorder(3 * 32 * 32), datamodule=LightningData(resumed), ckpt_path=tmp_path / "a.ckpt", weights_only=True
    )
    assert resumed.num_skipped == data.num_skipped


@pytest.mark.parametrize("num_devices", [2, 4])
def test_devices_share_the_validation_without_a_repeat(num_devices):
    shares = []
    for rank in range(num_devices):
        data = image_data()
        data.take_share(rank, num_devices)
        loader = data.val_dataloader()
        assert loader.batch_size == 64 // num_devices
        shares.append(batches(loader)[0])
    whole = batches(image_data().val_dataloader())[0]
    assert [len(share) for share in shares] == [len(whole[rank::num_devices]) for rank in range(num_devices)]
    assert all(torch.equal(share, whole[rank::num_devices]) for rank, share in enumerate(shares))


def test_after_the_training_one_device_sees_all():
    data = image_data()
    data.take_share(0, 2)
    data.take_share(0, 1)
    assert len(batches(data.val_dataloader())[0]) == 150
    assert data.num_replicas == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_interrupted_epoch_goes_on_at_its_next_batch(num_workers, parquet_root):
    shape = {"name": "cifar10", "root": parquet_root, "img_size": 32, "batch_size": 8, "augment": RECIPE}
    undisturbed = image_data(**shape).train_dataloader()
    first, second, third = (list(undisturbed) for _ in range(3))
    assert len(first) > 2
    data = image_data(**shape, num_workers=num_workers)
    data.start_at(1, 2)
    resumed = data.train_dataloader()
    assert len(resumed) == len(first)
    for expected in (second[2:], third):
        images, labels = (torch.cat(parts) for parts in zip(*expected, strict=True))
        same_images, same_labels = batches(resumed)
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_the_real_cifar(real_cifar_root):
    shape = {"name": "cifar10", "root": real_cifar_root, "img_size": 32, "batch_size": 256}
    data = image_data(**shape, augment=RECIPE)
    assert (data.num_train_samples, data.steps_per_epoch) == (45000, 175)
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (256, 3, 32, 32)
    assert len(labels.unique()) == 10
    assert next(iter(data.test_dataloader()))[0].shape == (256, 3, 32, 32)

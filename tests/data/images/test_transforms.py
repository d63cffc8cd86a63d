import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from spp.data.config import FIXED_AUGMENT
from spp.data.images.source import Source
from spp.data.images.transforms import Augment, eval_transform, train_transform
from spp.data.registry import fixed_augment, open_source
from spp.data.sampling import seed_transforms

COLOUR = Source(10, 3, 32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), open_split=None)
GREY = open_source("digits", None)


def picture(height, width):
    rng = np.random.default_rng(height * 1000 + width)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def normalized(image, mean=COLOUR.mean, std=COLOUR.std):
    pixels = np.asarray(image, dtype=np.float32) / 255
    return torch.from_numpy((pixels - np.float32(mean)) / np.float32(std)).permute(2, 0, 1)


def test_evaluation_resizes_to_256_and_keeps_the_middle_224():
    image = picture(300, 512)
    resized = image.resize((int(256 * 512 / 300), 256), Image.Resampling.BICUBIC)
    left, top = round((resized.width - 224) / 2), 16
    expected = normalized(resized.crop((left, top, left + 224, top + 224)))
    torch.testing.assert_close(eval_transform(Augment(), COLOUR, 224)(image), expected)


@pytest.mark.parametrize(
    ("normalize", "mean", "std"),
    [
        ("dataset", COLOUR.mean, COLOUR.std),
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("none", (0, 0, 0), (1, 1, 1)),
    ],
)
def test_small_images_are_evaluated_whole(normalize, mean, std):
    image = picture(32, 32)
    transform = eval_transform(Augment(normalize=normalize), COLOUR, 32)
    torch.testing.assert_close(transform(image), normalized(image, mean, std))


def test_no_augmentation_is_the_evaluation_of_a_small_image():
    image = picture(32, 32)
    assert not Augment().is_random
    train = train_transform(Augment(), COLOUR, 32)(image)
    assert torch.equal(train, eval_transform(Augment(), COLOUR, 32)(image))


# In DeiT small images are never resized at random, whatever the crop.
@pytest.mark.parametrize("crop", ["pad4", "resized"])
def test_small_images_are_padded_by_4_and_cropped(crop):
    image = picture(32, 32)
    padded = Image.new("RGB", (40, 40))
    padded.paste(image, (4, 4))
    crops = [normalized(padded.crop((x, y, x + 32, y + 32))) for y in range(9) for x in range(9)]
    transform = train_transform(Augment(crop=crop), COLOUR, 32)
    offsets = set()
    for seed in range(20):
        seed_transforms(seed)
        result = transform(image)
        offsets.add(next(number for number, one in enumerate(crops) if torch.allclose(one, result, atol=1e-6)))
    assert len(offsets) > 5


def test_random_area_of_the_recipe():
    image = picture(60, 90)
    transform = train_transform(Augment(crop="resized", scale=[0.5, 1.0]), COLOUR, 48)
    seed_transforms(0)
    first, second = transform(image), transform(image)
    assert first.shape == (3, 48, 48)
    assert not torch.equal(first, second)


def test_flip_and_erasing():
    image = picture(32, 32)
    plain = eval_transform(Augment(), COLOUR, 32)(image)
    assert torch.equal(train_transform(Augment(hflip=1.0), COLOUR, 32)(image), plain.flip(-1))
    changed = train_transform(Augment(random_erasing=1.0), COLOUR, 32)(image) != plain
    assert 0 < changed.any(0).float().mean() < 0.5


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m10-mstd0-inc1"])
def test_rand_augment_survives_its_strongest_setting(policy):
    transform = train_transform(Augment(rand_augment=policy), COLOUR, 32)
    image = picture(32, 32)
    results = set()
    for seed in range(150):
        seed_transforms(seed)
        results.add(transform(image).numpy().tobytes())
    assert len(results) > 20


def test_grey_images_are_augmented_too():
    augment = Augment(rand_augment="rand-m9-mstd0.5-inc1", crop="pad4", random_erasing=0.25)
    transform = train_transform(augment, GREY, 8)
    for index in range(30):
        seed_transforms(index)
        assert transform(GREY.split("train")[index][0]).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixup": 0.8}, r"augment\.mixup: is not known; allowed: rand_augment, "),
        ({"crop": "random"}, r"augment\.crop: 'random' is not allowed; allowed: resized, pad4, none; use resized"),
        ({"normalize": "mean"}, r"augment\.normalize: 'mean'"),
        ({"interpolation": "cubic"}, r"augment\.interpolation: 'cubic'"),
        ({"hflip": 2}, r"augment\.hflip: 2 is not allowed"),
        ({"repeated_aug": 0}, r"augment\.repeated_aug: 0"),
        ({"rand_augment": "m9"}, r"augment\.rand_augment: 'm9'"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        Augment.read(values)


def test_mistakes_inside_the_policy_are_named():
    with pytest.raises(ValueError, match=r"augment\.rand_augment: 'rand-q9'"):
        train_transform(Augment.read({"rand_augment": "rand-q9"}), COLOUR, 32)


def test_imagenet_colours_do_not_fit_grey_images():
    with pytest.raises(ValueError, match=r"augment\.normalize: 'imagenet'"):
        eval_transform(Augment(normalize="imagenet"), GREY, 8)


def test_a_key_set_to_null_is_left_out():
    assert Augment.read({"rand_augment": None, "crop": None}) == Augment()


def test_what_changes_fixed_images_is_what_is_said_to():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8))
    changes = {
        "rand_augment": "rand-m9-mstd0.5-inc1", "color_jitter": 0.4, "random_erasing": 0.5, "hflip": 0.5,
        "crop": "pad4", "scale": (0.5, 1.0), "repeated_aug": 3, "interpolation": "bilinear",
        "normalize": "none", "crop_pct": 0.5,
    }  # fmt: skip
    assert set(changes) == {entry.name for entry in dataclasses.fields(Augment)}
    plain = eval_transform(Augment(), COLOUR, 40)(image)
    looks = {name: eval_transform(Augment(**{name: value}), COLOUR, 40)(image) for name, value in changes.items()}
    assert {name for name, look in looks.items() if not torch.equal(look, plain)} == set(FIXED_AUGMENT)
    assert fixed_augment({**changes, "crop_pct": None}) == {"interpolation": "bilinear", "normalize": "none"}

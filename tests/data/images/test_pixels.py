"""Every kind of image comes on one scale, upright."""

import io

import numpy as np
import pytest
from PIL import Image

from spp.data.images.broken import BrokenImageError, decode

RAMP = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)


def encoded(image, form="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def grey(content):
    return np.asarray(decode(content, "x").convert("L")).astype(int)


@pytest.mark.parametrize(
    ("image", "form"),
    [
        (Image.fromarray(RAMP), "PNG"),
        (Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG"),
        (Image.fromarray(RAMP.astype(np.uint16) * 257), "TIFF"),
        (Image.fromarray(RAMP.astype(np.int32) * 257), "TIFF"),
        (Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF"),
        (Image.fromarray(RAMP).convert("P"), "PNG"),
        (Image.fromarray(RAMP).convert("LA"), "PNG"),
        (Image.fromarray(RAMP).convert("RGBA"), "PNG"),
        (Image.fromarray(RAMP).convert("RGB").convert("CMYK"), "TIFF"),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
def test_a_ramp_stays_a_ramp(image, form):
    assert np.abs(grey(encoded(image, form)) - RAMP).max() <= 1


def test_one_bit_is_black_and_white():
    image = Image.fromarray((RAMP > 100).astype(np.uint8) * 255).convert("1")
    assert np.array_equal(grey(encoded(image)), (RAMP > 100) * 255)


@pytest.mark.parametrize("pixels", [RAMP.astype(np.float32), np.full((8, 8), np.nan, np.float32), RAMP - np.int32(1)])
def test_numbers_off_the_scale_are_refused_by_name(pixels):
    with pytest.raises(
        BrokenImageError, match=r"^data.root: 'scan.tif' [^\n]*pixels of mode [FI] from [^\n]*; [^\n]*$"
    ):
        decode(encoded(Image.fromarray(pixels), "TIFF"), "scan.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_shown_upright(orientation):
    undo = {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_90",
        7: "TRANSVERSE",
        8: "ROTATE_270",
    }
    upright = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) * 5)
    turned = upright.transpose(Image.Transpose[undo[orientation]]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(grey(encoded(turned, exif=exif)), np.asarray(upright))

import errno
import io
import traceback

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spp.data.images.broken import BrokenImageError, decode, reading


def encoded(kind):
    stream = io.BytesIO()
    Image.fromarray(np.arange(3 * 40 * 50, dtype=np.uint8).reshape(40, 50, 3)).save(stream, kind)
    return stream.getvalue()


def message_of(action):
    try:
        action()
    except BrokenImageError as error:
        return str(error)
    return None


JPEG, PNG = encoded("jpeg"), encoded("png")


@given(st.sampled_from([JPEG, PNG]), st.floats(0, 0.95), st.integers(0, 400), st.binary(max_size=20))
def test_whatever_is_wrong_with_an_image_has_one_name(content, share, place, noise):
    torn = content[: int(share * len(content))]
    torn = torn[:place] + noise + torn[place + len(noise) :]
    message = message_of(lambda: decode(torn, "the image"))
    assert message is None or (
        message.startswith("data.root: 'the image' cannot be read as an image (")
        and "\n" not in message
        and "0x" not in message
    )


def test_a_worker_hands_on_one_line():
    try:
        with reading("a.jpg"):
            raise OSError("image file is truncated\nor so")
    except BrokenImageError as error:
        message = str(error)
        handed_on = f"Caught BrokenImageError in DataLoader worker process 0.\nOriginal {traceback.format_exc()}"
    assert str(BrokenImageError(handed_on)) == message
    assert message.startswith("data.root: 'a.jpg' cannot be read as an image (image file is truncated); allowed")


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_fault_of_the_machine_is_not_the_images(code):
    with pytest.raises(OSError, match=r"'a\.jpg'") as caught, reading("a.jpg"):
        raise OSError(code, "so it says")
    assert not isinstance(caught.value, ValueError)
    assert caught.value.errno == code

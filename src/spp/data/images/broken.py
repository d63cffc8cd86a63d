"""Images that are missing or cannot be decoded: how they are told from a machine's faults, and named."""

import errno
import io
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from spp.data.images.pixels import to_rgb

# What Pillow and its plugins raise for files that are torn or no images at all.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_FILE_IS_LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM)


class BrokenImageError(ValueError):
    """An image that is missing or cannot be decoded; the message is one line with its name and the remedy."""

    def __init__(self, message: str) -> None:
        # A loader's worker hands on its errors as text: a traceback, whose last line is this message.
        super().__init__(message.rstrip().rpartition(f"{type(self).__name__}: ")[2])


def is_of_the_file(error: Exception) -> bool:
    """Whether the file is at fault. A system error of another kind (no memory, a stale mount) may pass."""
    return not isinstance(error, OSError) or error.errno is None or error.errno in _FILE_IS_LOST


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Name the image that is read in the block if it turns out to be broken.

    Args:
        what: the image as a user can find it.

    Raises:
        BrokenImageError: for what is wrong with the file.
        OSError: for what is wrong with the machine, as it came, with the name.
    """
    try:
        yield
    except BrokenImageError:
        raise
    except _DECODE_ERRORS as error:
        if isinstance(error, OSError) and not is_of_the_file(error):
            error.filename = error.filename or what
            raise
        # Pillow would name the address of a buffer.
        reason = "no known kind of image" if isinstance(error, UnidentifiedImageError) else error
        lines = str(reason).splitlines() or [type(error).__name__]
        raise BrokenImageError(
            f"data.root: {what!r} cannot be read as an image ({lines[0]}); allowed: whole image files; replace or "
            "delete it, or train without it by data.on_error=skip"
        ) from None


def decode(content: bytes | Path, what: str) -> Image.Image:
    """An encoded image, or the image file of that path, in mode RGB and upright.

    Raises:
        BrokenImageError: if it cannot be decoded to its end, or its pixels are on no known scale.
    """
    with reading(what):
        if isinstance(content, Path) and not stat.S_ISREG(content.stat().st_mode):
            raise ValueError("no file but a pipe, a socket or a folder")
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            return to_rgb(ImageOps.exif_transpose(image))

"""What lies among the images of a folder counts, or is refused by its name; nothing is left out in silence."""

import os
import socket

import pytest
from PIL import Image

from spp.data.images.broken import BrokenImageError, decode
from spp.data.registry import identify, open_source


def names(root, **options):
    return [os.fsdecode(name) for name in open_source("imagefolder", root, **options).split("train").files]


def test_images_in_nested_folders_count_as_in_torchvision(image_root, tmp_path):
    from torchvision.datasets import ImageFolder

    before = identify("imagefolder", image_root, cache=tmp_path / "cache")
    for inner in ("b", "a/deep", "x.jpg", ".hidden"):
        folder = image_root / "train" / "ant" / inner
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), (1, 2, 3)).save(folder / "0.png")
    after = identify("imagefolder", image_root, cache=tmp_path / "cache")
    assert after["splits"]["train"] == before["splits"]["train"] + 3
    wanted = [path for path, _ in ImageFolder(image_root / "train").samples if "/.hidden/" not in path]
    assert names(image_root) == [os.path.relpath(path, image_root / "train") for path in wanted]
    (image_root / "train" / "ant" / "a" / "deep" / "1.png").write_bytes(b"x")
    assert identify("imagefolder", image_root, cache=tmp_path / "cache")["splits"]["train"] == 22


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        folder = os.getcwd()
        os.chdir(path.parent)  # the path of a socket may have 108 bytes
        made.bind(path.name)
        os.chdir(folder)


def make_link_to_a_folder(path):
    path.with_suffix("").symlink_to(path.parents[1] / "bee")


@pytest.mark.parametrize(
    ("make", "said"),
    [(make_fifo, "a pipe, a socket"), (make_socket, "a pipe, a socket"), (make_link_to_a_folder, "a link to a folder")],
)
def test_what_is_no_image_file_is_named(make, said, image_root):
    before = names(image_root)
    make(image_root / "train" / "ant" / "x.jpg")
    for ask in (lambda root: identify("imagefolder", root), names):
        with pytest.raises(
            ValueError, match=rf"^data.root: '[^']*/ant/x(.jpg)?' is [^\n]*{said}[^\n]*; allowed: [^\n]*$"
        ):
            ask(image_root)
    assert names(image_root, on_error="skip") == before


def test_a_link_to_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "x.png").symlink_to("pipe")
    with pytest.raises(BrokenImageError, match=r"no file but a pipe"):
        decode(tmp_path / "x.png", "x.png")


def test_a_name_that_is_not_utf8_is_named(image_root):
    before = names(image_root)
    file = os.fsencode(image_root / "train" / "ant") + b"/caf\xe9.png"
    Image.new("RGB", (8, 8)).save(os.fsdecode(file))
    with pytest.raises(
        ValueError, match=r"^data.root: '[^']*/ant/caf\\udce9.png' has a name that is not UTF-8; [^\n]*$"
    ):
        identify("imagefolder", image_root)
    assert names(image_root, on_error="skip") == before
    assert identify("imagefolder", image_root, on_error="skip")["splits"]["train"] == len(before)

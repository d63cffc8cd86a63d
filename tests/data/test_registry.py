import subprocess
import sys

import pytest

from spp.data.registry import fingerprint, open_source, sources


def test_every_data_set_is_a_module():
    assert sources() == ("cifar10", "digits", "imagefolder")


@pytest.mark.parametrize("function", [fingerprint, open_source])
def test_unknown_name(function):
    with pytest.raises(ValueError, match=r"^data\.name: 'mnist' is not known; allowed: cifar10, digits, imagefolder;"):
        function("mnist", None)


@pytest.mark.parametrize("name", ["cifar10", "imagefolder"])
@pytest.mark.parametrize("function", [fingerprint, open_source])
def test_missing_folder(function, name, tmp_path):
    with pytest.raises(ValueError, match=r"^data\.root: .*nowhere is no folder; allowed: a folder with .*; set data\."):
        function(name, tmp_path / "nowhere")


@pytest.mark.parametrize("num_train", [0, 1501])
def test_number_of_training_images_out_of_range(num_train):
    with pytest.raises(ValueError, match=rf"^data\.num_train: {num_train} is not allowed; allowed: 1 to 1500"):
        fingerprint("digits", None, num_train=num_train)


def test_planning_stays_light():
    code = """
import sys
from spp.data.registry import fingerprint, sources
fingerprint("digits", None)
for name in sources():
    try:
        fingerprint(name, "/nowhere")
    except ValueError:
        pass
print([name for name in ("torch", "timm", "sklearn", "pyarrow", "pytorch_lightning") if name in sys.modules])
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"

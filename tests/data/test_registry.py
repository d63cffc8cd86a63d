import subprocess
import sys

import pytest

from spp.data.config import DataConfig
from spp.data.registry import identify, num_train_samples, open_source, sources


def test_every_data_set_is_a_module():
    assert sources() == ("cifar10", "digits", "imagefolder")


@pytest.mark.parametrize("function", [identify, open_source])
def test_unknown_name(function):
    allowed = (
        "cifar10, digits, imagefolder, c4, pydocs, textfiles, wikitext2, cola, helptopics, mnli, movies, qqp, sst2, "
        "stsb, table"
    )
    with pytest.raises(ValueError, match=rf"^data\.name: 'mnist' is not known; allowed: {allowed};"):
        function("mnist", None)


@pytest.mark.parametrize("name", ["cifar10", "imagefolder"])
@pytest.mark.parametrize("function", [identify, open_source])
def test_missing_folder(function, name, tmp_path):
    with pytest.raises(ValueError, match=r"^data\.root: .*nowhere is no folder; allowed: a folder with .*; set data\."):
        function(name, tmp_path / "nowhere")


@pytest.mark.parametrize("num_train", [0, 1501])
def test_number_of_training_images_out_of_range(num_train):
    with pytest.raises(ValueError, match=rf"^data\.num_train: {num_train} is not allowed; allowed: 1 to 1500"):
        identify("digits", None, num_train=num_train)


def test_identities_stay_what_they_were():
    """They are in the key of every stage: another one would make all that has been run anew."""
    sha256 = "828af3e31d2543dd203c678276c3bb552e507d3d2b2691dccb2ba7b0d2af33a4"
    whole = {"name": "digits", "splits": {"train": 1500, "test": 297}, "sha256": sha256}
    assert identify("digits", None) == whole
    few = identify("digits", None, num_train=20, download=True, on_error="skip", cache="nowhere")
    assert few == {**whole, "splits": {"train": 20, "test": 297}, "on_error": "skip"}


@pytest.mark.parametrize("function", [identify, open_source])
def test_an_option_that_nobody_reads_is_refused(function):
    with pytest.raises(TypeError, match="num_trian"):
        function("digits", None, num_trian=20)


def test_planning_stays_light():
    code = """
import sys
from spp.data.registry import identify, sources
identify("digits", None)
for name in sources():
    try:
        identify(name, "/nowhere")
    except ValueError:
        pass
print([name for name in ("torch", "timm", "sklearn", "pyarrow", "pytorch_lightning") if name in sys.modules])
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


@pytest.mark.parametrize(("own", "num_train"), [(None, 90), ("val", 100), ("validation", 100)])
def test_nothing_is_held_out_where_there_is_a_validation_set(own, num_train):
    splits = {"train": 100, "test": 20} if own is None else {"train": 100, own: 30, "test": 20}
    assert num_train_samples(DataConfig(name="sst2", fingerprint={"splits": splits})) == num_train

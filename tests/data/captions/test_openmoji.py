"""OpenMoji's drawings: a package in their form, and what is said where it or what draws it is not there."""

import importlib.util
import io
import json
import tarfile

import numpy as np
import pytest

from spp.data.captions.source import Access
from spp.data.captions.sources import openmoji

needs_resvg = pytest.mark.skipif(
    importlib.util.find_spec("resvg_py") is None, reason="resvg-py is not installed; install the extra openmoji"
)
COLORS = {"animals": "#ff0000", "flags": "#0000ff"}


def entry(number, group, skintone=""):
    tags = ", ".join(f"tag {place}" for place in range(number % 12))
    return {
        **{"hexcode": f"1F{number:03}", "group": group, "annotation": f"{group} {number}", "tags": tags},
        **{"openmoji_tags": "", "skintone": skintone},
    }


def package(folder, entries):
    """A package as npm has it: half of every drawing has the color of its group, the other half is empty."""
    files = {"package/data/openmoji.json": json.dumps(entries)}
    for each in entries:
        rectangle = f'<rect width="36" height="72" fill="{COLORS[each["group"]]}"/>'
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">{rectangle}</svg>'
        files[f"package/color/svg/{each['hexcode']}.svg"] = svg
    with tarfile.open(folder / "openmoji.tgz", "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return Access(root=folder, file=folder / "openmoji.tgz", val_fraction=0.1)


@needs_resvg
def test_names_tags_and_drawings(tmp_path):
    entries = [entry(number, "animals" if number % 2 else "flags") for number in range(100)]
    captions = openmoji.open_captions(package(tmp_path, [*entries, entry(100, "flags", skintone="1")]))
    assert {name: len(split) for name, split in captions.splits.items()} == {"train": 81, "val": 9, "test": 10}
    found = {each.name: each for split in captions.splits.values() for each in split.entries}
    assert set(found) == {each["hexcode"] for each in entries}
    assert found["1F024"].captions == ("flags 24",)
    assert found["1F027"].captions == ("animals 27", "tag 0 tag 1 tag 2")
    assert found["1F023"].captions[1].split()[1::2] == [str(number) for number in range(8)]
    for split in captions.splits.values():
        for number, each in enumerate(split.entries):
            pixels = np.asarray(split.read(number))
            color = [255, 0, 0] if each.captions[0].startswith("animals") else [0, 0, 255]
            assert pixels.shape == (72, 72, 3)
            assert pixels[36, 10].tolist() == color
            assert pixels[36, 60].tolist() == [255, 255, 255]


@needs_resvg
def test_groups_keep_their_shares(tmp_path):
    captions = openmoji.open_captions(
        package(tmp_path, [entry(number, "animals" if number < 200 else "flags") for number in range(300)])
    )
    for name, num_flags in (("test", 10), ("val", 9), ("train", 81)):
        groups = [each.captions[0].split()[0] for each in captions.splits[name].entries]
        assert groups.count("flags") == num_flags


@needs_resvg
def test_what_is_no_such_package_is_one_line(tmp_path):
    access = package(tmp_path, [entry(number, "flags") for number in range(30)])
    (tmp_path / "other.tgz").write_bytes(b"nothing")
    for file, message in (("none.tgz", "is not there"), ("other.tgz", "does not hold the drawings and their names")):
        with pytest.raises(ValueError, match=message) as caught:
            openmoji.open_captions(Access(root=access.root, file=tmp_path / file))
        assert "run make openmoji" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_without_what_draws_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^data.name: openmoji needs what draws SVG.*pip install 'spp\[openmoji\]'"):
        openmoji.open_captions(Access(root=tmp_path, file=tmp_path / "openmoji.tgz"))

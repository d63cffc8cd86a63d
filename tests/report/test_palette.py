import subprocess
import sys
from itertools import combinations

import pytest

from spp.methods.registry import method_names
from spp.report.palette import NUM_LETTERS, UNIT_KIND_STYLES, Series, method_order, shorten, styles


def luminance(color):
    """Relative luminance of sRGB (WCAG 2): what is left of a colour in grey."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_method_has_a_marker_of_its_own_and_can_be_seen_on_white():
    series = [Series(name) for name in method_names() if name != "spp"]
    series += [Series("spp", preset) for preset in ("priced", "textbook", "released")]
    looks = styles(series)
    assert len({style.marker for style in looks.values()}) == len(series)
    assert len({(style.color, str(style.line)) for style in looks.values()}) == len(series)
    assert all(luminance(style.color) < 0.5 for style in looks.values())


def test_kinds_of_units_differ_in_grey_by_line_and_marker():
    for one, other in combinations(UNIT_KIND_STYLES.values(), 2):
        assert one.line != other.line
        assert one.marker != other.marker


def test_a_method_looks_the_same_whoever_stands_beside_it():
    alone = styles([Series("taylor")])[Series("taylor")]
    assert styles([Series("zzz"), Series("spp", "priced"), Series("taylor")])[Series("taylor")] == alone


def test_variants_of_a_method_keep_its_colour_and_differ_otherwise():
    series = [Series("upop"), *(Series("upop", None, f"method.rho={rho}") for rho in range(5))]
    looks = list(styles(series).values())
    assert {look.color for look in looks} == {looks[0].color}
    assert len({(str(look.line), look.marker) for look in looks}) == len(looks)


def test_the_same_variant_of_two_methods_looks_different():
    looks = styles([Series(name, None, "prune.epochs=0") for name in method_names()])
    assert len({style.marker for style in looks.values()}) == len(looks)
    assert len({(style.color, str(style.line)) for style in looks.values()}) == len(looks)


def test_a_strange_method_has_a_look_that_does_not_change():
    code = "from spp.report.palette import *; print(styles([Series('mine')]))"
    looks = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(looks) == 1


def test_the_priced_preset_looks_like_spp():
    looks = styles([Series("spp"), Series("spp", "priced"), Series("spp", "released")])
    assert looks[Series("spp")] == looks[Series("spp", "priced")] != looks[Series("spp", "released")]


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"method": "spp", "preset": "priced", "variant": ""}, "spp (priced)"),
        ({"method": "spp", "preset": "released", "variant": "method.rho=2"}, "spp (released, method.rho=2)"),
        ({"method": "upop", "preset": None, "variant": ""}, "upop"),
    ],
)
def test_a_legend_names_method_preset_and_variant(row, label):
    assert Series.of(row).label == label


def test_long_names_keep_their_beginning_and_their_end():
    label = Series("spp", "priced", "method.kappa=0.5 method.lam=0.25 prune.epochs=3").label
    assert len(label) == NUM_LETTERS
    assert label.startswith("spp (priced")
    assert label.endswith("prune.epochs=3)")
    assert shorten("short") == "short"


def test_ours_comes_first_and_the_floor_last():
    series = [Series("random"), Series("mine"), Series("upop"), Series("spp", "released"), Series("spp", "priced")]
    names = [one.label for one in sorted(series, key=method_order)]
    assert names == ["spp (priced)", "spp (released)", "upop", "random", "mine"]

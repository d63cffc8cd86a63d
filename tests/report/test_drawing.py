import csv
import subprocess
import sys
import zlib

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from spp.report.drawing import (
    Drawing,
    file_stem,
    house_style,
    legend_below,
    new_figure,
    picture,
    save,
    text_width,
    tidy_csv,
)

DATA = ({"x": 1, "y": 2.5}, {"x": 2, "y": None, "note": 'a "b", c'})


@house_style()
def drawn(num_entries=2):
    figure = new_figure(5, 3)
    axes = figure.subplots()
    axes.set(xlabel="FLOPs (G)", ylabel="top-1 (%)")
    lines = [axes.plot([1, 2], [3, 4 + number])[0] for number in range(num_entries)]
    legend_below(figure, {f"method number {number}": line for number, line in enumerate(lines)})
    return Drawing("name", "title", figure, "caption", DATA)


def test_the_files_are_pictures_with_their_data_beside_them(tmp_path):
    files = save(drawn(), tmp_path / "out", ("png", "pdf", "svg"))
    assert [file.name for file in files] == ["name.png", "name.pdf", "name.svg", "name.csv"]
    png, pdf, svg, data = (file.read_bytes() for file in files)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")
    assert pdf.startswith(b"%PDF")
    assert pdf.rstrip().endswith(b"%%EOF")
    assert b"</svg>" in svg
    rows = list(csv.DictReader(data.decode().splitlines()))
    assert rows == [{"x": "1", "y": "2.5", "note": ""}, {"x": "2", "y": "", "note": 'a "b", c'}]


def test_a_png_has_160_dots_per_inch():
    header = picture(drawn(), "png")[16:24]
    assert int.from_bytes(header[:4], "big") == 5 * 160


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_drawing_gives_the_same_bytes(suffix):
    assert zlib.crc32(picture(drawn(), suffix)) == zlib.crc32(picture(drawn(), suffix))


def test_the_order_of_the_formats_changes_no_byte(tmp_path):
    first = save(drawn(), tmp_path / "a", ("png", "pdf"))
    second = save(drawn(), tmp_path / "b", ("pdf", "png"))
    assert {file.name: file.read_bytes() for file in first} == {file.name: file.read_bytes() for file in second}


def test_a_pdf_has_no_type_3_fonts():
    pdf = picture(drawn(), "pdf")
    assert b"/Type3" not in pdf
    assert b"/CIDFontType2" in pdf


def test_a_users_own_settings_change_nothing():
    expected = picture(drawn(), "png")
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black", "figure.dpi": 37, "savefig.dpi": 50}):
        assert picture(drawn(), "png") == expected  # of another figure
        assert mpl.rcParams["font.size"] == 20


@pytest.mark.parametrize("num_entries", [1, 5, 16])
def test_a_legend_lies_below_the_panels_and_inside_the_figure(num_entries):
    drawing = drawn(num_entries)
    drawing.figure.draw_without_rendering()
    (legend,) = drawing.figure.legends
    box, panel = legend.get_window_extent(), drawing.figure.axes[0].get_tightbbox()
    assert len(legend.get_texts()) == num_entries
    assert box.y1 <= panel.y0
    assert 0 <= box.x0 <= box.x1 <= drawing.figure.bbox.x1
    assert panel.height >= 0.75 * 3 * drawing.figure.dpi  # the figure grew, the panel did not shrink


def test_width_of_text_is_what_matplotlib_draws():
    figure = Figure()
    text = figure.text(0, 0, "spp (released), 57 %", fontsize=8)
    assert text_width("spp (released), 57 %", 8) == pytest.approx(text.get_window_extent().width / figure.dpi, rel=0.05)


def test_no_other_format_is_taken():
    with pytest.raises(ValueError, match="'jpg' is not a picture's; allowed: png, pdf, svg"):
        picture(drawn(), "jpg")


def test_names_of_files_have_no_signs_of_their_own():
    assert file_stem("figure2", "spp (released, method.rho=2)", "seed0") == "figure2-spp-released-method.rho=2-seed0"


def test_columns_that_only_some_rows_have_are_kept():
    assert tidy_csv(DATA).splitlines()[0] == "x,y,note"


def test_matplotlib_is_loaded_only_to_draw():
    code = "import sys, spp.report.drawing, spp.report.figures.accuracy; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

from spp.report.drawing import picture, rendered
from spp.report.figures import table_picture
from spp.report.parallel_pictures import make_pictures
from spp.report.published import load_published
from spp.report.reports import REPORTS


def test_pictures_made_beside_are_those_made_here(make_record):
    names = ("retrieval", "llm", "table6", "table7", "table8")
    tables = [table for name in names for table in REPORTS[name].tables(make_record(), load_published())]
    drawings = [table_picture.draw(table) for table in tables]
    make_pictures(drawings, ["png", "pdf"])
    beside = [{suffix: picture(drawing, suffix) for suffix in ("png", "pdf")} for drawing in drawings]
    for drawing, made in zip(drawings, beside, strict=True):
        rendered.pop(drawing.figure)
        assert picture(drawing, "png") == made["png"]
        assert made["pdf"].startswith(b"%PDF")

"""The tables of retrieval: published values beside ours, and all recalls."""

from spp.report.published import load_published
from spp.report.tables import retrieval

PUBLISHED = load_published()
RECALLS = {"mean_recall": 50.0, "i2t_r1": 30.0, "i2t_r5": 60.0, "t2i_r1": 25.0}


def metrics(shift=0.0):
    return {
        name: {"value": value + shift, "unit": "%", "better": "higher", "count": 1000, "of": "images", "label": name}
        for name, value in RECALLS.items()
    }


def row_of(make_row, **more):
    about = {"task": "retrieval", "model": "clip_micro", "data": "digit_scenes", "headline": "mean_recall"}
    return make_row(**about, metrics=metrics(), metrics_before=metrics(-9), dense_metrics=metrics(5), **more)


def test_without_members_the_published_values_stand_alone(make_record):
    (table,) = retrieval.tables(make_record(), PUBLISHED)
    published = [row[[column.title for column in table.columns].index("published (%)")].text for row in table.rows]
    assert {"70.8", "53.1"} <= set(published)
    assert "experiment=table6_clip_large" in table.legend[0]


def test_members_have_all_their_recalls(make_row, make_record):
    record = make_record(row_of(make_row), make_row())
    _, table = retrieval.tables(record, PUBLISHED)
    heads = [column.title for column in table.columns]
    lines = [dict(zip(heads, [cell.text for cell in row], strict=True)) for row in table.rows]
    assert [line["method"] for line in lines] == ["dense", "spp (priced)"]
    assert [line["i2t_r1"] for line in lines] == ["35.0", "30.0"]
    assert table.data[1]["t2i_r1"] == 25.0
    assert retrieval.rows_of(record) == [record.rows[0]]

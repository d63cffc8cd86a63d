import pytest

from spp.report.published import load_published
from spp.report.tables import cifar10, table1

PUBLISHED = load_published()


def lines_of(table):
    head = [column.title for column in table.columns]
    return [dict(zip(head, row, strict=True)) for row in table.rows]


@pytest.fixture
def small(make_row):
    """Members of DeiT-Small at the 2.6 GFLOPs of the rebuttal, by the paper's recipe."""

    def make(**changes):
        dense = {"dense_macs": 4.58e9, "dense_params": 22.05e6}
        size = {"budget_asked": 2.6e9, "macs": 2.59e9, "params": 12.6e6}
        return make_row(**{"model": "deit_small", "data": "imagenet", **dense, **size, "top1": 78.0, **changes})

    return make


def test_ours_stand_beside_the_published_number_of_the_same_method_and_size(small, make_record):
    seeds = [small(seed=seed, top1=top1, dense_key=str(seed)) for seed, top1 in enumerate((78.0, 79.0))]
    table, *others = table1.tables(make_record(*seeds), PUBLISHED)
    assert others == []
    (line,) = (one for one in lines_of(table) if one["ours (%)"].text == "78.5 ± 0.7")
    assert (line["method"].text, line["published (%)"].text, line["difference"].text) == (
        "spp (priced)",
        "78.9",
        "-0.4",
    )
    assert line["published (%)"].hint == "rebuttal, quoting Table 1"
    assert (line["seeds"].text, line["test images"].text, line["search cost"].text) == ("2", "297", "30 s")
    assert line["ours (%)"].marks == ""


def test_the_released_preset_has_a_row_of_its_own_with_its_command(small, make_record):
    table = table1.tables(make_record(small()), PUBLISHED)[0]
    lines = [one for one in lines_of(table) if one["published (%)"].text == "78.9"]
    assert [(one["method"].text, one["ours (%)"].text) for one in lines] == [
        ("spp (priced)", "78.0"),
        ("spp (released)", "not run"),
    ]
    commands = [line for line in table.todo if "deit_small on imagenet, macs 2.6G" in line]
    assert [line.split(",")[0] for line in commands] == ["wdpruning", "spp (released)"]


@pytest.mark.parametrize(
    ("changes", "fits"),
    [({"macs": 2.54e9}, False), ({"macs": 2.64e9}, True), ({"method": "taylor"}, False), ({"data": "digits"}, False)],
)
def test_other_sizes_methods_and_data_do_not_stand_there(small, make_record, changes, fits):
    table = table1.tables(make_record(small(**changes)), PUBLISHED)[0]
    beside = [one["ours (%)"].text for one in lines_of(table) if one["published (%)"].text == "78.9"]
    assert ("78.0" in beside) == fits


def test_what_differs_from_the_paper_is_marked_and_said(small, make_record):
    row = small(epochs_finetune=6, batch_size=64, lr=1e-3, data_config={"img_size": 32}, num_train=1000)
    table = table1.tables(make_record(row), PUBLISHED)[0]
    (marks,) = {one["ours (%)"].marks for one in lines_of(table)} - {""}
    said = {line[0]: line[3:] for line in table.legend if line[1] == ":"}
    assert sorted(said[mark] for mark in marks) == [
        "1000 training images, the paper 1281167.",
        "batch size 64, the paper 512.",
        "finetuned 6 epochs, the paper 300.",
        "images of 32 pixels, the paper 224.",
        "learning rate 0.001, the paper 0.0008.",
    ]


def test_a_papers_model_on_other_data_is_marked(small, make_record):
    _, other = table1.tables(make_record(small(data="digits")), PUBLISHED)
    (line,) = (one for one in lines_of(other) if one["ours (%)"].marks)
    assert f"{line['ours (%)'].marks}: data digits, the paper imagenet." in other.legend


def test_top5_is_compared_with_top5(small, make_record):
    row = small(method="upop", preset=None, budget_kind="params", budget_asked=15.7e6, params=15.7e6, top5=94.1)
    lines = [one for one in lines_of(table1.tables(make_record(row), PUBLISHED)[0]) if one["method"].text == "upop"]
    assert [(one["metric"].text, one["difference"].text) for one in lines] == [("top-1", "-2.2"), ("top-5", "-1.0")]


def test_without_any_run_it_is_a_table_of_published_values(make_record):
    (table,) = table1.tables(make_record(), PUBLISHED)
    published = [one["published (%)"].value for one in lines_of(table) if one["published (%)"].text]
    assert sorted(set(published)) == [71.1, 78.4, 78.9, 80.2, 80.6, 81.2, 95.1]
    assert all(one["ours (%)"].text == "not run" for one in lines_of(table))
    assert len(table.todo) == len({line.split(" (about")[0] for line in table.todo}) == 11


def test_cifar10_has_a_table_of_its_own(make_row, make_record):
    record = make_record(make_row(data="cifar10", model="vit_cifar"))
    assert len(table1.tables(record, PUBLISHED)) == 1
    (table,) = cifar10.tables(record, PUBLISHED)
    assert [(one["method"].text, one["ours (%)"].text) for one in lines_of(table)] == [
        ("dense", "97.0"),
        ("spp (priced)", "96.0"),
        ("dessilbi", "not run"),
    ]
    assert ["method=dessilbi" in line for line in table.todo] == [True]

from spp.report.published import load_published
from spp.report.tables import compare

PUBLISHED = load_published()


def test_methods_stand_below_each_other_and_budgets_beside_each_other(make_row, make_record, texts_of):
    rows = [make_row(), make_row(budget_asked=0.3, top1=95.0), make_row(method="taylor", preset=None, top1=94.0)]
    (table,) = compare.tables(make_record(*rows), PUBLISHED)
    dense, spp, taylor = texts_of(table)
    assert (dense["50 % after"], dense["50 % before"]) == ("97.0", "")
    assert (spp["50 % after"], spp["30 % after"], spp["50 % before"]) == ("96.0", "95.0", "90.0")
    assert (taylor["50 % after"], taylor["30 % after"]) == ("94.0", "not run")
    assert table.legend[0].startswith("Top-1 on the test set of 297 images, before and after finetuning.")


def test_an_error_is_written_in_its_own_digits(make_error_row, make_record, texts_of):
    rows = [make_error_row(error=error, seed=seed) for seed, error in enumerate((0.0832, 0.0841))]
    (table,) = compare.tables(make_record(*rows), PUBLISHED)
    _, line = texts_of(table)
    assert line["50 % after"] == "0.0837 ± 0.0006"
    assert table.legend[0].startswith("Error (lower is better) on the test set of 297 images, mean")


def test_tasks_are_not_compared_with_each_other(make_row, make_error_row, make_record, texts_of):
    tables = compare.tables(make_record(make_row(), make_error_row(method="taylor", preset=None)), PUBLISHED)
    assert [table.title for table in tables] == [
        "vit on digits, classification, budgets in macs",
        "vit on digits, regression, budgets in macs",
    ]
    assert [[line["method"] for line in texts_of(table)] for table in tables] == [["dense", "spp"], ["dense", "taylor"]]
    # What the other task has run is not asked of this one.
    assert [table.todo for table in tables] == [(), ()]


def test_members_that_were_not_taught_alike_are_told_of(make_row, make_record):
    plain = {"prune": {"epochs": 2, "distill_weight": 0}, "finetune": {"epochs": 9, "distill_weight": 0}}
    taught = {
        "epochs": 9,
        "distill_weight": 0.9,
        "distill_temperature": 2.0,
        "distill_kind": "soft",
        "distill_hidden": 1,
    }
    hard = {"epochs": 9, "distill_weight": 0.5, "distill_kind": "hard", "teacher": {"name": "regnet", "tag": "in1k"}}
    others = {"method": "taylor", "preset": None}

    def legend(*recipes):
        rows = [make_row(recipes=recipes[0]), make_row(**others, recipes=recipes[1])]
        (table,) = compare.tables(make_record(*rows), PUBLISHED)
        return table.legend[1:]

    assert legend(plain, plain) == ()
    assert legend({"finetune": taught}, {"finetune": taught}) == ()
    assert legend(plain, {**plain, "finetune": taught}) == (
        "Not taught alike in the training after it. spp: no teacher; taylor: the dense network, weight 0.9, its "
        "outputs at temperature 2, its hidden states by 1.",
    )
    also = {**taught, "distill_attention": 3.0}
    assert "its hidden states by 1, its attention weights by 3." in legend({"finetune": taught}, {"finetune": also})[0]
    assert "taylor: regnet.in1k, weight 0.5, its decision." in legend({"finetune": taught}, {"finetune": hard})[0]
    # What trains nothing teaches nothing.
    assert legend(plain, {**plain, "search": {"epochs": 0, "distill_weight": 0.5}}) == ()
    assert len(legend(plain, {"search": taught, "finetune": plain["finetune"]})) == 1

from spp.record.lines import NewestValues, line_of


def test_a_row_as_a_line():
    row = {"epoch": 3, "step": 60, "loss": 0.71324, "lr": 0.001, "val_top1": 92.125}
    assert line_of(row) == "epoch 3, step 60: loss 0.7132, lr 0.001, val_top1 92.12"
    assert line_of({"budget": 0.5, "qk": 3}) == "budget 0.5: qk 3"


def test_the_newest_values_of_each():
    rows = [{"loss": 2.0, "val_top1": 10.0}, {"loss": 1.0}, {"budget": 0.5}]
    newest = NewestValues.of(rows)
    assert (newest.loss, newest.metric, newest.value) == (1.0, "top1", 10.0)
    assert (newest.loss_text, newest.metric_text) == ("1", "top1 10")
    assert NewestValues.of([]) == NewestValues()
    assert NewestValues().loss_text == NewestValues().metric_text == ""

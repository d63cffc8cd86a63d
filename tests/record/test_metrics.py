import pytest

from spp.record.metrics import MetricInfo, counts_text, headline, mean_change, metrics_of, value_of

TOP1 = MetricInfo("top1", "top-1", "%", "higher", "images")
PERPLEXITY = MetricInfo("perplexity", "perplexity", "", "lower", "tokens")
LOSS = MetricInfo("loss", "loss", "nats", "lower", "queries")


@pytest.mark.parametrize(
    ("metric", "title", "column", "description", "sample"),
    [
        (TOP1, "top-1 (%)", "top-1", "Top-1", "image"),
        (PERPLEXITY, "perplexity", "perplexity", "Perplexity (lower is better)", "token"),
        (LOSS, "loss (nats)", "loss (nats)", "Loss in nats (lower is better)", "query"),
        (MetricInfo("map", "mAP", "%", "higher", "images"), "mAP (%)", "mAP", "mAP", "image"),
    ],
)
def test_the_words_of_a_metric(metric, title, column, description, sample):
    assert (metric.title, metric.column, metric.description, metric.sample) == (title, column, description, sample)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (TOP1, 97.31, "97.3 %"),
        (TOP1, 0.0, "0.0 %"),
        (PERPLEXITY, 5.678, "5.68"),
        (PERPLEXITY, 12345.6, "12346"),
        (LOSS, 0.08321, "0.0832 nats"),
    ],
)
def test_a_value_has_its_unit_and_as_many_digits_as_it_takes(metric, value, text):
    assert metric.text(value) == text


def test_a_change_has_a_sign_the_digits_of_what_changes_and_points_between_percentages():
    assert (TOP1.change_text(-1.0, 97.0), TOP1.in_change_unit) == ("-1.0", " in points")
    assert (PERPLEXITY.change_text(0.123, 5.68), PERPLEXITY.in_change_unit) == ("+0.12", "")
    assert (LOSS.change_text(0.002, 0.0832), LOSS.in_change_unit) == ("+0.0020", " in nats")


def test_better_is_by_direction():
    assert TOP1.is_better(98.0, 97.0)
    assert not TOP1.is_better(97.0, 97.0)
    assert PERPLEXITY.is_better(5.0, 6.0)
    assert not PERPLEXITY.is_better(6.0, 5.0)


def entry(value, count=297):
    return {"value": value, "unit": "nats", "better": "lower", "count": count, "of": "images", "label": "loss"}


def row(after, dense, **more):
    names = {"metrics": after, "dense_metrics": dense}
    return {"headline": "loss", **{column: {"loss": entry(value)} for column, value in names.items()}, **more}


def test_the_change_to_dense_is_taken_per_member_and_skips_what_was_not_measured():
    rows = [row(1.0, 0.5), row(3.0, 1.0), row(float("nan"), 1.0)]
    assert mean_change(rows, "loss") == pytest.approx((0.5 + 2.0) / 2)
    assert mean_change(rows[2:], "loss") is None
    assert value_of(rows[2], "loss") is None
    assert value_of(rows[0], "other") is None


def test_the_headline_comes_first_and_counts_are_of_the_metric():
    metrics = {"extra": {**entry(1.0), "label": "extra"}, "loss": entry(2.0, count=10_000)}
    rows = [row(1.0, 0.5), row(1.0, 0.5, metrics=metrics)]
    assert [metric.name for metric in metrics_of(rows[1:])] == ["loss", "extra"]
    assert headline(rows).unit == "nats"
    assert counts_text(rows, "loss") == "297, 10,000"

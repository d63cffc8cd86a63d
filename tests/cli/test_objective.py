import pytest

from spp.cli.objective import MetricValue, PointFailed, objective_of
from spp.plan.spec import Stage
from spp.store.store import Store

TOP1 = {"unit": "%", "better": "higher", "count": 150, "of": "images", "label": "top-1"}
ERROR = {"unit": "px", "better": "lower", "count": 150, "of": "images", "label": "error"}


@pytest.fixture
def measured(tmp_path):
    """measured(name, summary): a final stage that is done."""
    store = Store(tmp_path)

    def one(name, summary):
        stage = Stage("measure", {"name": name})
        store.put_spec(stage)
        store.begin("measure", stage.key)
        store.finish("measure", stage.key, summary)
        return stage

    return one


def summary_of(value, description, name, test):
    metrics = {"test": {name: {**description, "value": test}}, "val": {name: {**description, "value": value}}}
    return {"headline": name, "metrics": metrics}


@pytest.mark.parametrize(("name", "description"), [("top1", TOP1), ("error", ERROR)])
def test_it_is_the_mean_headline_metric_on_the_validation_split(tmp_path, measured, name, description):
    stages = [measured(n, summary_of(value, description, name, 0.0)) for n, value in enumerate((90.0, 80.0))]
    found = objective_of(tmp_path, stages)
    assert found == 85.0
    assert (found.label, found.unit, found.better) == (description["label"], description["unit"], description["better"])
    assert str(found) == f"{description['label']} 85 {description['unit']}"
    assert MetricValue.read(found.plain()).plain() == found.plain()


def test_there_is_none_without_a_metric(tmp_path, measured):
    assert objective_of(tmp_path, [measured(0, {"members": {}})]) is None
    assert objective_of(tmp_path, []) is None


def test_a_stage_that_is_not_done_is_named(tmp_path, measured):
    missing = Stage("measure", {"name": "missing"})
    with pytest.raises(PointFailed, match=f"measure {missing.key} is not done"):
        objective_of(tmp_path, [measured(0, summary_of(1.0, TOP1, "top1", 0.0)), missing])

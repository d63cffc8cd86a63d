import io

import pytest
from rich.console import Console

from spp.cli.display import RunDisplay
from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.schedule.events import Event, What
from spp.store.store import Store

ERROR = {"value": 0.51234, "unit": "px", "better": "lower", "count": 297, "of": "images", "label": "error"}
TOP1 = {"value": 97.30639, "unit": "%", "better": "higher", "count": 297, "of": "images", "label": "top-1"}


@pytest.mark.parametrize(
    ("summary", "shown"),
    [
        ({"headline": "top1", "metrics": {"test": {"top1": TOP1}, "val": {}}}, "test top-1 97.31 %"),
        ({"headline": "error", "metrics": {"test": {"error": ERROR}}}, "test error 0.5123 px"),
        ({"headline": "error", "val": {"error": ERROR, "top1": TOP1}}, "validation error 0.5123 px"),
        ({"members": {"0.5": {}, "0.3": {}}}, "2 members"),
        ({"support": {"all": 0.6}, "num_units": 40}, "60 % of 40 units entered"),
    ],
)
def test_a_stage_that_is_done_says_what_it_came_to(tmp_path, summary, shown):
    stage, store, said = Stage("measure", {}, label="member 0.5"), Store(tmp_path), io.StringIO()
    store.put_spec(stage)
    store.begin(stage.kind, stage.key)
    store.finish(stage.kind, stage.key, summary)
    display = RunDisplay(Plan.merge([Point("p", (), (stage,))]), store, Console(file=said, width=200))
    display.observe(Event(What.DONE, stage))
    assert said.getvalue().rstrip().endswith(shown)

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


def test_lines_of_a_long_stage_become_rare(tmp_path, monkeypatch):
    stage, store, said, clock = Stage("dense", {}), Store(tmp_path), io.StringIO(), [0.0]
    monkeypatch.setattr("spp.cli.display.time.monotonic", lambda: clock[0])
    store.put_spec(stage)
    store.begin(stage.kind, stage.key)
    store.write_progress(stage.kind, stage.key, done=1, total=9, unit="steps", message="epoch 1")
    display = RunDisplay(Plan.merge([Point("p", (), (stage,))]), store, Console(file=said, width=200))
    display.observe(Event(What.STARTED, stage))
    expected, last = [], 0
    for second in range(1, 7200):
        clock[0] = float(second)
        if second - last >= 5 and 20 * (second - last) >= second:
            expected.append(second)
            last = second
        if second < 300 or second % 20 == 0 or second in expected:
            before = len(said.getvalue())
            display._show_progress(stage)
            assert (len(said.getvalue()) > before) == (second in expected)
    assert 80 < len(expected) < 150  # a line for every five seconds would be 1,440

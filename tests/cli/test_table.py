import pytest
from hypothesis import given
from hypothesis import strategies as st

from spp.cli.table import human_resources, human_time, last_line, state_bar
from spp.plan.cluster import ClusterConfig
from spp.schedule.status import State


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (86399, "23 h 59 min"),
        (90000, "1 d 01 h"),
    ],
)
def test_times_have_their_two_largest_units(seconds, text):
    assert human_time(seconds) == text


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({}, "60 min"),
        ({"gpus_per_node": 4}, "4 GPU, 60 min"),
        ({"num_nodes": 2, "gpus_per_node": 4, "cpus_per_task": 8, "timeout_min": 480}, "2 x 4 GPU, 8 cpu, 480 min"),
        ({"num_nodes": 2}, "2 x 1 process, 60 min"),
        ({"tasks_per_node": 2, "mem_gb": 32, "partition": "a100"}, "2 processes, 32 GB, 60 min, a100"),
    ],
)
def test_resources_without_what_goes_without_saying(asked, text):
    resources = ClusterConfig(name="slurm", resources={"default": asked}).resources_of("update").plain()
    assert human_resources(resources, submitted=True) == text


def test_only_what_this_machine_shares_out_counts_on_it():
    asked = {"gpus_per_node": 2, "cpus_per_task": 8, "timeout_min": 480, "partition": "a100"}
    resources = ClusterConfig(name="local", resources={"default": asked}).resources_of("update").plain()
    assert human_resources(resources, submitted=False) == "2 GPU"


@given(
    counts=st.dictionaries(st.sampled_from([state.value for state in State]), st.integers(1, 10_000), min_size=1),
    width=st.integers(len(State), 60),
)
def test_a_bar_is_as_wide_as_asked_and_shows_every_state(counts, width):
    bar = state_bar(counts, width)
    assert len(bar.plain) == width
    assert len(bar.spans) == len(counts)
    assert all(span.end > span.start for span in bar.spans)


def test_the_last_line_of_a_traceback():
    assert last_line("Traceback\n  File\nValueError: no\n\n") == "ValueError: no"
    assert last_line(None) == "it ended without a word"

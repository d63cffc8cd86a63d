"""Table 7: latencies of CLIP as they were measured, and what was not."""

from dataclasses import replace

import pytest

from spp.record.latencies import latency_rows
from spp.report.published import load_published
from spp.report.tables import table7

PUBLISHED = load_published()
MACHINE = {"processor": "CPU", "threads": 2, "torch": "2.9", "gpu": None}


def measured(dense="CLIP 428M, dense", params=427_944_193, time_ms=10.0, when="2026-01-01", **more):
    """What `spp benchmark` says of a network and a member of it, whole and by tower, at batch 1 and 32."""
    networks, rows = [], []
    for name, source, origin in ((dense, None, {}), ("small", dense, {"method": "spp", "budget": BUDGET})):
        for part in ("whole", "vision", "text"):
            own, of = (f"{each}, {part}" if each and part != "whole" else each for each in (name, source))
            share = 1.0 if source is None else 0.5
            networks.append(
                {"name": own, "part": part, "macs": share * 2e9, "params": int(share * params), "dense": of}
                | {"origin": origin}
            )
            for batch_size in (1, 32):
                ms = time_ms * share * batch_size
                setting = {"network": own, "runtime": "eager", "device": "cpu", "batch_size": batch_size}
                times = {"median_ms": ms, "low_ms": ms - 1, "high_ms": ms + 1, "num_runs": 7, "per_second": 1.0}
                ratios = {"speed_up": 2.0 if source else None, "ideal": 2.0 if source else None, "of_ideal": None}
                rows.append(
                    {**setting, "num_threads": 1, "dtype": "float32", **times, "peak_mb": None, **ratios, **more}
                )
    return {"machine": MACHINE, "networks": networks, "rows": rows, "skipped": {}, "measured_at": when}


BUDGET = {"kind": "macs", "value": 0.5}


def table_of(make_record, *kept):
    (table,) = table7.tables(replace(make_record(), latencies=latency_rows(kept)), PUBLISHED)
    return table


def test_what_was_not_measured_says_so_and_how(make_record, texts_of):
    table = table_of(make_record)
    assert [(line["model"], line["network"], line["latency, ours (ms)"]) for line in texts_of(table)] == [
        (model, network, "not measured") for model in ("clip_large", "clip_base") for network in ("dense", "compressed")
    ]
    assert {line["latency, published (ms)"] for line in texts_of(table)} == {"unknown"}
    assert len(table.todo) == 2
    assert all("spp benchmark DIR --keep" in line for line in table.todo)


def test_dense_and_compact_stand_together_whole_and_by_tower(make_record, texts_of):
    lines = [line for line in texts_of(table_of(make_record, measured())) if line["model"] == "clip_large"]
    assert [(line["part"], line["batch"], line["network"]) for line in lines] == [
        (part, batch, network)
        for part in ("both", "vision", "text")
        for network, batch in (
            ("dense", "1"),
            ("dense", "32"),
            ("small (spp macs 50 %)", "1"),
            ("small (spp macs 50 %)", "32"),
        )
    ]
    (line,) = (one for one in lines if (one["part"], one["batch"], one["network"][:5]) == ("text", "32", "small"))
    assert line["latency, ours (ms)"] == "160"
    assert line["quartiles (ms)"] == "159 to 161"
    assert (line["device"], line["threads"], line["dtype"], line["speed-up"]) == ("CPU", "1", "float32", "2.00")
    assert line["latency, published (ms)"] == "unknown"


@pytest.mark.parametrize("params", [264_000, 427_944_194])
def test_another_model_has_its_own_name_and_no_published_value(make_record, texts_of, params):
    table = table_of(make_record, measured("CLIP 264k, dense", params))
    ours = [line for line in texts_of(table) if line["model"] == "CLIP 264k"]
    assert len(ours) == 12
    assert {line["latency, published (ms)"] for line in ours} == {""}
    assert len(table.todo) == 2


def test_the_last_measurement_counts_and_other_threads_stand_beside_it(make_record):
    kept = [measured(time_ms=10.0), measured(time_ms=20.0, when="2026-01-02"), measured(num_threads=2)]
    data = [row for row in table_of(make_record, *kept).data if row["model"] == "clip_large"]
    assert len(data) == 24
    found = {
        row["num_threads"]: row["median_ms"] for row in data if row["network"] == "dense" and row["batch_size"] == 1
    }
    assert found == {1: 20.0, 2: 10.0}


def test_networks_without_towers_are_not_in_it(make_record):
    vit = measured()
    kept = {"networks": [each for each in vit["networks"] if each["part"] == "whole"]}
    kept["rows"] = [row for row in vit["rows"] if "," not in row["network"].removesuffix(", dense")]
    assert all(row["median_ms"] is None for row in table_of(make_record, {**vit, **kept}).data)

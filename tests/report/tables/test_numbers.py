"""The numbers of the tables against what the stages have written down, read by a few lines of the test's own."""

import json
from statistics import mean, stdev

import pytest

from spp.record.record import RequestedMember
from spp.report.published import load_published
from spp.report.tables import compare, cost, family, figure1, figure2, stability, table1, table6, table8

PUBLISHED = load_published()
LABELS = ["spp (priced)", "magnitude", "spp (released)"]


def read(root, kind, key, name):
    return json.loads((root / "stages" / kind / key / name).read_text())


@pytest.fixture(scope="module")
def members(compared_store):
    """label, seed, budget, summary of the member, and the summaries of its searches."""
    found = []
    for folder in (compared_store / "stages" / "measure").glob("*/"):
        spec = json.loads((folder / "spec.json").read_text())
        if "reference" not in spec["inputs"]:
            continue
        finetune = spec["inputs"]["member"]["key"]
        trained = read(compared_store, "finetune", finetune, "spec.json")
        repaired = read(compared_store, "repair", trained["inputs"]["family"]["key"], "spec.json")
        family = read(compared_store, "prune", repaired["inputs"]["family"]["key"], "spec.json")
        path = family["inputs"]["path"]
        method = read(compared_store, path["kind"], path["key"], "spec.json")["config"]["method"]
        label = f"spp ({method['preset']})" if method["name"] == "spp" else method["name"]
        dense = read(compared_store, "measure", spec["inputs"]["reference"]["key"], "summary.json")
        searches = [
            read(compared_store, path["kind"], path["key"], "summary.json"),
            read(compared_store, "prune", family["key"], "summary.json"),
        ]
        summary = json.loads((folder / "summary.json").read_text())
        seconds = read(compared_store, "finetune", finetune, "summary.json")["seconds"]
        summary["finetune_seconds"] = seconds
        found.append((label, trained["config"]["seed"], summary["budget"]["value"], summary, searches, dense))
    assert len(found) == 12
    return found


def lines_of(table):
    head = [column.title for column in table.columns]
    return [dict(zip(head, row, strict=True)) for row in table.rows]


def spread(values):
    return f"{mean(values):.1f} ± {stdev(values):.1f}"


def top1_of(members, label, budget, which="test"):
    return [
        one[3]["metrics"][which]["top1"]["value"]
        for one in sorted(members, key=lambda one: one[1])
        if (one[0], one[2]) == (label, budget)
    ]


def test_table1(members, compared):
    _, table = table1.tables(compared, PUBLISHED)
    lines = {(one["method"].text, one["budget asked"].text): one for one in lines_of(table)}
    assert lines["dense", ""]["ours (%)"].text == spread(
        {one[1]: one[5]["metrics"]["test"]["top1"]["value"] for one in members}.values()
    )
    assert {method for method, _ in lines} == {"dense", *LABELS}
    for label in LABELS:
        for budget in (0.5, 0.3):
            line = lines[label, f"macs {100 * budget:g} %"]
            assert line["ours (%)"].text == spread(top1_of(members, label, budget))
            sizes = [one[3]["macs"] for one in members if (one[0], one[2]) == (label, budget)]
            assert line["FLOPs (M)"].value == pytest.approx(mean(sizes) / 1e6)  # the dense network has 5.24 M
            assert (line["seeds"].text, line["test images"].text) == ("2", "297")
    for row in table.data:
        if row["method"] != "dense":
            assert row["ours"] == pytest.approx(mean(top1_of(members, row["method"], float(row["budget"][5:-2]) / 100)))


def test_family_and_compare(members, compared):
    (family_table,), (compare_table,) = family.tables(compared, PUBLISHED), compare.tables(compared, PUBLISHED)
    for label in LABELS:
        short = "spp" if label == "spp (priced)" else label
        (line,) = (one for one in lines_of(compare_table) if one["method"].text == short)
        for budget in (0.5, 0.3):
            name = f"{100 * budget:g} %"
            assert line[f"{name} after"].text == spread(top1_of(members, label, budget))
            assert line[f"{name} before"].text == spread(top1_of(members, label, budget, "before"))
            rows = [
                one
                for one in lines_of(family_table)
                if (one["method"].text, one["asked"].text) == (short, f"macs {name}")
            ]
            assert [one["top-1 after"].text for one in rows] == [spread(top1_of(members, label, budget))]
        seconds = {one[1]: sum(part["seconds"] for part in one[4]) for one in members if one[0] == label}
        assert line["total (s)"].value == pytest.approx(sum(seconds.values()))
        assert line["per member (s)"].value == pytest.approx(sum(seconds.values()) / 4)
        assert line["searches"].text == "2"


def test_cost(members, compared):
    (table,) = cost.tables(compared, PUBLISHED)
    published = {one["method"].text: one["search (epochs)"].text for one in lines_of(table)[:4]}
    assert published == {"upop": "60", "wdpruning": "100", "vit_slim": "50", "spp": "40"}
    for line in table.data[4:]:
        label = f"spp ({line['preset']})" if line["preset"] else line["method"]
        seconds = {one[1]: sum(part["seconds"] for part in one[4]) for one in members if one[0] == label}
        assert line["search_seconds"] == pytest.approx(sum(seconds.values()))
        assert line["search_seconds_per_seed"] == pytest.approx(mean(seconds.values()))
        # Two budgets: a search for each would have taken twice as long.
        assert line["search_seconds_one_per_budget"] == pytest.approx(2 * mean(seconds.values()))
        finetune = [one[3]["finetune_seconds"] for one in members if one[0] == label]
        assert line["finetune_seconds_per_member"] == pytest.approx(mean(finetune))
    assert len(table.data) == 7


def test_a_search_for_each_budget_is_counted_as_such(make_row, make_record):
    rows = [make_row(method="upop", budget_asked=b, search_key=str(b), family_key=str(b)) for b in (0.5, 0.3)]
    shared = [make_row(budget_asked=b) for b in (0.5, 0.3)]
    *_, upop, spp = cost.tables(make_record(*rows, *shared), PUBLISHED)[0].data
    assert (upop["num_searches"], upop["search_seconds_per_seed"], upop["search_seconds_one_per_budget"]) == (2, 60, 60)
    assert (spp["num_searches"], spp["search_seconds_per_seed"], spp["search_seconds_one_per_budget"]) == (1, 30, 60)


def test_a_search_that_is_walked_twice_costs_once(make_row, make_record):
    rows = [make_row(budget_asked=b, family_key=str(b), key=str(b)) for b in (0.5, 0.3)]  # 30 s, 5 of them the walk
    record = make_record(*rows)
    line = cost.tables(record, PUBLISHED)[0].data[-1]
    assert (line["num_searches"], line["search_seconds"], line["search_seconds_per_member"]) == (1, 35, 17.5)
    (table,) = compare.tables(record, PUBLISHED)
    assert {name: lines_of(table)[1][name].text for name in ("searches", "total (s)")} == {
        "searches": "1",
        "total (s)": "35",
    }
    (table,) = figure1.tables(record, PUBLISHED)
    assert (table.data[0]["num_searches_per_seed"], table.data[0]["search_seconds_per_seed"]) == (1, 35)


def test_dense_networks_that_differ_by_more_than_their_seed_are_not_averaged(make_row, make_record):
    long = [make_row(seed=s, dense_key=f"l{s}", dense_config={"recipe": {"epochs": 40}}) for s in (0, 1)]
    short = make_row(dense_key="s", dense_top1=12.0, variant="debug=fast", dense_config={"recipe": {"epochs": 1}})
    record = make_record(*long, short)
    expected = {"dense (recipe.epochs=40)": "97.0 ± 0.0", "dense (recipe.epochs=1)": "12.0"}
    for module, column in ((compare, "50 % after"), (family, "top-1 after"), (table1, "ours (%)")):
        lines = lines_of(module.tables(record, PUBLISHED)[-1])
        dense = {one["method"].text: one[column].text for one in lines if one["method"].text.startswith("dense")}
        assert dense == expected


def test_a_legend_tells_of_how_many_seeds_the_means_are(make_row, make_record):
    rows = [make_row(seed=seed) for seed in (0, 1, 2)] + [make_row(method="taylor", preset=None)]
    assert "over 1 to 3 seeds" in compare.tables(make_record(*rows), PUBLISHED)[0].legend[0]
    assert "over 3 seeds" in family.tables(make_record(*rows[:3]), PUBLISHED)[0].legend[0]
    assert "seeds" not in family.tables(make_record(rows[0]), PUBLISHED)[0].legend[0]


def test_figure1(members, compared):
    (table,) = figure1.tables(compared, PUBLISHED)
    assert len(table.data) == 6
    for line in table.data:
        label = f"spp ({line['preset']})" if line["preset"] else line["method"]
        assert line["value"] == pytest.approx(mean(top1_of(members, label, line["budget_asked"])))
        seconds = {one[1]: sum(part["seconds"] for part in one[4]) for one in members if one[0] == label}
        assert line["search_seconds_per_seed"] == pytest.approx(mean(seconds.values()))
        assert line["num_searches_per_seed"] == 1
    assert [line.split(",")[0] for line in table.todo] == ["lasso"]


def test_figure2(compared, compared_store):
    (table,) = figure2.tables(compared, PUBLISHED)
    assert len(table.rows) == 4
    for source, line in zip(compared.paths, table.data, strict=True):
        summary = read(compared_store, "update", source.key, "summary.json")
        assert (line["num_units"], line["num_steps"]) == (summary["num_units"], summary["num_steps"])
        # Inside at the end are those that entered and did not leave again.
        assert line["entered"] >= 100 * summary["support"]["all"] - 1e-3


def test_figure2_wants_a_path(make_record, make_row):
    with pytest.raises(ValueError, match="no finished path; allowed"):
        figure2.tables(make_record(make_row()), PUBLISHED)


def test_stability(members, compared):
    (table,) = stability.tables(compared, PUBLISHED)
    assert sorted((line["preset"], line["num_seeds"]) for line in table.data) == [("priced", 2), ("released", 2)]
    for line in table.data:
        deviations = [stdev(top1_of(members, f"spp ({line['preset']})", budget)) for budget in (0.5, 0.3)]
        assert line["deviation"] == pytest.approx(mean(deviations))
        assert -1 <= line["tau"] <= 1
        assert line["overlap_0.2"] < line["overlap_0.5"] < line["overlap_0.7"]
    assert table.todo == ()


def test_stability_of_one_seed_names_the_sweep(compared, make_record):
    (table,) = stability.tables(make_record(), PUBLISHED)
    assert ["spp run -m experiment=stability " in line for line in table.todo] == [True]


def test_table6(compared, make_row, make_record):
    (table,) = table6.tables(compared, PUBLISHED)
    ours = [one for one in lines_of(table) if one["recipe"].text == "ours"]
    assert [(one["model"].text, one["finetune (epochs)"].text, one["members"].text) for one in ours] == [
        ("vit_micro", "1", "8")
    ]
    row = make_row(model="deit_small", data="imagenet", epochs_finetune=30)
    (table,) = table6.tables(make_record(row), PUBLISHED)
    paper, ours = (one for one in lines_of(table) if one["model"].text == "deit_small")
    assert [cell.text for cell in list(paper.values())[3:8]] == ["10", "30", "300", "512", "0.0008"]
    assert {name for name, cell in ours.items() if cell.marks} == {"finetune (epochs)"}
    assert not any("table6_deit_small" in line for line in table.todo)


def test_table8_is_a_grid(make_row, make_record):
    rows = [
        make_row(
            top1=90 + kappa + lam + seed,
            seed=seed,
            variant=f"method.kappa={kappa} method.lam={lam}",
            method_config={"kappa": kappa, "lam": lam},
        )
        for kappa, lam in ((0.5, 0.2), (0.5, 0.4), (1.0, 0.2))
        for seed in (0, 1)
    ]
    (table,) = table8.tables(make_record(*rows), PUBLISHED)
    assert [column.title for column in table.columns] == ["budget", "kappa", "lambda 0.2", "lambda 0.4"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["50 %", "0.5", "91.2 ± 0.7", "91.4 ± 0.7"],
        ["50 %", "1", "91.7 ± 0.7", "not run"],
    ]


def test_table8_without_a_grid_names_the_sweep(compared):
    (table,) = table8.tables(compared, PUBLISHED)
    assert len(table.rows) == 2
    assert ["method.kappa=" in line and "method.lam=" in line for line in table.todo] == [True]


def test_budgets_that_only_others_have_are_not_run(make_row, make_record):
    record = make_record(
        make_row(), make_row(method="upop", preset=None, budget_asked=0.3, command="spp run method=upop")
    )
    (table,) = compare.tables(record, PUBLISHED)
    assert [one["30 % after"].text for one in lines_of(table)] == ["97.0", "not run", "96.0"]
    assert ["budget=macs 'budget.values=[0.3]'" in line for line in table.todo] == [True, False]


def test_what_a_method_cannot_serve_is_no_command(make_row, make_record):
    rows = [make_row(), make_row(budget_asked=0.3), make_row(method="dsp", preset=None, command="spp run method=dsp")]
    place = ("dsp", None, "", "classification", "vit", "digits", 0)
    (table,) = compare.tables(make_record(*rows, out_of_reach=[RequestedMember(*place, "macs", 0.3)]), PUBLISHED)
    assert [one["30 % after"].text for one in lines_of(table)] == ["97.0", "96.0", "out of reach"]
    assert table.todo == ()
    (table,) = compare.tables(make_record(*rows, out_of_reach=[RequestedMember(*place, "params", 0.3)]), PUBLISHED)
    assert [one["30 % after"].text for one in lines_of(table)] == ["97.0", "96.0", "not run"]
    assert len(table.todo) == 1


def test_gpu_seconds_are_compared_where_there_are_any(make_row, make_record):
    record = make_record(make_row(search_gpu_seconds=120.0), make_row(budget_asked=0.3, search_gpu_seconds=120.0))
    (table,) = compare.tables(record, PUBLISHED)
    _, line = lines_of(table)
    assert (line["total (GPU-s)"].text, line["per member (GPU-s)"].text) == ("120", "60.0")

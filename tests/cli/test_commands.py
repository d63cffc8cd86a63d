"""plan, status, report and extract on a finished sweep."""

import json
import shutil

import pytest
import torch

import spp
from spp.cli.main import main
from spp.store.store import Store


def output_of(capsys, *argv):
    assert main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


def test_plan_shows_what_is_done_and_what_is_not_and_changes_nothing(finished, capsys):
    root, _ = finished
    before = sorted(path.stat().st_mtime_ns for path in root.rglob("*"))
    plan = json.loads(
        output_of(capsys, "plan", "-m", "debug=fast", "finetune.epochs=1,2", f"paths.store={root}", "--json")
    )
    states = [(row["stage"], row["state"]) for row in plan["stages"]]
    assert states == [
        ("dense", "done"),
        ("update", "done"),
        ("prune", "done"),
        ("repair", "done"),
        ("finetune", "done"),
        *[("measure", "done")] * 2,
        ("finetune", "done"),
        ("measure", "done"),
        *[("finetune", "queued"), ("measure", "queued")] * 2,
    ]
    assert plan["num_points"] == 2
    assert [row["points"] for row in plan["stages"]] == [2, 2, 2, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1]
    assert plan["stages"][-1]["seconds"] > 0
    assert before == sorted(path.stat().st_mtime_ns for path in root.rglob("*"))


def test_plan_and_status_print_a_table(finished, capsys):
    root, sweep = finished
    assert "9 after sharing, 9 done" in " ".join(output_of(capsys, "plan", "debug=fast", f"paths.store={root}").split())
    text = output_of(capsys, "status", sweep, f"paths.store={root}")
    assert sweep in text
    assert "9/9" in text
    state = json.loads(output_of(capsys, "status", sweep, f"paths.store={root}", "--json"))
    assert {stage["state"] for stage in state["stages"]} == {"done"}


def test_plan_for_a_cluster_numbers_the_calls_of_sbatch(finished, capsys):
    root, _ = finished
    words = ["-m", "debug=fast", "seed=0,1,2", "cluster=slurm", "cluster.resources.default.gpus_per_node=2"]
    plan = json.loads(output_of(capsys, "plan", *words, f"paths.store={root}", "--json"))
    # Two members of two families: each array has one member of either, so that it waits just for its own family.
    assert [row["array"] for row in plan["stages"]] == [None] * 9 + [1, 2, 4, 5, 6, 3, 8, 7, 9] * 2
    assert plan["num_arrays"] == 9
    assert (plan["num_done"], plan["num_missing"]) == (9, 18)
    # What was measured without a GPU says nothing about hours on one: these are by its peak.
    assert {row["estimated_by"] for row in plan["stages"] if row["state"] == "queued"} == {"nominal"}
    assert (plan["num_unknown"], plan["cpu_hours"]) == (0, 0)
    assert plan["gpu_hours"] == sum(row["gpu_seconds"] for row in plan["stages"]) / 3600


def test_jobs_get_a_gpu_by_the_users_word_where_the_login_node_has_none(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = ["debug=fast", "cluster=slurm", f"paths.store={tmp_path}", "--json"]
    asked = {}
    for accelerator in ("gpu", "auto"):
        plan = json.loads(output_of(capsys, "plan", f"accelerator={accelerator}", *words))
        asked[accelerator] = {row["resources"]["gpus_per_node"] for row in plan["stages"]}
    assert asked == {"gpu": {1}, "auto": {0}}


def test_what_was_submitted_is_not_planned_again_and_is_ended_by_its_own_sweep(
    tmp_path, capsys, fake_slurm, monkeypatch
):
    monkeypatch.setenv("FAKE_SLURM_RUN", "0")
    store = Store(tmp_path / "store")
    words = ["debug=fast", "logger=off", "cluster=slurm", f"paths.store={store.root}"]
    sweeps = []
    for seeds in (["-m", "seed=0,1"], ["seed=0"]):
        output_of(capsys, "run", *seeds, *words)
        sweeps.append(store.latest())
    plan = json.loads(output_of(capsys, "plan", "-m", "seed=1,2", *words, "--json"))
    assert (plan["num_waiting"], plan["num_missing"]) == (9, 9)
    assert [row["array"] is None for row in plan["stages"]] == [True] * 9 + [False] * 9
    results = [json.loads(output_of(capsys, "cancel", sweep, "--json", words[-1])) for sweep in (*sweeps, sweeps[0])]
    numbers = [(len(result["jobs_ended"]), len(result["jobs_kept"])) for result in results]
    # Once the second sweep does not want them any more, nothing keeps the jobs of the first.
    assert numbers == [(9, 9), (0, 9), (9, 0)]


def test_plan_adds_up_hours_of_what_is_to_do(tmp_path, capsys):
    words = ["debug=fast", "cluster=slurm", "cluster.resources.default.gpus_per_node=4", f"paths.store={tmp_path}"]
    plan = json.loads(output_of(capsys, "plan", *words, "--json"))
    for row in plan["stages"]:
        assert row["gpu_seconds"] == 4 * row["seconds"]
    assert plan["gpu_hours"] == pytest.approx(sum(row["gpu_seconds"] for row in plan["stages"]) / 3600)
    text = output_of(capsys, "plan", *words)
    assert f"{plan['gpu_hours']:.2f} GPU-hours" in text
    assert "4 GPU, 4 cpu, 120 min" in text
    on_cpu = json.loads(output_of(capsys, "plan", "debug=fast", words[-1], "--json"))
    assert on_cpu["gpu_hours"] == 0
    assert on_cpu["cpu_hours"] == pytest.approx(sum(row["seconds"] for row in on_cpu["stages"]) / 3600)
    assert "on the CPU" in output_of(capsys, "plan", "debug=fast", words[-1])


def test_a_large_plan_has_a_row_per_kind(tmp_path, capsys):
    text = output_of(capsys, "plan", "-m", "debug=fast", "seed=range(20)", f"paths.store={tmp_path}")
    rows = [line.split() for line in text.splitlines()]
    assert ["finetune", "40", "0", "0", "40"] in [row[:5] for row in rows]
    assert ["measure", "60", "0", "0", "60"] in [row[:5] for row in rows]
    assert "20 points, 180 stages asked for, 180 after sharing, 0 done, 180 to run" in text


def test_a_point_in_the_middle_of_the_words_does_not_matter(finished, capsys):
    root, _ = finished
    text = output_of(capsys, "plan", f"paths.store={root}", "-m", "debug=fast", "--json", "seed=0,1")
    assert json.loads(text)["num_points"] == 2


def test_a_value_given_twice_is_one_point(finished, tmp_path, capsys):
    root = shutil.copytree(finished[0], tmp_path / "store")
    assert main(["run", "-m", "debug=fast", "logger=off", "seed=0,0", f"paths.store={root}"]) == 0
    assert "1 point, 9 stages" in capsys.readouterr().out


def test_keys_know_weights_by_their_hash_and_not_by_their_path(tmp_path, capsys):
    tables = []
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"the same weights")
        words = [f"model.weights={tmp_path / name}", f"paths.store={tmp_path / 'store'}", "--json"]
        tables.append(json.loads(output_of(capsys, "plan", "debug=fast", *words))["stages"])
    assert [row["key"] for row in tables[0]] == [row["key"] for row in tables[1]]


@pytest.mark.parametrize(("kind", "size"), [("macs", "0.4"), ("params", "150k"), ("units", "0.37"), ("macs", "0.9")])
def test_extract_gives_what_it_promises(finished, tmp_path, capsys, kind, size):
    root, sweep = finished
    words = (f"--{kind}", size, "--multiple-of", "1", "--no-measure", "--out", tmp_path, f"paths.store={root}")
    text = output_of(capsys, "extract", sweep, *words)
    member = spp.load(tmp_path)
    cost = spp.count_cost(member, torch.zeros(1, 1, 8, 8))
    assert f" {cost.params:,} " in text
    key = next(path.name for path in (root / "stages" / "update").iterdir() if path.is_dir())
    path = spp.SolutionPath.load(Store(root).artifacts_dir("update", key))
    masks = path.masks(**{kind: 150e3 if size == "150k" else float(size)})
    assert cost == path.cost_of(masks)


def test_extract_takes_the_weights_of_the_nearest_larger_member(finished, tmp_path, capsys):
    root, sweep = finished
    for size, weights in (("0.4", "member_0.5"), ("0.2", "member_0.3"), ("0.9", "dense")):
        words = ("--macs", size, "--no-measure", "--out", tmp_path, "--force", f"paths.store={root}")
        (line,) = (line for line in output_of(capsys, "extract", sweep, *words).splitlines() if "weights:" in line)
        assert weights in line


def test_extract_at_a_member_size_is_that_member_as_it_was_finetuned(finished, tmp_path, capsys):
    root, sweep = finished
    text = output_of(capsys, "extract", sweep, "--macs", "0.5", "--out", tmp_path, f"paths.store={root}")
    store = Store(root)
    tunes = [stage for stage in store.read_plan(sweep).stages.values() if stage.kind == "finetune"]
    (key,) = (stage.key for stage in tunes if stage.config["budget"]["value"] == 0.5)
    assert f"finetune {key}" in text
    images = torch.randn(4, 1, 8, 8)
    with torch.inference_mode():
        extracted, member = (spp.load(where)(images) for where in (tmp_path, store.artifacts_dir("finetune", key)))
    torch.testing.assert_close(extracted, member)

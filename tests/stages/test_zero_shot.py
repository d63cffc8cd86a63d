"""Zero-shot tasks, asked layer by layer, against the harness with the whole model of transformers in memory."""

import json
import shutil
from pathlib import Path

import pytest

from spp.cli.main import main
from spp.data import harness
from spp.record.record import read_record
from spp.report.published import load_published
from spp.report.tables import llm
from spp.stages import measure_language
from spp.stages.worker import run_stage
from spp.store.store import Store

transformers = pytest.importorskip("transformers", reason="the extra llm is not installed")

QUESTIONS = [
    {"question": f"The {thing} is", "choices": [colour, "of no colour at all", "green"], "answer": number % 3}
    for number, (thing, colour) in enumerate(
        [("sky", "blue"), ("grass, seen from far away, through rain," * 3, "red"), ("snow", "white"),
         ("night", "black"), ("sun", "yellow"), ("sea", "blue"), ("rose", "red"), ("coal", "black"), ("gold", "golden"),
         ("fog", "grey")]
    )
]  # fmt: skip
TASK = """
task: colours
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
doc_to_choice: choices
metric_list:
  - metric: acc
  - metric: acc_norm
metadata:
  version: 3.0
"""
WORDS = [
    "pipeline=one_shot", "task=language", "model=llama2_7b", "data=pydocs", "logger=off", "data.length=32",
    "data.num_windows=4", "calibration.num_windows=4", "calibration.length=32", "method=wanda", "sparsity=2of4",
]  # fmt: skip


def words_of(folder, **more):
    further = [f"{name}={value}" for name, value in more.items()]
    return [*WORDS, f"model.weights={folder / 'model'}", f"zero_shot.root={folder / 'tasks'}", *further]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, given_language_model):
    """A small Llama with a tokenizer of bytes that begins every text with a token of its own, and a task."""
    folder = tmp_path_factory.mktemp("zero-shot")
    given_language_model("llama", folder / "model")
    (folder / "tasks").mkdir()
    (folder / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    (folder / "tasks" / "colours.yaml").write_text(TASK.format(file=folder / "questions.jsonl"))
    return folder


@pytest.fixture(scope="module")
def asked(folder, made_once, tmp_path_factory):
    """A store whose dense network and member were asked, special tokens and all; files of the harness stay here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        pytest.importorskip("lm_eval", reason="lm_eval, of the extra llm, is not installed")

        def make(root):
            words = words_of(folder, **{"zero_shot.tasks": "[colours]", "paths.store": root})
            assert main(["run", *words]) == 0

        yield Store(made_once("zero-shot", make))


def by_the_harness(model_folder, tasks):
    """What the harness itself finds, with the whole model."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(pretrained=str(model_folder), device="cpu", batch_size=1, dtype="float32", max_length=64)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    return lm_eval.simple_evaluate(model, tasks=["colours"], task_manager=manager)["results"]["colours"]


@pytest.mark.filterwarnings("ignore")  # of the harness
def test_answers_versions_and_errors_are_those_of_the_harness_on_the_whole_model(asked, folder, tmp_path):
    (row,) = read_record(asked, asked.list_sweeps()).rows
    exported = ["export", row["key"][:16], "--format", "safetensors", "--out", str(tmp_path / "member")]
    assert main([*exported, f"paths.store={asked.root}"]) == 0
    for column, model in (("dense_zero_shot", folder / "model"), ("zero_shot", tmp_path / "member")):
        expected, found = by_the_harness(model, folder / "tasks"), row[column]["tasks"]["colours"]
        assert (found["version"], found["num_samples"], found["num_shots"]) == (3.0, len(QUESTIONS), 0)
        for metric in ("acc", "acc_norm"):
            ours = found["metrics"][metric]
            assert ours["value"] == pytest.approx(100 * expected[f"{metric},none"])
            assert ours["stderr"] == pytest.approx(100 * expected[f"{metric}_stderr,none"])
    summary = asked.artifacts_dir("measure", row["key"]) / "zero_shot.json"
    assert json.loads(summary.read_text())["results"]["colours"]["acc,none"] == pytest.approx(
        row["zero_shot"]["tasks"]["colours"]["metrics"]["acc"]["value"] / 100
    )


@pytest.mark.filterwarnings("ignore")
def test_asking_goes_on_after_a_kill_with_the_same_answers(asked, folder, monkeypatch, tmp_path):
    store = Store(Path(shutil.copytree(asked.root, tmp_path / "store")))
    (row,) = read_record(store, store.list_sweeps()).rows
    shutil.rmtree(store.stage_dir("measure", row["key"]))
    parts, real = [], measure_language._logits_of_rows

    def logits_of_rows(stage, model, rows):
        parts.append(len(rows))
        if len(parts) == 3:
            raise KeyboardInterrupt
        return real(stage, model, rows)

    monkeypatch.setattr(measure_language, "MAX_ASKED_AT_ONCE", 8 * 64)
    monkeypatch.setattr(measure_language, "_logits_of_rows", logits_of_rows)
    words = words_of(folder, **{"zero_shot.tasks": "[colours]", "paths.store": store.root})
    assert main(["run", *words]) != 0
    num_before = sum(parts[:2])
    parts.clear()
    run_stage(store.root, "measure", row["key"])
    assert sum(parts) == 3 * len(QUESTIONS) - num_before
    (again,) = read_record(store, store.list_sweeps()).rows
    assert again["zero_shot"] == row["zero_shot"]


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_task_fails_with_one_line(asked, folder, tmp_path, capsys):
    from spp.stages import zero_shot

    with pytest.raises(ValueError, match=r"^zero_shot.tasks: 'colors' is no task of lm_eval .*; correct the name$"):
        # Two names, of which one is here: the harness's own are not looked through.
        zero_shot._check_names(["colours", "colors"], ["colours"])
    file = folder / "tasks" / "gone.yaml"
    file.write_text(TASK.format(file="/nowhere/questions.jsonl").replace("task: colours", "task: gone"))
    try:
        words = words_of(folder, **{"zero_shot.tasks": "[gone]", "paths.store": tmp_path})
        assert main(["run", *words]) == 1
    finally:
        file.unlink()
    assert "zero_shot.tasks: gone cannot be opened (" in capsys.readouterr().out


def test_the_table_has_every_task_with_its_error(asked):
    record = read_record(asked, asked.list_sweeps())
    tables = {table.name: table for table in llm.tables(record, load_published())}
    table = tables["llm_zero_shot"]
    (row,) = record.rows
    dense, member = table.rows
    found = row["zero_shot"]["tasks"]["colours"]["metrics"]["acc"]
    titles = [column.title for column in table.columns]
    assert member[titles.index("colours acc")].text == f"{found['value']:.1f} ± {found['stderr']:.1f}"
    assert dense[titles.index("method")].text == "dense"
    assert any("colours 3.0" in sentence for sentence in table.legend)


def test_without_the_harness_it_is_one_line(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "PACKAGE", "lm_eval_that_is_not_installed")
    words = words_of(folder, **{"zero_shot.tasks": "[arc_easy]", "paths.store": tmp_path})
    assert main(["plan", *words]) == 2
    error = capsys.readouterr().err
    assert "zero_shot.tasks: they need the package lm_eval" in error
    assert "pip install 'spp[llm]'" in error
    assert main(["plan", *words_of(folder, **{"paths.store": tmp_path})]) == 0


def test_units_are_not_asked(tmp_path, capsys):
    assert main(["plan", "debug=fast", "zero_shot.tasks=[arc_easy]", f"paths.store={tmp_path}"]) == 2
    assert "zero_shot.tasks: ['arc_easy'] is not allowed; allowed: none where whole units go" in capsys.readouterr().err

"""What every command prints with --json is what docs/commands.schema.json says."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from spp.cli.main import main
from spp.cli.parsers import COMMANDS
from spp.store.claim import claim
from spp.store.store import Store

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "commands.schema.json").read_text())
WORDS = ["debug=fast", "logger=off"]


@pytest.fixture(scope="module")
def copied(finished, tmp_path_factory):
    """A copy of the finished store, with a sweep of which nothing is done beside the finished one."""
    root, sweep = finished
    store = Store(tmp_path_factory.mktemp("json") / "store")
    shutil.copytree(root, store.root)
    return store, sweep


@pytest.fixture
def told(copied, capsys):
    """told(name, *words): what a command printed, after it was held against the schema of that name."""
    store, _ = copied

    def answer(name, *words, code=0, lines=False):
        capsys.readouterr()
        assert main([*map(str, words), "--json", f"paths.store={store.root}"]) == code
        out = capsys.readouterr().out
        values = [json.loads(line) for line in out.splitlines()] if lines else [json.loads(out)]
        for value in values:
            check(name, value)
        return values if lines else values[0]

    return answer


def check(name, value):
    validator = jsonschema.Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{name.replace(' ', '%20')}"})
    validator.validate(value)


def test_the_schema_is_one_and_names_every_command():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(COMMANDS) <= set(SCHEMA["$defs"])


def test_what_is_not_as_described_is_noticed():
    good = {"sweep": "a"}
    check("rm", good)
    for bad in ({}, {"sweep": 3}, {"sweep": "a", "more": 1}, []):
        with pytest.raises(jsonschema.ValidationError):
            check("rm", bad)


def test_looking(copied, told):
    _, sweep = copied
    status = told("status", "status", sweep)
    keys = [stage["key"] for stage in status["stages"]]
    told("plan", "plan", *WORDS)
    told("plan", "plan", "-m", *WORDS, "seed=0,1")
    told("list", "list")
    told("watch", "watch", sweep, lines=True)
    told("logs", "logs", keys[0])
    told("logs --follow", "logs", "-f", keys[1], lines=True)
    told("diff", "diff", keys[0], keys[1])
    told("why", "why", keys[3])
    told("verify", "verify", sweep)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_has_no_store(capsys, shell):
    assert main(["completion", shell, "--json"]) == 0
    check("completion", json.loads(capsys.readouterr().out))


def test_help_has_no_store(capsys):
    assert main(["help", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"commands": COMMANDS}
    assert main(["help", "run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    check("help", told)
    assert told["commands"].keys() == {"run"}


def test_making(copied, told, tmp_path, capsys):
    store, sweep = copied
    told("run", "run", *WORDS)
    told("run --cfg job", "run", "--cfg", "job", *WORDS)
    told("retry", "retry", sweep)
    told("report", "report", "family", "--format", "md", "--out", tmp_path)
    told("path", "path", "show", sweep, "--macs", "0.4", "--html", tmp_path / "path.html")
    told("extract", "extract", sweep, "--macs", "0.4", "--out", tmp_path / "small")
    member = next(ref.key for ref in store.find_stages("") if ref.kind == "finetune")
    told("export", "export", member, "--format", "safetensors", "--out", tmp_path / "member")
    told("sync", "sync")


def test_failing_and_tidying_up(copied, told):
    store, sweep = copied
    plan = store.read_plan(sweep)
    last = list(plan.stages.values())[-1]
    shutil.rmtree(store.stage_dir(last.kind, last.key))
    store.fail(last.kind, last.key, "ValueError: no")
    told("status", "status", sweep)
    told("watch", "watch", sweep, lines=True, code=1)
    missing = told("report", "report", "family", "--format", "md")["missing"]
    assert len(missing) == 1
    told("cancel", "cancel", sweep)
    with claim(store, last.kind, last.key):
        (path,) = store.stage_dir(last.kind, last.key).glob("claim-*")
        held = json.loads(path.read_text())
        path.write_text(json.dumps({**held, "process": {**held["process"], "host": "far", "machine": "0"}}))
        told("unlock", "unlock", last.key)
    told("gc", "gc")
    told("rm", "rm", sweep)
    told("gc", "gc", "--yes")


@pytest.mark.slow
def test_doctor(told):
    told("doctor", "doctor")

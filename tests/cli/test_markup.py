"""Names, labels, words, messages and logs that hold escape sequences command no terminal."""

import pytest

from spp.cli.main import main
from spp.cli.markup import escape
from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.store.store import Store

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m[red]\u202etxt"


def test_text_is_shown_as_it_stands():
    assert escape("[red]\x1b[2J") == "\\[red]\\x1b[2J"


@pytest.fixture
def hostile(tmp_path):
    """Store and key of a failed stage that is hostile wherever text can be."""
    store = Store(tmp_path / "store")
    stage = Stage("dense", {"seed": 0}, label=f"dense {HOSTILE}")
    word = f"model.name={HOSTILE}"
    meta = {"method": "spp", "model": HOSTILE, "data": HOSTILE, "seed": 0, "config": {}}
    store.write_plan("hostile", Plan.merge([Point(word, (word,), (stage,), meta)]), {"name": "debug"})
    store.put_spec(stage)
    store.begin(stage.kind, stage.key)
    store.fail(stage.kind, stage.key, f"Traceback\nValueError: {HOSTILE}")
    logs = store.logs_dir(stage.kind, stage.key)
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "1.log").write_text(f"\x1b[32mgreen\x1b[0m\n{HOSTILE}\n10%\r20%\n")
    return store, stage.key


@pytest.mark.parametrize("command", [["status"], ["watch"], ["logs", "KEY"], ["report", "missing"], ["report", "all"]])
def test_no_command_hands_on_what_a_terminal_would_obey(hostile, command, capsys):
    store, key = hostile
    main([word.replace("KEY", key) for word in command] + [f"paths.store={store.root}"])
    shown = "".join(capsys.readouterr())
    assert [letter for letter in shown if not letter.isprintable() and letter not in "\n\t"] == []
    if command[0] != "report":
        assert "\\x1b]0;owned\\x07" in shown


def test_logs_are_shown_without_colours_and_past_states_of_a_bar(hostile, capsys):
    store, key = hostile
    assert main(["logs", key, f"paths.store={store.root}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "green"
    assert lines[-1] == "20%"

"""The README's words work as they stand."""

import re
from pathlib import Path

from spp.cli.parsers import COMMANDS
from spp.cli.points import compose_points

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_example_runs(capsys):
    code = re.search(r"tests/test_readme.py -->\n```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    exec(compile(code[1], "README.md", "exec"), {})
    assert "Cost(macs=" in capsys.readouterr().out


def test_every_command_line_composes():
    lines = re.findall(r"^spp +(run|plan) +(-m )?([^#|\n]+)(?:#|$)", README, re.MULTILINE)
    assert len(lines) >= 5
    for _, multirun, words in lines:
        assert compose_points(words.split(), bool(multirun))


def test_every_command_is_named():
    named = re.search(r"^spp (run \| .*?)$", README, re.MULTILINE)
    assert named is not None
    assert named[1].split(" | ") == list(COMMANDS)

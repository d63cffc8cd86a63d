"""Completion as bash does it, by the script that is printed."""

import subprocess

import pytest

from spp.cli.main import main
from spp.cli.parsers import COMMANDS
from spp.locations import CONF


@pytest.fixture
def complete(tmp_path, capsys):
    """complete(line): what bash offers for the end of a line, in a folder with a store."""
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "store" / "sweeps" / "spp-vit-digits-0a1b2c").mkdir(parents=True)
    (tmp_path / "elsewhere" / "sweeps" / "other-sweep").mkdir(parents=True)
    (tmp_path / "store" / "stages" / "dense" / "0123456789abcdef0123").mkdir(parents=True)

    def offered(line):
        words = line.split(" ")
        # As bash does it, for which = ends a word.
        parts = [part for word in words for part in ([*word.partition("=")] if "=" in word else [word])]
        code = f"source {tmp_path / 'script'}\nCOMP_WORDS=({' '.join(repr(part) for part in parts)})\n"
        code += f"COMP_CWORD={len(parts) - 1}\nCOMP_LINE={line!r}\nCOMP_POINT={len(line)}\n_spp\n"
        code += "printf '%s\\n' \"${COMPREPLY[@]}\""
        done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, cwd=tmp_path)
        assert done.stderr == ""
        return done.stdout.split()

    return offered


def test_commands_and_options(complete):
    assert complete("spp ") == list(COMMANDS)
    assert complete("spp st") == ["status"]
    assert complete("spp watch --h") == ["--help", "--html"]
    assert complete("spp help wa") == ["watch"]
    assert complete("spp completion ") == ["bash", "zsh"]


def test_groups_and_their_choices(complete):
    assert "model=" in complete("spp run mod")
    methods = sorted(file.stem for file in (CONF / "method").glob("*.yaml"))
    # Of a word with = bash wants what comes after it.
    assert complete("spp run method=") == methods
    assert complete("spp plan -m method=ta") == ["taylor"]
    assert complete("spp run nosuch=") == []


def test_sweeps_and_keys_of_the_store(complete):
    assert complete("spp watch ") == ["spp-vit-digits-0a1b2c"]
    assert complete("spp rm s") == ["spp-vit-digits-0a1b2c"]
    assert complete("spp logs 01") == ["0123456789abcdef0123"]
    assert complete("spp watch paths.store=elsewhere ") == ["other-sweep"]
    assert "family" in complete("spp report fam")


def test_zsh_takes_the_same_functions(capsys):
    assert main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert "bashcompinit" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0

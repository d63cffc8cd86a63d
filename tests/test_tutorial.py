"""The tutorial's lines work as they stand."""

import re
import shlex
from pathlib import Path

import pytest

from spp.cli.main import main

TUTORIAL = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text()


@pytest.mark.slow
def test_from_a_network_of_ones_own_to_answers_of_a_service(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python|bash)\n(.*?)```", TUTORIAL, re.DOTALL)
    names: dict[str, object] = {}
    for language, text in blocks:
        if language == "python":
            exec(compile(text, "tutorial.md", "exec"), names)
        for line in re.findall(r"^spp +([^#\n]+)", text, re.MULTILINE):
            assert main(shlex.split(line)) == 0
    right = float(re.search(r"([\d.]+) % of 297 test images", capsys.readouterr().out)[1])
    assert right > 40  # of ten classes; the network has learnt for a few seconds, and was cut without more

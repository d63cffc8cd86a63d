"""The line that helps, of tracebacks as Python really prints them."""

import subprocess
import sys
import traceback

import pytest

from spp.store.own_line import message, own_line


def test_the_users_line_under_the_frames_of_libraries(tmp_path):
    (tmp_path / "my_nets.py").write_text(
        "import json\n\n\ndef make_model(size):\n    return json.loads('{' * size)  # broken\n"
    )
    code = "import my_nets; my_nets.make_model(3)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert own_line(done.stderr) == "my_nets.py:5 in make_model: return json.loads('{' * size)  # broken"
    assert message(done.stderr)[0].startswith("json.decoder.JSONDecodeError: ")


def test_without_own_code_it_is_this_packages_line():
    from spp.plan.numbers import parse_size

    try:
        parse_size("much", "budget")
    except ValueError:
        text = traceback.format_exc()
    # The test itself is nobody's library.
    assert own_line(text).startswith("test_own_line.py:")
    ours = "\n".join(line for line in text.splitlines() if "test_own_line" not in line and "parse_size(" not in line)
    assert own_line(ours).startswith("spp/plan/numbers.py:")


@pytest.mark.parametrize("text", ["", "ValueError: no", "Traceback (most recent call last):\nKeyError: 3"])
def test_a_traceback_without_frames_has_none(text):
    assert own_line(text) is None


def test_a_message_of_several_lines_is_kept_whole():
    text = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nValueError: first\nsecond'
    assert message(text) == ["ValueError: first", "second"]

"""Mutated words, a small part of `make faults`."""

import random
import time

import pytest

from faults.words import LIMITS_S, ask, attack, mutant


@pytest.mark.slow
@pytest.mark.parametrize(("command", "count"), [("plan", 120), ("run", 12)])
def test_mutated_words_end_in_one_line(command, count):
    tally = attack(command, count, seed=2026)
    assert tally.faults == []
    assert tally.num_asked == count
    assert set(tally.codes) <= {0, 2}


def test_mutants_are_many():
    draw = random.Random(0)
    assert len({tuple(mutant(draw)) for _ in range(1000)}) > 900


@pytest.mark.parametrize(
    ("said", "code", "fault"),
    [
        ("spp: x: wrong", 2, None),
        ("spp: x\nspp: y", 2, "2 lines"),
        ("", 3, "exit code 3"),
        ("spp: \x1b[2J", 2, "control"),
    ],
)
def test_what_is_no_good_answer_is_noticed(monkeypatch, tmp_path, capsys, said, code, fault):
    def main(argv):
        import sys

        print(said, file=sys.stderr)
        return code

    monkeypatch.setattr("spp.cli.main.main", main)
    found = ask("plan", [], tmp_path).fault
    assert found == fault if fault is None else fault in found


def test_a_hang_and_a_traceback_are_noticed(monkeypatch, tmp_path):
    monkeypatch.setitem(LIMITS_S, "plan", 0.2)
    monkeypatch.setattr("spp.cli.main.main", lambda argv: time.sleep(30))
    assert "longer than" in ask("plan", [], tmp_path).fault
    monkeypatch.setattr("spp.cli.main.main", lambda argv: 1 // 0)
    assert "ZeroDivisionError" in ask("plan", [], tmp_path).fault

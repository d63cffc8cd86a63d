import json
import os
import subprocess
import sys
import time
from dataclasses import replace

from spp.process import Process, is_alive, this_process

TELL_AND_WAIT = """
import dataclasses, json
from spp.process import this_process
print(json.dumps(dataclasses.asdict(this_process())), flush=True)
input()
"""


def tell(process):
    return Process(**json.loads(process.stdout.readline()))


def test_this_process_lives():
    assert this_process().pid == os.getpid()
    assert is_alive(this_process()) is True


def test_a_child_lives_until_it_ends_even_before_it_is_waited_for():
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", TELL_AND_WAIT], **piped) as child:
        known = tell(child)
        assert known.pid == child.pid
        assert is_alive(known) is True
        child.kill()
        deadline = time.monotonic() + 10
        while is_alive(known) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.path.exists(f"/proc/{child.pid}")
        assert is_alive(known) is False
    assert is_alive(known) is False


def test_an_id_that_is_used_again_is_another_process():
    assert is_alive(replace(this_process(), start=this_process().start - 1)) is False


def test_nobody_knows_about_other_machines():
    assert is_alive(replace(this_process(), machine="00000000")) is None


def test_a_machine_that_was_given_another_name_knows_its_processes():
    assert is_alive(replace(this_process(), host="renamed")) is True
    assert is_alive(replace(this_process(), host="renamed", start=this_process().start + 1)) is False


def test_tag_round_trip():
    process = Process("node-17.cluster", "0123abcd", 12, 3456)
    assert Process.from_tag(process.tag) == process
    assert Process.from_tag("rubbish") is None
    assert Process.from_tag("a-b-c-d") is None

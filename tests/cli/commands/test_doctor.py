"""doctor against sites that fakes on PATH stand for; their texts are as SLURM 22.05 and 23.11 print them."""

import json
import os
import stat
from pathlib import Path

import pytest

from spp.cli import checks_machine
from spp.cli.checks import Verdict
from spp.cli.checks_machine import python_packages, store_folder, wandb_login
from spp.cli.checks_slurm import NEEDED, describe_partition, parse_partition, preemption, slurm_site
from spp.cli.main import main

CONFIG = """Configuration data as of 2026-11-22T07:50:00
AccountingStorageType   = accounting_storage/slurmdbd
JobRequeue              = 1
KillWait                = 30 sec
MaxArraySize            = 1001
MaxJobCount             = 10000
MinJobAge               = 300 sec
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
SlurmctldParameters     = preempt_send_user_signal,idle_on_node_suspend
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at head is UP
"""
PARTITIONS = """
PartitionName=a100 AllowGroups=ALL Default=YES GraceTime=120 MaxTime=2-00:00:00 PreemptMode=REQUEUE State=UP \
TotalCPUs=512 TotalNodes=8 TRES=cpu=512,mem=4000G,node=8,billing=512,gres/gpu=32,gres/gpu:a100=32
PartitionName=cpu AllowGroups=ALL Default=NO GraceTime=0 MaxTime=UNLIMITED PreemptMode=OFF State=DRAIN \
TotalCPUs=64 TotalNodes=2 TRES=cpu=64,mem=500G,node=2,billing=64
""".strip()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Puts fakes on PATH, and nothing else: site(scontrol="...shell...")."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def set_up(**scripts):
        defaults = dict.fromkeys(NEEDED, "exit 0") | {
            "sbatch": "echo slurm 22.05.8",
            "sacct": "exit 0",
            "scontrol": f"""case "$*" in
                ping) echo 'Slurmctld(primary) at head is UP';;
                *config*) cat <<'X'\n{CONFIG}\nX\n;;
                *partition*) cat <<'X'\n{PARTITIONS}\nX\n;;
            esac""",
        }
        for name, script in (defaults | scripts).items():
            if script is not None:
                (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
                (folder / name).chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", str(folder))

    return set_up


def by_name(findings):
    return {finding.what: finding for finding in findings}


def test_a_healthy_site(site):
    site()
    found = by_name(slurm_site())
    assert found["commands"].found == "slurm 22.05.8"
    assert found["MaxArraySize"].found == "1001"
    assert found["preemption"].found == "partition_prio, REQUEUE"
    assert found["partition a100, the default"].found == "8 nodes, 512 CPUs, 32 GPUs, up to 2-00:00:00"
    assert found["partition cpu"].verdict is Verdict.NOTE
    others = [finding for name, finding in found.items() if name != "partition cpu"]
    assert {finding.verdict for finding in others} == {Verdict.OK}


def test_no_slurm_is_worth_a_note_and_no_more(site):
    site(**dict.fromkeys([*NEEDED, "sacct"]))
    (finding,) = slurm_site()
    assert (finding.verdict, finding.found) == (Verdict.NOTE, "none on PATH")


def test_half_of_the_commands_are_named(site):
    site(srun=None, scancel=None)
    (finding,) = slurm_site()
    assert finding.found == "srun, scancel not on PATH"


def test_a_controller_that_is_down_is_asked_nothing_else(site, tmp_path):
    site(scontrol=f"echo $* >> {tmp_path}/asked; echo 'Slurmctld(primary) at head is DOWN'; exit 1")
    found = by_name(slurm_site())
    assert found["controller"].found == "Slurmctld(primary) at head is DOWN"
    assert list(found) == ["commands", "controller"]
    assert (tmp_path / "asked").read_text() == "ping\n"


def test_accounting_may_be_off(site):
    site(sacct="echo 'Slurm accounting storage is disabled' >&2; exit 1")
    finding = by_name(slurm_site())["accounting"]
    assert (finding.verdict, finding.found) == (Verdict.NOTE, "Slurm accounting storage is disabled")


@pytest.mark.parametrize(
    ("settings", "verdict"),
    [
        ({"SlurmctldParameters": "preempt_send_user_signal"}, Verdict.OK),
        ({"PreemptParameters": "reclaim_licenses,send_user_signal"}, Verdict.OK),
        ({"SlurmctldParameters": "(null)", "PreemptParameters": "(null)"}, Verdict.NOTE),
    ],
)
def test_both_spellings_of_the_signal_before_preemption(settings, verdict):
    config = {"PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE", **settings}
    assert by_name(preemption(config, []))["send_user_signal"].verdict is verdict


def test_preemption_that_leaves_no_time_or_no_job_is_noted():
    config = {"PreemptType": "preempt/qos", "PreemptMode": "OFF", "PreemptParameters": "send_user_signal"}
    low = {"PartitionName": "low", "PreemptMode": "CANCEL", "GraceTime": "5"}
    found = by_name(preemption(config, [low]))
    assert (found["preemption"].verdict, found["preemption"].found) == (Verdict.NOTE, "qos, CANCEL")
    assert found["GraceTime low"].found == "5 s"
    (alone,) = preemption({"PreemptType": "preempt/none", "PreemptMode": "OFF"}, [low])
    assert alone.verdict is Verdict.OK


def test_a_partition_without_gpus_says_so():
    line = "PartitionName=debug Default=YES MaxTime=UNLIMITED State=UP TotalCPUs=8 TotalNodes=2 TRES=cpu=8,mem=1G"
    assert describe_partition(parse_partition(line)).found == "2 nodes, 8 CPUs, no GPUs listed, up to UNLIMITED"


def test_the_store_is_tried_where_it_would_be_and_nothing_is_left(tmp_path):
    found = by_name(store_folder(tmp_path / "not" / "there"))
    assert found["folder"].verdict is Verdict.OK
    assert "not there yet" in found["folder"].found
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written_is_missing(tmp_path):
    (tmp_path / "file").write_text("")
    (finding,) = store_folder(tmp_path / "file" / "store")
    assert finding.verdict is Verdict.MISSING
    assert "paths.store" in finding.remedy


def test_a_full_disk_is_noted(tmp_path, monkeypatch):
    free = by_name(store_folder(tmp_path))["free space"]
    assert free.found == f"{os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize / 1e9:,.0f} GB"
    monkeypatch.setattr(checks_machine, "FEW_BYTES", 1e18)
    assert by_name(store_folder(tmp_path))["free space"].verdict is Verdict.NOTE


def test_packages_that_are_absent_or_old_are_named_with_what_is_needed(monkeypatch):
    assert by_name(python_packages())["packages"].verdict is Verdict.OK
    needs = ["numpy>=999", "no-such-package>=1", "torch", "pytest>=1; extra == 'dev'", "also-none; extra == 'llm'"]
    monkeypatch.setattr(checks_machine.metadata, "requires", lambda name: needs)
    found = by_name(python_packages())
    assert found["packages"].verdict is Verdict.MISSING
    assert "no-such-package is not installed" in found["packages"].found
    assert "instead of >=999" in found["packages"].found
    assert (found["extra llm"].verdict, found["extra llm"].found) == (Verdict.NOTE, "also-none is not installed")


def test_a_login_to_wandb_is_seen_and_never_shown(no_account, monkeypatch):
    (finding,) = wandb_login()
    assert finding.verdict is Verdict.NOTE
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    (finding,) = wandb_login()
    assert (finding.verdict, finding.found) == (Verdict.OK, "yes")
    assert "0123456789" not in str(finding)


def test_the_command_tells_people_and_programs_and_exits_by_what_it_found(site, tmp_path, monkeypatch, capsys):
    site()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["doctor", f"paths.store={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert "spp works here" in text
    assert "Slurmctld(primary) at head is UP" in text
    (tmp_path / "file").write_text("")
    assert main(["doctor", "--json", f"paths.store={tmp_path / 'file' / 'store'}"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert not result["works"]
    assert [f["what"] for f in result["findings"] if f["verdict"] == "missing"] == ["folder"]
    assert Path(tmp_path / "file").read_text() == ""

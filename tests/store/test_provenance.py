import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import spp
from spp.store.provenance import CODE_ROOMS, code_hash, collect, is_other_code

COLLECT = "import json; from spp.store.provenance import collect; print(json.dumps(collect()))"


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with a copy of the package in src/spp."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(spp.__file__).parent, tmp_path / "checkout/src/spp", ignore=ignored)
    (tmp_path / "checkout/.gitignore").write_text("__pycache__\n")
    git(tmp_path / "checkout", "init", "--quiet")
    commit(tmp_path / "checkout")
    return tmp_path / "checkout"


def git(folder, *arguments):
    settings = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    run = subprocess.run(["git", "-C", folder, *settings, *arguments], capture_output=True, check=True)
    return run.stdout


def commit(folder):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all")


def collected_by(source, **environment):
    """What a process says that imports the package from `source`."""
    run = subprocess.run(
        [sys.executable, "-c", COLLECT],
        env={**os.environ, "PYTHONPATH": str(source), **environment},
        capture_output=True,
        check=True,
    )
    return json.loads(run.stdout)


def test_commit_of_a_clean_and_of_a_changed_checkout(checkout):
    head = git(checkout, "rev-parse", "HEAD").decode().strip()
    assert collected_by(checkout / "src")["git"] == {"commit": head, "dirty": False, "diff_sha256": None}
    with open(checkout / "src/spp/store/__init__.py", "a") as file:
        file.write("# changed\n")
    diff = git(checkout, "diff", "--no-ext-diff", "--no-color", "--binary", "HEAD")
    expected = {"commit": head, "dirty": True, "diff_sha256": hashlib.sha256(diff).hexdigest()}
    assert collected_by(checkout / "src")["git"] == expected


def test_new_file_in_the_package_makes_the_checkout_dirty_and_one_beside_it_does_not(checkout):
    (checkout / "notes.txt").touch()
    assert not collected_by(checkout / "src")["git"]["dirty"]
    (checkout / "src/spp/new.py").touch()
    assert collected_by(checkout / "src")["git"]["dirty"]


def test_environment_inside_of_another_checkout_is_not_part_of_it(checkout, tmp_path):
    shutil.copytree(checkout / "src/spp", checkout / "env/site-packages/spp")
    commit(checkout)
    assert collected_by(checkout / "env/site-packages")["git"] is None


def test_no_git_is_no_problem(checkout, tmp_path):
    assert collected_by(checkout / "src", PATH=str(tmp_path))["git"] is None


def test_git_hooks_environment_does_not_mislead(checkout, tmp_path):
    git(tmp_path, "init", "--quiet", "other")
    assert collected_by(checkout / "src", GIT_DIR=str(tmp_path / "other/.git"))["git"]["commit"]


def test_code_hash_follows_the_rooms_that_make_results(checkout):
    def hashed():
        return collected_by(checkout / "src")["code_hash"]

    for room in CODE_ROOMS:
        (checkout / "src/spp" / room / "extra.py").unlink(missing_ok=True)
    before = hashed()
    for room in ("store", "report", "cli"):
        with open(checkout / "src/spp" / room / "__init__.py", "a") as file:
            file.write("# changed\n")
    assert hashed() == before
    seen = {before}
    for room in CODE_ROOMS:
        with open(checkout / "src/spp" / room / "__init__.py", "a") as file:
            file.write("# changed\n")
        seen.add(hashed())
    assert len(seen) == 1 + len(CODE_ROOMS)
    (checkout / "src/spp/methods/new.py").touch()
    assert hashed() not in seen


def test_what_is_collected(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_CPU_BIND", "quiet")
    record = collect()
    assert json.loads(json.dumps(record)) == record
    assert record["slurm"] == {"SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "12"}
    assert record["packages"]["torch"] == metadata.version("torch")
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (record["pid"], record["argv"]) == (os.getpid(), sys.argv)
    assert record["code_hash"] == code_hash()


def test_nothing_heavy_is_imported():
    code = "import sys, spp.store.provenance as p; p.collect(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "hydra", "omegaconf", "wandb", "timm"} & set(run.stdout.split())


def test_a_recorded_hash_is_compared_with_the_code_here():
    assert not is_other_code(collect()["code_hash"])
    assert is_other_code("0" * 64)
    assert not is_other_code(None)

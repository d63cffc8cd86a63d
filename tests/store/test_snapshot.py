import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import spp
from spp.locations import CONF, PIPELINES
from spp.store.snapshot import checked_command, take

TAKE = "import sys, pathlib; from spp.store.snapshot import take; print(take(pathlib.Path(sys.argv[1])))"
COLLECT = "import json, spp; from spp.store.provenance import collect; print(json.dumps([spp.__file__, collect()]))"


@pytest.fixture
def checkout(tmp_path):
    """A git checkout of its own with the package, conf and pipelines."""
    root = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    for source, target in ((Path(spp.__file__).parent, "src/spp"), (CONF, "conf"), (PIPELINES, "pipelines")):
        shutil.copytree(source, root / target, ignore=ignored)
    (root / ".gitignore").write_text("__pycache__\n")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "all")
    return root


def git(folder, *arguments):
    settings = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", folder, *settings, *arguments], capture_output=True, check=True).stdout


def python(code, source, *arguments, cwd=None):
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(source), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
    )
    return run.stdout.strip()


def tracked(folder):
    """What git knows of a folder, from there."""
    return [Path(name) for name in git(folder, "ls-files", "-z", ".").decode().split("\0") if name]


def content(folder):
    """Every file below `folder`; none of them compiled."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_snapshot_holds_what_the_package_needs(tmp_path):
    folder = take(tmp_path / "store")
    assert folder.parent == tmp_path / "store/code"
    for source, place in ((Path(spp.__file__).parent, "spp"), (CONF, "spp/conf"), (PIPELINES, "spp/pipelines")):
        expected = {path: (source / path).read_bytes() for path in tracked(source)}
        taken = content(folder / place)
        assert {path: taken.get(path) for path in expected} == expected
    assert json.loads((folder / "snapshot.json").read_text())["hash"] == folder.name
    assert not any(folder.rglob("__pycache__"))


def test_a_worker_runs_the_code_of_the_submission_though_the_checkout_changes(checkout, tmp_path):
    store = tmp_path / "store"
    folder = python(TAKE, checkout / "src", store)
    with open(checkout / "src/spp/__init__.py", "a") as file:
        file.write("CHANGED = True\n")
    asked = "import spp; print(hasattr(spp, 'CHANGED'), spp.__file__)"
    # The working folder of a job is where it was submitted, which may be the checkout.
    assert python(asked, folder, cwd=checkout / "src") == f"False {folder}/spp/__init__.py"
    assert python(asked, checkout / "src").startswith("True")
    newer = python(TAKE, checkout / "src", store)
    assert newer != folder
    assert python(asked, newer).startswith("True")


def test_a_snapshot_shows_conf_and_pipelines_of_its_own(checkout, tmp_path):
    folder = python(TAKE, checkout / "src", tmp_path / "store")
    where = python("from spp.locations import CONF, PIPELINES; print(CONF, PIPELINES)", folder)
    assert where == f"{folder}/spp/conf {folder}/spp/pipelines"


def test_whoever_runs_from_a_snapshot_takes_the_same(checkout, tmp_path):
    folder = python(TAKE, checkout / "src", tmp_path / "store")
    assert python(TAKE, folder, tmp_path / "elsewhere") == folder
    assert not (tmp_path / "elsewhere").exists()


def test_equal_code_is_copied_once_also_by_many_at_a_time(checkout, tmp_path):
    with ThreadPoolExecutor(6) as pool:
        folders = set(pool.map(lambda _: python(TAKE, checkout / "src", tmp_path / "store"), range(6)))
    assert len(folders) == 1
    assert [entry.name for entry in (tmp_path / "store/code").iterdir()] == [Path(folders.pop()).name]


def test_provenance_in_a_snapshot_tells_the_commit_of_the_submission(checkout, tmp_path):
    with open(checkout / "conf/config.yaml", "a") as file:
        file.write("# changed\n")
    (checkout / "src/spp/fresh.py").touch()
    here, before = json.loads(python(COLLECT, checkout / "src"))
    assert before["snapshot"] is None
    assert before["git"]["dirty"]
    folder = Path(python(TAKE, checkout / "src", tmp_path / "store"))
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "later")
    file, record = json.loads(python(COLLECT, folder))
    assert file == f"{folder}/spp/__init__.py" != here
    assert record["snapshot"] == folder.name
    assert record["git"] == before["git"]
    assert record["code_hash"] == before["code_hash"]
    assert json.loads((folder / "snapshot.json").read_text())["untracked"] == ["src/spp/fresh.py"]


def test_commit_and_patch_give_the_checkout_again(checkout, tmp_path):
    with open(checkout / "src/spp/__init__.py", "a") as file:
        file.write("CHANGED = True\n")
    folder = Path(python(TAKE, checkout / "src", tmp_path / "store"))
    expected = (checkout / "src/spp/__init__.py").read_bytes()
    git(checkout, "checkout", "--quiet", json.loads((folder / "snapshot.json").read_text())["git"]["commit"])
    git(checkout, "checkout", "--quiet", "--", ".")
    git(checkout, "apply", str(folder / "diff.patch"))
    assert (checkout / "src/spp/__init__.py").read_bytes() == expected


def test_an_installed_package_without_git_is_taken_too(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(spp.__file__).parent, tmp_path / "site/spp", ignore=ignored)
    shutil.copytree(CONF, tmp_path / "site/spp/conf")
    shutil.copytree(PIPELINES, tmp_path / "site/spp/pipelines", ignore=ignored)
    folder = Path(python(TAKE, tmp_path / "site", tmp_path / "store"))
    assert json.loads((folder / "snapshot.json").read_text())["git"] is None
    assert (folder / "spp/conf/config.yaml").is_file()
    assert python("import spp; print(spp.__file__)", folder) == f"{folder}/spp/__init__.py"


def test_a_snapshot_takes_what_git_knows_of_the_package_and_nothing_else(checkout, tmp_path):
    (checkout / ".gitignore").write_text("__pycache__\n*.secret\n")
    (checkout / "README.md").write_text("one")
    git(checkout, "add", "README.md")
    git(checkout, "commit", "--quiet", "--message", "page")
    for name in ("src/spp/token.secret", "src/spp/fresh.py", "conf/.env", "notes.txt", "README.md"):
        (checkout / name).write_text("a password")
    folder = Path(python(TAKE, checkout / "src", tmp_path / "store"))
    assert not [path for path, data in content(folder).items() if b"a password" in data]
    assert (folder / "spp/__init__.py").is_file()


def run_checked(folder, *command, trusted="user"):
    return subprocess.run(checked_command(folder, trusted, command), capture_output=True, text=True)


HELLO = (sys.executable, "-c", "print('hello')")


def test_a_worker_starts_from_a_snapshot_that_is_whole(tmp_path):
    started = run_checked(take(tmp_path), *HELLO)
    assert (started.returncode, started.stdout) == (0, "hello\n")


def change(folder):
    with open(folder / "spp/__init__.py", "a") as file:
        file.write("\nprint('evil')\n")


def add_module(folder):
    (folder / "spp/evil.py").write_text("print('evil')")


def add_compiled(folder):
    (folder / "spp/__pycache__").mkdir()
    (folder / "spp/__pycache__/__init__.cpython-311.pyc").write_bytes(b"evil")


def add_beside(folder):
    (folder / "sitecustomize.py").write_text("print('evil')")


def link(folder):
    (folder / "spp/__init__.py").unlink()
    (folder / "spp/__init__.py").symlink_to("/dev/null")


def open_to_all(folder):
    (folder / "spp/__init__.py").chmod(0o666)


@pytest.mark.parametrize("harm", [change, add_module, add_compiled, add_beside, link, open_to_all])
def test_no_worker_starts_from_a_snapshot_that_is_another(tmp_path, harm):
    folder = take(tmp_path)
    harm(folder)
    started = run_checked(folder, *HELLO)
    assert (started.returncode, started.stdout) == (1, "")
    assert started.stderr.startswith("spp: s")
    assert started.stderr.count("\n") == 1
    with pytest.raises(ValueError, match=r"^(snapshot|store\.trust): .*; allowed: "):
        take(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(
    ("owner", "group", "trusted", "starts"),
    [(4711, 4712, "user", False), (4711, 4712, "group", False), (4711, 0, "user", False), (4711, 0, "group", True)],
)
def test_whose_snapshots_run_is_for_the_user_to_say(tmp_path, owner, group, trusted, starts):
    folder = take(tmp_path)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, group)
    assert (run_checked(folder, *HELLO, trusted=trusted).stdout == "hello\n") == starts

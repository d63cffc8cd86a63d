"""What several rooms test against: a short run of the whole chain, a real SLURM, a fake one."""

import fcntl
import gc
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ["WANDB_MODE"] = "offline"

# While tests are collected, torch and all else is imported, and stays: the garbage collector would go through it again
# and again.
gc.disable()

ROOT = Path(__file__).parents[1]
FAKES = ROOT / "tests" / "slurm" / "fakes"
WANDB_SERVER = ROOT / "tests" / "record" / "fakes" / "wandb_server.py"
SBIN = "/usr/sbin:/sbin"


# What takes longest goes first, so that no process is left with it when the others have nothing more to do.
FIRST = ("slurm", "stages/test_devices.py", "stages", "schedule", "faults", "deploy", "report/test_browser.py", "cli")

# A test without a marker for it may take so long, with as many test processes as cores; set-ups, which are shared, do
# not count.
LIMIT_S = float(os.environ.get("SPP_TEST_LIMIT_S", "20"))
MAY_BE_SLOW = {"slow", "slurm", "browser", "gpu", "network"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs a cluster or a browser, and says which tests share a process.

    Those of a file share its fixtures; those on a cluster wait more than they work, so that each is for itself.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & {"slurm", "own_slurm", "cluster"}:
            item.add_marker("slurm")
        if item.path.name == "test_browser.py":
            item.add_marker("browser")
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=_turn)
    items[:] = _mixed(items)


def pytest_collection_finish() -> None:
    gc.freeze()  # from here on the collector looks at what tests make, and not at the modules beside it
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    gc.unfreeze()  # libraries look at the end for what was not freed


def _file(item: pytest.Item) -> Path:
    return item.path.relative_to(ROOT / "tests")


def _group(item: pytest.Item) -> str:
    file = _file(item)
    return item.nodeid if file.parts[0] == "slurm" and item.get_closest_marker("slow") else str(file)


def _turn(item: pytest.Item) -> tuple[int, bool]:
    file = _file(item)
    folder = next((place for place, name in enumerate(FIRST) if name in (str(file), file.parts[0])), len(FIRST))
    return folder, item.get_closest_marker("slow") is None


def _mixed(items: list[pytest.Item]) -> list[pytest.Item]:
    """Those that wait for a cluster spread among those that compute, so that the cores always have something to do."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(_group(item), []).append(item)
    waiting = [group for group in groups.values() if _file(group[0]).parts[0] == "slurm"]
    mixed = []
    for number, group in enumerate(group for group in groups.values() if group not in waiting):
        if number % 2 == 0 and waiting:
            mixed += waiting.pop(0)
        mixed += group
    return mixed + list(itertools.chain(*waiting))


class _Durations:
    """Adds up what the tests took, and says which took longer than they may."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.total_s = 0.0
        self.too_long: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.total_s += report.duration
        if report.when == "call" and report.duration > self._limit_s and not MAY_BE_SLOW & report.keywords.keys():
            self.too_long.append(f"{report.nodeid} took {report.duration:.1f} s")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.write_line(f"all tests with their set-ups: {self.total_s:.0f} s, added up over the processes")
        for line in self.too_long:
            terminalreporter.write_line(f"{line}; allowed: {self._limit_s:g} s; make it shorter or mark it slow")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.too_long and os.environ.get("CI") == "true" and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job is born deaf to SIGINT, and so would be all that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return  # the process that hands out the tests hears of all of them
    num_processes = int(getattr(config.option, "numprocesses", None) or 1)
    config.pluginmanager.register(_Durations(LIMIT_S * max(1.0, num_processes / (os.cpu_count() or 1))))


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """made_once(name, make): a copy, for this test process, of the folder that `make` fills in one of all of them."""

    def folder_of(name: str, make: Callable[[Path], None]) -> Path:
        own = tmp_path_factory.getbasetemp()
        shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
        original = shared / f"made-{name}"
        with open(shared / f"made-{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not original.exists():
                unfinished = shared / f"unfinished-{name}-{os.getpid()}"
                make(unfinished)
                unfinished.rename(original)
        return Path(shutil.copytree(original, tmp_path_factory.mktemp(name) / "store", symlinks=True))

    return folder_of


def _run(*words: str) -> Callable[[Path], None]:
    """What runs the words in a store at the folder that it is given."""
    from spp.cli.main import main

    def run(root: Path) -> None:
        assert main(["run", *words, f"paths.store={root}"]) == 0

    return run


@pytest.fixture(scope="session")
def finished(made_once: Callable[..., Path]) -> tuple[Path, str]:
    """Store and name of a finished sweep: digits, everything as short as it can be."""
    return _with_sweep(made_once("finished", _run("debug=fast", "logger=off")))


@pytest.fixture(scope="session")
def mirrored(made_once: Callable[..., Path]) -> tuple[Path, str]:
    """Store and name of a finished sweep whose stages have offline W&B runs: one search, and one search per budget."""
    words = ["debug=fast", "data.num_train=320", "method=spp,wdpruning", "budget.values=[0.5,0.3]", "logger=offline"]
    return _with_sweep(made_once("mirrored", _run("-m", *words)))


def _with_sweep(root: Path) -> tuple[Path, str]:
    from spp.store.store import Store

    sweep = Store(root).latest()
    assert sweep is not None
    return root, sweep


@pytest.fixture
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A home without keys and settings of W&B; wandb reads them anew."""
    import wandb

    wandb.teardown()  # first, or monkeypatch would bring back the address of a service that is gone
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    yield
    wandb.teardown()


@dataclass(frozen=True)
class WandbServer:
    """A stand-in for the W&B server."""

    folder: Path
    process: "subprocess.Popen[bytes]"

    @property
    def runs(self) -> dict[str, dict[str, Any]]:
        """What was uploaded, by id of the run."""
        runs: dict[str, dict[str, Any]] = json.loads((self.folder / "runs.json").read_text())
        return runs


@pytest.fixture
def wandb_server(tmp_path: Path, no_account: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server that wandb takes for W&B, with a login for it."""
    folder = tmp_path / "wandb-server"
    folder.mkdir()
    process = subprocess.Popen([sys.executable, str(WANDB_SERVER), str(folder)])
    try:
        deadline = time.monotonic() + 60
        while not (folder / "address").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)
        monkeypatch.setenv("WANDB_BASE_URL", (folder / "address").read_text())
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        yield WandbServer(folder, process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of a fake SLURM whose commands are first on PATH and truly run jobs; tests/slurm/fakes/slurm.py."""
    folder = tmp_path / "fake-slurm"
    folder.mkdir()
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", os.pathsep.join([str(FAKES), str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.delenv("SLURM_CONF", raising=False)
    yield folder
    (folder / "state.json").unlink(missing_ok=True)
    with open(folder / "runner.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until its runner has ended what still ran
    errors = folder / "runner.err"
    assert not errors.exists() or not errors.read_text(), errors.read_text()


class Cluster:
    """A private SLURM of four nodes with one CPU each, without accounting."""

    def __init__(self, root: Path, **settings: str) -> None:
        self.conf = root / "slurm.conf"
        self._env = {**os.environ, "SC_ROOT": str(root), "SC_DBD": "0", "SC_CPUS": "1", **settings}

    def __call__(self, *words: str) -> None:
        """Carries out a command of slurm/cluster.sh: `stop -KILL slurmd-n1`, `start slurmd-n1`, ..."""
        command = [str(ROOT / "slurm" / "cluster.sh"), *words]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr


@contextmanager
def _cluster(name: str, **settings: str) -> Iterator[Cluster]:
    """A running cluster; what a test process that was killed left behind is ended first."""
    missing = [program for program in ("sbatch", "slurmctld", "slurmd", "munged") if not _which(program)]
    if missing:
        reason = f"not installed: {', '.join(missing)}; remedy: scripts/install_slurm.sh as root"
        (pytest.fail if os.environ.get("SPP_REQUIRE_SLURM") == "1" else pytest.skip)(reason)
    prefix = f"sc-{hashlib.sha256(bytes(ROOT)).hexdigest()[:8]}"
    for left in Path("/tmp").glob(f"{prefix}-*-[0-9]*"):
        if left.is_dir() and not Path(f"/proc/{left.name.rpartition('-')[2]}").exists():
            Cluster(left)("reset")
    made = Cluster(Path(f"/tmp/{prefix}-{name}-{os.getpid()}"), SC_PORT=str(_free_ports()), **settings)
    try:
        made("up")
        yield made
    finally:
        made("reset")


def _point_to(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes SLURM's commands mean this cluster."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("PATH", os.pathsep.join([os.environ["PATH"], SBIN]))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The virtual cluster of this test process."""
    with _cluster("all") as made:
        yield made


@pytest.fixture
def slurm(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The virtual cluster with an empty queue, for the commands on PATH."""
    _point_to(cluster, monkeypatch)
    yield cluster
    cluster("up")  # what the test stopped
    subprocess.run(["scancel", "--quiet", "--user", str(os.getuid())], check=True)
    deadline = time.monotonic() + 30
    while subprocess.run(["squeue", "-h"], capture_output=True, check=True).stdout.strip():
        assert time.monotonic() < deadline, "jobs do not end"
        time.sleep(0.1)


@pytest.fixture
def own_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Cluster]]:
    """Starts a virtual cluster of the test's own, with more lines of slurm.conf, that it may leave in any state."""
    with ExitStack() as stack:

        def start(lines: str = "") -> Cluster:
            extra = tmp_path / "slurm.conf"
            extra.write_text(lines)
            made = stack.enter_context(_cluster("own", SC_EXTRA=str(extra)))
            _point_to(made, monkeypatch)
            return made

        yield start


def _which(program: str) -> str | None:
    return shutil.which(program, path=os.pathsep.join([os.environ["PATH"], SBIN]))


def _free_ports() -> int:
    """First of the ports of a cluster: those that slurm/cluster.sh would take may serve a user's own cluster."""
    # Test processes that look at the same time shall not find the same ones.
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 11
    for base in random.SystemRandom().sample(range(20000 + 1000 * number, 21000 + 1000 * number, 50), 20):
        if all(_is_free(base + offset) for offset in (17, 19, *range(21, 25))):
            return base
    raise OSError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0

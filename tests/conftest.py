"""What several rooms test against: a short run of the whole chain, a real SLURM, a fake one."""

import fcntl
import hashlib
import json
import os
import random
import shutil
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

ROOT = Path(__file__).parents[1]
FAKES = ROOT / "tests" / "slurm" / "fakes"
WANDB_SERVER = ROOT / "tests" / "record" / "fakes" / "wandb_server.py"
SBIN = "/usr/sbin:/sbin"


# What takes minutes goes first, so that no process is left with it when the others have nothing more to do.
LONG = ("slurm", "stages/test_devices.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files stay together; those with a cluster are one group, as two of them at a time would overload two cores."""
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: LONG.index(groups[item]) if groups[item] in LONG else len(LONG))


def _group(item: pytest.Item) -> str:
    file = item.path.relative_to(ROOT / "tests")
    return file.parts[0] if file.parts[0] in LONG else str(file)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Store and name of a finished sweep: digits, everything as short as it can be."""
    from spp.cli.main import main
    from spp.store.store import Store

    root = tmp_path_factory.mktemp("finished") / "store"
    assert main(["run", "debug=fast", "logger=off", f"paths.store={root}"]) == 0
    sweep = Store(root).latest()
    assert sweep is not None
    return root, sweep


@pytest.fixture(scope="session")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Store and name of a finished sweep whose stages have offline W&B runs: one search, and one search per budget."""
    from spp.cli.main import main
    from spp.store.store import Store

    root = tmp_path_factory.mktemp("mirrored") / "store"
    words = ["debug=fast", "method=spp,wdpruning", "budget.values=[0.5,0.3]", "logger=offline", f"paths.store={root}"]
    assert main(["run", "-m", *words]) == 0
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
    for base in random.SystemRandom().sample(range(20000, 31000, 50), 100):
        if all(_is_free(base + offset) for offset in (17, 19, *range(21, 25))):
            return base
    raise OSError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0

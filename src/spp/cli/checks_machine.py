"""What this machine has: Python and packages, torch and GPUs, the store, W&B, the checkout."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from spp.cli.checks import Finding, Verdict

FEW_BYTES = 20e9
"""Free space below which a sweep of ImageNet models may not fit any more."""

_OLDEST_PYTHON = (3, 11)
_EXTRAS = {"optuna": "hydra/sweeper=spp_optuna", "onnx": "spp export --format onnx", "llm": "language models"}


def python_packages() -> Iterator[Finding]:
    """Python and every package that spp asks for, against what is installed; extras are optional."""
    new_enough = sys.version_info[:2] >= _OLDEST_PYTHON
    verdict = Verdict.OK if new_enough else Verdict.MISSING
    yield Finding("python", "version", verdict, platform.python_version(), "" if new_enough else "install Python 3.11")
    wrong, num = _unmet(None)
    yield Finding(
        "python",
        "packages",
        Verdict.MISSING if wrong else Verdict.OK,
        ", ".join(wrong) or f"all {num} that spp needs",
        "pip install -U spp (or make install in a checkout)" if wrong else "",
    )
    for extra, purpose in _EXTRAS.items():
        wrong, num = _unmet(extra)
        verdict, found = (Verdict.NOTE, ", ".join(wrong)) if wrong else (Verdict.OK, f"all {num} of them")
        remedy = f"only for {purpose}: pip install 'spp[{extra}]'" if wrong else ""
        yield Finding("python", f"extra {extra}", verdict, found, remedy)


def torch_devices() -> Iterator[Finding]:
    """torch, its CUDA, the GPUs and whether they know bf16."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "import", Verdict.MISSING, f"{error}".splitlines()[0], "install torch again")
        return
    cuda = torch.version.cuda
    yield Finding("torch", "version", Verdict.OK, f"{torch.__version__}, {f'CUDA {cuda}' if cuda else 'CPU only'}")
    if not torch.cuda.is_available():
        remedy = "fine on a login node and for small models"
        if shutil.which("nvidia-smi"):
            remedy = "there is a driver: install a torch built for its CUDA, see pytorch.org"
        yield Finding("torch", "GPUs", Verdict.NOTE, "none here", remedy)
        return
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield Finding("torch", "GPUs", Verdict.OK, f"{len(names)}: {', '.join(sorted(set(names)))}")
    knows = torch.cuda.is_bf16_supported(including_emulation=False)
    remedy = "" if knows else "use precision=16-mixed or 32-true"
    yield Finding("torch", "bf16", Verdict.OK if knows else Verdict.NOTE, "yes" if knows else "no", remedy)


def store_folder(root: Path) -> Iterator[Finding]:
    """Whether the store, or where it would be made, can be written as it has to be; leaves nothing behind."""
    place = root.absolute()
    while not place.exists():
        place = place.parent
    where = str(root.absolute()) if place == root.absolute() else f"{root.absolute()} (not there yet)"
    try:
        problem = _write_problem(place)
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        remedy = "give paths.store=DIR or SPP_STORE=DIR, a folder that you can write to"
        yield Finding("store", "folder", Verdict.MISSING, f"{where}: {problem}", remedy)
        return
    yield Finding("store", "folder", Verdict.OK, where)
    yield Finding("store", "file system", Verdict.OK, f"{_file_system(place)}: renames and exclusive files work")
    free = shutil.disk_usage(place).free
    few = free < FEW_BYTES
    remedy = "make room, or give paths.store=DIR on a larger disk" if few else ""
    yield Finding("store", "free space", Verdict.NOTE if few else Verdict.OK, f"{free / 1e9:,.0f} GB", remedy)


def wandb_login() -> Iterator[Finding]:
    """Whether W&B could upload; only whether there is a login, never what it is."""
    from spp.record.wandb_account import login_problem

    if login_problem() is None:
        yield Finding("W&B", "login", Verdict.OK, "yes")
    else:
        remedy = "fine: runs are kept offline; for logger=online: wandb login"
        yield Finding("W&B", "login", Verdict.NOTE, "not logged in", remedy)


def checkout() -> Iterator[Finding]:
    """The commit that results will name."""
    from spp.store.provenance import collect

    git = collect()["git"]
    if git is None:
        remedy = "results name the version and a hash of the code instead of a commit"
        yield Finding("code", "git", Verdict.NOTE, "not a checkout, or no git", remedy)
        return
    remedy = "results keep a hash of the difference; commit for cleaner provenance" if git["dirty"] else ""
    found = f"{git['commit'][:10]}{', with changes' if git['dirty'] else ''}"
    yield Finding("code", "git", Verdict.NOTE if git["dirty"] else Verdict.OK, found, remedy)


def _unmet(extra: str | None) -> tuple[list[str], int]:
    """What is not installed, or not as new as asked for, and how many packages were looked at."""
    from packaging.requirements import Requirement

    wrong, num = [], 0
    for text in metadata.requires("spp") or []:
        need = Requirement(text)
        of_extra = need.marker is not None and "extra" in str(need.marker)
        wanted = need.marker is None or need.marker.evaluate({"extra": extra or ""})
        if not wanted or of_extra != (extra is not None):
            continue
        num += 1
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{need.name} is not installed")
            continue
        if not need.specifier.contains(version, prereleases=True):
            wrong.append(f"{need.name} {version} instead of {need.specifier}")
    return wrong, num


def _write_problem(place: Path) -> str | None:
    with tempfile.TemporaryDirectory(prefix=".spp-doctor-", dir=place) as name:
        folder = Path(name)
        (folder / "old").write_text("old")
        (folder / "new").write_text("new")
        os.replace(folder / "new", folder / "old")
        if (folder / "old").read_text() != "new":
            return "a rename does not replace a file at once"
        try:
            (folder / "old").open("x").close()
        except FileExistsError:
            return None
        return "two processes can make the same file"


def _file_system(place: Path) -> str:
    """Type of the file system by the longest mount point that holds the folder."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown type"
    holding = [(len(point), kind) for point, kind in mounts if place.is_relative_to(point.replace("\\040", " "))]
    return max(holding, default=(0, "unknown type"))[1]

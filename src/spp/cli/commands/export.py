"""spp export: a member as a file that other programs run."""

import json
from pathlib import Path
from typing import Any

from spp.plan.spec import StageRef
from spp.store.marker import verified
from spp.store.store import Store, stage_of
from spp.text import visible

SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "torch": ".pt2"}
_MEMBER_FILE = "member.safetensors"
_KINDS = ("finetune", "measure")
"""Kinds of stages by whose key a member is found."""


def export(root: Path, member: str, form: str, out: Path | None, *, as_json: bool) -> int:
    """Write the file and say what is in it."""
    source, name = find_member(root, member)
    verified(source)
    from spp.stages import export as worker

    file = out or Path(f"{name}{SUFFIXES[form]}")
    if file.suffix != SUFFIXES[form]:
        raise ValueError(
            f"--out: {str(file)!r} does not fit --format {form}; allowed: a file that ends in {SUFFIXES[form]}; "
            f"use {file.with_suffix(SUFFIXES[form])}"
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        made = worker.export(source, form, file, _runtime_of(source))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(
            f"--out: {str(file)!r} cannot be written ({error.strerror}); allowed: a file in a folder that can be "
            "written; choose another"
        ) from None
    if as_json:
        row = {"file": str(made.file), "bytes": made.file.stat().st_size, "description": str(made.description)}
        print(json.dumps({**row, "difference": made.difference}, indent=1))
        return 0
    checked = "not compared, as onnxruntime is not installed"
    if made.difference is not None:
        checked = f"differ by at most {made.difference:.1e} of the largest from the member's, for random inputs"
    print(f"file:    {visible(str(made.file))} ({made.file.stat().st_size / 1e6:.3g} MB)")
    print(f"about:   {visible(str(made.description))}")
    print(f"outputs: {checked}")
    return 0


def find_member(root: Path, member: str) -> tuple[Path, str]:
    """The file of a member, and a name for what is made of it.

    Args:
        member: key of a finished stage of the store at `root` that measured or finetuned a member, or how it begins;
            or a member's file, its folder, or the folder of its stage.

    Raises:
        ValueError: one line, if there is no such member, or more than one.
    """
    where = Path(member)
    if where.is_file():
        return where, where.stem
    if where.is_dir():
        for folder in (where, where / "artifacts"):
            if (folder / _MEMBER_FILE).is_file():
                return folder / _MEMBER_FILE, f"member-{where.resolve().name}"
        raise ValueError(
            f"MEMBER: {member!r} has no {_MEMBER_FILE}; allowed: the folder of a finished finetune stage, or what "
            "spp extract wrote; check the path"
        )
    store = Store(root)
    refs = [ref for ref in store.find_stages(member) if ref.kind in _KINDS and store.is_done(ref.kind, ref.key)]
    found = {file: ref.key for ref in refs if (file := _file_of(store, ref)) is not None}
    if len(found) == 1:
        ((file, key),) = found.items()
        return file, f"member-{key[:8]}"
    some = ", ".join(key[:8] for key in list(found.values())[:5])
    problem = f"fits {len(found)} members ({some})" if found else f"is no folder, and no finished member of {root}"
    remedy = "give more of its key" if found else "see the column key of family.csv, which spp report family writes"
    allowed = "key of a finished stage that measured or finetuned a member, or a folder"
    raise ValueError(f"MEMBER: {member!r} {problem}; allowed: {allowed}; {remedy}")


def _runtime_of(file: Path) -> dict[str, Any] | None:
    """How the stage that wrote a member finds the network's own code; None for a file that no stage wrote."""
    found = stage_of(file)
    if found is None:
        return None
    store, ref = found
    runtime: dict[str, Any] = store.spec(ref.kind, ref.key)["runtime"].get("model", {})
    return runtime


def _file_of(store: Store, ref: StageRef) -> Path | None:
    """The file of the member that a stage finetuned or measured; None for the measure of a dense network."""
    if ref.kind == "finetune":
        return store.artifacts_dir(ref.kind, ref.key) / _MEMBER_FILE
    spec = store.spec(ref.kind, ref.key)
    budget = spec["config"].get("budget")
    if budget is None:
        return None
    made_by = spec["inputs"]["member"]
    artifacts = store.artifacts_dir(made_by["kind"], made_by["key"])
    if made_by["kind"] == "finetune":
        return artifacts / _MEMBER_FILE
    from spp.stages.member import member_file

    return artifacts / member_file(budget["value"])

"""spp export: a member as a file that other programs run."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spp.plan.spec import StageRef
from spp.store.marker import verified
from spp.store.store import Store, stage_of
from spp.text import visible

SUFFIXES = {"safetensors": "", "onnx": ".onnx", "torch": ".pt2"}
_MEMBER_FILE, _CONFIG_FILE = "member.safetensors", "config.json"
_KINDS = ("finetune", "measure")
"""Kinds of stages by whose key a member is found."""


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is to be written.

    Attributes:
        member: its folder, its file, or the key of a stage; see `find_member`.
        form: safetensors, onnx or torch.
        out: the file, or for safetensors the folder; None: the default.
        opset: of ONNX; None: what torch writes.
        int8: dynamic or static; None: float32.
        force: whether a member's folder may be overwritten.
    """

    member: str
    form: str
    out: Path | None = None
    opset: int | None = None
    int8: str | None = None
    force: bool = False


def export(root: Path, request: ExportRequest, *, as_json: bool) -> int:
    """Write the file and say what is in it."""
    for name, value in (("opset", request.opset), ("int8", request.int8)):
        if value is not None and request.form != "onnx":
            raise ValueError(f"--{name}: {value} has no meaning for --format {request.form}; allowed: --format onnx")
    store = Store(root)
    sparse = _find_sparse(store, request.member)
    if sparse is not None:
        return _export_sparse(store, sparse, request, as_json=as_json)
    source, name = find_member(root, request.member)
    if source.is_file():
        verified(source)
    from spp.deploy import export as worker
    from spp.deploy.quality import dense_key_of, open_measured_data

    suffix = SUFFIXES[request.form]
    name += f".int8-{request.int8}" if request.int8 else ""
    file = request.out or Path(f"{name}{suffix}")
    if file.suffix != suffix:
        raise ValueError(
            f"--out: {str(file)!r} does not fit --format {request.form}; allowed: a "
            f"{f'file that ends in {suffix}' if suffix else 'folder'}; use {file.with_suffix(suffix)}"
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        made = worker.export(
            source,
            request.form,
            file,
            opset=request.opset,
            int8=request.int8,
            runtime=_runtime_of(source),
            data=_data(store, dense_key_of(store, source), open_measured_data),
            force=request.force,
        )
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(
            f"--out: {str(file)!r} cannot be written ({error.strerror}); allowed: a file in a folder that can be "
            "written; choose another"
        ) from None
    if as_json:
        num_bytes = made.file.stat().st_size if made.file.is_file() else None
        about = None if made.description is None else str(made.description)
        row = {"file": str(made.file), "bytes": num_bytes, "description": about, "difference": made.difference}
        print(json.dumps({**row, "checked_on": made.checked_on, "compared": made.compared}, indent=1))
        return 0
    checked = "not compared, as onnxruntime is not installed"
    if made.difference is not None:
        checked = f"differ by at most {made.difference:.1e} of the largest from the member's, for {made.checked_on}"
    size = f" ({made.file.stat().st_size / 1e6:.3g} MB)" if made.file.is_file() else ""
    print(f"{'file:  ' if size else 'folder:'}  {visible(str(made.file))}{size}")
    if made.description is not None:
        print(f"about:   {visible(str(made.description))}")
    print(f"outputs: {checked}{' before they were made integers' if made.compared else ''}")
    for name, (before, after) in made.compared.items():
        print(f"{name}: {before:.4g} as float32, {after:.4g} as INT8")
    return 0


def _find_sparse(store: Store, member: str) -> StageRef | None:
    """The stage that pruned single weights of a language model, where the key is of it or of the member's measuring."""
    if Path(member).exists():
        return None
    found = set()
    for ref in store.find_stages(member):
        if ref.kind == "measure" and store.is_done(ref.kind, ref.key):
            made_by = store.spec(ref.kind, ref.key)["inputs"]["member"]
            ref = StageRef(made_by["kind"], made_by["key"])
        if ref.kind == "sparsify" and store.is_done(ref.kind, ref.key):
            found.add(ref)
    return found.pop() if len(found) == 1 else None


def _export_sparse(store: Store, ref: StageRef, request: ExportRequest, *, as_json: bool) -> int:
    """Write a language model with zeros, as transformers loads it."""
    if request.form != "safetensors":
        raise ValueError(
            f"--format: {request.form} is not allowed for single weights of a language model; allowed: safetensors"
        )
    from spp.deploy.sparse_language import export_sparse

    out = request.out or Path(f"member-{ref.key[:8]}")
    about = export_sparse(store, ref, out, force=request.force)
    if as_json:
        row: dict[str, object] = {
            "file": str(out),
            "bytes": None,
            "description": None,
            "difference": None,
            "checked_on": "",
            "compared": {},
        }
        print(json.dumps(row, indent=1))
        return 0
    print(f"folder:  {visible(str(out))}")
    print(f"loads:   transformers.AutoModelForCausalLM.from_pretrained, in {about['dtype']}")
    print(f"zeros:   {about['num_weights'] - about['num_kept']} of {about['num_weights']} weights in decoder layers")
    return 0


def _data(store: Store, dense_key: str | None, open_data: Callable[..., Any]) -> Any:
    """The data that a member is for, None where they are not known or not here."""
    try:
        found = None if dense_key is None else open_data(store, dense_key)
    except ValueError:
        return None
    return None if found is None else found[0]


def find_member(root: Path, member: str) -> tuple[Path, str]:
    """The file or folder of a member, and a name for what is made of it.

    Args:
        member: key of a finished stage of the store at `root` that measured or finetuned a member, or how it begins;
            or the folder of a member, a member's file in a store, or the folder of its stage.

    Raises:
        ValueError: one line, if there is no such member, or more than one.
    """
    where = Path(member)
    if where.is_file():
        return where, where.stem
    if (where / _CONFIG_FILE).is_file():
        return where, str(where / "model")
    if where.is_dir():
        for folder in (where, where / "artifacts"):
            if (folder / _MEMBER_FILE).is_file():
                return folder / _MEMBER_FILE, f"member-{where.resolve().name}"
        raise ValueError(
            f"MEMBER: {member!r} has no {_CONFIG_FILE} and no {_MEMBER_FILE}; allowed: the folder of a finished "
            "finetune stage, or what spp extract wrote; check the path"
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
    found = stage_of(file) if file.is_file() else None
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

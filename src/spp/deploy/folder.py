"""The folder of a member: weights, a config.json with timm's keys, the file that loads both without spp, a card."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from spp import __version__
from spp.deploy import transformers_folder
from spp.deploy.card import model_card
from spp.deploy.facts import MemberFacts
from spp.deploy.folder_config import folder_config
from spp.deploy.llama_folder import is_llama_folder, largest_difference, llama_in, load_llama, write_llama
from spp.factory import find_own
from spp.models.finite import first_not_finite
from spp.stages.member import FILE_NAME as MEMBER_FILE
from spp.stages.member import load_member
from spp.store import git
from spp.structure import modeling_spp
from spp.structure.compact import compact
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs
from spp.structure.inputs import call
from spp.structure.modeling_spp import CONFIG_FILE, WEIGHTS_FILE
from spp.structure.wrappers import unwrapped

MODELING_FILE, CARD_FILE, ORIGIN_FILE = "modeling_spp.py", "README.md", "origin.json"
TOLERANCE = 1e-5
"""Largest difference of any output of the loaded folder, relative to the largest output."""


@overload
def save_member(small: nn.Module, folder: str | Path, /, *, force: bool = False, **facts: Any) -> Path: ...
@overload
def save_member(
    model: nn.Module, masks: Mapping[str, Tensor], folder: str | Path, /, *, force: bool = False, **facts: Any
) -> Path: ...
def save_member(model: nn.Module, /, *where: Any, force: bool = False, **facts: Any) -> Path:
    """Write the folder of a member, for `load` and for those who do not have spp.

        spp.save_member(model, masks, "small", class_names=["cat", "dog"])
        spp.save_member(spp.compact(model, masks), "small")

    Args:
        model: a compact network; or, with masks, the dense one, which is left unchanged. One of timm, of transformers
            (ViT, DeiT, DINOv2, CLIP, BERT, Llama), or of a factory.
        where: the masks, if the network is dense, and the folder.
        force: take the place of a folder that holds another member.
        facts: fields of `MemberFacts`. Without preprocessing it is what timm says of the network.

    Returns:
        The folder.

    Raises:
        ValueError: one line, if the folder is in use, the weights are not finite, a field does not exist, or the
            network cannot be built again from its name.
    """
    *given, folder = where
    unknown = sorted(set(facts) - set(MemberFacts.__dataclass_fields__))
    if unknown or len(given) > 1:
        what = f"{unknown[0]}: it" if unknown else f"{len(given)} arguments before the folder: this"
        allowed = ", ".join(MemberFacts.__dataclass_fields__)
        raise ValueError(f"save_member: {what} is not allowed; allowed: masks, the folder, force, {allowed}")
    network = unwrapped(model)
    if given:
        facts.setdefault("dense", count_cost(network, example_inputs(network)))
        network = compact(network, given[0])
    write_folder(Path(folder), network, MemberFacts(**facts), force=force)
    return Path(folder)


def write_folder(folder: Path, small: nn.Module, facts: MemberFacts, *, force: bool = False) -> float:
    """Write the folder of a compact network, whole or not at all; its outputs are compared with the network's.

    Returns:
        Their largest difference, relative to the largest output.

    Raises:
        ValueError: see `save_member`.
    """
    refuse_used(folder, force)
    bad = first_not_finite(small)
    if bad is not None:
        raise ValueError(f"save_member: {bad!r} is not finite; allowed: finite weights; use a smaller lr")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=f".{folder.name}-") as made:
        partial = Path(made) / "folder"
        partial.mkdir()
        llama = llama_in(small)
        if llama is not None:
            _write_origin(partial, small, facts, write_llama(partial, llama))
            difference = _within_tolerance(largest_difference(load_llama(partial), llama), "take one of spp.compact")
        else:
            _write(partial, small, facts)
            with _on_path(facts.factory_folder):
                difference = _compare(partial, small)
        if folder.exists():
            os.replace(folder, Path(made) / "before")
        os.replace(partial, folder)
    return difference


def load(where: str | Path, *, runtime: Mapping[str, Any] | None = None) -> nn.Module:
    """The network of a member's folder, in evaluation mode, on the CPU: a plain torch module.

    Args:
        where: the folder that `spp extract` or `save_member` wrote; or the file of a member in a store.
        runtime: of a file in a store: where to find the factory of one's own network; None: on Python's path.

    Raises:
        ValueError: one line, if a file is missing or is not the one that was written, or names a factory that is not
            the user's own code.
    """
    where = Path(where)
    if where.is_file() or (where / MEMBER_FILE).is_file():
        return load_member(where, runtime=runtime)
    check_folder(where)
    if transformers_folder.is_transformers_folder(where):
        from spp.structure import modeling_transformers

        return modeling_transformers.load(where)
    if is_llama_folder(where):
        return load_llama(where)
    factory = modeling_spp.read_config(where)["spp"].get("factory")
    if factory is not None:
        find_own(factory, f"{CONFIG_FILE}: spp.factory")
    return modeling_spp.load(where)


def check_folder(folder: Path) -> None:
    """Compare the files of a folder with the hashes in its origin.json.

    Raises:
        ValueError: one line, for the first that is missing or was altered.
    """
    origin = read_origin(folder)
    for name, digest in origin["sha256"].items():
        file = folder / name
        problem = "is missing" if not file.is_file() else "" if _sha256(file) == digest else "was altered"
        if problem:
            raise ValueError(
                f"folder: {str(file)!r} {problem}; allowed: the file that was written with {ORIGIN_FILE}; copy it again"
            )


def read_origin(folder: Path) -> dict[str, Any]:
    """The record of where a folder's member comes from.

    Raises:
        ValueError: one line, if it is missing or broken.
    """
    file = folder / ORIGIN_FILE
    try:
        origin = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise ValueError(
            f"folder: {str(file)!r} cannot be read ({reason}); allowed: a folder that spp wrote; copy it again"
        ) from None
    if not isinstance(origin, dict) or not isinstance(origin.get("sha256"), dict):
        raise ValueError(f"folder: {str(file)!r} has no hashes; allowed: a folder that spp wrote; copy it again")
    return origin


def push_to_hub(folder: str | Path, repo: str, *, token: str | None = None, private: bool = True) -> str:
    """Upload the folder of a member to the Hugging Face Hub; returns its address.

    Args:
        folder: what `save_member` or `spp extract` wrote.
        repo: OWNER/NAME; made if it is not there.
        token: of an account that may write; None: the one that `hf auth login` or $HF_TOKEN left.
        private: of a repository that is made.

    Raises:
        ValueError: one line, without a token, or if the folder is not whole.
    """
    from huggingface_hub import HfApi, get_token

    check_folder(Path(folder))
    token = token or get_token()
    if token is None:
        raise ValueError("token: there is none; allowed: that of an account which may write; set HF_TOKEN")
    api = HfApi(token=token)
    api.create_repo(repo, exist_ok=True, private=private)
    return str(api.upload_folder(repo_id=repo, folder_path=str(folder)))


def refuse_used(folder: Path, force: bool) -> None:
    """Refuse a folder that holds something, unless it is a member that may be overwritten.

    Raises:
        ValueError: one line.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / ORIGIN_FILE).is_file():
        raise ValueError(
            f"--out: {str(folder)!r} holds something else than a member; allowed: a folder that is empty or not there; "
            "choose another"
        )
    if not force:
        raise ValueError(f"--out: {str(folder)!r} holds a member; allowed: a new folder; choose another or add --force")


def _write(folder: Path, small: nn.Module, facts: MemberFacts) -> None:
    if transformers_folder.is_written(small):
        names = transformers_folder.write(folder, small, facts.class_names)
        origin = _write_origin(folder, small, facts, names)
        card = transformers_folder.card(
            small, origin, facts.measured, facts.licence, facts.preprocessing, bool(facts.tokenizer_files)
        )
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        return
    config = folder_config(small, facts)  # first: it refuses what cannot be built again
    weights = {name: value.detach().cpu().contiguous() for name, value in small.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    shutil.copyfile(str(modeling_spp.__file__), folder / MODELING_FILE)
    origin = _write_origin(folder, small, facts, (WEIGHTS_FILE, CONFIG_FILE, MODELING_FILE))
    card = model_card(config, origin, facts.measured, facts.licence)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def _write_origin(folder: Path, small: nn.Module, facts: MemberFacts, names: Sequence[str]) -> dict[str, Any]:
    """Write where the member comes from, with the hashes of these files and of the tokenizer's, which it writes."""
    for name, content in facts.tokenizer_files.items():
        (folder / name).write_bytes(content)
    cost = count_cost(small, example_inputs(small))
    origin: dict[str, Any] = {
        "spp": __version__,
        "commit": (git.describe() or {}).get("commit"),
        "macs": cost.macs,
        "params": cost.params,
        **({} if facts.dense is None else {"dense": {"macs": facts.dense.macs, "params": facts.dense.params}}),
        **facts.origin,
        "sha256": {name: _sha256(folder / name) for name in (*names, *facts.tokenizer_files)},
    }
    (folder / ORIGIN_FILE).write_text(json.dumps(origin, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return origin


@torch.no_grad()
def _compare(folder: Path, small: nn.Module) -> float:
    """Load what was written, and compare its outputs on random inputs.

    Raises:
        ValueError: one line, if it is not the same network.
    """
    if transformers_folder.is_written(small):
        difference = transformers_folder.difference(folder, small)
        return _within_tolerance(difference, "keep its configuration as transformers has it")
    remedy = "build it by timm.create_model with all its arguments, or give factory="
    try:
        loaded = modeling_spp.load(folder)
    except ValueError as error:
        raise ValueError(f"model: it cannot be built again ({error}); allowed: a network of timm; {remedy}") from None
    (example,) = example_inputs(small).values()
    inputs = torch.randn(2, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    was_training = small.training
    expected = call(small.eval(), inputs.to(example.device, example.dtype)).cpu()
    small.train(was_training)
    found = call(loaded.to(example.dtype), inputs.to(example.dtype))
    difference = (found - expected).abs().max() / expected.abs().max()
    return _within_tolerance(float(difference), remedy)


def _within_tolerance(difference: float, remedy: str) -> float:
    if not difference <= TOLERANCE:
        raise ValueError(
            f"model: built again its outputs differ by {difference:.1e}; allowed: {TOLERANCE:.0e} of the largest; "
            f"{remedy}"
        )
    return difference


@contextmanager
def _on_path(folder: str | None) -> Iterator[None]:
    """Let Python find what lies in a folder."""
    before = list(sys.path)
    sys.path[:0] = [] if folder is None else [folder]
    try:
        yield
    finally:
        sys.path[:] = before


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

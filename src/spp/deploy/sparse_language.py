"""A language model with single weights pruned as a folder that stock transformers loads: zeros where weights went.

N:M that was found in another order of an input holds in that order alone, so where the network lets it, the order is
folded into it, and no gather is needed: the rows of gate and up, or of fc1, take the order of what reads them, and so
do the rows of v within a head. The inputs of q, k, v and of gate, up are the residual stream behind a norm; they are
read by all layers, each with an order of its own, and stay as they are: there the zeros are the same, and N:M holds in
the order that sparsity.json has.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from spp.models.decoder import INPUTS, Shards
from spp.models.pretrained import CONFIG_FILE, INDEX_FILE, TOKENIZER_FILES, shards_of
from spp.plan.spec import StageRef
from spp.sparsity.permutation import TiedHeads, value_rows
from spp.stages.language import model_folder
from spp.stages.sparse_member import SparseLinear, layer_file, read_layer
from spp.store.store import Store

ABOUT_FILE = "sparsity.json"
_COPIED = (*TOKENIZER_FILES, INDEX_FILE, "generation_config.json", "chat_template.jinja")
_MAKERS: Mapping[str, tuple[str, ...]] = {
    "mlp.down_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "fc2": ("fc1",),
    "self_attn.o_proj": ("self_attn.v_proj",),
    "self_attn.out_proj": ("self_attn.v_proj",),
}
"""By linear those whose rows make its input, so that an order of it folds into them."""
_OF_HEADS = ("self_attn.o_proj", "self_attn.out_proj")


def export_sparse(store: Store, ref: StageRef, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Write the member of a finished stage `sparsify`; returns what sparsity.json says beside the orders.

    Raises:
        ValueError: one line, see `write_sparse_model`.
    """
    spec, summary = store.spec(ref.kind, ref.key), store.summary(ref.kind, ref.key)
    config = spec["config"]
    facts = {
        "method": config["method"],
        "sparsity": config["sparsity"],
        "dtype": config["dtype"],
        **{name: summary[name] for name in ("num_weights", "num_kept", "shares")},
    }
    dense, artifacts = model_folder(store, spec, "dense"), store.artifacts_dir(ref.kind, ref.key)
    write_sparse_model(dense, artifacts, out, getattr(torch, config["dtype"]), facts, force=force)
    return facts


def write_sparse_model(
    dense: Path, artifacts: Path, out: Path, dtype: torch.dtype, facts: Mapping[str, Any], *, force: bool = False
) -> None:
    """Write the folder, one shard in memory at a time.

    Args:
        dense: folder of the dense model.
        artifacts: of the stage `sparsify`.
        out: the folder to write.
        dtype: numbers in which the member was made and measured.
        facts: what sparsity.json says beside the orders.
        force: whether an earlier export in `out` may be replaced.

    Raises:
        ValueError: one line, if `out` holds something already, or a layer is missing.
    """
    if out.exists() and any(out.iterdir()) and not (force and (out / ABOUT_FILE).is_file()):
        raise ValueError(
            f"--out: {str(out)!r} is not empty; allowed: a new folder, or with --force one that was exported before; "
            "choose another"
        )
    config = json.loads((dense / CONFIG_FILE).read_text())
    members = _Members(dense, artifacts, config)
    partial = out.with_name(f".partial-{out.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for shard in shards_of(dense):
            with safe_open(shard, framework="pt") as file:
                tensors = {name: members.tensor(name, file.get_tensor(name), dtype) for name in file.keys()}  # noqa: SIM118
            save_file(tensors, partial / shard.name, metadata={"format": "pt"})
        for name in _COPIED:
            if (dense / name).is_file():
                shutil.copyfile(dense / name, partial / name)
        config.pop("torch_dtype", None)
        config["dtype"] = str(dtype).removeprefix("torch.")
        (partial / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        about = {**facts, "order_of_inputs": members.orders_left}
        (partial / ABOUT_FILE).write_text(json.dumps(about, indent=1) + "\n")
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Members:
    """Names of the dense model's tensors, and what a member has in their places.

    Attributes:
        orders_left: by linear the order of its inputs in which N:M holds, where it could not be folded.
    """

    def __init__(self, dense: Path, artifacts: Path, config: Mapping[str, Any]) -> None:
        self.linears = INPUTS[config["model_type"]]
        self.artifacts = artifacts
        num_heads = config["num_attention_heads"]
        num_groups = config.get("num_key_value_heads") or num_heads
        self.heads = TiedHeads(num_groups, num_heads // num_groups)
        self.shards = Shards(dense)
        self.orders_left: dict[str, list[int]] = {}
        self._pattern = re.compile(r"(?P<prefix>.*layers)\.(?P<index>\d+)\.(?P<name>.+)\.(?P<part>weight|bias)")
        self._layer: tuple[int, dict[str, SparseLinear]] | None = None

    def tensor(self, name: str, dense: Tensor, dtype: torch.dtype) -> Tensor:
        """The member's tensor of this name."""
        found = self._pattern.fullmatch(name)
        dense = dense.to(dtype)
        if found is None or found["name"] not in self.linears:
            return dense.contiguous()
        index, linear = int(found["index"]), found["name"]
        layer = self._read(found["prefix"], index)
        if found["part"] == "weight":
            dense = layer[linear].applied_to(dense)
            order = layer[linear].permutation
            if order is not None and linear in _MAKERS:
                dense = dense[:, order]
            elif order is not None:
                self.orders_left[f"{found['prefix']}.{index}.{linear}"] = order.tolist()
        rows = self._order_of_rows(layer, linear)
        return (dense if rows is None else dense[rows]).contiguous()

    def _order_of_rows(self, layer: Mapping[str, SparseLinear], linear: str) -> Tensor | None:
        readers = [name for name, makers in _MAKERS.items() if linear in makers and name in layer]
        order = layer[readers[0]].permutation if readers else None
        if order is None:
            return None
        return value_rows(order, self.heads) if readers[0] in _OF_HEADS else order

    def _read(self, prefix: str, index: int) -> dict[str, SparseLinear]:
        if self._layer is None or self._layer[0] != index:
            file = layer_file(self.artifacts, index)
            if not file.is_file():
                raise ValueError(
                    f"MEMBER: {str(file)!r} is missing; allowed: all layers of a finished stage; run it again"
                )
            names = {linear: f"{prefix}.{index}.{linear}.weight" for linear in self.linears}
            self._layer = index, read_layer(file, self.shards.shapes(names))
        return self._layer[1]

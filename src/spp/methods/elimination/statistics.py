"""What OBS-Fisher must know of every pair, summed up batch by batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spp.methods.devices import mean_over_devices, num_devices
from spp.methods.sample_gradients import MaskPointWatch
from spp.structure.adapters.adapter import MaskPoint
from spp.structure.adapters.registry import adapter_for
from spp.structure.find import unit_weights
from spp.structure.least_squares import no_sum
from spp.structure.masked import MaskedModel
from spp.structure.pair import Pair


@dataclass(frozen=True)
class SecondMap:
    """The second map of a "vo" or "mlp" pair: its module, the channels of every unit, (units, channels), and the module
    of the pair."""

    module: str
    groups: Tensor
    pair_module: str


class PairStatistics:
    """Watches forward and backward passes of a masked network and adds up what they show.

    Attributes:
        maps: the second maps by pair name.
    """

    def __init__(self, masked: MaskedModel) -> None:
        self._masked = masked
        self._watch = MaskPointWatch(masked, [pair for pair in masked.pairs if pair.kind == "qk"], self._add_logits)
        self.maps = {pair.name: _second_map(masked.model, pair) for pair in masked.pairs if pair.kind != "qk"}
        self._handles: list[RemovableHandle] = []
        self._seen: dict[str, dict[str, Tensor]] = {}
        self._num_samples = 0
        self._sums: dict[str, dict[str, Tensor]] = {}
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._sums, self._num_samples = {}, 0

    def attach(self) -> None:
        """Watch the next pass."""
        self._watch.attach()
        for name, second in self.maps.items():
            module = self._masked.model.get_submodule(second.module)
            self._handles.append(module.register_forward_hook(self._hook(name)))

    def take_in(self) -> int:
        """Add the pass, and watch no longer; the number of its samples over all devices."""
        num_samples = self._watch.num_samples * num_devices()
        self._watch.detach()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for name, found in self._seen.items():
            sums = self._sums.setdefault(name, {})
            for what, value in found.items():
                summed = mean_over_devices(value) * num_devices()
                sums[what] = sums[what] + summed if what in sums else summed
        self._seen = {}
        self._num_samples += num_samples
        return num_samples

    def of_map(self, name: str) -> tuple[Tensor, Tensor]:
        """The centred Gram matrix of the inputs of a second map, for one image, and the Fisher information A."""
        sums = self._sums[name]
        num_tokens = sums["count"]
        centred = sums["gram"] - torch.outer(sums["inputs"], sums["inputs"]) / num_tokens
        return centred / self._num_samples, sums["fisher"] / num_tokens

    def of_logits(self, name: str) -> Tensor:
        """M of a "qk" pair, (units, units), for one image."""
        return self._sums[name]["products"] / self._num_samples

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        return {"num_samples": self._num_samples, "sums": {name: dict(sums) for name, sums in self._sums.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        device = next(self._masked.model.parameters()).device
        self._num_samples = int(state["num_samples"])
        self._sums = {
            name: {what: value.to(device) for what, value in sums.items()} for name, sums in state["sums"].items()
        }

    def _hook(self, name: str) -> Any:
        def watch(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if not output.requires_grad:
                return
            inputs = self._real_rows(name, args[0].detach())
            gram = no_sum(inputs.device, inputs.shape[1], inputs.shape[1])
            gram += inputs.T @ inputs
            self._seen[name] = {
                "gram": gram,
                "inputs": inputs.sum(0).to(gram.dtype),
                "count": torch.tensor(len(inputs), device=inputs.device, dtype=gram.dtype),
            }
            output.register_hook(lambda grad: self._add_fisher(name, grad))  # type: ignore[no-untyped-call]

        return watch

    def _real_rows(self, name: str, inputs: Tensor) -> Tensor:
        """Those of no padding, whose gradients are 0 and whose inputs are nothing that counts."""
        model, rows = self._masked.model, inputs.flatten(0, -2)
        is_real = adapter_for(model).real_tokens(model, self.maps[name].pair_module, self._watch.inputs)
        return rows if is_real is None else rows[is_real.flatten()]

    def _add_fisher(self, name: str, grad: Tensor) -> None:
        # The loss is a mean over the samples, so that each has only its share of it.
        grads = grad.flatten(0, -2).float() * self._watch.num_samples
        fisher = no_sum(grads.device, grads.shape[1], grads.shape[1])
        fisher += grads.T @ grads
        self._seen[name]["fisher"] = fisher

    def _add_logits(self, pair: Pair, point: MaskPoint, products: Tensor) -> None:
        width = products.shape[-1] // (pair.num_heads * point.copies_per_head)
        by_copy = products.reshape(-1, pair.num_heads, point.copies_per_head, width)
        rows = by_copy.sum(2) * self._watch.num_samples
        by_head = no_sum(rows.device, pair.num_heads, width, width)
        by_head += rows.permute(1, 2, 0) @ rows.transpose(0, 1)
        summed = _block_diagonal(by_head) if pair.per_head else by_head.sum(0)
        self._seen[pair.name] = {"products": summed}


def _block_diagonal(blocks: Tensor) -> Tensor:
    """(number, size, size) -> (number * size, number * size), zeros beside the blocks."""
    number, size, _ = blocks.shape
    whole = blocks.new_zeros(number, size, number, size)
    whole[torch.arange(number), :, torch.arange(number)] = blocks
    return whole.view(number * size, number * size)


def _second_map(model: nn.Module, pair: Pair) -> SecondMap:
    """The map whose columns are the units'; its weight is the only one of their weights that lies along columns."""
    part = next(part for part in unit_weights(model, pair) if part.dim == 1)
    return SecondMap(part.name.removesuffix(".weight"), part.index, pair.module)

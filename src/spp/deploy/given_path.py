"""A path's file with a network that it fits, where no stage of a store knows them."""

from collections.abc import Mapping
from pathlib import Path

import timm
from torch import Tensor, nn

from spp.deploy.named import TIMM, is_factory, open_network
from spp.factory import find_factory
from spp.models.checkpoints import read_checkpoint, without_wrappers
from spp.models.config import PRETRAINED, TRAIN, ModelConfig
from spp.models.new_head import converted, head_parameters
from spp.models.timm import build as build_of_timm
from spp.models.weights import load_weights
from spp.stages.member_source import CutMember, PathFile, refusing_weights
from spp.structure.compact import compact
from spp.structure.find import find_pairs
from spp.structure.tokens import drop_tokens
from spp.structure.wrappers import unwrapped


class GivenPath(PathFile):
    """A path and a network, both as somebody brings them.

    Args:
        source: the path's file or folder.
        model: the network: timm:NAME, my.module:make_model, or the folder of a model of transformers.
        weights: a checkpoint's file, or "pretrained": those that timm publishes; None: those that the factory's network
            or the folder has.

    Raises:
        ValueError: one line, if there is no such path or network, nobody says its weights, or the path is of another.
    """

    def __init__(self, source: str, model: str, weights: str | None) -> None:
        super().__init__(source)
        self._network = _open_dense(model, weights).eval()
        self._drop_tokens(source)
        self._refuse_another(source)
        named = model if model.startswith(TIMM) else Path(model).name
        self._weights = named if weights is None else f"{Path(weights).name} of {named}"
        own = is_factory(model)
        self._runtime = {}
        if own:
            self._runtime = {"folder": str(find_factory(model, "--model").folder)}
        elif not model.startswith(TIMM):
            self._runtime = {"pretrained_folder": model}
        origin = PRETRAINED if weights == PRETRAINED else TRAIN
        name = {"factory": model} if own else {"name": model.removeprefix(TIMM)}
        self._architecture = {"model": {**name, "weights": origin}}

    def dense_network(self) -> nn.Module:
        return self._network

    def cut(self, masks: dict[str, Tensor]) -> CutMember:
        return CutMember(
            network=compact(self._network, masks).eval(),
            masks=masks,
            architecture=self._architecture,
            runtime=self._runtime,
            dense=self.dense,
            weights=self._weights,
            keys={},
            method="",
        )

    def repaired(self, member: CutMember, num_samples: int) -> CutMember:
        raise ValueError(
            f"--repair: {num_samples} is not allowed with --model, as no data are known; allowed: 0; leave it out, or "
            "use spp.repair and spp.save_member"
        )

    def _drop_tokens(self, source: str) -> None:
        """Leave out of the network the tokens that no member of the path sees."""
        if not self.path.tokens:
            return
        try:
            drop_tokens(self._network, self.path.tokens)
        except ValueError:
            raise _another(source, "leaves out tokens that the network of --model has not, or needs") from None

    def _refuse_another(self, source: str) -> None:
        found = {pair.name: pair for pair in find_pairs(self._network, per_head=self._is_per_head)}
        for pair in self.path.pairs:
            own = found.get(pair.name)
            problem = (
                f"has a pair {pair.name!r}, which the network of --model has not"
                if own is None
                else f"has {pair.size} units in {pair.name!r}, and the network of --model {own.size}"
                if (own.size, own.num_heads) != (pair.size, pair.num_heads)
                else "is of a network, an input size or classes that cost more or less than those of --model"
                if (own.macs_per_unit, own.model_cost) != (pair.macs_per_unit, pair.model_cost)
                else ""
            )
            if problem:
                raise _another(source, problem)

    @property
    def _is_per_head(self) -> bool:
        return any(pair.per_head for pair in self.path.pairs)


def _another(source: str, problem: str) -> ValueError:
    return ValueError(f"PATH_OR_SWEEP: {source!r} {problem}; allowed: a path of this network; name its own")


def _open_dense(model: str, weights: str | None) -> nn.Module:
    if weights == PRETRAINED:
        return _published(model)
    if weights is None and not model.startswith(TIMM):
        return unwrapped(open_network(model, has_weights=True).network)
    file = Path(weights or "")
    if not file.is_file():
        what = "are none" if weights is None else f"is no file {weights!r}"
        raise ValueError(
            f"--weights: there {what}; allowed: the file of a checkpoint, or pretrained of timm; give --weights FILE"
        )
    network = unwrapped(open_network(model).network)
    with refusing_weights():
        given = without_wrappers(read_checkpoint(file), network.state_dict().keys())
        if model.startswith(TIMM):
            network = _with_classes_of(given, model.removeprefix(TIMM), network)
            given = converted(network, given)
        load_weights(network, given, str(file))
    return network


def _published(model: str) -> nn.Module:
    """The network of timm with the weights that timm has for it."""
    name = model.removeprefix(TIMM)
    try:
        published = timm.get_pretrained_cfg(name) if model.startswith(TIMM) else None
    except RuntimeError:  # of its weights none have this tag
        published = None
    if published is None:
        raise ValueError(
            f"--weights: pretrained is not allowed with --model {model}; allowed: a checkpoint's file; give one"
        )
    with refusing_weights():
        return build_of_timm(ModelConfig(name=name, weights=PRETRAINED), {}, published.num_classes, {})


def _with_classes_of(weights: Mapping[str, Tensor], name: str, network: nn.Module) -> nn.Module:
    """The network of timm with as many outputs as the head of these weights has."""
    head = next((each for each in head_parameters(network) if each in weights), None)
    if head is None or len(weights[head]) == len(network.get_parameter(head)):
        return network
    return timm.create_model(name, num_classes=len(weights[head]))

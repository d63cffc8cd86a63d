"""A compact model of any size from a finished path, without training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from spp.data.config import DataConfig
from spp.data.loaders import open_data
from spp.dynamics.ranking import open_path
from spp.dynamics.storage import FILE_NAME as FILE_NAME_OF_PATH
from spp.methods.registry import config_class, load_method
from spp.models.build import config_of, masks_per_head, with_config
from spp.models.config import KEPT_HEAD, ModelConfig
from spp.models.weights import WEIGHTS_FILE, load_checkpoint, load_weights
from spp.plan.config import RepairConfig, RuntimeConfig
from spp.plan.spec import StageRef
from spp.stages.devices import find_device
from spp.stages.member import FILE_NAME, build_untrained, describe_member, load_member
from spp.stages.member_source import CutMember, MemberSource, refusing_weights
from spp.stages.repair import repair_batches
from spp.store.marker import verified
from spp.store.store import Store
from spp.structure.compact import compact
from spp.structure.cost import Cost
from spp.structure.repair import repair
from spp.structure.tokens import drop_tokens
from spp.tasks.config import TaskConfig
from spp.tasks.registry import build_task


@dataclass(frozen=True)
class _CutFamily:
    key: str
    selection: dict[str, Any]
    multiple_of: int
    is_trained: bool
    members: list[Path]


SEARCH_KINDS = ("update", "search")


class OpenedPath(MemberSource):
    """A finished path with all that members can be cut from: the dense network, and the members of its families.

    Args:
        store: where the path's stages are.
        source: a path's file or folder, the folder of its stage, the key of one, or the name of a sweep of `store`.
        weights: a checkpoint of the dense network that members are cut from instead of what the store has.

    Raises:
        ValueError: if there is no such path, or its weights are not in the store.
    """

    def __init__(self, store: Store, source: str, weights: Path | None = None) -> None:
        self.store = store
        self.ref, self._folder, self._refs = _find_path(store, source)
        self.path = open_path(verified(self._folder / FILE_NAME_OF_PATH).parent)
        searched_with = store.spec(self.ref.kind, self.ref.key)["config"]
        families = _families(store, self.ref.key, self._refs)
        selection = families[0].selection if families else {"name": searched_with["method"]["name"]}
        # What a walk or a finetuning has trained goes back to the store's weights, not to those that are given.
        self._families = [] if weights else [family for family in families if family.selection == selection]
        self.given = weights
        self._seed = searched_with["seed"]
        self._config = config_class(selection["name"]).from_spec(selection, "method")
        self._method = load_method(selection["name"])
        self.dense_key = store.spec(self.ref.kind, self.ref.key)["inputs"]["dense"]["key"]
        summary = store.summary("dense", self.dense_key)
        self.dense = Cost(summary["macs"], summary["params"])
        model = ModelConfig.from_spec(searched_with["model"], "model")
        self.architecture = with_config(summary["architecture"], model)
        self._runtime = store.spec(self.ref.kind, self.ref.key)["runtime"].get("model", {})

    @property
    def method(self) -> str:
        """Name of the method that chooses members."""
        return self._config.name

    def select(self, kind: str, size: float, multiple_of: int) -> dict[str, Tensor]:
        """The units of the member at a budget, with widths rounded up to a multiple within it.

        Raises:
            ValueError: the size is out of reach.
        """
        return self._method.select(self._config, self.path.rounded_to(multiple_of), kind, size)

    def finetuned(self, kind: str, size: float, multiple_of: int | None) -> CutMember | None:
        """The finished member that was finetuned for just this budget, newest first; None where there is none.

        Args:
            kind: macs, params or units.
            size: as the budget was written.
            multiple_of: of its widths; None: whatever it was cut with.
        """
        found = []
        for ref in self._refs:
            if ref.kind != "finetune" or not self.store.is_done(ref.kind, ref.key):
                continue
            spec = self.store.spec(ref.kind, ref.key)
            is_asked = spec["config"]["budget"] == {"kind": kind, "value": size}
            family = self._family_of(spec)
            if is_asked and family is not None and multiple_of in (None, family.multiple_of):
                found.append((self.store.done(ref.kind, ref.key)["finished_at"], ref))
        if not found:
            return None
        ref = max(found, key=lambda dated: dated[0])[1]
        file = self.store.artifacts_dir(ref.kind, ref.key) / FILE_NAME
        kept = describe_member(verified(file))["kept"]
        masks = {
            pair.name: torch.zeros(pair.size, dtype=torch.bool).index_fill_(0, torch.tensor(kept[pair.name]).long(), 1)
            for pair in self.path.pairs
        }
        network = load_member(file, runtime=self._runtime)
        return self._member(network, masks, f"finetune {ref.key}, made for this size", {"finetune": ref.key})

    def select_trained(self, kind: str, size: float) -> dict[str, Tensor] | None:
        """The units of the member at a budget with the newest walk's widths, if it has trained weights for them.

        Raises:
            ValueError: the size is out of reach.
        """
        trained = [family for family in self._families if family.is_trained]
        if not trained:
            return None
        masks = self.select(kind, size, trained[0].multiple_of)
        return None if _smallest_containing(trained, masks) is None else masks

    def is_trained(self, masks: Mapping[str, Tensor]) -> bool:
        """Whether a walk has trained weights that contain these units."""
        trained = [family for family in self._families if family.is_trained]
        return _smallest_containing(trained, masks) is not None

    def cut(self, masks: dict[str, Tensor]) -> CutMember:
        """The member of these units.

        The weights are those of the smallest finished member of a family that contains it (they were trained on the
        way down the path), else, and for per-head masks always, the dense ones.
        """
        donor = _smallest_containing(self._families, masks)
        if donor is not None:
            small = compact(load_member(verified(donor), runtime=self._runtime), _within(donor, masks))
            keys = {"prune": donor.parents[1].name}
            weights = f"{donor.name} of prune {donor.parents[1].name}, the nearest larger one"
        else:
            small, keys = compact(self.dense_network(), masks), {}
            weights = f"{self._trained.kind} {self._trained.key}" if self.given is None else self.given.name
        self._method.finish_member(self._config, small, self._seed)
        return self._member(small, masks, weights, keys)

    def repaired(self, member: CutMember, num_samples: int) -> CutMember:
        """A member re-fitted to the dense network (spp.structure.repair) on training samples of the search's data."""
        spec = self.store.spec(self.ref.kind, self.ref.key)
        config, runtime = spec["config"], RuntimeConfig.read(spec["runtime"], "runtime")
        data = open_data(
            DataConfig.from_spec(config["data"], "data"),
            runtime.data,
            batch_size=RepairConfig(kind="full").batch_size,
            augment=config["recipe"]["augment"],
            seed=config["seed"],
            num_workers=runtime.num_workers,
        )
        task = build_task(TaskConfig.from_spec(config["task"], "task"), runtime.task, data.facts)
        architecture = self.store.summary("dense", self.dense_key)["architecture"]
        dense = self._load(architecture, StageRef("dense", self.dense_key))
        device = find_device(runtime.accelerator)
        batches = repair_batches(data, task, num_samples)
        network = repair(member.network.to(device), dense.to(device), batches).cpu()
        weights = f"{member.weights}, repaired with {num_samples} training samples"
        return replace(member, network=network.eval(), weights=weights)

    def dense_network(self) -> nn.Module:
        """The dense network with the weights that the order belongs to, without the tokens that leave."""
        dense = self._load(self.architecture, self._trained)
        drop_tokens(dense, self.path.tokens)
        return dense.eval()

    def _load(self, architecture: Mapping[str, Any], made_by: StageRef) -> nn.Module:
        """A network of an architecture with the weights that a stage has left, or those that are given instead."""
        network = build_untrained(architecture, self._runtime)
        if self.given is not None:
            # Of these weights the head is trained, whatever those of the store began with.
            config = replace(config_of(architecture), head=KEPT_HEAD, ema=True)
            with refusing_weights():
                load_checkpoint(network, config, str(self.given))
            return network
        file = self.store.artifacts_dir(made_by.kind, made_by.key) / WEIGHTS_FILE
        load_weights(network, load_file(verified(file)), f"the {made_by.kind} stage")
        return network

    @property
    def _trained(self) -> StageRef:
        """The stage whose weights the order belongs to: a search that trained them has left them beside it."""
        return self.ref if (self._folder / WEIGHTS_FILE).exists() else StageRef("dense", self.dense_key)

    def _member(self, network: nn.Module, masks: dict[str, Tensor], weights: str, keys: dict[str, str]) -> CutMember:
        of_dense = {"dense": self.dense_key} if self.given is None else {}
        return CutMember(
            network=network.eval(),
            masks=masks,
            architecture=self.architecture,
            runtime=self._runtime,
            dense=self.dense,
            weights=weights,
            keys={**of_dense, self.ref.kind: self.ref.key, **keys},
            method=self.method,
        )

    def _family_of(self, spec: Mapping[str, Any]) -> _CutFamily | None:
        """The family of this path, among those that choose as the newest, that a finetuning's member is from."""
        family = spec["inputs"].get("family")
        while family is not None and family["kind"] != "prune":  # what was done to its members in between
            family = self.store.spec(family["kind"], family["key"])["inputs"].get("family")
        return next((each for each in self._families if family is not None and each.key == family["key"]), None)


def _find_path(store: Store, source: str) -> tuple[StageRef, Path, list[StageRef]]:
    """Stage and artifacts of the path that `source` names, and the stages among which its families may be."""
    where = Path(source)
    named = [ref for ref in store.find_stages(source) if _has_path(store, ref)]
    if len(named) == 1 and not where.exists():
        return named[0], store.artifacts_dir(named[0].kind, named[0].key), store.find_stages("")
    if where.exists() or "/" in source or where.suffix == ".safetensors":
        folder = where / "artifacts" if (where / "artifacts").is_dir() else where
        ref = _stage_of(store, folder)
        if ref is None:
            raise ValueError(
                f"PATH_OR_SWEEP: {source!r} belongs to no stage of the store {str(store.root)!r}, so its weights are "
                "not known; allowed: a path of the store, or one with its network; give paths.store=DIR, or --model "
                "timm:NAME --weights FILE"
            )
        return ref, folder, store.find_stages("")
    stages = store.read_plan(source).stages.values()
    done = [stage.ref for stage in stages if _has_path(store, stage.ref)]
    if len(done) != 1:
        what = "has no finished path" if not done else f"has {len(done)} paths"
        folders = (str(store.artifacts_dir(ref.kind, ref.key)) for ref in done)
        options = ", ".join(folders) or "a sweep whose update or search is done, with one order for all budgets"
        raise ValueError(f"PATH_OR_SWEEP: {source!r} {what}; allowed: {options}; give one of them")
    return done[0], store.artifacts_dir(done[0].kind, done[0].key), [stage.ref for stage in stages]


def is_of_no_stage(store: Store, source: str) -> bool:
    """Whether a source is a path's file, or its folder, that no stage of a store has made.

    Raises:
        ValueError: one line, if the file is damaged.
    """
    where = Path(source)
    is_file = where.is_file() or (where / FILE_NAME_OF_PATH).is_file()
    return is_file and _stage_of(store, where) is None


def _stage_of(store: Store, folder: Path) -> StageRef | None:
    """The stage of a store that a path's file, or its folder, was written by."""
    key = str(open_path(folder).meta["provenance"].get("stage", ""))
    kind = next((kind for kind in SEARCH_KINDS if store.is_done(kind, key)), None) if key else None
    return None if kind is None else StageRef(kind, key)


def _has_path(store: Store, ref: StageRef) -> bool:
    """Whether a search is done and ended in an order of all units, not in one member."""
    if ref.kind not in SEARCH_KINDS:
        return False
    return store.is_done(ref.kind, ref.key) and (store.artifacts_dir(ref.kind, ref.key) / FILE_NAME_OF_PATH).exists()


def _families(store: Store, search_key: str, refs: list[StageRef]) -> list[_CutFamily]:
    """The finished families among `refs` that were cut from a path, newest first."""
    families = []
    for ref in refs:
        if ref.kind != "prune" or not store.is_done("prune", ref.key):
            continue
        spec = store.spec("prune", ref.key)
        if spec["inputs"]["path"]["key"] == search_key:
            folder = store.artifacts_dir("prune", ref.key)
            files = [folder / member["file"] for member in store.summary("prune", ref.key)["members"].values()]
            multiple_of = spec["config"]["budget"].get("multiple_of", 1)
            is_trained = spec["config"]["recipe"]["epochs"] > 0
            family = _CutFamily(ref.key, spec["config"]["method"], multiple_of, is_trained, files)
            families.append((store.done("prune", ref.key)["finished_at"], family))
    return [family for _, family in sorted(families, key=lambda dated: dated[0], reverse=True)]


def _smallest_containing(families: list[_CutFamily], masks: Mapping[str, Tensor]) -> Path | None:
    """The member with the fewest parameters that has every unit of `masks`."""
    fitting: list[tuple[int, Path]] = []
    for file in (file for family in families for file in family.members):
        description = describe_member(file)
        is_shared, kept = not masks_per_head(description["architecture"]), description["kept"]
        if is_shared and all(set(mask.nonzero().flatten().tolist()) <= set(kept[n]) for n, mask in masks.items()):
            fitting.append((description["params"], file))
    return min(fitting)[1] if fitting else None


def _within(donor: Path, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`masks` over the units that the donor still has."""
    kept = describe_member(donor)["kept"]
    return {name: mask[kept[name]] for name, mask in masks.items() if kept[name]}

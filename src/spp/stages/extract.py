"""A compact model of any size from a finished path, without training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from spp.dynamics.ranking import open_path
from spp.dynamics.storage import FILE_NAME as FILE_NAME_OF_PATH
from spp.methods.registry import config_class, load_method
from spp.models.weights import WEIGHTS_FILE, load_weights
from spp.plan.spec import StageRef
from spp.stages.member import build_untrained, describe_member, load_member
from spp.store.marker import verified
from spp.store.store import Store
from spp.structure.compact import compact
from spp.structure.cost import Cost
from spp.structure.tokens import drop_tokens


@dataclass(frozen=True)
class _CutFamily:
    selection: dict[str, Any]
    members: list[Path]


SEARCH_KINDS = ("update", "search")


@dataclass(frozen=True, kw_only=True)
class CutMember:
    """A member that was cut from a path, not yet written anywhere.

    Attributes:
        network: the compact network, on the CPU, in evaluation mode.
        masks: the units of the dense network that it kept, by pair.
        architecture: of the dense network, see spp.models.build.
        dense: cost of the dense network.
        weights: whose weights it has, in words.
        keys: of the stages that it comes from, by kind.
        method: that found the path.
    """

    network: nn.Module
    masks: dict[str, Tensor]
    architecture: dict[str, Any]
    dense: Cost
    weights: str
    keys: dict[str, str]
    method: str


def cut_member(store: Store, source: str, kind: str, size: float) -> CutMember:
    """Cut the member at a budget.

    The weights are those of the smallest finished member that contains the wanted one (they were trained on the way
    down the path), else, and for per-head masks always, the dense ones.

    Args:
        store: where the path's stages are.
        source: a path's file or folder, the folder of its stage, or the name of a sweep of `store`.
        kind: macs, params or units.
        size: a fraction of the dense model (<= 1) or absolute.

    Raises:
        ValueError: if there is no such path, its weights are not in the store, or the size is out of reach.
    """
    ref, folder, refs = _find_path(store, source)
    path = open_path(verified(folder / FILE_NAME_OF_PATH).parent)
    families = _families(store, ref.key, refs)
    searched_with = store.spec(ref.kind, ref.key)["config"]
    selection = families[0].selection if families else {"name": searched_with["method"]["name"]}
    families = [family for family in families if family.selection == selection]
    config, method = config_class(selection["name"]).from_spec(selection, "method"), load_method(selection["name"])
    masks = method.select(config, path, kind, size)

    dense_key = store.spec(ref.kind, ref.key)["inputs"]["dense"]["key"]
    dense_summary = store.summary("dense", dense_key)
    architecture = {**dense_summary["architecture"], "model": searched_with["model"]}
    runtime = store.spec(ref.kind, ref.key)["runtime"].get("model", {})
    keys = {"dense": dense_key, ref.kind: ref.key}
    donor = _smallest_containing(families, masks)
    if donor is not None:
        small = compact(load_member(verified(donor), runtime=runtime), _within(donor, masks))
        weights = f"{donor.name} of prune {donor.parents[1].name}"
        keys["prune"] = donor.parents[1].name
    else:
        dense = build_untrained(architecture, runtime)
        # A search that trained the weights has left them beside its order.
        trained = StageRef("dense", dense_key) if not (folder / WEIGHTS_FILE).exists() else ref
        file = store.artifacts_dir(trained.kind, trained.key) / WEIGHTS_FILE
        load_weights(dense, load_file(verified(file)), f"the {trained.kind} stage")
        drop_tokens(dense, path.tokens)
        small = compact(dense, masks)
        weights = f"{trained.kind} {trained.key}"
    method.finish_member(config, small, searched_with["seed"])
    return CutMember(
        network=small.eval(),
        masks=masks,
        architecture=architecture,
        dense=Cost(dense_summary["macs"], dense_summary["params"]),
        weights=weights,
        keys=keys,
        method=selection["name"],
    )


def _find_path(store: Store, source: str) -> tuple[StageRef, Path, list[StageRef]]:
    """Stage and artifacts of the path that `source` names, and the stages among which its families may be."""
    where = Path(source)
    if where.exists() or "/" in source or where.suffix == ".safetensors":
        folder = where / "artifacts" if (where / "artifacts").is_dir() else where
        key = str(open_path(folder).meta["provenance"].get("stage", ""))
        kind = next((kind for kind in SEARCH_KINDS if store.is_done(kind, key)), None)
        if kind is None:
            raise ValueError(
                f"PATH_OR_SWEEP: {source!r} belongs to no stage of the store {str(store.root)!r}, so its weights are "
                "not known; allowed: a path inside the store; give paths.store=DIR"
            )
        return StageRef(kind, key), folder, store.find_stages("")
    stages = store.read_plan(source).stages.values()
    done = [stage.ref for stage in stages if stage.kind in SEARCH_KINDS and _has_path(store, stage.ref)]
    if len(done) != 1:
        what = "has no finished path" if not done else f"has {len(done)} paths"
        folders = (str(store.artifacts_dir(ref.kind, ref.key)) for ref in done)
        options = ", ".join(folders) or "a sweep whose update or search is done, with one order for all budgets"
        raise ValueError(f"PATH_OR_SWEEP: {source!r} {what}; allowed: {options}; give one of them")
    return done[0], store.artifacts_dir(done[0].kind, done[0].key), [stage.ref for stage in stages]


def _has_path(store: Store, ref: StageRef) -> bool:
    """Whether a search is done and ended in an order of all units, not in one member."""
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
            families.append((store.done("prune", ref.key)["finished_at"], _CutFamily(spec["config"]["method"], files)))
    return [family for _, family in sorted(families, key=lambda dated: dated[0], reverse=True)]


def _smallest_containing(families: list[_CutFamily], masks: Mapping[str, Tensor]) -> Path | None:
    """The member with the fewest parameters that has every unit of `masks`."""
    fitting: list[tuple[int, Path]] = []
    for file in (file for family in families for file in family.members):
        description = describe_member(file)
        per_head = description["architecture"]["model"]["per_head"]
        kept = description["kept"]
        if not per_head and all(set(mask.nonzero().flatten().tolist()) <= set(kept[n]) for n, mask in masks.items()):
            fitting.append((description["params"], file))
    return min(fitting)[1] if fitting else None


def _within(donor: Path, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`masks` over the units that the donor still has."""
    kept = describe_member(donor)["kept"]
    return {name: mask[kept[name]] for name, mask in masks.items() if kept[name]}

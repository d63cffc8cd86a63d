"""A compact model of any size from a finished path, without training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from spp.data.config import DataConfig
from spp.data.loaders import open_data
from spp.dynamics.ranking import open_path
from spp.dynamics.storage import FILE_NAME as FILE_NAME_OF_PATH
from spp.methods.registry import config_class, load_method
from spp.models.build import masks_per_head, with_config
from spp.models.config import ModelConfig
from spp.models.weights import WEIGHTS_FILE, load_weights
from spp.plan.config import RepairConfig, RuntimeConfig
from spp.plan.spec import StageRef
from spp.stages.devices import find_device
from spp.stages.member import FILE_NAME, build_untrained, describe_member, load_member, save_member
from spp.stages.repair import repair_batches
from spp.store.marker import verified
from spp.store.store import Store
from spp.structure.compact import compact
from spp.structure.repair import repair
from spp.structure.tokens import drop_tokens
from spp.tasks.config import TaskConfig
from spp.tasks.registry import build_task


@dataclass(frozen=True)
class _CutFamily:
    selection: dict[str, Any]
    members: list[Path]


SEARCH_KINDS = ("update", "search")


@dataclass(frozen=True)
class Extracted:
    """What came out: the file, the counted cost of the model in it, and whose weights it has."""

    file: Path
    macs: float
    params: int
    num_units: int
    weights: str


def extract(store: Store, source: str, kind: str, size: float, out: Path, num_repair_samples: int = 0) -> Extracted:
    """Cut the member at a budget and write it to `out`/member.safetensors.

    The weights are those of the smallest finished member that contains the wanted one (they were trained on the way
    down the path), else, and for per-head masks always, the dense ones.

    Args:
        source: a path's file or folder, the folder of its stage, or the name of a sweep of `store`.
        kind: macs, params or units.
        size: a fraction of the dense model (<= 1) or absolute.
        num_repair_samples: training samples to repair the member with (spp.structure.repair); 0: it stays as cut.

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
    model = ModelConfig.from_spec(searched_with["model"], "model")
    architecture = with_config(store.summary("dense", dense_key)["architecture"], model)
    runtime = store.spec(ref.kind, ref.key)["runtime"].get("model", {})
    donor = _smallest_containing(families, masks)
    if donor is not None:
        small = compact(load_member(verified(donor), runtime=runtime), _within(donor, masks))
        weights = f"{donor.name} of prune {donor.parents[1].name}"
    else:
        dense = build_untrained(architecture, runtime)
        # A search that trained the weights has left them beside its order.
        trained = StageRef("dense", dense_key) if not (folder / WEIGHTS_FILE).exists() else ref
        file = store.artifacts_dir(trained.kind, trained.key) / WEIGHTS_FILE
        load_weights(dense, load_file(verified(file)), f"the {trained.kind} stage")
        drop_tokens(dense, path.tokens)
        small = compact(dense, masks)
        weights = f"{trained.kind} {trained.key}"
    header = method.finish_member(config, small, searched_with["seed"])
    if num_repair_samples:
        small = _repaired(store, ref, small, num_repair_samples)
        weights += f", repaired with {num_repair_samples} training samples"
    out.mkdir(parents=True, exist_ok=True)
    file = out / FILE_NAME
    cost = save_member(file, small, masks, path.pairs, architecture, budget={"kind": kind, "value": size}, **header)
    num_units = sum(int(mask.sum()) for mask in masks.values())
    return Extracted(file=file, macs=cost.macs, params=cost.params, num_units=num_units, weights=weights)


def _repaired(store: Store, ref: StageRef, small: nn.Module, num_samples: int) -> nn.Module:
    """A member re-fitted to the dense network on the data of the search, on the CPU."""
    spec = store.spec(ref.kind, ref.key)
    config, runtime = spec["config"], RuntimeConfig.read(spec["runtime"], "runtime")
    repair_config = RepairConfig(kind="full", num_samples=num_samples)
    data = open_data(
        DataConfig.from_spec(config["data"], "data"),
        runtime.data,
        batch_size=repair_config.batch_size,
        augment=config["recipe"]["augment"],
        seed=config["seed"],
        num_workers=runtime.num_workers,
    )
    task = build_task(TaskConfig.from_spec(config["task"], "task"), runtime.task, data.facts)
    dense_key, device = spec["inputs"]["dense"]["key"], find_device(runtime.accelerator)
    dense = build_untrained(store.summary("dense", dense_key)["architecture"], runtime.model)
    load_weights(dense, load_file(store.artifacts_dir("dense", dense_key) / WEIGHTS_FILE), "the dense stage")
    batches = repair_batches(data, task, num_samples)
    return repair(small.to(device), dense.to(device), batches, kind=repair_config.kind).cpu()


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
        is_shared, kept = not masks_per_head(description["architecture"]), description["kept"]
        if is_shared and all(set(mask.nonzero().flatten().tolist()) <= set(kept[n]) for n, mask in masks.items()):
            fitting.append((description["params"], file))
    return min(fitting)[1] if fitting else None


def _within(donor: Path, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`masks` over the units that the donor still has."""
    kept = describe_member(donor)["kept"]
    return {name: mask[kept[name]] for name, mask in masks.items() if kept[name]}

"""What pipelines/one_shot.py works with: the checked configuration of a point that prunes single weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spp.config import Config, require
from spp.plan.reading import Readers, read_common, with_fingerprint
from spp.plan.setup import PointSetup
from spp.plan.spec import Stage

if TYPE_CHECKING:
    from spp.methods.weights.method import WeightMethodConfig
    from spp.sparsity.config import SparsityConfig

BUDGET_KIND = "weights"
"""What sizes of such members are: the share that is kept of the weights in the linears of the decoder layers."""


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig(Config):
    """Text from which the statistics of activations come; its windows are drawn with the seed of the point."""

    name: str | None = None
    """pydocs, wikitext2, c4 or textfiles; null: the training text of `data`."""
    num_windows: int = 128
    """Windows that are drawn."""
    length: int = 2048
    """Tokens of each."""
    fingerprint: dict[str, Any] = field(default_factory=dict)
    """Identity of the text, filled in when planning."""

    def __post_init__(self) -> None:
        require(self.num_windows >= 1, "num_windows", self.num_windows, "1 or more", "use 128")
        require(self.length >= 2, "length", self.length, "2 or more", "use 2048")


@dataclass(frozen=True)
class OneShotReaders:
    """How the groups that only such points have become configs.

    `calibration` gets the config, the value of calibration.root and the folder of all data; it returns the config with
    its fingerprint, and the folder in which a worker finds the text.
    """

    sparsity: "Callable[[Mapping[str, Any]], SparsityConfig]"
    calibration: Callable[[CalibrationConfig, str | None, str], tuple[CalibrationConfig, str | None]]


@dataclass(frozen=True, kw_only=True)
class OneShotSetup(PointSetup):
    """Everything that a pipeline which prunes single weights may use."""

    method: "WeightMethodConfig"
    sparsity: "SparsityConfig"
    calibration: CalibrationConfig

    @property
    def dtype(self) -> str:
        """Numbers in which the network computes."""
        return self.model.dtype or "float32"

    @property
    def budget(self) -> dict[str, Any]:
        """The size of the member, as its measuring states it."""
        return {"kind": BUDGET_KIND, "value": 1 - self.sparsity.share}

    def dense_model(self) -> Stage:
        """The dense network: trained here on the data, or given, which depends on no data."""
        model = replace(self.model, dtype=None)
        trained: dict[str, Any] = {}
        if model.weights == "train":
            trained = {"data": self.data, "recipe": self.dense, "seed": self.seed}
        return self.stage("dense", label="dense", task=self.task, model=model, **trained)


def read_one_shot(
    cfg: Mapping[str, Any],
    method: "WeightMethodConfig",
    recipes: Sequence[str],
    readers: Readers,
    more: OneShotReaders,
    default_gpus: int,
) -> OneShotSetup:
    """Check a resolved configuration and turn it into a OneShotSetup; arguments as of `read_setup`.

    Raises:
        ValueError: one line that names the field, the value, what is allowed and the remedy.
    """
    common = read_common(cfg, recipes, readers, default_gpus)
    sparsity = method.resolve(more.sparsity(cfg["sparsity"]))
    values = dict(cfg["calibration"])
    root = values.pop("root", None)
    if "fingerprint" in values:
        raise ValueError("calibration.fingerprint: it is found when planning; allowed: nothing; remove it")
    calibration = CalibrationConfig.read(values, "calibration")
    setup = OneShotSetup(**common, method=method, sparsity=sparsity, calibration=calibration)
    # Last, as it looks at files: what else is wrong has been said by then.
    data = with_fingerprint(setup, readers)
    if calibration.name is None:
        calibration = replace(calibration, name=data.name, fingerprint=data.fingerprint)
        folder = setup.runtime.data["root"]
    else:
        calibration, folder = more.calibration(calibration, root, cfg["paths"]["data"])
    runtime = replace(setup.runtime, data={**setup.runtime.data, "calibration_root": folder})
    return replace(setup, data=data, calibration=calibration, runtime=runtime)

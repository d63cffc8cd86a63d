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


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig(Config):
    """Questions with given answers, of lm-evaluation-harness, that dense network and member are asked."""

    tasks: list[str] = field(default_factory=list)
    """Names of tasks of the harness, or of one's own in zero_shot.root; none: nothing is asked."""
    max_samples: int | None = None
    """Questions of each task, the first of them; null: all."""
    special_tokens: bool = True
    """Whether questions begin with what the tokenizer puts before every text; Wanda's protocol has false."""
    fingerprint: dict[str, Any] = field(default_factory=dict)
    """Version of the harness and identity of one's own tasks, filled in when planning."""

    def __post_init__(self) -> None:
        doubled = sorted({name for name in self.tasks if self.tasks.count(name) > 1})
        require(not doubled, "tasks", self.tasks, "each task once", "leave the second one out")
        limit = self.max_samples
        require(limit is None or limit >= 1, "max_samples", limit, "1 or more, or null", "use null")


@dataclass(frozen=True)
class OneShotReaders:
    """How the groups that only such points have become configs.

    `calibration` gets the config, the value of calibration.root and the folder of all data; it returns the config with
    its fingerprint, and the folder in which a worker finds the text. `zero_shot` gets the value of zero_shot.root; it
    returns the fingerprint, and the folder of one's own tasks.
    """

    sparsity: "Callable[[Mapping[str, Any]], SparsityConfig]"
    calibration: Callable[[CalibrationConfig, str | None, str], tuple[CalibrationConfig, str | None]]
    zero_shot: Callable[[str | None], tuple[dict[str, Any], str | None]]


@dataclass(frozen=True, kw_only=True)
class OneShotSetup(PointSetup):
    """Everything that a pipeline which prunes single weights may use."""

    method: "WeightMethodConfig"
    sparsity: "SparsityConfig"
    calibration: CalibrationConfig
    zero_shot: ZeroShotConfig

    @property
    def dtype(self) -> str:
        """Numbers in which the network computes."""
        return self.model.dtype or "float32"

    @property
    def budget(self) -> dict[str, Any]:
        """The size of the member, as its measuring states it."""
        return {"kind": BUDGET_KIND, "value": 1 - self.sparsity.share}

    @property
    def measured(self) -> dict[str, Any]:
        """What the config of every stage that measures holds; questions only where some are asked."""
        asked = {"zero_shot": self.zero_shot} if self.zero_shot.tasks else {}
        return {"task": self.task, "data": self.data, "dtype": self.dtype, **asked}

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
    asked = dict(cfg["zero_shot"])
    tasks_root = asked.pop("root", None)
    if "fingerprint" in asked:
        raise ValueError("zero_shot.fingerprint: it is found when planning; allowed: nothing; remove it")
    zero_shot = ZeroShotConfig.read(asked, "zero_shot")
    setup = OneShotSetup(**common, method=method, sparsity=sparsity, calibration=calibration, zero_shot=zero_shot)
    # Last, as it looks at files: what else is wrong has been said by then.
    data = with_fingerprint(setup, readers)
    if calibration.name is None:
        calibration = replace(calibration, name=data.name, fingerprint=data.fingerprint)
        folder = setup.runtime.data["root"]
    else:
        calibration, folder = more.calibration(calibration, root, cfg["paths"]["data"])
    places = {"calibration_root": folder}
    if zero_shot.tasks:
        fingerprint, places["zero_shot_root"] = more.zero_shot(tasks_root)
        zero_shot = replace(zero_shot, fingerprint=fingerprint)
    runtime = replace(setup.runtime, data={**setup.runtime.data, **places})
    return replace(setup, data=data, calibration=calibration, zero_shot=zero_shot, runtime=runtime)

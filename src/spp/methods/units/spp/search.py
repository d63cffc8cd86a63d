"""The search of Solution Path Pruning, and its choice of members; see config.py for what is mended."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spp.dynamics.bregman import BregmanOptimizer
from spp.dynamics.ordered_units import OrderedUnits
from spp.dynamics.path import SolutionPath
from spp.dynamics.recorder import PathRecorder
from spp.methods.method import Method
from spp.methods.search import OrderSearch, SearchRequest
from spp.methods.units.spp.config import KL_SCALE_MASK, RELEASED_EPOCHS, SPPConfig
from spp.methods.units.spp.curvature import MaskCurvature
from spp.methods.units.spp.refine import RefinedSearch
from spp.structure.compact import scale_by_kept_width
from spp.structure.masked import MaskedModel, Masks


class SPPSearch(OrderSearch):
    """The dynamics on the masks of a frozen network, and the order in which the units enter the support.

    The first batches measure the gradient scale where the preset asks for it, at the dense masks or, of the distance to
    the dense network, near them; the others move the masks.

    Args:
        config: settings of the dynamics.
        masked: the network with its masks at 1.
        num_steps: training steps that the search will have, measuring included.

    Attributes:
        num_calibration_steps: steps that only measure.
        num_mask_steps: steps that move the masks.
        dynamics: the masks' optimizer.
        recorder: samples Gamma along the path, which starts with nothing in the support.

    Raises:
        ValueError: a setting that the preset does not have, or a step too large.
    """

    def __init__(self, config: SPPConfig, masked: MaskedModel, num_steps: int) -> None:
        super().__init__(masked, num_steps)
        self.config = config
        self.num_calibration_steps = num_calibration_steps(config, num_steps)
        self.num_mask_steps = num_steps - self.num_calibration_steps
        self.dynamics = build_optimizer(config, self.masks, self.num_mask_steps)
        self.recorder = PathRecorder(self.dynamics)
        self.recorder.record()
        self._curvature = MaskCurvature(masked) if config.drive == "curvature" else None
        self._first_lr = float(self.dynamics.param_groups[0]["lr"])
        self._num_calibrated = 0
        self._epoch = 0
        self._batch_of_epoch = 0

    @property
    def samples_targets(self) -> bool:
        return self._curvature is not None

    def on_epoch_start(self, epoch: int, num_epochs: int) -> None:
        if epoch != self._epoch:  # an epoch that is gone on with keeps its count
            self._epoch, self._batch_of_epoch = epoch, 0
        self.dynamics.param_groups[0]["lr"] = learning_rate(self.config, self._first_lr, epoch)

    def before_forward(self) -> None:
        if self._curvature is not None:
            self._curvature.attach()
        if self.config.drive == "kl" and self.num_steps_taken <= self.num_calibration_steps > 0:
            is_measured = self._num_calibrated < self.num_calibration_steps
            self.masked.set_masks(
                {
                    name: torch.full_like(mask, KL_SCALE_MASK if is_measured else 1.0)
                    for name, mask in self.masks.items()
                }
            )

    def after_backward(self) -> None:
        if self._curvature is not None:
            self._curvature.set_gradients(is_measured=self._num_calibrated < self.num_calibration_steps)
        if self._num_calibrated < self.num_calibration_steps:
            self.dynamics.calibrate()
            self._num_calibrated += 1
        else:
            self.dynamics.step()
            if self._batch_of_epoch % self.config.occupancy_interval == 0:
                self.dynamics.sample_occupancy()
            self.recorder.record()
        self.dynamics.zero_grad()
        self._batch_of_epoch += 1
        self.num_steps_taken += 1

    def order(self, meta: Mapping[str, Any]) -> SolutionPath:
        return SolutionPath.from_optimizer(self.dynamics, self.pairs, trace=self.recorder.trace(), meta=meta)

    def support(self) -> dict[str, float]:
        """Share of units in the support of Gamma, over all and for each kind of pair."""
        inside: dict[str, list[Tensor]] = {}
        for pair in self.pairs:
            active = self.dynamics.state_of(pair.name)["Gamma"] != 0
            inside.setdefault(pair.kind, []).append(active)
            inside.setdefault("all", []).append(active)
        return {kind: float(torch.cat(parts).float().mean()) for kind, parts in inside.items()}

    def metrics(self) -> dict[str, float]:
        """The mean mask, and the support."""
        mean_mask = float(torch.cat([mask.detach() for mask in self.masks.values()]).mean())
        return {"mean_mask": mean_mask, **{f"support_{kind}": share for kind, share in self.support().items()}}

    def progress_note(self) -> str:
        share = float((self.dynamics.gamma() != 0).float().mean())
        return f"{100 * share:.0f} % of units entered"

    def summary(self) -> dict[str, Any]:
        """The steps that moved the masks, and the support they led to; warns if that is empty."""
        support = self.support()
        if support["all"] == 0:
            warnings.warn(
                f"no unit entered the support in {self.num_mask_steps} steps: the order rests on V alone; lower "
                "method.lam or raise update.epochs",
                stacklevel=2,
            )
        return {"num_steps": self.num_mask_steps, "support": support}

    def state_dict(self) -> dict[str, Any]:
        return {
            "num_steps_taken": self.num_steps_taken,
            "num_calibrated": self._num_calibrated,
            "epoch": self._epoch,
            "batch_of_epoch": self._batch_of_epoch,
            "dynamics": self.dynamics.state_dict(),
            "recorder": self.recorder.state_dict(),
            **({} if self._curvature is None else {"curvature": self._curvature.state_dict()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_steps_taken = int(state["num_steps_taken"])
        self._num_calibrated = int(state["num_calibrated"])
        self._epoch, self._batch_of_epoch = int(state["epoch"]), int(state["batch_of_epoch"])
        self.dynamics.load_state_dict(state["dynamics"])
        self.recorder.load_state_dict(state["recorder"])
        if self._curvature is not None:
            self._curvature.load_state_dict(state["curvature"])


class SPPMethod(Method[SPPConfig]):
    """One search for all budgets, which ends in a solution path."""

    def build_search(self, config: SPPConfig, masked: MaskedModel, request: SearchRequest) -> OrderSearch:
        path = SPPSearch(config, masked, request.num_steps)
        return path if config.refine is None else RefinedSearch(path, config, request.batch_size)

    def select(self, config: SPPConfig, path: OrderedUnits, kind: str, size: float) -> dict[str, Tensor]:
        assert isinstance(path, SolutionPath)
        masks = path.masks(
            **{kind: size},
            scope=config.scope,
            score=config.score,
            min_units=config.min_units,
            keep_ties=config.released_quirks,
        )
        return _shuffled(masks) if config.within == "random" else masks

    def finish_member(self, config: SPPConfig, small: nn.Module, seed: int) -> dict[str, Any]:
        """The released scale of a compact attention, where asked for.

        Raises:
            ValueError: an attention has kept values and no query-key unit.
        """
        if not config.released_quirks:
            return {}
        scale_by_kept_width(small)
        return {"is_scaled_by_kept_width": True}


def num_calibration_steps(config: SPPConfig, num_steps: int) -> int:
    """Steps of a search that only measure; about a tenth of them at most, and one is left to move the masks."""
    if config.preset != "priced":
        return 0
    return max(0, min(config.calibration_batches, math.ceil(num_steps / 10), num_steps - 1))


def build_optimizer(config: SPPConfig, masks: Masks, num_steps: int) -> BregmanOptimizer:
    """The dynamics on all masks of a model, for `num_steps` steps that move them."""
    return BregmanOptimizer(
        masks,
        config.preset,
        lr=config.lr,
        kappa=config.kappa,
        lam=config.lam,
        rho=config.rho,
        momentum=config.momentum,
        eta=config.eta,
        num_steps=num_steps,
        clip=config.clip,
    )


def learning_rate(config: SPPConfig, first_lr: float, epoch: int) -> float:
    """Step size in `epoch`, from 0: constant, but for `released` a cosine to 1e-5 without warm-up.

    Source: deit_search.py, which steps timm's scheduler after every epoch by the number of that epoch: the cosine is an
    epoch late, and stays at its end once it is over.
    """
    if config.preset != "released":
        return first_lr
    span = config.cosine_epochs or RELEASED_EPOCHS
    done = min(max(epoch - 1, 0), span)
    return 1e-5 + (first_lr - 1e-5) * (1 + math.cos(math.pi * done / span)) / 2


def _shuffled(masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """As many units of every pair, drawn by lot; smaller masks stay subsets of larger ones."""
    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for name, mask in masks.items():
        order = torch.randperm(len(mask), generator=generator)
        drawn[name] = torch.zeros_like(mask).index_fill_(0, order[: int(mask.sum())], True)
    return drawn


METHOD = SPPMethod()

"""Lightning's fit as stages need it: on one device or several, interrupted at any batch, continued to the bit.

Between two batches (on several devices about once a second), and between two batches of a validation, `_Watch` looks
whether a signal has come or a checkpoint is due. A checkpoint is Lightning's own dump with the position put in by us:
the loops' counters are those of the boundary, and the sampler starts behind the batches that are done. Validation is
ours, after the last batch of an epoch, so that an interrupted one starts anew from weights that it never changed.
"""

import inspect
import logging
import math
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.connectors.checkpoint_connector import _CheckpointConnector
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector
from torch import Tensor
from torch.utils.data import DataLoader

from spp.data.module import DataModule
from spp.plan.config import RuntimeConfig
from spp.stages.checkpoint import OURS, UnusableCheckpointError, random_state, set_random_state
from spp.stages.context import StageRun
from spp.stages.devices import seed_everything
from spp.stages.finite import FiniteSteps
from spp.store.claim import AlreadyClaimed
from spp.store.store import CHECKPOINT

LAST_CHECKPOINT_SECONDS = 60.0
"""After so long without a checkpoint one is written when the last batch is done, so that what follows the training
can be interrupted without repeating it."""

AGREE_SECONDS = 1.0
MAX_AGREE_BATCHES = 50
"""How often several devices look together whether a signal has come or a checkpoint is due."""


# One line per Trainer about devices helps nobody who runs hundreds of stages.
for _name in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class RunningMean:
    """The mean of the losses of an epoch; on several devices over all of them."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.count = 0

    def add(self, value: Tensor) -> None:
        """Count one batch; waits for no device."""
        self.total = self.total + value.detach().float()
        self.count += 1

    def take(self, trainer: pl.Trainer) -> float:
        """The mean so far; starts anew."""
        mean = torch.as_tensor(self.total, dtype=torch.float32, device=trainer.strategy.root_device) / self.count
        self.total, self.count = 0.0, 0
        return float(trainer.strategy.reduce(mean, reduce_op="mean"))

    def state_dict(self) -> dict[str, Any]:
        """What this device has counted."""
        return {"total": float(self.total), "count": self.count}

    def load_state_dicts(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from what all devices had counted, however many there are now: their mean stays the same."""
        self.total = sum(state["total"] for state in states) / len(states)
        self.count = states[0]["count"]


class Trainable(pl.LightningModule):
    """What `run_fit` trains: it adds its losses to `mean_loss` and takes their mean at the end of an epoch.

    Attributes:
        has_idle_parameters: whether there are steps that leave some of its trainable parameters without a gradient.
    """

    has_idle_parameters = False

    def __init__(self) -> None:
        super().__init__()
        self.mean_loss = RunningMean()
        self.finite_steps = FiniteSteps()

    def require_finite(self) -> None:
        """Called before a checkpoint is written, and before a validation.

        Raises:
            NotFiniteError: the training has diverged.
        """


def run_fit(module: Trainable, data: DataModule, run: StageRun, **arguments: Any) -> None:
    """Train `module` from where the stage's checkpoint stands, or from the start.

    A module with `validation_step` and `on_validation_epoch_end` is validated after every epoch.

    Raises:
        SystemExit: where a signal asked the process to end.
        AlreadyClaimed: if another process has taken over the stage.
        NotLeaderError: on every rank but the first, when all is trained.
        NotFiniteError: the training has diverged; the last checkpoint is from before.
        UnusableCheckpointError: if the checkpoint does not fit the module.
    """
    watch = _Watch(module, data, run)
    trainer = _build_trainer(run, watch, module.has_idle_parameters, **arguments)
    is_resumed = run.saved is not None
    run.saved = None
    try:
        with known_warnings(), run.interruptions.deferred():
            trainer.fit(module, datamodule=LightningData(data), ckpt_path=CHECKPOINT if is_resumed else None)
    except Exception as error:
        if is_resumed and not watch.has_started and _is_of_loading(error):
            raise UnusableCheckpointError(str(error)) from error
        raise
    finally:
        data.take_share(0, 1)
    # Only here: after an error it could wait for ranks that are gone, and it would tell them before the marker does.
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    run.fit_seconds = watch.seconds
    run.leave_to_leader()


def _is_of_loading(error: BaseException) -> bool:
    """Whether Lightning was putting the checkpoint into place; what else fails at a start says nothing about it."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    file = inspect.getfile(_CheckpointConnector)
    is_inside = any(code.co_filename == file and code.co_name.startswith("restore_") for code in codes)
    return is_inside and not isinstance(error, torch.OutOfMemoryError)


def build_trainer(runtime: RuntimeConfig, **arguments: Any) -> pl.Trainer:
    """A Trainer on one device that leaves records, checkpoints, signals and progress to us."""
    arguments = {"devices": 1, "plugins": [LightningEnvironment()], **arguments}
    with known_warnings():
        trainer = pl.Trainer(
            accelerator=runtime.accelerator,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            **arguments,
        )
    trainer._signal_connector = _NoSignals(trainer)
    return trainer


@contextmanager
def known_warnings() -> Iterator[None]:
    """Keep quiet about what Lightning says of every stage and nobody can act on."""
    with warnings.catch_warnings():
        # The moving average is a module in eval mode on purpose.
        warnings.filterwarnings("ignore", message="Found .* module.* in eval mode")
        # Validation is not left to Lightning's loop.
        warnings.filterwarnings("ignore", message="You passed in a `val_dataloader` but have no `validation_step`")
        warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no `val_dataloader`")
        # A GPU left idle is the user's choice, made with accelerator=cpu.
        warnings.filterwarnings("ignore", message="GPU available but not used")
        # An srun on the path of a login node or a laptop says nothing about where this process runs.
        warnings.filterwarnings("ignore", message="The `srun` command is available on your system but is not used")
        # The sampler knows where to go on.
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch ended")
        # Lightning 2.6 on torch 2.15.
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
        yield


def _build_trainer(run: StageRun, watch: "_Watch", has_idle_parameters: bool, **arguments: Any) -> pl.Trainer:
    plugins = [run.ranks.environment(), _FromMemory(run.saved)]
    several = {}
    if run.ranks.world_size > 1:
        backend = "nccl" if torch.cuda.is_available() and run.runtime.accelerator != "cpu" else "gloo"
        several = {
            "devices": run.runtime.devices,
            "num_nodes": run.runtime.num_nodes,
            "strategy": DDPStrategy(process_group_backend=backend, find_unused_parameters=has_idle_parameters),
        }
    return build_trainer(run.runtime, plugins=plugins, callbacks=[watch], limit_val_batches=0, **several, **arguments)


class _NoSignals(_SignalConnector):
    """Lightning's handler of SIGTERM would end the process at the next batch; the stage's stay in place."""

    def register_signal_handlers(self) -> None:
        pass


class LightningData(pl.LightningDataModule):
    """The samples as Lightning's fit takes them: every device trains on its share."""

    def __init__(self, data: DataModule) -> None:
        super().__init__()
        self.data = data

    def train_dataloader(self) -> DataLoader[Any]:
        """The share of this process."""
        assert self.trainer is not None
        self.data.take_share(self.trainer.global_rank, self.trainer.world_size)
        return self.data.train_dataloader()

    def state_dict(self) -> dict[str, Any]:
        """What the data keep in a checkpoint."""
        return self.data.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.data.load_state_dict(state_dict)


class _FromMemory(CheckpointIO):
    """Hands Lightning the checkpoint that has been read and checked already."""

    def __init__(self, state: dict[str, Any] | None) -> None:
        self._state = state

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        state, self._state = self._state, None  # it may be as large as several models
        assert state is not None
        return state

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    def remove_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


class _Watch(pl.Callback):
    """Looks at every boundary whether to save or to stop; validates at the end of an epoch."""

    def __init__(self, module: Trainable, data: DataModule, run: StageRun) -> None:
        self.module, self.data, self.run = module, data, run
        self.has_started = False
        self._has_validation = type(module).validation_step is not pl.LightningModule.validation_step
        self._val_loader: Any = None
        saved = run.saved[OURS] if run.saved is not None else None
        self._saved = saved
        self._started = self._last_save = self._last_agreed = time.monotonic()
        self._num_since_agreed, self._agree_every = 0, 1
        if saved is not None:
            self._started -= saved["fit_seconds"]
            data.start_at(saved["epoch"], saved["num_batches"])

    @property
    def seconds(self) -> float:
        """Time in this fit, that before interruptions included."""
        return time.monotonic() - self._started

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last moment before the first batch: put the generators where they shall start."""
        self.has_started = True
        states = self._saved["ranks"] if self._saved is not None else []
        rank = self.run.ranks.rank
        if states:
            self.module.mean_loss.load_state_dicts([state["mean_loss"] for state in states])
        if rank < len(states):
            set_random_state(states[rank]["random"], trainer.strategy.root_device)
        elif rank > 0:
            # Ranks see different samples, which shall not share their noise and their mixing.
            seed_everything((torch.initial_seed() + rank) % 2**32)
        self._saved = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The boundary before a batch."""
        self._boundary(trainer, batch_idx)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The boundary behind the last batch, and the validation, in which there are more."""
        self._boundary(trainer, int(trainer.num_training_batches))
        if self._has_validation:
            self._validate(trainer, pl_module)

    def _validate(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._val_loader is None:
            self._val_loader = self.data.val_dataloader()
        # The shares of ranks may differ by a sample, and so their numbers of batches; boundaries are common to all.
        num_common = math.ceil(len(self.data.split_indices[1]) // trainer.world_size / self._val_loader.batch_size)
        modes = [(part, part.training) for part in module.modules()]
        module.eval()
        module.on_validation_epoch_start()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for index, batch in enumerate(self._val_loader):
                if index < num_common:
                    self._boundary(trainer, int(trainer.num_training_batches))
                module.validation_step(trainer.strategy.batch_to_device(batch), index)
        module.on_validation_epoch_end()
        for part, mode in modes:
            part.training = mode

    def _boundary(self, trainer: pl.Trainer, num_batches: int) -> None:
        """`num_batches` of the running epoch are done, and nothing of the next one."""
        run = self.run
        if trainer.global_step >= trainer.max_steps >= 0:
            return  # Lightning goes no further from a checkpoint of the last step, not even to what follows an epoch
        if trainer.world_size > 1 and not self._is_time_to_agree(trainer, num_batches):
            return
        pending, is_due, is_lost = self._agree(trainer, run.interruptions.pending, self._is_due(trainer, num_batches))
        if is_lost:
            raise AlreadyClaimed(run.kind, run.key, None)
        if pending or is_due:
            self._save(trainer, num_batches)
        if pending:
            run.interruptions.obey(pending, is_leader=run.ranks.is_leader)

    def _is_due(self, trainer: pl.Trainer, num_batches: int) -> bool:
        interval = 60 * self.run.runtime.checkpoint_minutes
        if num_batches == trainer.num_training_batches and trainer.current_epoch + 1 == trainer.max_epochs:
            interval = min(interval, LAST_CHECKPOINT_SECONDS)
        return time.monotonic() - self._last_save >= interval

    def _agree(self, trainer: pl.Trainer, pending: int, is_due: bool) -> tuple[int, bool, bool]:
        """What one rank has seen counts for all, or they would wait for each other at different places."""
        is_lost = self.run.is_superseded(bool(pending) or is_due)
        if trainer.world_size == 1:
            return pending, is_due, is_lost
        now = time.monotonic()
        batch_ms = 1000 * (now - self._last_agreed) / self._num_since_agreed
        seen = torch.tensor([pending, is_due, is_lost, batch_ms], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(seen, op=torch.distributed.ReduceOp.MAX)
        pending, due, lost, slowest_ms = seen.tolist()
        self._agree_every = max(1, min(MAX_AGREE_BATCHES, int(1000 * AGREE_SECONDS / max(1.0, slowest_ms))))
        self._last_agreed, self._num_since_agreed = now, 0
        return int(pending), bool(due), bool(lost)

    def _is_time_to_agree(self, trainer: pl.Trainer, num_batches: int) -> bool:
        """The same answer on all ranks. To agree makes a GPU wait, so it is done about once a second."""
        self._num_since_agreed += 1
        return num_batches == trainer.num_training_batches or self._num_since_agreed >= self._agree_every

    def _save(self, trainer: pl.Trainer, num_batches: int) -> None:
        self.module.require_finite()
        device = trainer.strategy.root_device
        states: list[Any] = [{"random": random_state(device), "mean_loss": self.module.mean_loss.state_dict()}]
        if trainer.world_size > 1:
            mine, states = states[0], [None] * trainer.world_size
            torch.distributed.all_gather_object(states, mine)
        if self.run.ranks.is_leader:
            epoch = trainer.current_epoch
            state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            state["loops"] = {"fit_loop": _at(state["loops"]["fit_loop"], epoch, num_batches, trainer)}
            position = {"epoch": epoch, "num_batches": num_batches}
            self.run.save(state, {"ranks": states, "fit_seconds": self.seconds, **position})
        trainer.strategy.barrier("checkpoint")
        self._last_save = time.monotonic()


def _at(loop: dict[str, Any], epoch: int, num_batches: int, trainer: pl.Trainer) -> dict[str, Any]:
    """The fit loop's state with the counters of a boundary, at which Lightning itself never saves."""
    done = epoch * int(trainer.num_training_batches) + num_batches
    for name, batches in (("total", done), ("current", num_batches)):
        loop["epoch_progress"][name].update(ready=epoch + 1, started=epoch + 1, processed=epoch, completed=epoch)
        loop["epoch_loop.batch_progress"][name].update(
            ready=batches, started=batches, processed=batches, completed=batches
        )
    loop["epoch_loop.batch_progress"]["is_last_batch"] = False
    return loop

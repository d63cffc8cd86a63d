"""A copy of a stage's record in Weights & Biases.

The store is the source of truth, so nothing that W&B does may stop or delay a stage: whatever goes wrong there is one
warning, after which the mirror is silent. Offline runs lie in the stage's folder and are uploaded by `spp sync`.
With its config and its summary a run has all that `spp.record.wandb_source` needs to make rows without the store.
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from wandb import Run

Mode = Literal["offline", "online", "disabled"]
INIT_TIMEOUT_SECONDS = 10.0
FINISH_TIMEOUT_SECONDS = 30.0
RESULT = "result"
"""Where in a run's summary the stage's own is, apart from the last values of the rows; only finished stages have it."""

_EMPTY = "{}"
_LONGEST_NAME = 128
"""Characters that W&B takes for the name of a run or group."""

_log = logging.getLogger(__name__)


class Mirror:
    """One W&B run, or none: then every method does nothing."""

    def __init__(self, run: "Run | None" = None) -> None:
        self._run = run

    def log(self, row: Mapping[str, Any], step: int | None = None) -> None:
        """Log one row of the record; without `step` W&B counts the rows."""
        self._attempt(lambda run: run.log(dict(row), step=step))

    def log_curve(self, axis: str, rows: Sequence[Mapping[str, float]]) -> None:
        """Log rows whose values are drawn over their value of `axis` instead of over W&B's steps."""

        def log(run: "Run") -> None:
            for name in rows[0] if rows else ():
                run.define_metric(name, step_metric=None if name == axis else axis)
            for row in rows:
                run.log(dict(row))

        self._attempt(log)

    def log_image(self, name: str, pixels: "NDArray[np.uint8]", caption: str) -> None:
        """Log an image, (height, width) in greys or (height, width, 3)."""

        def log(run: "Run") -> None:
            from wandb import Image

            run.log({name: Image(pixels, caption=caption)})

        self._attempt(log)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table; every row has one value per column."""

        def log(run: "Run") -> None:
            from wandb import Table

            # Budgets are 0.5 and 1e9, and an accuracy may be missing: W&B would call that a change of type.
            run.log({name: Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)})

        self._attempt(log)

    def set_result(self, summary: Mapping[str, Any]) -> None:
        """Tell the whole summary of a stage that has finished."""
        self._attempt(lambda run: run.summary.update({RESULT: pack(summary)}))

    def finish(self) -> None:
        """Close the run; later calls of any method do nothing.

        The last bytes reach the disk a moment later, at the latest when the process ends.
        """
        self._attempt(lambda run: run.finish())
        self._run = None

    def _attempt(self, action: "Callable[[Run], None]") -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            self._run = None
            _warn(error)


def open_mirror(
    stage_dir: Path,
    *,
    mode: Mode,
    project: str,
    entity: str | None,
    group: str | None,
    job_type: str,
    run_id: str,
    name: str,
    tags: Sequence[str],
    config: Mapping[str, Any],
) -> Mirror:
    """Open the W&B run of a stage, in the folder `stage_dir`/wandb.

    Args:
        stage_dir: folder of the stage.
        mode: offline, online, or disabled (W&B is not even imported).
        project: W&B project.
        entity: user or team; None is the account's default.
        group: what the run belongs to, the point; shortened where W&B would refuse it.
        job_type: stage kind.
        run_id: the stage's key, so that a stage that runs again continues its run.
        name: the run's name on display, shortened likewise.
        tags: labels of 1 to 64 characters.
        config: all that was known of the stage before it began.

    Raises:
        ValueError: if the mode is unknown.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"logger.mode: {mode!r} is not allowed; allowed: {', '.join(get_args(Mode))}; use offline")
    if mode == "disabled":
        return Mirror()

    def begin(mode: Mode) -> Mirror:
        import wandb

        # Before init, because init would ask a terminal for a missing API key before it looks at its settings.
        wandb.setup(_settings())
        run = wandb.init(
            dir=stage_dir,
            mode=mode,
            project=project,
            entity=entity,
            group=group and _shortened(group),
            job_type=job_type,
            id=run_id,
            name=_shortened(name),
            tags=list(tags),
            config={name: pack(value) for name, value in config.items()},
            resume="allow",
        )
        return Mirror(run)

    try:
        return begin(mode)
    except Exception as error:
        if mode == "online":
            reason = _first_line(error)
            _log.warning("W&B cannot be reached (%s); this stage is kept offline for `spp sync`", reason)
            with contextlib.suppress(Exception):
                return begin("offline")
        _warn(error)
        return Mirror()


def pack(value: Any) -> Any:
    """JSON as W&B keeps it: on upload it drops empty dicts, so these become the text {}."""
    if isinstance(value, Mapping):
        return {name: pack(inner) for name, inner in value.items()} or _EMPTY
    return [pack(inner) for inner in value] if isinstance(value, list | tuple) else value


def unpack(value: Any) -> Any:
    """What `pack` was given, as JSON types."""
    if isinstance(value, Mapping):
        return {name: unpack(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [unpack(inner) for inner in value]
    return {} if value == _EMPTY else value


def _settings() -> Any:
    """Silent, quick, and without what provenance.json says already."""
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        reinit="create_new",
        init_timeout=INIT_TIMEOUT_SECONDS,
        finish_timeout=FINISH_TIMEOUT_SECONDS,
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_save_requirements=False,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
    )


def _shortened(name: str) -> str:
    """A name that W&B takes; long ones that differ stay different."""
    if len(name) <= _LONGEST_NAME:
        return name
    tail = f"...{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name[: _LONGEST_NAME - len(tail)] + tail


def _warn(error: Exception) -> None:
    _log.warning("the W&B mirror of this stage is off: %s; the store has the whole record", _first_line(error))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__

"""Rows of the record as lines for people, and what the newest of them say."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

_FIRST = ("epoch", "step", "budget")
_HELD_OUT = "val_"


def line_of(row: Mapping[str, Any]) -> str:
    """`epoch 3, step 60: loss 0.7132, val_top1 92.1`; numbers to four digits."""
    place = ", ".join(f"{name} {_text(row[name])}" for name in _FIRST if name in row)
    rest = ", ".join(f"{name} {_text(value)}" for name, value in row.items() if name not in _FIRST)
    return ": ".join(part for part in (place, rest) if part)


@dataclass(frozen=True)
class NewestValues:
    """The loss, and name and value of the headline metric on the validation split, that were written down last."""

    loss: float | None = None
    metric: str | None = None
    value: float | None = None

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> "NewestValues":
        """The newest values of rows in the order of writing."""
        found = cls()
        for row in rows:
            if isinstance(row.get("loss"), int | float):
                found = replace(found, loss=float(row["loss"]))
            for name, value in row.items():
                if name.startswith(_HELD_OUT) and isinstance(value, int | float):
                    found = replace(found, metric=name.removeprefix(_HELD_OUT), value=float(value))
        return found

    @property
    def loss_text(self) -> str:
        """Empty where there is none."""
        return "" if self.loss is None else f"{self.loss:.4g}"

    @property
    def metric_text(self) -> str:
        """`top1 92.1`; empty where there is none."""
        return "" if self.value is None else f"{self.metric} {self.value:.4g}"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""Content addresses: canonical JSON and the key of a stage."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

KEY_LENGTH = 20
"""Hexadecimal characters of a key: 80 bits, so that a billion stages collide with probability 4e-7."""


def canonical(value: Any, where: str = "config") -> Any:
    """A deep copy of `value` in plain JSON types, in which equal settings are equal.

    Integral floats become ints (`1.0` and `1` are one setting; `-0.0` is `0`), tuples become lists, dicts
    are sorted. `True` stays apart from `1`. `where` is the dotted name used in messages.

    Raises ValueError, naming the field, for a number that is not finite, a type that JSON does not have,
    and a dict key that is no string.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: {value} is not allowed: must be a finite number; use null for 'not set'")
        return int(value) if value.is_integer() else float(value)
    if isinstance(value, list | tuple):
        return [canonical(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where}: the key {key!r} is not allowed: must be a string; quote it")
        return {str(key): canonical(value[key], f"{where}.{key}") for key in sorted(value)}
    raise ValueError(
        f"{where}: a {type(value).__name__} is not allowed: must be null, bool, int, float, str, list or "
        "dict; convert it first"
    )


def canonical_json(value: Any) -> str:
    """One line of ASCII JSON, equal for equal settings whatever the dict order, process or hash seed.

    Raises ValueError as `canonical` does.
    """
    return _line(canonical(value))


def stage_key(kind: str, version: int, config: Any, input_keys: Mapping[str, str]) -> str:
    """The content address of a stage: sha256 of kind, version, config and the keys of its inputs by role.

    `config` is what `canonical` returned; making it so again would be most of the work.
    """
    work = {"kind": kind, "version": version, "config": config, "inputs": input_keys}
    return hashlib.sha256(_line(work).encode("ascii")).hexdigest()[:KEY_LENGTH]


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)

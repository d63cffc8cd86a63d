"""The base of all configs: a dataclass that is built strictly from a mapping and checked once, when it is built."""

import difflib
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self


def _fail(name: str, value: object, allowed: str, remedy: str) -> typing.NoReturn:
    raise ValueError(f"{name}: {value!r} is not allowed; allowed: {allowed}; {remedy}")


def require(condition: bool, name: str, value: object, allowed: str, remedy: str) -> None:
    """Raise the project's one-line ValueError unless `condition` holds."""
    if not condition:
        _fail(name, value, allowed, remedy)


def _accepts(hint: Any, value: object) -> bool:
    """Whether `value` fits the annotation `hint` (the few forms used by the configs)."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_accepts(option, value) for option in typing.get_args(hint))
    if origin is not None:
        return isinstance(value, origin)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is None:
        return value is None
    return isinstance(value, hint)


def _hints(config_class: Any) -> dict[str, Any]:
    """The annotations of a config's fields by name."""
    return _cached_hints(config_class)


@functools.cache
def _cached_hints(config_class: type["Config"]) -> dict[str, Any]:
    # A sweep reads each class thousands of times, and asking the annotations takes longer than all the rest.
    hints = typing.get_type_hints(config_class)
    return {f.name: hints[f.name] for f in fields(config_class)}


def _copied(value: Any) -> Any:
    if isinstance(value, Config):
        return value.plain()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return value


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configs: built strictly from a mapping, turned back into plain JSON values."""

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str) -> Self:
        """Build from a mapping; `where` is the dotted name a user would type, for messages.

        Raises:
            ValueError: for an unknown, a missing or a badly typed field, or what the class itself refuses.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{where}: {values!r} has no fields; allowed: those of {cls.__name__}; name them")
        prefix = f"{where}." if where else ""
        hints = _hints(cls)
        names = list(hints)
        for name, value in values.items():
            if name not in names:
                close = difflib.get_close_matches(str(name), names, n=1)
                hint = f"did you mean {prefix}{close[0]}?" if close else "remove it"
                raise ValueError(f"{prefix}{name}: unknown field; allowed: {', '.join(names)}; {hint}")
            if not _accepts(hints[name], value):
                wanted = getattr(hints[name], "__name__", str(hints[name]))
                raise ValueError(
                    f"{prefix}{name}: {value!r} has the wrong type; allowed: {wanted}; give it as {prefix}{name}=..."
                )
        try:
            return cls(**values)
        except TypeError as error:
            missing = str(error).split(":")[-1].strip()
            raise ValueError(f"{where}: required fields are missing; allowed: {missing}; set them") from None
        except ValueError as error:
            raise ValueError(f"{prefix}{error}") from None

    def plain(self) -> dict[str, Any]:
        """The config as nested dicts and lists of JSON values."""
        return {name: _copied(getattr(self, name)) for name in _hints(type(self))}

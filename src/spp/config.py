"""The base of all configs: a dataclass that is built strictly from a mapping and checked once, when it is built.

A field that is added once keys of finished stages exist is declared with `later`: at its neutral value, which stands
for how things were without it, it is left out of the identity that keys hash, so that those stages keep their keys.
"""

import difflib
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self

_NEUTRAL = "neutral"
"""Under which name the metadata of a field hold its neutral value."""


def _fail(name: str, value: object, allowed: str, remedy: str) -> typing.NoReturn:
    raise ValueError(f"{name}: {value!r} is not allowed; allowed: {allowed}; {remedy}")


def require(condition: bool, name: str, value: object, allowed: str, remedy: str) -> None:
    """Raise the project's one-line ValueError unless `condition` holds."""
    if not condition:
        _fail(name, value, allowed, remedy)


def require_name(name: Any, names: Sequence[str], field: str, refusal: str, proposed: str | None = None) -> str:
    """One of `names`, or the line that refuses another and points to the nearest.

    Args:
        name: what was said.
        names: what is allowed.
        field: that it was said of.
        refusal: what it is not, such as "not a task".
        proposed: the remedy where none is near; None: the first.

    Raises:
        ValueError: if it is none of them.
    """
    if name in names:
        return str(name)
    close = difflib.get_close_matches(str(name), names, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"use {proposed or names[0]}"
    raise ValueError(f"{field}: {name!r} is {refusal}; allowed: {', '.join(names)}; {remedy}")


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


def _neutral_values(config_class: Any) -> dict[str, Any]:
    """The neutral value of each field that came later, by its name."""
    return _cached_neutral_values(config_class)


@functools.cache
def _cached_neutral_values(config_class: type["Config"]) -> dict[str, Any]:
    return {f.name: f.metadata[_NEUTRAL] for f in fields(config_class) if _NEUTRAL in f.metadata}


def _copied(value: Any, of_config: Callable[["Config"], dict[str, Any]]) -> Any:
    if isinstance(value, Config):
        return of_config(value)
    if isinstance(value, Mapping):
        return {key: _copied(item, of_config) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item, of_config) for item in value]
    return value


def later(default: Any = MISSING, *, neutral: Any, default_factory: Any = MISSING) -> Any:
    """A field that came later than the keys of finished stages.

    Args:
        default: what holds where a user says nothing; may be another value than `neutral`.
        neutral: the value that stands for how things were without the field; it must never change.
        default_factory: makes the default where that is a list or a dict.
    """
    metadata = {_NEUTRAL: neutral}
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


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

    @classmethod
    def from_spec(cls, values: Mapping[str, Any], where: str) -> Self:
        """Build from what `identity` gave, as a spec holds it: a later field that is absent has its neutral value.

        Raises:
            ValueError: as `read` does.
        """
        return cls.read({**_neutral_values(cls), **values}, where)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The default of every field that has one, as plain values."""
        found = {}
        for f in fields(cls):
            if f.default is not MISSING or f.default_factory is not MISSING:
                default = f.default if f.default_factory is MISSING else f.default_factory()
                found[f.name] = _copied(default, Config.plain)
        return found

    @classmethod
    def required(cls) -> list[str]:
        """Names of the fields without a default."""
        return [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]

    def plain(self) -> dict[str, Any]:
        """The config as nested dicts and lists of JSON values."""
        return {name: _copied(getattr(self, name), Config.plain) for name in _hints(type(self))}

    def identity(self) -> dict[str, Any]:
        """What keys hash and specs hold: `plain` without the later fields that have their neutral value."""
        neutral = _neutral_values(type(self))
        values = {name: getattr(self, name) for name in _hints(type(self))}
        return {
            name: _copied(value, Config.identity)
            for name, value in values.items()
            if name not in neutral or not _is_same(value, neutral[name])
        }


def _is_same(value: Any, other: Any) -> bool:
    """Whether two values are one setting: 1 and 1.0 are, 1 and true are not."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)

"""The form of what is read from the files of a store, checked before anything is done with it.

A store may be damaged, or somebody else's: kinds, keys and names become paths and arguments of commands only once
they have their form, and a file that does not hold what it should is named in one line.
"""

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from spp.plan.graph import Plan
from spp.plan.keys import KEY_LENGTH, canonical, stage_key

MAX_NAME_BYTES = 255
"""Bytes of the name of a file; what file systems take."""

KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")
_KIND = re.compile(r"[a-z][a-z0-9_]{0,63}")
_BATCH = re.compile(r"[\w-][\w.-]{0,99}", re.ASCII)
_JOB = re.compile(r"\d{1,19}(_\d{1,19})?(@[\w-]{1,64})?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")

_SPEC_FIELDS: Mapping[str, type] = {
    "kind": str, "key": str, "version": int, "label": str,
    "config": dict, "inputs": dict, "runtime": dict, "resources": dict,
}  # fmt: skip
_POINT_FIELDS: Mapping[str, type] = {"name": str, "overrides": list, "stages": list, "meta": dict}


def check_address(kind: object, key: object) -> None:
    """Raise ValueError unless `kind` and `key` can be the address of a stage."""
    check_kind(kind)
    if not isinstance(key, str) or not KEY.fullmatch(key):
        _refuse("key", key, f"{KEY_LENGTH} hexadecimal digits", "whoever wrote it is not spp; do not use its file")


def check_kind(kind: object) -> None:
    """Raise ValueError unless `kind` can be that of a stage."""
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        _refuse("kind", kind, "a lower-case name such as update", "whoever wrote it is not spp; do not use its file")


def check_sweep(name: object) -> None:
    """Raise ValueError unless `name` can be that of a sweep's folder."""
    if not isinstance(name, str) or not name or "/" in name or "\0" in name or name.startswith("."):
        _refuse("sweep", name, "must be a name without '/'", "see spp status")
    if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES:
        _refuse("sweep", f"{name[:20]}...", f"at most {MAX_NAME_BYTES} bytes", "see spp status")


def check_batch(name: object) -> None:
    """Raise ValueError unless `name` can be that of a batch of jobs."""
    if not isinstance(name, str) or not _BATCH.fullmatch(name):
        _refuse("batch", name, "letters, digits, '_', '-' and '.'", "whoever wrote it is not spp; do not use its file")


def is_job(job: object) -> bool:
    """Whether it can be the id of a SLURM job, or of a task of an array: "12", "12_3", elsewhere "12_3@alpha"."""
    return isinstance(job, str) and _JOB.fullmatch(job) is not None


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_manifest(value: object) -> bool:
    """Whether it maps names of files below a folder to size and sha256."""
    return isinstance(value, dict) and all(_is_entry(name, entry) for name, entry in value.items())


def check_spec(spec: Mapping[str, Any], kind: str, key: str) -> None:
    """Raise ValueError unless `spec` is that of the stage `kind` `key`: its own words make this key."""
    where = f"spec.json of {kind} {key}"
    remedy = "set the stage aside with spp verify --repair and say the same spp run again"
    if not _has_fields(spec, _SPEC_FIELDS) or not all(map(_is_ref, spec["inputs"].values())):
        raise ValueError(f"{where}: it is not the spec of a stage; allowed: what spp run wrote; {remedy}")
    inputs = {role: ref["key"] for role, ref in spec["inputs"].items()}
    made = stage_key(spec["kind"], spec["version"], canonical(spec["config"]), inputs)
    if (spec["kind"], spec["key"], made) != (kind, key, key):
        raise ValueError(f"{where}: it is the spec of {spec['kind']!r} {made}; allowed: that of this key; {remedy}")


def plan_of(stages: object, points: object, where: str) -> Plan:
    """The plan that `Plan.to_json` and `Plan.points_to_json` wrote.

    Raises:
        ValueError: one line that begins with `where`, if they did not write it.
    """
    if not (_is_list_of(stages, _SPEC_FIELDS) and _is_list_of(points, _POINT_FIELDS)):
        raise ValueError(_not_a_plan(where, "a field is missing or of another type"))
    assert isinstance(stages, list)
    assert isinstance(points, list)
    try:
        for spec in stages:
            check_address(spec["kind"], spec["key"])
        # What an input says is not looked at but for its key, by which it must have come before.
        return Plan.from_json(stages, points)
    except (KeyError, TypeError) as error:
        raise ValueError(_not_a_plan(where, f"{error} is no stage of it")) from None
    except ValueError as error:
        raise ValueError(_not_a_plan(where, str(error).partition(";")[0])) from None


def _not_a_plan(where: str, reason: str) -> str:
    remedy = "say the same spp run again, which writes it anew"
    return f"{where}: it is not a plan ({reason}); allowed: what spp run wrote; {remedy}"


def _is_list_of(values: object, names: Mapping[str, type]) -> bool:
    return isinstance(values, list) and all(_has_fields(value, names) for value in values)


def _has_fields(value: object, names: Mapping[str, type]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in names.items())


def _is_ref(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    try:
        check_address(value.get("kind"), value.get("key"))
    except ValueError:
        return False
    return True


def _is_entry(name: object, entry: object) -> bool:
    if not isinstance(name, str) or not isinstance(entry, dict):
        return False
    size, sha256 = entry.get("size"), entry.get("sha256")
    is_inside = bool(name) and not name.startswith("/") and ".." not in name.split("/")
    return is_inside and type(size) is int and isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None


def fields_or_none(value: Mapping[str, Any] | None, names: Mapping[str, type]) -> dict[str, Any] | None:
    """`value` if it has the fields `names` with these types, else None."""
    return dict(value) if value is not None and _has_fields(value, names) else None


def _refuse(field: str, value: object, allowed: str, remedy: str) -> NoReturn:
    raise ValueError(f"{field}: {value!r} is not allowed: {allowed}; {remedy}")

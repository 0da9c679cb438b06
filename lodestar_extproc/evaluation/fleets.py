"""Fleets of the benchmark: how many engines of which kind, by name or from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lodestar_extproc.evaluation.small_fleets import SMALL_FLEETS
from lodestar_extproc.simulator.accelerators import ACCELERATORS, EngineSpec, StepCost

MAX_ENGINES = 256
_COST_KEYS = frozenset(f.name for f in fields(StepCost))
_ENGINE_KEYS = frozenset(f.name for f in fields(EngineSpec)) - {"accelerator", "cost"}


class NoFleet(ValueError):  # noqa: N818  (the condition's name)
    """There is no such fleet, or its file cannot be read."""


@dataclass(frozen=True, slots=True)
class SimulatedFleet:
    """Engines to simulate."""

    name: str
    specs: tuple[EngineSpec, ...]


def find_fleet(name: str) -> SimulatedFleet:
    """The fleet written as `a30x4+v100x4`, one of `SMALL_FLEETS`, or the one in a YAML file.

    Raises:
        NoFleet: it is none of these, with what is allowed.

    >>> [spec.accelerator for spec in find_fleet("h100x1+a30x2").specs]
    ['h100', 'a30', 'a30']
    """
    if name in SMALL_FLEETS:
        return SimulatedFleet(name, SMALL_FLEETS[name])
    if name.endswith((".yaml", ".yml")):
        return SimulatedFleet(Path(name).stem, _read(Path(name)))
    specs: list[EngineSpec] = []
    for part in name.split("+"):
        accelerator, _, count = part.rpartition("x")
        if not count.isdecimal():
            raise NoFleet(f"{part!r} in fleet {name!r}: write it like a30x4, or name a .yaml file")
        specs += [_known(accelerator)] * int(count)
    return SimulatedFleet(name, _bounded(specs))


def _read(path: Path) -> tuple[EngineSpec, ...]:
    """Engines of a file like this; all but `accelerator` is optional.

    engines:
      - accelerator: l20
        count: 3
        kv_blocks: 9000       # any limit of the engine
        per_token_ms: 0.2     # any coefficient of its step time
    """
    try:
        content = YAML(typ="safe").load(path)
    except (OSError, YAMLError) as error:
        raise NoFleet(f"{path}: {error}") from None
    entries = content.get("engines") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise NoFleet(f"{path}: wants a list of engines under the key `engines`")
    specs: list[EngineSpec] = []
    for entry in entries:
        specs += _engines(dict(entry), path)
    return _bounded(specs)


def _engines(entry: dict[str, Any], path: Path) -> list[EngineSpec]:
    spec, count = _known(str(entry.pop("accelerator", ""))), entry.pop("count", 1)
    name = entry.pop("name", spec.accelerator)
    unknown = set(entry) - _COST_KEYS - _ENGINE_KEYS
    if unknown:
        allowed = ", ".join(sorted({"accelerator", "count", "name"} | _COST_KEYS | _ENGINE_KEYS))
        raise NoFleet(f"{path}: unknown key {min(unknown)!r}; allowed: {allowed}")
    wrong = [k for k, v in entry.items() if not isinstance(v, (bool, int, float))]
    if wrong or not isinstance(count, int):
        raise NoFleet(f"{path}: {wrong[0] if wrong else 'count'} must be a number")
    cost = replace(spec.cost, **{k: float(v) for k, v in entry.items() if k in _COST_KEYS})
    limits = {k: v for k, v in entry.items() if k in _ENGINE_KEYS}
    return [replace(spec, accelerator=str(name), cost=cost, **limits)] * count


def _known(accelerator: str) -> EngineSpec:
    specs: Mapping[str, EngineSpec] = ACCELERATORS
    if accelerator not in specs:
        raise NoFleet(f"no accelerator {accelerator!r}; there are {', '.join(specs)}")
    return specs[accelerator]


def _bounded(specs: list[EngineSpec]) -> tuple[EngineSpec, ...]:
    if not 1 <= len(specs) <= MAX_ENGINES:
        raise NoFleet(f"a fleet has 1 to {MAX_ENGINES} engines, not {len(specs)}")
    return tuple(specs)

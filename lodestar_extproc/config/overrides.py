"""RouteOverride: the pool and settings that a route asks for, sent to us as gRPC metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from lodestar_extproc.config import envoy_tree as tree
from lodestar_extproc.config.old_spelling import OldSpelling, names_before
from lodestar_extproc.config.reader import unknown
from lodestar_extproc.config.setting import SettingError, settings_of
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.names import COST, KEY_PREFIX, POLICY, POOL

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from lodestar_extproc.config.connection_manager import ConnectionManager, Route
    from lodestar_extproc.config.node import Node
    from lodestar_extproc.config.own_service import OwnService

KEYS = (POOL, POLICY, COST)
KEYS_BEFORE: Mapping[str, str] = MappingProxyType(
    {
        KEY_PREFIX + old: KEY_PREFIX + new
        for old, new in names_before(PoolSettings).items()
        if KEY_PREFIX + new in KEYS
    }
)
"""The present key, by what it was called before."""


@dataclass(frozen=True, slots=True)
class RouteOverride:
    """What holds for the requests of one route; None where the route says nothing.

    Attributes:
        cluster: where the route leads; empty where it cannot be told from the file.
        line: of the route in the file.
    """

    cluster: str
    pool: str | None = None
    policy: str | None = None
    cost: str | None = None
    line: int = field(default=0, compare=False)


def read_overrides(
    managers: Iterable[ConnectionManager], own: OwnService, pools: Collection[str]
) -> tuple[RouteOverride, ...]:
    """The overrides of every route that has any.

    Raises:
        ConfigError: an unknown key, one by both its names, an unknown pool, policy or cost.
    """
    found = []
    for manager in managers:
        for route, headers in route_headers(manager, own):
            values: dict[str, str] = {}
            for written, header in headers.items():
                name = KEYS_BEFORE.get(written, written)
                _check(name, header, pools)
                if name in values:
                    problem = f"this route has both {name} and what it was called before"
                    raise header.get("key").error(problem)
                values[name] = header.get("value").text
            if values:
                found.append(
                    RouteOverride(
                        cluster=route.cluster,
                        pool=values.get(POOL),
                        policy=values.get(POLICY),
                        cost=values.get(COST),
                        line=route.node.line,
                    )
                )
    return tuple(found)


def old_keys(managers: Iterable[ConnectionManager], own: OwnService) -> Iterator[OldSpelling]:
    """Those of the routes' keys that are called otherwise now; each place once."""
    found = {}
    for manager in managers:
        for _, headers in route_headers(manager, own):
            for written in headers.keys() & KEYS_BEFORE.keys():
                place = headers[written].get("key")
                found[place.path] = OldSpelling(place, written, KEYS_BEFORE[written])
    yield from found.values()


def route_headers(
    manager: ConnectionManager, own: OwnService
) -> Iterator[tuple[Route, dict[str, Node]]]:
    """Every route with our headers that hold there, `{key, value}`, by lower-case key.

    Envoy merges them key by key: the filter's hold everywhere, the innermost wins.
    """
    decision = tree.decision_filter(manager, own)
    for route in manager.routes:
        headers: dict[str, Node] = {}
        if decision is not None:
            on_route = route.of(decision)
            headers |= _ours(on_route.get("grpc_service", "initial_metadata"))
            for override in on_route.overrides:
                headers |= _ours(override.get("grpc_initial_metadata"))
        yield route, headers


def _ours(headers: Node) -> dict[str, Node]:
    named = {header.get("key").text.lower(): header for header in headers.items()}
    return {name: header for name, header in named.items() if name.startswith(KEY_PREFIX)}


def _check(name: str, header: Node, pools: Collection[str]) -> None:
    key, value = header.get("key"), header.get("value")
    if name not in KEYS:
        raise key.error(f"{name} is {unknown(name, KEYS)}")
    if name == POOL:
        if value.text not in pools:
            raise value.error(f"{value.text} is {unknown(value.text, pools)}")
        return
    try:
        settings_of(PoolSettings)[name.removeprefix(KEY_PREFIX)].parse(value.value)
    except SettingError as error:
        raise value.error(error.problem) from error

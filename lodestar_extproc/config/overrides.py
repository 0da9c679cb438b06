"""RouteOverride: the pool and settings that a route asks for, sent to us as gRPC metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lodestar_extproc.config import envoy_tree as tree
from lodestar_extproc.config.reader import unknown
from lodestar_extproc.config.setting import SettingError, settings_of
from lodestar_extproc.config.settings import PoolSettings

if TYPE_CHECKING:
    from collections.abc import Collection

    from lodestar_extproc.config.node import Node

PREFIX = "x-lodestar-"
POOL_KEY = "x-lodestar-pool"
POLICY_KEY = "x-lodestar-policy"
OBJECTIVE_KEY = "x-lodestar-objective"
KEYS = (POOL_KEY, POLICY_KEY, OBJECTIVE_KEY)


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
    objective: str | None = None
    line: int = field(default=0, compare=False)


def read_overrides(root: Node, pools: Collection[str]) -> tuple[RouteOverride, ...]:
    """The overrides of every route that has any.

    Raises:
        ConfigError: an unknown key, pool, policy or objective.
    """
    found = []
    for manager in tree.all_managers(root):
        decision = tree.decision_filter(manager)
        everywhere = (
            _values(decision.get("grpc_service", "initial_metadata"), pools) if decision else {}
        )
        for route in tree.routes(manager):
            values = everywhere | _route_values(route, pools)
            if values:
                found.append(
                    RouteOverride(
                        cluster=route.cluster,
                        pool=values.get(POOL_KEY),
                        policy=values.get(POLICY_KEY),
                        objective=values.get(OBJECTIVE_KEY),
                        line=route.node.line,
                    )
                )
    return tuple(found)


def _route_values(route: tree.Route, pools: Collection[str]) -> dict[str, str]:
    # Envoy takes the innermost list whole; lists are not merged.
    values: dict[str, str] = {}
    for override in route.overrides:
        values = _values(override.get("overrides", "grpc_initial_metadata"), pools) or values
    return values


def _values(headers: Node, pools: Collection[str]) -> dict[str, str]:
    values = {}
    for header in headers.items():
        key, value = header.get("key"), header.get("value")
        if key.text.lower().startswith(PREFIX):
            _check(key, value, pools)
            values[key.text.lower()] = value.text
    return values


def _check(key: Node, value: Node, pools: Collection[str]) -> None:
    name = key.text.lower()
    if name not in KEYS:
        raise key.error(f"{name} is {unknown(name, KEYS)}")
    if name == POOL_KEY:
        if value.text not in pools:
            raise value.error(f"{value.text} is {unknown(value.text, pools)}")
        return
    try:
        settings_of(PoolSettings)[name.removeprefix(PREFIX)].parse(value.value)
    except SettingError as error:
        raise value.error(error.problem) from error

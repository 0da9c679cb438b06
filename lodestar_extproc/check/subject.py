"""Subject: an Envoy configuration as the rules look at it, its parts that concern Lodestar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lodestar_extproc.check.finding import Patch, put
from lodestar_extproc.config import envoy_tree as tree
from lodestar_extproc.config.members import settings_block

if TYPE_CHECKING:
    from lodestar_extproc.config.node import Node


@dataclass(frozen=True, slots=True)
class Gateway:
    """A connection manager that Lodestar is asked by, or that leads to a pool.

    Attributes:
        decision, observer: its ext_proc filters; None where there is none.
        routes: those that lead to a pool.
    """

    listener: Node
    manager: Node
    decision: Node | None
    observer: Node | None
    routes: tuple[tree.Route, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What the rules look at.

    Attributes:
        pools: the clusters that are pools.
        services: the clusters through which Envoy reaches Lodestar.
    """

    root: Node
    pools: tuple[Node, ...]
    gateways: tuple[Gateway, ...]
    services: tuple[Node, ...]

    def put(self, place: Node, value: object) -> Patch:
        return put(self.root, place, value)


def subject_of(root: Node) -> Subject:
    pools = tuple(cluster for cluster in tree.clusters(root) if settings_block(cluster))
    names = {pool.get("name").text for pool in pools}
    found = (
        _gateway(listener, manager, names)
        for listener in tree.listeners(root)
        for manager in tree.managers(listener)
    )
    gateways = tuple(gateway for gateway in found if gateway.decision or gateway.routes)
    asked = {tree.grpc_cluster(g.decision) for g in gateways if g.decision}
    services = tuple(c for c in tree.clusters(root) if c.get("name").text in asked)
    return Subject(root, pools, gateways, services)


def _gateway(listener: Node, manager: Node, pools: set[str]) -> Gateway:
    return Gateway(
        listener=listener,
        manager=manager,
        decision=tree.decision_filter(manager),
        observer=tree.observing_filter(manager),
        routes=tuple(route for route in tree.routes(manager) if route.cluster in pools),
    )
